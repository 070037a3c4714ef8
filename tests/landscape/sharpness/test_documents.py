"""Rows of sharpness as plain values and back."""

import pytest

from landscape.sharpness.documents import from_plain, text, to_plain
from landscape.sharpness.measurement import Influence, Measurement, estimate


def test_rows_come_back():
    row = estimate("sam", 1.5, Influence(), {"rho": 0.05}, bound=0.25)
    assert from_plain(to_plain(row)) == row


def test_what_older_documents_lack_is_unknown_or_nothing():
    row = to_plain(Measurement("sam", 1.0, None, None, {}, 2.0))
    for name in ("bound", "paid", "converged", "influence", "variants", "data_error", "draw_error"):
        row.pop(name, None)
    found = from_plain(row)
    assert (found.bound, found.paid, found.converged, found.variants) == (0.0, 0.0, True, ())
    assert found.data_error is None and found.draw_error is None


def test_texts_are_written_as_they_are():
    assert "ρ" in text({"of": ["ρ"]})
    with pytest.raises(ValueError, match="JSON"):
        text({"of": [float("nan")]})
