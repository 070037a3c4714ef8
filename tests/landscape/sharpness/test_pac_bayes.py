import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import (
    conv_net,
    conv_objective,
    images,
    normal,
    quadratic,
    symmetric,
)

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.sharpness.average import average
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.pac_bayes import pac_bayes, pac_bayes_magnitude
from landscape.sharpness.point import Point

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5]


def bowl(spectrum=SPECTRUM):
    matrix = symmetric(spectrum)
    return quadratic(matrix, normal(len(spectrum), seed=8)), matrix


def classes():
    """Three classes that a linear network separates, with some room."""
    x, teacher = normal(50, 4, seed=1), normal(3, 4, seed=2)
    net = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    objective = DataObjective(net, (x, (x @ teacher.T).argmax(1)))
    return Point(objective, 2 * teacher.flatten(), seed=4)


def sigma_of(row):
    return row.value**-0.5


def mean_rise(point, sigma, pairs, column, magnitude=None, weights=None):
    """Written out: mean over the draws, of the error or of the loss."""
    objective, total = point.objective, []

    def terms(theta):
        found = objective.scores(theta)[column].double()
        return 1 - found if column == "accuracy" else found

    for i in range(pairs):
        z = point.normal(i)
        if magnitude is not None:
            z = z * (sigma**2 * point.theta**2 + magnitude**2).sqrt() / sigma
        total += [terms(point.theta + s * sigma * z) - terms(point.theta) for s in (1, -1)]
    rises = torch.stack(total).mean(0)
    return float(rises.mean() if weights is None else rises @ weights)


def test_the_radius_of_a_quadratic_is_exact_for_its_draws():
    objective, matrix = bowl()
    point = Point(objective, seed=2)
    squares = [float(z @ matrix @ z) for z in map(point.normal, range(16))]
    row = pac_bayes(point, deviation=0.3)
    assert row.value == pytest.approx(np.mean(squares) / 0.6, rel=1e-9) and row.converged
    assert row.settings == {"deviation": 0.3, "quantity": "loss", "pairs": 16, "tol": 0.01}
    # 1/σ² is linear in the squares: the delta method is exact.
    error = float(np.std(squares, ddof=1)) / math.sqrt(16) / 0.6
    assert row.stderr == row.draw_error == pytest.approx(error, rel=1e-3)
    assert row.note.startswith(f"sigma = {sigma_of(row):.4g}, where the mean rise is 0.3")


def test_the_radius_of_a_quadratic_in_expectation():
    objective, matrix = bowl()
    row = pac_bayes(Point(objective), deviation=0.3, pairs=200)
    exact = float(matrix.trace()) / 0.6
    assert abs(row.value - exact) < 4 * row.stderr < exact
    row = pac_bayes_magnitude(Point(objective), deviation=0.3, pairs=200, epsilon=0.1)
    w, trace = objective.theta, float(matrix.trace())
    exact = float((w**2 * matrix.diag()).sum()) / (0.6 - 0.1**2 * trace)
    assert abs(row.value - exact) < 4 * row.stderr < 2 * exact
    assert row.settings["epsilon"] == 0.1


@pytest.mark.parametrize("quantity", ["error", "loss"])
@pytest.mark.parametrize("magnitude", [None, 1e-3])
def test_the_radius_of_a_network_by_an_explicit_loop(quantity, magnitude):
    point = classes()
    measure = pac_bayes if magnitude is None else pac_bayes_magnitude
    row = measure(point, quantity=quantity, pairs=5)
    column = {"error": "accuracy", "loss": "loss"}[quantity]
    sigma = sigma_of(row)
    rise = mean_rise(point, sigma, 5, column, magnitude)
    further = mean_rise(point, sigma * math.exp(0.0101), 5, column, magnitude)
    assert abs(rise - 0.1) <= 0.001 + 1e-10 or rise <= 0.1 < further
    assert row.settings["quantity"] == quantity and row.converged
    assert f"{rise:.4g}" in row.note and row.interval[0] < row.value < row.interval[1]


def test_the_error_is_that_of_the_root():
    """More weight on one term, or one draw, moves the root by its influence."""
    point = classes()
    row = pac_bayes(point, quantity="loss", pairs=5, tol=1e-9)

    def root(weights):
        low, high = 0.05, 5.0
        for _ in range(60):
            middle = math.sqrt(low * high)
            above = mean_rise(point, middle, 5, "loss", weights=weights) > 0.1
            low, high = (low, middle) if above else (middle, high)
        return low**-2

    even = torch.ones(50).double() / 50
    assert root(even) == pytest.approx(row.value, rel=1e-7)
    for i in (0, 20):
        moved = even * (1 - 1e-4)
        moved[i] += 1e-4
        change = (root(moved) - row.value) / 1e-4
        assert row.influence.terms[i] == pytest.approx(change, rel=0.05)
    assert len(row.influence.draws) == 5 and row.data_error > 0


def test_auto_takes_the_error_where_there_is_one():
    assert pac_bayes(classes(), pairs=2).settings["quantity"] == "error"
    assert pac_bayes(Point(bowl()[0])).settings["quantity"] == "loss"
    scalar = DataObjective(conv_net(), images(), loss=lambda o, y: F.cross_entropy(o, y))
    row = pac_bayes(Point(scalar), pairs=2)
    assert row.settings["quantity"] == "loss" and row.data_error is None and row.stderr > 0
    reference = pac_bayes(Point(conv_objective()), quantity="loss", pairs=2)
    assert row.value == pytest.approx(reference.value, rel=1e-6)
    row = pac_bayes_magnitude(Point(conv_objective()), quantity="loss", pairs=3)
    assert row.converged and row.stderr > 0


