import itertools
import math

import numpy as np
import pytest
import torch
from problems import conv_net, conv_objective, images, normal, quadratic, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.directions import generator
from landscape.objective import FunctionObjective
from landscape.sharpness.keskar import _Frame, _subspace, keskar, keskar_subspace
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import Point

A = torch.tensor([3.0, 1.0, 0.5, 0.0]).double()
W = torch.tensor([0.5, -2.0, 0.0, 1.0]).double()


def valley(floor=0.7, scale=1.0):
    """Diagonal, at its exact minimum."""
    return FunctionObjective(lambda t: scale * (0.5 * (A * (t - W) ** 2).sum() + floor), W)


def by_width(row):
    return {r.settings["epsilon"]: r for r in (row, *row.variants)}


def test_at_the_minimum_of_a_diagonal_quadratic():
    found = by_width(keskar(Point(valley()), epsilon=0.01, ladder=(5e-4, 0.2)))
    assert list(found) == [0.01, 5e-4, 0.2]
    for epsilon, row in found.items():
        exact = 50 * float((A * epsilon**2 * (W.abs() + 1) ** 2).sum()) / 1.7
        assert row.value == pytest.approx(exact, rel=1e-9)
        assert row.stderr == 0


def test_the_unit_of_the_loss_does_not_end_the_search():
    small = keskar(Point(valley(0.0, 1e-9)), ladder=()).value
    assert small == pytest.approx(1e-9 * 50e-6 * float((A * (W.abs() + 1) ** 2).sum()), rel=1e-6)


@pytest.mark.parametrize("subspace", [False, True])
def test_the_search_is_given_the_slope_of_its_coordinates(subspace):
    frame = _subspace(Point(valley()), 3, 0) if subspace else _Frame(W.abs() + 1, None)
    x, width = np.array([0.3, -0.2, 0.9, 0.1])[: 3 if subspace else 4], 0.07
    point = W + frame.step(x, width, W)
    found = frame.slope(A * (point - W), width)
    for i, slope in enumerate(found):
        ends = [x + sign * 1e-6 * np.eye(len(x))[i] for sign in (1, -1)]
        up, down = (float(valley().value(W + frame.step(end, width, W))) for end in ends)
        assert slope == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-9)


def test_of_a_line():
    slope = normal(5, seed=1)
    line = FunctionObjective(lambda t: slope @ t + 4, normal(5, seed=2))
    row = keskar(Point(line), epsilon=0.1, ladder=())
    rise = 0.1 * float((slope.abs() * (line.theta.abs() + 1)).sum())
    assert row.value == pytest.approx(100 * rise / (1 + float(line.value(line.theta))), rel=1e-9)
    assert row.variants == ()


def test_is_the_best_corner_of_a_convex_function_within_a_little():
    matrix = symmetric([4.0, 2.0, 1.0, 0.5, 0.1])
    bowl = quadratic(matrix, normal(5, seed=3))
    half = 0.3 * (bowl.theta.abs() + 1)
    corners = [
        torch.tensor(signs).double() * half for signs in itertools.product((-1, 1), repeat=5)
    ]
    base = float(bowl.value(bowl.theta))
    best = max(float(bowl.value(bowl.theta + z)) - base for z in corners)
    value = keskar(Point(bowl), epsilon=0.3, ladder=()).value
    assert value == pytest.approx(100 * best / (1 + base), rel=1e-9)


def test_a_subspace_of_a_line():
    """Max of gᵀAy over the box is ε Σⱼ |(Aᵀg)ⱼ| (|(A⁺w)ⱼ| + 1); A is drawn again here."""
    g, w = normal(7, seed=4), normal(7, seed=5)
    line = FunctionObjective(lambda t: g @ t + 9, w)
    point = Point(line, seed=2)
    found = by_width(keskar_subspace(point, epsilon=0.1, dims=3, repeats=4))
    draws = []
    for repeat in range(4):
        a = generator(2, "keskar", repeat).standard_normal((3, 7)).T
        half = np.abs(np.linalg.lstsq(a, w.numpy(), rcond=None)[0]) + 1
        draws.append(np.sum(np.abs(a.T @ g.numpy()) * half) * 100 / (10 + float(g @ w)))
    for epsilon, row in found.items():
        assert row.value == pytest.approx(epsilon * np.mean(draws), rel=1e-9)
        expected = epsilon * np.std(draws, ddof=1) / 2
        assert row.draw_error == pytest.approx(expected, rel=1e-9)
        assert row.data_error == 0 and row.stderr == row.draw_error
        assert row.settings == {"epsilon": epsilon, "dims": 3, "repeats": 4}


