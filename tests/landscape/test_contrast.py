"""Differences of surfaces: values, paired errors, and what must not be subtracted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import landscape
from landscape import plot
from landscape.contrast import surface_difference
from landscape.store import DIFFERENCE, load, save

GRID = np.linspace(-1, 1, 5)


def made(terms: np.ndarray[Any, Any], label: str = "a", **attrs: Any) -> xr.Dataset:
    """A surface whose loss is the mean of its terms ``(beta, alpha, term)``."""
    count = terms.shape[-1]
    settings = {"objective": "data", "data_sha256": "x", "examples": count}
    return xr.Dataset(
        {
            "loss": (("beta", "alpha"), terms.mean(-1)),
            "loss_stderr": (("beta", "alpha"), terms.std(-1, ddof=1) / np.sqrt(count)),
            "rise_stderr": (("beta", "alpha"), np.full(terms.shape[:2], 0.3)),
            "terms": (("beta", "alpha", "term"), terms),
        },
        coords={"alpha": GRID, "beta": GRID},
        attrs={
            "label": label, "normalize": "filter", "ignore": ["bias"], "seed": 0, "span": 1.0,
            "points": 5, "axes": 2, "objective": json.dumps(settings), **attrs,
        },
    )  # fmt: skip


def noise(seed: int, count: int = 30) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((5, 5, count)) + 3


def test_values_are_differences_of_losses_and_of_rises() -> None:
    a, b = made(noise(0)), made(noise(1), "b")
    found = surface_difference(a, b)
    change = b["loss"].values - a["loss"].values
    np.testing.assert_allclose(found["difference"].values, change, rtol=1e-14)
    np.testing.assert_allclose(found["rise_difference"].values, change - change[2, 2], atol=1e-14)
    assert found.attrs["schema"] == DIFFERENCE
    assert (found.attrs["first"], found.attrs["second"]) == ("a", "b")
    assert found.attrs["label"] == "b − a" and found.attrs["paired"] == "terms"


def test_errors_are_those_of_paired_terms() -> None:
    common = 100 * noise(5)[:1, :1]  # what the examples have in common cancels
    a, b = made(noise(0) + common), made(noise(1) + common, "b")
    found = surface_difference(a, b)
    each = b["terms"].values - a["terms"].values
    for name, terms in (("difference", each), ("rise_difference", each - each[2:3, 2:3])):
        expected = terms.std(-1, ddof=1) / np.sqrt(30)
        np.testing.assert_allclose(found[f"{name}_stderr"].values, expected, rtol=1e-9, atol=1e-13)
    assert float(found["rise_difference_stderr"][2, 2]) == 0
    assert float(found["difference_stderr"].max()) < 1  # unpaired it would be more than 20


@pytest.mark.parametrize("why", ["no terms", "other data", "other count", "refused"])
def test_without_pairs_the_errors_add_and_the_result_says_so(why: str) -> None:
    a, b = made(noise(0)), made(noise(1), "b")
    paired = None
    if why == "no terms":
        b = b.drop_vars("terms")
    elif why == "other data":
        b.attrs["objective"] = json.dumps({"objective": "data", "data_sha256": "y", "examples": 30})
    elif why == "other count":
        b = made(noise(1, 20), "b")
    else:
        paired = False
    found = surface_difference(a, b, paired)
    assert found.attrs["paired"] == "no"
    both = np.hypot(a["loss_stderr"].values, b["loss_stderr"].values)
    np.testing.assert_allclose(found["difference_stderr"].values, both)
    np.testing.assert_allclose(found["rise_difference_stderr"].values, 0.3 * np.sqrt(2))


def test_dimensions_in_another_order_are_the_same_surface() -> None:
    a, b = made(noise(0)), made(noise(1), "b")
    turned = b.transpose("alpha", "term", "beta")
    xr.testing.assert_allclose(surface_difference(a, b), surface_difference(a, turned))


@given(
    arrays.arrays(np.float64, (5, 5, 3), elements=st.floats(-9, 9)),
    arrays.arrays(np.float64, (5, 5, 3), elements=st.floats(-9, 9)),
)
def test_the_other_way_round_only_the_sign_changes(x: Any, y: Any) -> None:
    one, other = (surface_difference(*pair) for pair in ((made(x), made(y)), (made(y), made(x))))
    for name in ("difference", "rise_difference"):
        np.testing.assert_allclose(one[name].values, -other[name].values, atol=1e-12)
        errors = [d[f"{name}_stderr"].values for d in (one, other)]
        np.testing.assert_allclose(*errors, atol=1e-12)


@pytest.mark.parametrize(
    ("attrs", "said"),
    [({"seed": 1}, "seed"), ({"normalize": "layer"}, "normalize"), ({"span": 2.0}, "span")],
)
def test_other_planes_are_refused(attrs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"must not be subtracted: {said}"):
        surface_difference(made(noise(0)), made(noise(1), **attrs))


def test_a_line_from_a_surface_and_pairs_that_are_none_are_refused() -> None:
    a = made(noise(0))
    with pytest.raises(ValueError, match="line and a surface"):
        surface_difference(a, a.isel(beta=2, drop=True))
    with pytest.raises(ValueError, match="coordinates alpha differ"):
        surface_difference(a, a.assign_coords(alpha=GRID + 0.5))
    with pytest.raises(ValueError, match="paired=True"):
        surface_difference(a, a.drop_vars("terms"), paired=True)


def test_without_the_centre_there_is_no_rise() -> None:
    a, b = (made(noise(i)).isel(alpha=[0, 1, 3, 4]) for i in (0, 1))
    found = surface_difference(a, b)
    assert np.isnan(found["rise_difference"].values).all()
    assert np.isfinite(found["difference_stderr"].values).all()
    with pytest.raises(ValueError, match="no finite difference"):
        plot.difference(found)
    assert plot.difference(found, of="loss").data[0].z.shape == (5, 4)


def test_two_networks_end_to_end(tmp_path: Any) -> None:
    torch.manual_seed(0)
    data = (torch.randn(12, 3), torch.randint(0, 2, (12,)))
    surfaces = []
    for label in ("a", "b"):
        objective = landscape.DataObjective(torch.nn.Linear(3, 2), data)
        plane = landscape.random_plane(objective, ignore="bias")
        surfaces.append(
            landscape.evaluate(objective, plane, points=3, label=label, keep_terms=True)
        )
    found = landscape.surface_difference(*surfaces)
    assert found.attrs["paired"] == "terms"
    each = surfaces[1]["terms"].values - surfaces[0]["terms"].values
    np.testing.assert_allclose(found["difference"].values, each.mean(-1), rtol=1e-5)
    save(found, tmp_path / "d.nc")
    xr.testing.assert_identical(load(tmp_path / "d.nc", DIFFERENCE), found)


def test_figures_share_one_symmetric_scale_and_mark_what_is_undecided() -> None:
    a, b, c = (
        made(noise(0)),
        made(noise(1), "b"),
        made(noise(2) + 5 * GRID[:, None, None] ** 2, "c"),
    )
    found = [surface_difference(a, other) for other in (b, c)]
    for of, name in (("rise", "rise_difference"), ("loss", "difference")):
        figure = plot.difference(found, of=of, log=False)
        size = max(float(abs(d[name]).max()) for d in found)
        assert figure.layout.coloraxis.cmax == -figure.layout.coloraxis.cmin == pytest.approx(size)
        for i, d in enumerate(found):
            values, errors = d[name].values, d[f"{name}_stderr"].values
            np.testing.assert_allclose(figure.data[i].z, values, rtol=1e-5, atol=1e-6)
            dots = figure.data[2 + 2 * i]
            rows, columns = np.nonzero(np.abs(values) <= 1.96 * errors)
            np.testing.assert_allclose(dots.x, GRID[columns])
            np.testing.assert_allclose(dots.y, GRID[rows])
        assert (
            "dots" in figure.layout.title.subtitle.text
            and "seed 0" in figure.layout.title.subtitle.text
        )
    log = plot.difference(found, log=True)
    size = log.layout.coloraxis.cmax
    assert size == -log.layout.coloraxis.cmin and np.nanmax(np.abs(log.data[1].z)) == pytest.approx(
        size
    )
    paper = plot.difference(found, "matplotlib")
    assert [axes.get_title() for axes in paper.axes[:2]] == ["b − a", "c − a"]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([], ValueError, "at least one"),
        ([1], TypeError, "xarray.Dataset"),
        ([made(noise(0))], ValueError, "no rise_difference"),
    ],
)
def test_what_is_no_difference_is_refused(given: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        plot.difference(given)
