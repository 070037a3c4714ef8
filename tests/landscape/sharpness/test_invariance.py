"""Marks agree with theory for every measure, and none is given where nothing can be told."""

import math
from types import SimpleNamespace

import pytest
import torch
from problems import normal, quadratic, seeded, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.operators.selftest import require
from landscape.sharpness import invariance
from landscape.sharpness.invariance import Invariances, Mark, invariances
from landscape.sharpness.measurement import NotApplicable, estimate
from landscape.sharpness.point import Point, measured
from landscape.sharpness.registry import MEASURES
from landscape.sharpness.rescaling import rescalings

BOTH, LAYERS, NEITHER = (True, True), (True, False), (False, False)

EXPECTED = {
    **dict.fromkeys(
        ["adaptive_lambda_max", "adaptive_trace", "asam", "worst_l2_adaptive", "worst_linf_adaptive",
         "average_adaptive", "pac_bayes_magnitude", "fisher_rao", "relative_flatness"],
        BOTH,
    ),
    **dict.fromkeys(["filter_average", "layer_relative", "minimum_sharpness"], LAYERS),
    **dict.fromkeys(
        ["gradient_norm", "lambda_max", "lambda_min", "trace", "frobenius", "effective_dimension",
         "log_determinant", "negative_mass", "sam", "worst_l2", "average", "keskar", "keskar_subspace",
         "pac_bayes", "local_entropy", "edge_of_stability"],
        NEITHER,
    ),
}  # fmt: skip
SETTINGS = {
    "edge_of_stability": {"optimizer": {"lr": 0.1}},
    "pac_bayes_magnitude": {"epsilon": 1e-9},  # invariant in the limit alone
}


def trained(n=60, dtype=torch.float64, **options):
    """A network of three layers without biases, after 150 steps."""
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(6, 8, bias=False), nn.ReLU(),
            nn.Linear(8, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False),
        )
    ).double()  # fmt: skip
    x = normal(n, 6, seed=1)
    y = (x[:, :3] + 0.5 * normal(n, 3, seed=2)).argmax(1)
    weights = list(model.parameters())
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(x), y)
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.5 * slope
    return DataObjective(model.to(dtype), (x, y), **options)


@pytest.fixture(scope="module")
def net():
    return trained()


@pytest.fixture(scope="module")
def marks(net):
    return invariances(net, [name for name in MEASURES if name != "minimum_sharpness"], SETTINGS)


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "minimum_sharpness"])
def test_every_measure_is_as_invariant_as_theory_says(name, marks):
    row = marks[name]
    if (
        name == "negative_mass"
    ):  # few probes of a small number: one mark may be missing, none is wrong
        assert row.layers.invariant is False and not row.neurons.invariant
        return
    assert (row.layers.invariant, row.neurons.invariant) == EXPECTED[name], row
    for mark in (row.layers, row.neurons):
        assert mark.reason == ""
        assert abs(mark.ratio - 1) < 5e-3 or not mark.invariant


def test_traces_of_single_layers_are_too_rough_for_few_probes(net, monkeypatch):
    """Rescaling the layers makes the traces of some of them drown in the noise of the others."""
    chosen = {"minimum_sharpness": {"probes": 250}}
    assert invariances(net, ["minimum_sharpness"])["minimum_sharpness"].layers.invariant is None
    monkeypatch.setitem(invariance._MOST, "probes", 250)  # enough to be exact
    row = invariances(net, ["minimum_sharpness"], chosen)["minimum_sharpness"]
    assert (row.layers.invariant, row.neurons.invariant) == EXPECTED["minimum_sharpness"]


def test_it_is_the_scaling_of_its_inputs_that_saves_relative_flatness(net):
    row = invariances(net, ["relative_flatness"], {"relative_flatness": {"scaled": False}})
    row = row["relative_flatness"]
    assert (row.layers.invariant, row.neurons.invariant) == LAYERS


def test_ratios_are_those_of_the_values(net):
    """By hand: Hessians of all parameters at the points that the rescaling found."""
    found = rescalings(net)
    row = invariances(net, ["gradient_norm", "lambda_max"])
    hessian = torch.func.jacrev(torch.func.grad(net.value))
    for moved, key in ((found.layers, "layers"), (found.neurons, "neurons")):
        sharp = [float(torch.linalg.eigvalsh(hessian(at))[-1]) for at in (net.theta, moved)]
        steep = [float(net.gradient(at).norm()) for at in (net.theta, moved)]
        assert getattr(row["lambda_max"], key).ratio == pytest.approx(sharp[1] / sharp[0], rel=0.03)
        assert getattr(row["gradient_norm"], key).ratio == pytest.approx(steep[1] / steep[0])


def test_single_precision():
    rows = invariances(trained(dtype=torch.float32), ["asam", "adaptive_trace", "average"])
    assert str(rows["asam"].neurons) == str(rows["adaptive_trace"].layers) == "yes"
    assert rows["average"].layers.invariant is False


@measured
def size(point: Point):
    """‖w‖: known at every point."""
    return estimate("size", float(point.theta.norm()), point.influence(), {})


@measured
def guess(
    point: Point, draws: int = 8, spread: float = 1.0, common: bool = False, moved: float = 1
):
    """1, known from a few draws that differ from point to point, or are the same; there times ``moved``."""
    key = 0 if common else int(point.theta.abs().sum() * 1e6)
    there = not torch.equal(point.theta, point.objective.theta)
    noise = (1 + spread * normal(draws, seed=key % 2**31)) * (moved if there else 1)
    return estimate("guess", float(noise.mean()), point.influence(draws=noise), {})


@measured
def rough(point: Point, bound: float = 0.5):
    """‖w‖ to an error that has nothing to do with chance."""
    return estimate("rough", float(point.theta.norm()) ** 0.1, point.influence(), {}, bound=bound)