def test_a_subspace_has_no_more_dimensions_than_there_are_parameters():
    row = keskar_subspace(Point(valley()), epsilon=0.01, dims=100, repeats=2, ladder=())
    assert row.value > 0 and row.settings["dims"] == 100


def test_a_wider_box_is_never_below_a_narrower_one():
    for measure in (keskar, keskar_subspace):
        widths = [1e-4, 1e-3, 1e-2, 1e-1]
        found = by_width(measure(Point(conv_objective()), epsilon=0.3, ladder=widths))
        values = [found[width].value for width in [*widths, 0.3]]
        assert values == sorted(values) and values[0] > 0


def test_the_error_over_the_data_goes_through_the_quotient():
    """Losses that are linear in the weights: the maximum is a known corner, at any width."""
    x, y = normal(40, 3, seed=6), normal(40, seed=7).abs() + 2
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.5)
    objective = DataObjective(model, (x, y), loss=lambda o, t: o.squeeze(1) + t)
    row = keskar(Point(objective), epsilon=2.0, ladder=())
    terms, rises = objective.losses(objective.theta), x @ (2.0 * 1.5 * x.mean(0).sign())
    assert row.value == pytest.approx(100 * float(rises.mean() / (1 + terms.mean())), rel=1e-9)
    n = len(terms)  # the delete-one jackknife, with the place held
    keep = ~torch.eye(n, dtype=torch.bool)
    left = torch.stack([rises[k].mean() / (1 + terms[k].mean()) for k in keep]) * 100
    jackknife = math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum()))
    assert row.data_error == pytest.approx(jackknife, rel=0.02)


@pytest.mark.parametrize("measure", [keskar, keskar_subspace])
def test_costs_are_what_was_done(measure):
    spent = [0.0]

    class Counted(DataObjective):
        def scores(self, theta):
            spent[0] += 1 / 3
            return super().scores(theta)

        def losses_and_gradient(self, theta):
            spent[0] += 1
            return super().losses_and_gradient(theta)

        def gradient(self, theta):
            spent[0] += 1
            return super().gradient(theta)

    point = Point(Counted(conv_net(), images()))
    row = measure(point)
    assert row.cost == pytest.approx(spent[0]) and row.cost < 60 * (1 + 4 * (measure is not keskar))
    again = measure(point)
    assert again.paid == 0 and again == row.__class__(**{**row.__dict__, "paid": 0.0})


@pytest.mark.parametrize("measure", [keskar, keskar_subspace])
def test_a_seed_fixes_everything(measure):
    before = torch.get_rng_state()
    first, second = (measure(Point(conv_objective(), seed=5)) for _ in range(2))
    assert first == second and torch.equal(before, torch.get_rng_state())
    single = measure(Point(conv_objective(torch.float32), seed=5))
    assert single.value == pytest.approx(first.value, rel=0.5)


def test_a_loss_without_terms_has_no_error_over_the_data():
    objective = DataObjective(
        conv_net(), images(), loss=lambda o, y: nn.functional.cross_entropy(o, y)
    )
    row, other = keskar(Point(objective)), keskar_subspace(Point(objective), dims=4)
    assert row.value == pytest.approx(keskar(Point(conv_objective())).value, rel=1e-6)
    assert row.stderr is None and other.data_error is None and other.stderr > 0


def test_a_loss_that_is_not_finite_or_not_positive():
    wall = FunctionObjective(
        lambda t: torch.where(t.sum() > 0.2, math.nan, t.sum() + 1), torch.zeros(2).double()
    )
    row = keskar(Point(wall), epsilon=0.12, ladder=(0.01,))
    assert 0 < row.value <= 100 * 0.2 / 2 and "not finite" in row.note
    assert row.variants[0].value == pytest.approx(1.0)
    with pytest.raises(NotApplicable, match="divides by 1 \\+ loss"):
        keskar(Point(FunctionObjective(lambda t: t.sum() - 2, torch.zeros(2))))


def test_bad_settings():
    point = Point(valley())
    with pytest.raises(ValueError, match="keskar: epsilon is 0"):
        keskar(point, epsilon=0)
    with pytest.raises(ValueError, match="a half-width of the ladder is -1"):
        keskar(point, ladder=(-1,))
    with pytest.raises(ValueError, match="dims is 0"):
        keskar_subspace(point, dims=0)
    with pytest.raises(ValueError, match="repeats is 1, expected at least 2"):
        keskar_subspace(point, repeats=1)


def test_a_loss_that_is_infinite_within_the_box_rises_without_bound():
    wall = FunctionObjective(
        lambda t: torch.where(t.sum() > 0.2, math.inf, 1 + t.sum()), torch.zeros(2).double()
    )
    assert keskar(Point(wall), epsilon=0.12, ladder=()).value == math.inf
