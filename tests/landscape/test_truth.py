"""Our surfaces against formulas, at every grid point; the problems are in ``truth_problems``."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from truth_problems import Problem, convolution, normalized, problems, product, quadratic, root

import landscape

CASES = {problem.name: problem for problem in problems()}
GRIDS = [(1.0, 7), (1.0, 6), ((-0.4, 1.0), 8), ((0.25, 0.75), 3)]
"""Odd and even, not symmetric about the centre, and one that does not hold it at all."""


def objective_of(problem: Problem) -> landscape.DataObjective:
    return landscape.DataObjective(problem.model, problem.batches(), loss=problem.loss)


def plane_of(problem: Problem) -> landscape.Plane:
    directions = torch.from_numpy(problem.directions)
    return landscape.Plane(objective_of(problem).theta, directions, {"kind": "given"})


def state(model: nn.Module) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("span", "points"), GRIDS)
@pytest.mark.parametrize("name", CASES)
def test_every_grid_point_is_the_formula(name, span, points):
    problem = CASES[name]
    low, high = (
        problem.span * edge for edge in (span if isinstance(span, tuple) else (-span, span))
    )
    surface = landscape.evaluate(
        objective_of(problem), plane_of(problem), span=(low, high), points=points
    )
    assert surface["loss"].dims == ("beta", "alpha")
    axis = np.linspace(low, high, points)
    np.testing.assert_allclose(surface["alpha"].values, axis, rtol=0, atol=1e-15)
    np.testing.assert_allclose(surface["beta"].values, axis, rtol=0, atol=1e-15)
    expected = problem.grid(surface["alpha"].values, surface["beta"].values)
    found = surface["loss"].values
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert surface["evaluated"].values.all()
    turned = np.abs(expected - expected.T)[np.isfinite(expected - expected.T)]
    assert name == "product a*b" or turned.max() > 1e-3, "a transposed surface would pass"


@pytest.mark.parametrize("name", CASES)
def test_a_line_is_a_row_of_the_plane(name):
    problem = CASES[name]
    plane = plane_of(problem)
    line = landscape.Plane(plane.origin, plane.basis[1:], {"kind": "given"})
    surface = landscape.evaluate(objective_of(problem), line, span=problem.span, points=9)
    along = surface["alpha"].values
    expected = problem.surface(np.zeros_like(along), along)
    np.testing.assert_allclose(surface["loss"].values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_centre_is_the_checkpoint(name):
    problem = CASES[name]
    objective = objective_of(problem)
    surface = landscape.evaluate(objective, plane_of(problem), span=problem.span, points=5)
    with torch.no_grad():
        whole = float(problem.criterion(problem.model(problem.x), problem.y))
    centre = float(surface["loss"].sel(alpha=0.0, beta=0.0))
    assert centre == pytest.approx(whole, rel=1e-12)
    assert torch.equal(plane_of(problem).point(0.0, 0.0), objective.theta)
    even = landscape.evaluate(objective, plane_of(problem), span=problem.span, points=4)
    assert (even["alpha"].values != 0).all(), "an even grid has no point on the centre"
    assert even["alpha"].values[1] == -even["alpha"].values[2]


@pytest.mark.parametrize("name", CASES)
def test_the_users_model_stays_and_numbers_repeat(name):
    problem = CASES[name]
    model = copy.deepcopy(problem.model).train()
    before, random = state(model), torch.get_rng_state()
    objective = landscape.DataObjective(model, problem.batches(), loss=problem.loss)
    plane = landscape.Plane(objective.theta, torch.from_numpy(problem.directions))
    one = landscape.evaluate(objective, plane, span=problem.span, points=3)
    two = landscape.evaluate(objective, plane, span=problem.span, points=3)
    for variable in ("loss", "loss_stderr"):
        np.testing.assert_array_equal(one[variable].values, two[variable].values)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_the_random_plane_of_a_quadratic_is_a_quadratic():
    problem = quadratic()
    objective = objective_of(problem)
    plane = landscape.random_plane(objective, seed=3)
    values = landscape.evaluate(objective, plane, points=6)["loss"].values
    hessian = np.array(
        [[float(v @ objective.hvp(plane.origin, u)) for u in plane.basis] for v in plane.basis]
    )
    step = 2 / 5
    for axis, curvature in ((1, hessian[0, 0]), (0, hessian[1, 1])):
        second = np.diff(values, 2, axis=axis) / step**2
        np.testing.assert_allclose(second, curvature, rtol=1e-9)
    mixed = np.diff(np.diff(values, axis=0), axis=1) / step**2
    np.testing.assert_allclose(mixed, hessian[0, 1], rtol=1e-9)


def test_the_saddle_and_the_barrier_between_two_minima():
    objective = objective_of(product())
    ends = [torch.tensor(end, dtype=torch.float64) for end in ([1.0, 1.0], [-1.0, -1.0])]
    line = landscape.interpolation(objective, *ends)
    surface = landscape.evaluate(objective, line, span=(0.0, 1.0), points=101)
    alpha, loss = surface["alpha"].values, surface["loss"].values
    np.testing.assert_allclose(loss, ((1 - 2 * alpha) ** 2 - 1) ** 2, rtol=1e-10, atol=1e-12)
    assert loss.argmax() == 50 and loss[50] == 1.0 and loss[0] == loss[-1] == 0.0
    plane = landscape.Plane(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    around = landscape.evaluate(objective, plane, span=2.0, points=9)
    along, across = np.diag(around["loss"].values), np.diag(around["loss"].values[:, ::-1])
    assert along[2:7].argmax() == 2 and across.argmin() == 4, (
        "down along one diagonal, up along the other"
    )
    for t in (-2.0, -0.5, 0.5, 2.0):  # the hyperbola of minima
        assert float(around["loss"].sel(alpha=t, beta=1 / t)) == 0.0


def test_nan_stays_where_it_is_and_nowhere_else():
    problem = root()
    surface = landscape.evaluate(objective_of(problem), plane_of(problem), span=2.0, points=9)
    beyond = surface["alpha"].values < -1
    assert beyond.sum() == 2
    assert np.isnan(surface["loss"].values[:, beyond]).all()
    assert np.isfinite(surface["loss"].values[:, ~beyond]).all()
    assert surface["evaluated"].values.all()


def test_filter_normalization_gives_each_filter_the_norm_of_its_weights():
    objective = objective_of(convolution())
    for row in landscape.random_plane(objective, "filter", ignore=("bias",), seed=2).basis:
        weights, drawn = objective.space.unflatten(objective.theta), objective.space.unflatten(row)
        for w, d in zip(weights["weight"], drawn["weight"], strict=True):  # one output channel each
            assert float(d.norm()) == pytest.approx(float(w.norm()), rel=1e-9)
        assert not drawn["bias"].any()
    ratios = row.reshape(-1)[:24] / objective.theta[:24]
    assert float(ratios.std()) > 0.1, "the weights themselves would pass"


def test_stored_statistics_are_not_what_the_batches_give():
    # Otherwise the formula above would not tell the two apart.
    problem = normalized()
    batch = landscape.DataObjective(
        problem.model, problem.batches(), loss=problem.loss, norm="batch"
    )
    assert (
        abs(float(batch.value(batch.theta)) - float(problem.surface(np.zeros(1), np.zeros(1))[0]))
        > 0.05
    )