@measured
def small(point: Point, of: str = "zero"):
    """0 here, and there another value."""
    there = not torch.equal(point.theta, point.objective.theta)
    value = {"zero": 0.0, "jump": float(there), "broken": math.nan if there else 1.0}[of]
    return estimate("small", value, point.influence(), {})


@measured
def fails(point: Point, everywhere: bool = False):
    """Nothing here, or nothing there."""
    if everywhere:
        raise NotApplicable("no head")
    if not torch.equal(point.theta, point.objective.theta):
        raise ValueError("out of range")
    return estimate("fails", 1.0, point.influence(), {})


OWN = {f.__name__: f for f in (size, guess, rough, small, fails)}


def mark(net, measure, **settings):
    name = measure.__name__
    return invariances(net, [name], {name: settings}, measures=OWN)[name].layers


def test_a_known_ratio(net):
    found = rescalings(net)
    rows = invariances(net, ["size"], measures=OWN)["size"]
    for row, moved in ((rows.layers, found.layers), (rows.neurons, found.neurons)):
        assert row.ratio == pytest.approx(float(moved.norm() / net.theta.norm()), rel=1e-12)
        assert row.invariant is False and str(row) == f"no (x{row.ratio:.3g})"


def test_what_scatters_too_much_cannot_be_told(net):
    found = mark(net, guess)
    assert found.invariant is None and "uncertain" in found.reason and str(found) == "-"
    assert mark(net, guess, common=True) == Mark(True, 1.0)  # the same draws say the same
    assert mark(net, guess, common=True, moved=1.1).invariant is False  # their scatter cancels
    assert mark(net, guess, spread=1e-3).invariant is True
    assert mark(net, rough).invariant is None
    assert mark(net, rough, bound=1e-3).invariant is False


def test_values_that_have_no_ratio(net):
    assert mark(net, small) == Mark(None, reason="the value is 0")
    assert str(mark(net, small, of="jump")) == "no (xinf)"
    assert mark(net, small, of="broken").reason == "the value is not finite"


def test_measures_that_fail(net):
    assert mark(net, fails, everywhere=True) == Mark(None, reason="no head")
    assert "rescaled: out of range" in mark(net, fails).reason


def test_there_are_no_marks_without_a_rescaling():
    rows = invariances(quadratic(symmetric([2.0, 1.0])), ["sam", "trace"])
    assert list(rows) == ["sam", "trace"] and "no network" in rows.reason and rows.cost == 0
    assert str(rows["sam"].layers) == "-" and rows["sam"].neurons.reason == rows.reason


def test_one_kind_of_rescaling_alone():
    model = seeded(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    )
    y = torch.arange(20) % 3
    rows = invariances(DataObjective(model.double(), (normal(20, 6), y)), ["gradient_norm"])
    assert rows["gradient_norm"].layers.invariant is False
    assert rows["gradient_norm"].neurons == Mark(None, reason=rows.reason)


def test_the_piece_and_its_cost(net):
    """A gradient at three points on a piece, and what the search took on all data."""
    objective = trained(n=100)
    search = rescalings(objective).cost
    rows = invariances(objective, ["gradient_norm"], examples=25)
    slopes = 3 * 2 / 3  # the error of a gradient's length takes a forward derivative
    assert rows.examples == 25
    assert rows.cost - search == pytest.approx((3 + slopes) * 0.25, rel=0.2)
    assert invariances(objective, ["gradient_norm"], examples=100).cost - search == pytest.approx(
        4 * (rows.cost - search)
    )


def test_the_test_of_the_hessian_is_on_the_account(net, monkeypatch):
    objective, tested = trained(n=40), []

    def counted(operator):
        tested.append(require(operator))
        return tested[-1]

    monkeypatch.setattr("landscape.sharpness.invariance.require", counted)
    cost = invariances(objective, ["lambda_max"], examples=40).cost
    monkeypatch.setattr("landscape.sharpness.invariance.require", lambda _: SimpleNamespace(cost=0))
    assert cost - invariances(objective, ["lambda_max"], examples=40).cost == pytest.approx(
        tested[0].cost
    )
    assert len(tested) == 1 and tested[0].cost > 5


def test_coupled_examples_stay_together():
    model = seeded(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    )
    y = torch.arange(60) % 3
    objective = DataObjective(model.double(), (normal(60, 6), y), norm="batch", batch_size=30)
    assert invariances(objective, ["gradient_norm"], examples=10).examples == 30


def test_few_draws_are_enough(net):
    """Settings that are chosen hold, those that cost are cut."""
    seen = {}

    @measured
    def spy(point, rho=0.1, pairs=100, probes=3, tol=1e-6, ladder=(1, 2), steps=40):
        seen.update(rho=rho, pairs=pairs, probes=probes, tol=tol, ladder=ladder, steps=steps)
        return estimate("spy", 1.0, point.influence(), {})

    invariances(net, ["spy"], {"spy": {"rho": 0.7, "steps": 2}}, measures={"spy": spy})
    assert seen == {"rho": 0.7, "pairs": 8, "probes": 3, "tol": 1e-2, "ladder": (), "steps": 2}


def test_plain_values(net):
    rows = invariances(net, ["asam"])
    assert (
        isinstance(rows, Invariances) and len(rows) == 1 and rows.pairs == (("0", "2"), ("2", "4"))
    )
    plain = rows.plain()["asam"]
    assert plain["layers"] is plain["neurons"] is True and plain["reason"] == ""
    assert plain["layers_ratio"] == pytest.approx(1) == plain["neurons_ratio"]


def test_unknown_measures_are_named(net):
    with pytest.raises(ValueError, match="unknown measure 'sharp': expected any of gradient_norm"):
        invariances(net, ["sharp"])
