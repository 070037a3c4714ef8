import math

import numpy as np
import pytest
import torch
from problems import images, normal, seeded
from torch import nn

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.sharpness.ascent import asam, sam
from landscape.sharpness.measurement import Influence
from landscape.sharpness.point import Point

N, SCALES = 1600, np.array([3.0, 1.0, 0.3])


class Cube(torch.autograd.Function):
    """x³, without a forward-mode derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, by):
        return 3 * ctx.saved_tensors[0] ** 2 * by


class Cubic(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1).double()

    def forward(self, x):
        return Cube.apply(self.line(x))


def net(n=12, dtype=torch.float64):
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))).to(dtype)
    y = torch.from_numpy(np.random.default_rng(6).integers(0, 2, n))
    return DataObjective(model, (normal(n, 2, seed=5).to(dtype), y), batch_size=5)


@pytest.mark.parametrize(
    ("measure", "options"),
    [(sam, {"rho": 0.7}), (asam, {"rho": 2.0}), (asam, {"rho": 1.5, "eta": 0.2})],
)
def test_the_influence_is_the_derivative_by_the_weights_of_the_data(measure, options):
    objective = net()
    n, eps = objective.examples, 1e-4

    def reweighted(i, by):
        p = torch.full((n,), (1 - by) / n, dtype=torch.float64)
        p[i] += by
        return measure(
            Point(FunctionObjective(lambda t: p @ objective.losses(t), objective.theta)), **options
        ).value

    row = measure(Point(objective), **options)
    expected = [(reweighted(i, eps) - reweighted(i, -eps)) / (2 * eps) for i in range(n)]
    assert row.influence.terms == pytest.approx(expected, rel=1e-5, abs=1e-6)
    step = torch.tensor(expected) - torch.tensor(rises_alone(measure, objective, options).terms)
    assert float(step.abs().max()) > 0.05 * max(map(abs, expected))
    assert row.note == "" and row.cost == pytest.approx(1 + 2 / 3 + 2)


def test_single_precision_has_the_same_influence():
    one, other = (sam(Point(net(dtype=t)), rho=0.7) for t in (torch.float64, torch.float32))
    assert other.note == ""
    assert other.influence.terms == pytest.approx(one.influence.terms, rel=1e-3, abs=1e-5)


def rises_alone(measure, objective, options):
    """The influence at a fixed step."""
    c = torch.ones_like(objective.theta)
    if measure is asam:
        c = objective.theta.abs() + options.get("eta", 0.0)
    g = objective.gradient(objective.theta)
    step = options["rho"] * c**2 * g / (c * g).norm()
    rises = objective.losses(objective.theta + step) - objective.losses(objective.theta)
    return Influence.made(rises, "examples")


@pytest.mark.parametrize(("measure", "rho"), [(sam, 0.6), (asam, 1.0)])
def test_intervals_hold_the_truth_of_a_regression(measure, rho):
    """Least squares, x of variances SCALES, y of noise 0.5: the loss of the population is a quadratic."""
    w = np.array([0.5, 1.0, 0.8])
    slope = np.array([0.25, 0.3, -0.2])
    best = w - slope / (2 * SCALES)
    c = np.ones(3) if measure is sam else np.abs(w)
    step = rho * c**2 * slope / np.linalg.norm(c * slope)
    truth = float(slope @ step + step @ (SCALES * step))
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(w)[None])
    held = before = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((N, 3)) * np.sqrt(SCALES)
        y = x @ best + 0.5 * rng.standard_normal(N)
        data = torch.from_numpy(x), torch.from_numpy(y)[:, None]
        objective = DataObjective(model, data, loss="mse_loss", batch_size=N)
        row = measure(Point(objective), rho=rho)
        held += row.interval[0] <= truth <= row.interval[1]
        error = rises_alone(measure, objective, {"rho": rho}).data_error()
        before += abs(row.value - truth) <= 1.966 * error
    assert held / 150 > 0.9
    assert before / 150 < 0.88


@pytest.mark.parametrize("measure", [sam, asam])
def test_a_model_without_slopes_keeps_the_rises_and_says_so(measure):
    x, y = normal(80, 2, seed=1), normal(80, 1, seed=2)
    few = DataObjective(seeded(Cubic), (x[:9], y[:9]), loss="mse_loss")
    assert measure(Point(few), rho=0.5).note == ""  # one gradient a term
    many = DataObjective(seeded(Cubic), (x, y), loss="mse_loss")
    row = measure(Point(many), rho=0.5)
    assert "leaves out that the step depends on the data: a layer" in row.note
    expected = rises_alone(measure, many, {"rho": 0.5})
    assert row.influence.terms == pytest.approx(expected.terms)


def test_where_no_gradient_is_spent_on_the_error():
    x, y = images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), int(y.max()) + 1)).to(x.dtype)
    scalar = DataObjective(model, (x, y), loss=lambda o, t: nn.functional.cross_entropy(o, t))
    assert sam(Point(scalar)).stderr is None
    formula = FunctionObjective(lambda t: (t * t).sum(), torch.ones(2).double())
    for row in (sam(Point(scalar)), sam(Point(formula)), asam(Point(formula))):
        assert row.cost == pytest.approx(1 + 2 / 3) and row.note == ""
    assert sam(Point(formula)).stderr == 0


def test_a_zero_gradient_and_a_step_over_the_edge():
    x, y = torch.zeros(8, 3).double(), torch.ones(8, 1).double()
    model = nn.Linear(3, 1, bias=False).double()  # whatever its weights are, it returns 0
    row = sam(Point(DataObjective(model, (x, y), loss="mse_loss")))
    assert row.cost == pytest.approx(1 + 2 / 3)
    assert row.value == 0 and "no ascent direction" in row.note
    wall = FunctionObjective(
        lambda t: torch.where(t.sum() > 0.2, math.inf, t.sum()), torch.zeros(2).double()
    )
    assert sam(Point(wall), rho=1.0).value == math.inf


@pytest.mark.parametrize("rho", [0.0, -1.0])
def test_radii_of_adaptive_ascents_are_positive(rho):
    with pytest.raises(ValueError, match="asam: rho is"):
        asam(Point(FunctionObjective(lambda t: t.sum(), torch.ones(2))), rho=rho)
