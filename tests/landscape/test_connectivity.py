"""Curves of low loss between two points, against an independent optimizer."""

import json

import numpy as np
import pytest
import torch
from problems import normal, seeded
from scipy.integrate import quad
from scipy.optimize import minimize
from torch import nn

import landscape
from landscape.connectivity import Curve, connect, curve_weights
from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective

A = torch.tensor([1.0, 0.0], dtype=torch.float64)


def ring(t):
    return ((t * t).sum() - 1) ** 2


RING = FunctionObjective(ring, A)


def on_ring(x, y):
    return (x * x + y * y - 1) ** 2


def bezier(t, bend):
    return [(1 - t) ** 2 - t**2 + 2 * t * (1 - t) * bend[0], 2 * t * (1 - t) * bend[1]]


def chain(t, bend):
    s = 2 * t if t < 0.5 else 2 * t - 1
    start, end = ((1, 0), bend) if t < 0.5 else (bend, (-1, 0))
    return [start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])]


@pytest.mark.parametrize(("kind", "path"), [("bezier", bezier), ("chain", chain)])
def test_the_bend_is_the_one_that_scipy_finds(kind, path):
    def expected_loss(bend):
        return quad(lambda t: on_ring(*path(t, bend)), 0, 1, points=[0.5])[0]

    best = minimize(expected_loss, [0.1, 1.0], method="Nelder-Mead", options={"xatol": 1e-8})
    found = connect(RING, A, -A, kind, iterations=800, points=101)
    bend = found.curve.controls[1].numpy()
    assert abs(bend[1]) == pytest.approx(abs(best.x[1]), rel=0.03)
    assert bend[0] == pytest.approx(best.x[0], abs=0.03)
    assert found.mean_loss[0] == pytest.approx(best.fun, rel=0.02)
    top = max(on_ring(*path(t, best.x)) for t in np.linspace(0, 1, 2001))
    assert found.barrier.height == pytest.approx(top, rel=0.1)
    assert found.straight_barrier.height == pytest.approx(1.0)
    assert found.mean_loss[1] == pytest.approx(8 / 15, rel=1e-3)


def test_the_curve_lies_in_its_plane_and_carries_its_path():
    found = connect(RING, A, -A, iterations=50, points=11)
    path = found.plane.settings["path"]
    for t, x, y in zip(found.line["alpha"].values, path["alpha"], path["beta"], strict=True):
        torch.testing.assert_close(found.plane.point(x, y), found.curve.point(float(t)))
    assert max(path["residual"]) < 1e-12
    assert path["loss"] == found.line["loss"].values.tolist()
    assert [m["label"] for m in found.plane.settings["marks"]] == ["A", "B", "bend"]
    surface = landscape.evaluate(RING, found.plane, points=5)
    assert json.loads(surface.attrs["path"])["alpha"] == path["alpha"]
    assert "path" not in json.loads(surface.attrs["plane"])


def test_lines_are_the_loss_on_the_way():
    found = connect(RING, A, -A, bends=2, iterations=20, points=7)
    for line, point in (
        (found.line, found.curve.point),
        (found.straight, lambda t: (1 - t) * A - t * A),
    ):
        own = [float(ring(point(float(t)))) for t in line["alpha"].values]
        np.testing.assert_allclose(line["loss"], own, rtol=1e-9, atol=1e-15)
    assert torch.equal(found.curve.point(0.0), A) and torch.equal(found.curve.point(1.0), -A)
    landscape.plot.line([found.straight, found.line])  # not refused: one kind of plane
    assert found.curve.controls.shape == (4, 2)


@pytest.mark.parametrize("kind", ["bezier", "chain"])
@pytest.mark.parametrize("bends", [1, 2, 5])
def test_weights(kind, bends):
    for t in np.linspace(0, 1, 23):
        weights = np.array(curve_weights(kind, float(t), bends))
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        # Control points on a line, evenly spaced, are a curve at even speed.
        assert weights @ np.linspace(0, 1, bends + 2) == pytest.approx(t)
    assert curve_weights(kind, 0.0, bends)[0] == curve_weights(kind, 1.0, bends)[-1] == 1


