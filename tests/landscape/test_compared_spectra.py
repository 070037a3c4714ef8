"""Spectra of a comparison: right numbers, kept whole, used again only for the same question."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from problems import quadratic, symmetric

from landscape.compared_spectra import Asked, Spectrum, measure
from landscape.kept import keep, kept_spectrum, spectrum_document

THETA = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
VALUES = [4.0, 2.0, 1.0, -0.5, 0.1]


def bowl(scale: float = 1.0, **settings: Any) -> Any:
    made = quadratic(scale * symmetric(VALUES), THETA)
    made.settings |= settings
    return made


def test_eigenvalues_and_density_are_those_of_the_matrix() -> None:
    found = measure(bowl(), Asked(k=2, tol=1e-6, probes=2, steps=5))
    assert found.values == pytest.approx((4.0, 2.0), abs=1e-5)
    assert max(found.residuals) < 1e-5 and found.converged
    assert found.density is not None and found.products > 0
    assert found.density.attrs["params"] == 5
    top = found.density["outlier"].values
    assert sorted(top)[-2:] == pytest.approx([2.0, 4.0], abs=1e-5)
    assert len(found.columns) == 2  # one part: nothing to say about scatter


def test_more_eigenvalues_than_parameters_are_all_of_them() -> None:
    assert sorted(measure(bowl(), Asked(k=9, tol=1e-6)).values) == pytest.approx(
        sorted(VALUES), abs=1e-5
    )


def test_a_document_holds_everything(tmp_path: Any) -> None:
    asked = Asked(k=2, probes=2, steps=4)
    found, file = measure(bowl(), asked), tmp_path / "s.json"
    keep(file, spectrum_document(found, bowl(), 3, asked), bowl(), 1.25)
    again = kept_spectrum(file, bowl(), 1.25, 3, asked)
    assert again is not None
    assert again.columns == found.columns and again.outcome == found.outcome
    assert again.document() == found.document()
    assert found.density is not None and again.density is not None
    xr.testing.assert_allclose(again.density, found.density)
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4}, {"loss": 1.3}, {"asked": Asked(k=3)}, {"objective": bowl(data="other")},
        {"objective": quadratic(symmetric(VALUES), 2 * THETA)},
    ],
)  # fmt: skip
def test_another_question_is_not_answered_from_the_file(
    tmp_path: Any, change: dict[str, Any]
) -> None:
    asked, file = Asked(k=1), tmp_path / "s.json"
    keep(file, spectrum_document(measure(bowl(), asked), bowl(), 3, asked), bowl(), 1.25)
    question = {"objective": bowl(), "loss": 1.25, "seed": 3, "asked": asked}
    assert kept_spectrum(file, **question) is not None
    assert kept_spectrum(file, **(question | change)) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"spectrum": {}}'])
def test_a_damaged_file_counts_as_none(tmp_path: Any, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    assert kept_spectrum(tmp_path / "s.json", bowl(), 1.0, 0, Asked()) is None
    assert kept_spectrum(tmp_path / "missing.json", bowl(), 1.0, 0, Asked()) is None


def test_settings_that_ask_for_nothing_are_refused() -> None:
    for wrong in ({"k": 0}, {"probes": 1}, {"probes": -1}, {"tol": 0.0}, {"steps": 1}):
        with pytest.raises(ValueError, match="expected k of at least 1"):
            Asked(**wrong)


def test_what_has_not_converged_is_told_and_not_warned() -> None:
    values = np.geomspace(1, 1.001, 300)
    objective = quadratic(torch.diag(torch.tensor(values)), torch.ones(300, dtype=torch.float64))
    found = measure(objective, Asked(k=3, tol=1e-14))
    assert isinstance(found, Spectrum)
    assert json.loads(json.dumps(found.document()))["converged"] == found.converged