def test_far_fewer_values_than_a_bisection_and_none_twice():
    class Counted(FunctionObjective):
        calls = 0

        def value(self, theta):
            self.calls += 1
            return super().value(theta)

    matrix = symmetric(SPECTRUM)
    objective = Counted(lambda t: 0.5 * t @ matrix @ t, normal(5, seed=8))
    row = pac_bayes(Point(objective), deviation=0.02)
    assert row.cost == row.paid == pytest.approx(objective.calls / 3)
    assert (
        objective.calls == 1 + 3 * 32
    )  # 0.05, 0.1, and the root: 15 bisections of 10 draws take 150
    shared = Point(objective)
    average(shared)
    again = pac_bayes(shared, deviation=0.02)
    assert again.value == row.value and again.cost == pytest.approx(row.cost)
    assert again.paid == pytest.approx(32 / 3)


def test_a_step_function_is_crossed_from_below():
    """Two points of a linear classifier change sides at known radii."""
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double()
    net = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
    objective = DataObjective(net, (x, torch.tensor([0, 1, 0, 1])))
    point = Point(objective, torch.tensor([1.0, -1.0]).double())
    # Every example is wrong together once σ |z₀ - z₁| > 2, on one of the two sides.
    radii = sorted(2 / abs(float(z[0] - z[1])) for z in map(point.normal, range(8)))
    row = pac_bayes(point, deviation=0.1, pairs=8)  # 2 of 16 wrong is 0.125
    assert 0 <= radii[1] / sigma_of(row) - 1 < 0.011
    assert row.bound < 0.03 * row.value and row.bound > 0


def test_relative_noise_does_not_see_a_rescaling():
    x = normal(20, 2, seed=2)

    def loss(t):
        return ((torch.relu(x @ t[:4].view(2, 2)) @ t[4:] - 1) ** 2).mean()

    w, factors = normal(6, seed=1), torch.tensor([4.0, 0.25]).double()
    moved = torch.cat([(w[:4].view(2, 2) * factors).flatten(), w[4:] / factors])
    rows = [pac_bayes_magnitude(Point(FunctionObjective(loss, t)), epsilon=0) for t in (w, moved)]
    assert rows[0].value == rows[1].value
    rows = [pac_bayes(Point(FunctionObjective(loss, t))) for t in (w, moved)]
    assert abs(rows[0].value / rows[1].value - 1) > 0.2


def test_intervals_reach_further_up_where_squares_are_skewed():
    row = pac_bayes(Point(quadratic(torch.ones(1, 1).double())))
    assert row.interval[1] - row.value > 1.2 * (row.value - row.interval[0])
    assert row.interval[0] > 0


def test_intervals_hold_the_truth():
    objective, matrix = bowl()
    exact = float(matrix.trace()) / 0.6
    held = 0
    for seed in range(150):
        row = pac_bayes(Point(objective, seed=seed), deviation=0.3)
        held += row.interval[0] <= exact <= row.interval[1]
    assert 0.89 <= held / 150 <= 0.99


def test_where_it_has_no_meaning():
    flat = FunctionObjective(lambda t: 0.0 * t.sum(), torch.ones(3).double())
    with pytest.raises(NotApplicable, match="0.1 is not reached even at the radius"):
        pac_bayes(Point(flat))
    cliff = FunctionObjective(lambda t: 9.0 * (t != 0).any(), torch.zeros(3).double())
    with pytest.raises(NotApplicable, match="0.1 is exceeded even at the radius"):
        pac_bayes(Point(cliff))
    with pytest.raises(NotApplicable, match="exceeded"):
        pac_bayes_magnitude(Point(bowl()[0]), epsilon=1.0)
    with pytest.raises(NotApplicable, match="no accuracy: use quantity='loss'"):
        pac_bayes(Point(bowl()[0]), quantity="error")
    with pytest.raises(NotApplicable, match="all zero"):
        pac_bayes_magnitude(Point(quadratic(torch.eye(2))), epsilon=0)


def test_a_cliff_has_a_radius_and_no_error():
    wall = FunctionObjective(
        lambda t: torch.where(t.norm() > 1, math.inf, 0.0), torch.zeros(2).double()
    )
    row = pac_bayes(Point(wall), pairs=2)
    point = Point(wall)
    edge = 1 / max(float(point.normal(i).norm()) for i in range(2))
    assert sigma_of(row) == pytest.approx(edge, rel=0.011)
    assert row.stderr is None and row.interval is None and "no slope" in row.note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deviation": 0}, "deviation is 0"),
        ({"tol": 0}, "tol is 0"),
        ({"pairs": 1}, "pairs is 1"),
        ({"quantity": "x"}, "unknown quantity 'x': expected one of auto, error, loss"),
    ],
)
def test_bad_settings(options, message):
    for measure in (pac_bayes, pac_bayes_magnitude):
        with pytest.raises(ValueError, match=f"{measure.__name__}: .*{message}"):
            measure(Point(bowl()[0]), **options)
    with pytest.raises(ValueError, match="epsilon is -1"):
        pac_bayes_magnitude(Point(bowl()[0]), epsilon=-1)