def test_weights_by_de_casteljau():
    controls = np.random.default_rng(0).standard_normal((5, 3))
    for t in (0.1, 0.5, 0.83):
        points = controls
        while len(points) > 1:
            points = (1 - t) * points[:-1] + t * points[1:]
        np.testing.assert_allclose(np.array(curve_weights("bezier", t, 3)) @ controls, points[0])


def test_seeds_decide_and_nothing_else(tmp_path):
    state = torch.random.get_rng_state()
    runs = [connect(RING, A, -A, iterations=30, seed=s, points=3) for s in (0, 0, 1)]
    bends = [r.curve.controls[1] for r in runs]
    assert torch.equal(bends[0], bends[1]) and not torch.equal(bends[0], bends[2])
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(A, torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_an_interrupted_training_goes_on_to_the_same_bend(tmp_path):
    whole = connect(RING, A, -A, iterations=40, points=3)

    def stop(done, total):
        assert total == 40
        if done == 17:
            raise KeyboardInterrupt

    out = tmp_path / "curve.nc"
    with pytest.raises(KeyboardInterrupt):
        connect(RING, A, -A, iterations=40, points=3, out=out, progress=stop)
    seen = []
    again = connect(
        RING, A, -A, iterations=40, points=3, out=out, progress=lambda d, _: seen.append(d)
    )
    assert seen[0] == 18 and len(seen) == 23
    assert torch.equal(again.curve.controls, whole.curve.controls)
    with pytest.raises(ValueError, match="another curve: seed is 0 there and 1 here"):
        connect(RING, A, -A, iterations=40, points=3, seed=1, out=out)
    with pytest.raises(ValueError, match="another curve: ends_sha256"):
        connect(RING, A, 2 * A, iterations=40, points=3, out=out)


def network():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_of_a_network_with_batches_of_examples():
    net = seeded(network)
    x = normal(40, 3, seed=1)
    objective = DataObjective(net, (x, x.argmax(1)))
    other = objective.theta + 0.7 * normal(objective.theta.numel(), seed=2)
    found = connect(objective, objective.theta, other, iterations=60, batch=10, points=9)
    assert found.mean_loss[0] < found.mean_loss[1]
    assert (found.barrier.error, found.line.sizes["term"]) == ("paired", 40)
    assert {"accuracy", "loss_stderr", "rise"} <= set(found.line.data_vars)
    full = connect(objective, objective.theta, other, iterations=60, points=9)
    assert not torch.equal(full.curve.controls, found.curve.controls)
    assert json.dumps(found.document()["settings"]["batch"]) == "10"


def test_frozen_ends_are_met_in_float32():
    a = normal(5).float()
    objective = FunctionObjective(lambda t: (t * t).sum(), a)
    curve = connect(objective, a, -a, iterations=3, points=3).curve
    assert isinstance(curve, Curve) and curve.controls.dtype == torch.float32
    assert torch.equal(curve.point(0.0), a)


def test_a_bend_on_the_line_has_no_plane():
    line = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([1.0]).double())
    found = connect(line, line.theta, -line.theta, iterations=5, points=3)
    assert found.plane is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "spline"}, "unknown kind"),
        ({"bends": 0}, "bends is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"points": 2}, "points is 2"),
        ({"rate": 0.0}, "rate is 0"),
        ({"batch": 4}, "DataObjective"),
    ],
)
def test_refusals(options, match):
    with pytest.raises(ValueError, match=match):
        connect(RING, A, -A, **options)


def test_other_refusals():
    with pytest.raises(ValueError, match="equal"):
        connect(RING, A, A)
    with pytest.raises(ValueError, match="theta_b has shape"):
        connect(RING, A, torch.zeros(3))
    edge = FunctionObjective(lambda t: t.sum().log() * torch.nan, A)
    with pytest.raises(ValueError, match="not finite after 0 iterations"):
        connect(edge, A, -A)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    data = (normal(8, 2), torch.arange(8) % 3)
    moving = DataObjective(net, data, norm="interpolated")
    with pytest.raises(ValueError, match="recalibrate"):
        connect(moving, moving.theta, -moving.theta)
    stale = DataObjective(net, data)
    found = connect(stale, stale.theta, -stale.theta, iterations=2, points=3)
    assert len(found.barrier.cautions) == 1
