"""Paths of training over a plane: true losses, sharpness, resumed to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import conv_net, conv_objective, images

import landscape
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.objective import FunctionObjective
from landscape.pca import pca_plane
from landscape.projection import project, window
from landscape.store import TRAJECTORY, load
from landscape.surface import evaluate
from landscape.trajectory import follow

F64 = torch.float64


def descent(objective: DataObjective, steps: int = 5) -> list[tuple[int, torch.Tensor]]:
    theta, found = objective.theta, []
    for step in range(steps):
        found.append((10 * step, theta))
        theta = theta - 0.3 * objective.gradient(theta)
    return found


@pytest.fixture(scope="module")
def run():
    objective = conv_objective(norm="eval")
    points = descent(objective)
    return objective, points, pca_plane(objective, [theta for _, theta in points])


def test_a_path_has_its_true_losses_and_those_of_its_feet(run):
    objective, points, plane = run
    found = follow(objective, points, plane, label="net")
    assert found.attrs["schema"] == TRAJECTORY
    assert found["step"].values.tolist() == [0, 10, 20, 30, 40]
    assert found.attrs["variance"] == plane.settings["variance"]
    for (step, theta), at in zip(
        points, project(plane, [t for _, t in points]).coordinates, strict=True
    ):
        row = found.sel(step=step)
        np.testing.assert_array_equal([row["alpha"], row["beta"]], at)
        assert float(row["loss"]) == float(objective.value(theta))
        assert float(row["accuracy"]) == objective.metrics(theta)["accuracy"]
        assert float(row["loss_stderr"]) == objective.metrics(theta)["loss_stderr"]
        foot = plane.origin + at @ plane.basis.numpy()
        assert float(row["surface_loss"]) == pytest.approx(float(objective.value(foot)), rel=1e-12)
        assert float(row["residual"]) == pytest.approx(float((theta - foot).norm()), abs=1e-12)
        far = float((theta - plane.origin).norm())
        assert float(row["residual_share"]) == pytest.approx(
            float(row["residual"]) / far if far else 0
        )
    assert float(found["residual"][1]) > 1e-4  # five checkpoints do not lie in one plane
    assert float(found["residual"][-1]) == 0


def test_measures_are_those_of_a_report_at_each_checkpoint(run):
    objective, points, plane = run
    chosen = {"sam": {"rho": 0.1}, "average": {"pairs": 2, "ladder": ()}}
    found = follow(objective, points, plane, ["sam", "average"], seed=3, settings=chosen)
    for step, theta in points[::2]:
        report = landscape.sharpness(
            objective, ["sam", "average"], seed=3, theta=theta, settings=chosen
        )
        row = found.sel(step=step)
        for name in ("sam", "average"):
            assert float(row[name]) == pytest.approx(report[name].value, rel=1e-12)
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(report[name].interval)
            assert row[f"{name}_converged"] == int(report[name].converged)


def test_resumed_is_uninterrupted_to_the_bit_and_measures_can_be_added(run, tmp_path):
    objective, points, plane = run
    path = tmp_path / "path.nc"
    whole = follow(objective, points, plane, ["sam", "gradient_norm"], seed=1)

    class Interrupted(Exception):
        pass

    def interrupt(step: int) -> None:
        if step == 20:
            raise Interrupted

    with pytest.raises(Interrupted):
        follow(objective, points, plane, ["sam"], seed=1, out=path, progress=interrupt)
    assert load(path, TRAJECTORY)["step"].values.tolist() == [0, 10, 20]
    with pytest.raises(Interrupted):  # more is asked for half-way
        follow(
            objective, points, plane, ["sam", "gradient_norm"], seed=1, out=path, progress=interrupt
        )
    assert load(path, TRAJECTORY)["gradient_norm_converged"].values.tolist() == [1, 1, 1]
    done: list[int] = []
    found = follow(
        objective, points, plane, ["sam", "gradient_norm"], seed=1, out=path, progress=done.append
    )
    assert done == [30, 40]
    assert set(found.data_vars) == set(whole.data_vars)
    for name in whole.data_vars:
        assert found[name].dtype == whole[name].dtype
        np.testing.assert_array_equal(found[name], whole[name])
    kept = landscape.load(path, TRAJECTORY)
    assert kept.attrs["variance"] == plane.settings["variance"]
    np.testing.assert_array_equal(kept["alpha"], whole["alpha"])
    done.clear()
    follow(objective, points, plane, ["gradient_norm"], seed=1, out=path, progress=done.append)
    assert done == []


def test_a_measure_added_in_part_is_completed(run, tmp_path):
    objective, points, plane = run
    path = tmp_path / "path.nc"
    follow(objective, points, plane, out=path)
    follow(objective, points[:2], plane, ["sam"], out=path)
    half = load(path, TRAJECTORY)
    assert half["sam_converged"].values.tolist() == [1, 1, -1, -1, -1]
    assert np.isnan(half["sam"].values[2:]).all()
    done: list[int] = []
    found = follow(objective, points, plane, ["sam"], out=path, progress=done.append)
    assert done == [20, 30, 40]
    np.testing.assert_array_equal(found["sam"], follow(objective, points, plane, ["sam"])["sam"])


def test_another_path_in_the_file_is_refused(run, tmp_path):
    objective, points, plane = run
    path = tmp_path / "path.nc"
    follow(objective, points[:2], plane, ["sam"], out=path)
    with pytest.raises(ValueError, match="seed is 0 there and 1 here"):
        follow(objective, points, plane, ["sam"], out=path, seed=1)
    with pytest.raises(ValueError, match="basis_sha256 is"):
        follow(objective, points, Plane(plane.origin, 2 * plane.basis, plane.settings), out=path)
    with pytest.raises(ValueError, match="the weights at step 0"):
        follow(objective, [(s, t + 1e-3) for s, t in points], plane, out=path)
    scaled = FunctionObjective(
        lambda t: 3 * objective.value(t), objective.theta, objective.space, objective.settings
    )
    scaled.settings = objective.settings
    with pytest.raises(ValueError, match="the loss at step 0"):
        follow(scaled, points, plane, out=path)


def test_points_that_do_not_fit(run):
    objective, points, plane = run
    with pytest.raises(ValueError, match="no points"):
        follow(objective, [], plane)
    with pytest.raises(ValueError, match="step 0 is given twice"):
        follow(objective, [points[0], points[0]], plane)
    with pytest.raises(ValueError, match="flatness"):
        follow(objective, points, plane, ["flatness"])


def test_a_checkpoint_with_statistics_of_its_own_has_its_own_loss(run):
    objective, points, plane = run
    net = conv_net()
    net.norm.running_var.mul_(4)
    other = DataObjective(net, images(), norm="eval")
    found = follow(objective, [(0, other), *points[1:]], plane)
    assert float(found["loss"][0]) == float(other.value(other.theta))
    assert float(found["loss"][0]) != pytest.approx(float(objective.value(other.theta)), rel=1e-3)
    # The surface is of one objective: the foot has its statistics.
    same = follow(objective, points, plane)
    assert float(found["surface_loss"][0]) == float(same["surface_loss"][0])


def test_feet_lie_on_the_surface(run):
    objective, points, plane = run
    places = project(plane, [theta for _, theta in points]).coordinates
    surface = evaluate(objective, plane, window(places, 9), 9, executor="plain")
    found = follow(objective, points, plane)
    assert found.attrs["basis_sha256"] == surface.attrs["basis_sha256"]
    at = surface["loss"].sel(alpha=0, beta=0)
    assert float(at) == pytest.approx(float(found["loss"][-1]), rel=1e-12)
