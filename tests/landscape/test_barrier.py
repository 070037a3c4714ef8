"""Barriers of lines: two definitions, their errors, what is refused."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import normal
from torch import nn

import landscape
from landscape.barriers import barrier
from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective


def line(losses, alpha=None, **more):
    alpha = np.linspace(0, 1, len(losses)) if alpha is None else np.asarray(alpha, float)
    columns = {"loss": losses, **more}
    return xr.Dataset(
        {n: (("alpha", "term")[: np.ndim(v)], np.asarray(v, float)) for n, v in columns.items()},
        coords={"alpha": alpha},
    )


def test_both_definitions():
    tilted = line([1.0, 4.0, 6.0, 3.0, 3.0])
    found = barrier(tilted)
    assert (found.height, found.at, found.ends) == (4.0, 0.5, (1.0, 3.0))
    found = barrier(line([1.0, 3.0, 2.0, 3.2, 4.0]))
    assert (found.height, found.at) == (1.25, 0.25)  # above 1.75
    mean = barrier(line([1.0, 3.0, 2.0, 3.2, 4.0]), definition="mean")
    assert (mean.height, mean.at) == (1.5, 1.0)  # the worse end is above the mean of both
    assert (found.points, found.not_finite, found.error) == (3, 0, "none")


def test_only_what_lies_between_the_ends_counts():
    wide = line([9.0, 1.0, 2.0, 1.0, 9.0], alpha=[-0.5, 0.0, 0.5, 1.0, 1.5])
    assert barrier(wide).height == 1.0


@settings(max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), st.floats(-3, 3), st.floats(-3, 3))
def test_a_line_added_to_the_loss_changes_nothing(values, slope, offset):
    losses = np.array(values)
    ramp = offset + slope * np.linspace(0, 1, len(losses))
    first, second = barrier(line(losses)), barrier(line(losses + ramp))
    assert first.height == pytest.approx(second.height, abs=1e-9)
    assert first.height >= 0


def test_a_valley_has_no_barrier():
    found = barrier(line([2.0, 0.5, 1.0]))
    assert (found.height, found.at, found.stderr) == (0.0, 0.0, 0.0)


def test_accuracy_falls():
    both = line([1.0, 2.0, 1.0], accuracy=[0.9, 0.4, 0.8])
    found = barrier(both, "accuracy")
    assert found.height == pytest.approx(0.45)
    assert found.at == 0.5
    assert (
        found.text() == "accuracy barrier 45.00% below the straight line between the ends, at 0.5"
    )


def test_errors_of_terms_are_paired():
    rng = np.random.default_rng(0)
    terms = rng.gamma(2.0, size=(5, 400)) + rng.gamma(2.0, size=400)  # much in common
    terms[3] += 2
    found = barrier(line(terms.mean(1), terms=terms))
    combined = terms[3] - 0.25 * terms[0] - 0.75 * terms[4]
    assert found.height == pytest.approx(combined.mean())
    assert found.stderr == pytest.approx(combined.std(ddof=1) / 20)
    assert found.error == "paired"
    rise = terms - terms[0]
    rises = {"rise": rise.mean(1), "rise_stderr": rise.std(1, ddof=1) / 20}
    bound = barrier(line(terms.mean(1), **rises))
    assert bound.error == "bound"
    assert bound.stderr == pytest.approx(rises["rise_stderr"][3] + 0.75 * rises["rise_stderr"][4])
    assert bound.stderr >= found.stderr
    stderr = terms.std(1, ddof=1) / 20
    loose = barrier(line(terms.mean(1), loss_stderr=stderr), definition="linear")
    assert loose.stderr == pytest.approx(stderr[3] + 0.25 * stderr[0] + 0.75 * stderr[4])
    assert "± at most" in loose.text() and "± at most" not in found.text()


def test_points_that_are_not_finite_are_left_out_and_counted():
    found = barrier(line([1.0, np.nan, 2.0, np.inf, 1.0]))
    assert (found.height, found.at, found.not_finite) == (1.0, 0.5, 2)
    assert "2 of 3 points are not finite" in found.text()


def test_refusals():
    good = line([1.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="unknown definition"):
        barrier(good, definition="max")
    with pytest.raises(ValueError, match="no 'accuracy' along one axis"):
        barrier(good, "accuracy")
    with pytest.raises(ValueError, match="alpha = 1 is not on the grid"):
        barrier(line([1.0, 2.0, 1.0], alpha=[0, 0.5, 0.9]))
    with pytest.raises(ValueError, match="at the ends is nan"):
        barrier(line([np.nan, 2.0, 1.0]))
    with pytest.raises(ValueError, match="2 of 3 points between the ends are not evaluated"):
        barrier(line([1.0, 2.0, 1.0], evaluated=[1, 0, 0]))
    assert barrier(line([1.0, 2.0, 1.0], evaluated=[1, 0, 1], interpolated=[0, 1, 0])).height == 1


def test_of_a_surface_that_was_evaluated():
    well = FunctionObjective(
        lambda t: (t[0] ** 2 - 1) ** 2 + 0.1 * t[0], torch.tensor([1.0]).double()
    )
    ends = torch.tensor([-1.0]).double(), torch.tensor([1.0]).double()
    surface = landscape.evaluate(well, landscape.interpolation(well, *ends), points=41)
    found = barrier(surface)
    assert (found.height, found.at) == (pytest.approx(1.0), pytest.approx(0.5))
    document = json.loads(json.dumps(found.document()))
    assert document["definition"] == "linear" and document["cautions"] == []


def test_stored_norm_statistics_are_told():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    data = (normal(8, 2), torch.arange(8) % 2)
    for norm, told in (("eval", 1), ("recalibrate", 0), ("batch", 0)):
        objective = DataObjective(net, data, norm=norm)
        plane = landscape.interpolation(objective, objective.theta, objective.theta + 0.1)
        surface = landscape.evaluate(objective, plane, points=5)
        assert len(barrier(surface).cautions) == told
    plain = DataObjective(nn.Linear(2, 2).double(), data)
    plane = landscape.interpolation(plain, plain.theta, plain.theta + 0.1)
    assert plane.settings["refusals"] == []
