"""What the health box says: what was found wrong, and what was looked at and is in order."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from landscape.compared_spectra import Spectrum
from landscape.soundness import checks, health
from landscape.subjects import Subject, groups, labelled


def plane(**attrs: Any) -> xr.Dataset:
    grid = np.linspace(-1, 1, 3)
    loss = 1 + grid[:, None] ** 2 + grid[None, :] ** 2
    settings = {
        "label": "file", "normalize": "filter", "ignore": ["bias"], "seed": 0, "span": 1.0,
        "points": 3, "axes": 2, "centre_loss": 1.0, "direction_cosine": 0.02,
        "objective": json.dumps({"norm": "recalibrate"}),
    }  # fmt: skip
    return xr.Dataset(
        {
            "loss": (("beta", "alpha"), loss),
            "evaluated": (("beta", "alpha"), np.ones((3, 3), np.int8)),
        },
        coords={"alpha": grid, "beta": grid},
        attrs=settings | attrs,
    )


TOP = Spectrum((4.0, 2.0), (0.04, 0.01), (), "converged", True, 20)


def pair(**attrs: Any) -> list[Subject]:
    return [
        Subject("one", {"data": plane()}, spectra={"data": TOP}),
        Subject("two", {"data": plane(**attrs)}, spectra={"data": TOP}),
    ]


def test_what_is_in_order_is_said_with_its_numbers() -> None:
    assert health(pair()) == []
    assert checks(pair()) == [
        "all 18 points of 2 surfaces and lines are there and finite",
        "the directions are orthogonal: cosine at most 0.02",
        "each grid's centre is the objective's own value, to 0 of it",
        "norm layers: recalibrate",
        "the subjects of a figure agree in normalization, what stays fixed, seed, span and points, and in the settings "
        "of their objective",
        "all eigenvalues converged: residuals at most 1.0% of the eigenvalue",
    ]


def test_what_is_wrong_is_not_among_the_checks() -> None:
    for attrs, said in (
        ({"direction_cosine": 0.4}, "orthogonal"),
        ({"centre_loss": 2.0}, "centre"),
        ({"seed": 1}, "agree"),
        ({"objective": json.dumps({"norm": "eval"})}, "agree"),
    ):
        found = pair(**attrs)
        assert len(health(found)) == 1
        assert not any(said in text for text in checks(found)), (attrs, checks(found))
    holes = pair()
    holes[1].surfaces["data"]["loss"][0, 0] = np.nan
    assert not any("finite" in text for text in checks(holes))
    assert any("1 of 9 points" in text for text in health(holes))


def test_eigenvalues_that_have_not_converged_are_distrusted() -> None:
    one, two = pair()
    bad = replace(TOP, converged=False, outcome="stopped after 200 products")
    found = [one, replace(two, spectra={"data": bad})]
    assert health(found) == ["two, data, eigenvalues: stopped after 200 products"]
    assert not any("eigenvalues" in text for text in checks(found))


def test_subjects_by_group() -> None:
    one, two = pair()
    other = Subject("three", spectra={"other": TOP})
    assert groups([one, two, other]) == ["data", "other"]
    assert [s.attrs["label"] for s in labelled([one, two, other], "data", "surfaces")] == [
        "one",
        "two",
    ]
    assert one.surfaces["data"].attrs["label"] == "file"


def test_nothing_measured_is_nothing_checked() -> None:
    assert checks([Subject("bare")]) == [] and health([Subject("bare")]) == []
