"""Rows of sharpness as plain values and back, and the settings where nothing is said."""

import pytest
import torch

from landscape.objective import FunctionObjective
from landscape.sharpness import MEASURES, Point
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


def test_settings_that_are_used_where_nothing_is_said():
    point = Point(FunctionObjective(lambda t: 50 * (t * t).sum(), torch.ones(2).double()))
    found = MEASURES["average_adaptive"](point)
    radii = [found.settings["sigma"], *(v.settings["sigma"] for v in found.variants)]
    assert radii == [0.1, 0.01, 0.05, 0.2, 0.4] and found.settings["pairs"] == 16
    assert MEASURES["local_entropy"](point, pairs=2).settings["pairs"] == 2
    for name in ("pac_bayes", "pac_bayes_magnitude"):
        assert MEASURES[name](point).settings["pairs"] == 16
