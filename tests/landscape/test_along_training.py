"""Eigenvalues along a run: against dense solvers, resumed, refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from problems import conv_objective, full_hessian, symmetric
from safetensors.torch import save_file

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.operators.symmetric import MatrixOperator
from landscape.spectra.along_training import along_training, run_checkpoints, run_points
from landscape.store import ALONG_TRAINING, load

F64 = torch.float64


def path_of(objective: DataObjective, steps: int = 5, rate: float = 0.05):
    """Gradient descent: ``(step, theta)``."""
    theta = objective.theta
    for step in range(steps):
        yield 10 * step, theta
        theta = theta - rate * objective.gradient(theta)


def test_every_step_against_a_dense_solver():
    objective = conv_objective(norm="eval")
    found = along_training(path_of(objective), k=3, objective=objective, tol=1e-7)
    assert found["step"].values.tolist() == [0, 10, 20, 30, 40]
    for step, theta in path_of(objective):
        objective.theta = theta
        values = torch.linalg.eigvalsh(full_hessian(objective)).numpy()
        row = found.sel(step=step)
        np.testing.assert_allclose(row["eigenvalue"], values[::-1][:3], rtol=1e-6)
        assert (np.abs(row["eigenvalue"] - values[::-1][:3]) <= row["residual"] + 1e-10).all()
        assert abs(float(row["smallest"]) - values[0]) <= float(row["smallest_residual"]) + 1e-10
        assert float(row["smallest"]) == pytest.approx(values[0], rel=1e-5)
        assert float(row["loss"]) == pytest.approx(float(objective.value(theta)), rel=1e-12)
        assert row["converged"] == 1
    assert found.attrs["products"] == found["products"].values.sum()


def test_steps_help_each_other():
    objective = conv_objective(norm="eval")
    points = list(path_of(objective, rate=0.01))
    warm = along_training(points, objective=objective)["products"].values
    cold = [along_training([p], objective=objective)["products"].values[0] for p in points]
    assert warm[0] == cold[0]
    assert warm[1:].sum() < 0.8 * sum(cold[1:])


def test_objectives_and_operators_as_points():
    small, large = (
        FunctionObjective(lambda t, a=a: 0.5 * t @ (a @ t), torch.ones(4, dtype=F64))
        for a in (symmetric([1.0, 2, 3, 4]), symmetric([2.0, 4, 6, 8]))
    )
    found = along_training([(7, large), (3, small)], k=2, tol=1e-8)
    assert found["step"].values.tolist() == [3, 7]  # sorted
    np.testing.assert_allclose(found["eigenvalue"], [[4, 3], [8, 6]], rtol=1e-6)
    matrix = MatrixOperator(symmetric([1.0, 2, 3, 4]))
    bare = along_training([(0, matrix)], k=1, tol=1e-8, thresholds={0: 5.0})
    assert np.isnan(bare["loss"].values).all()
    assert bare["threshold"].values.tolist() == [5.0]
    assert float(bare["smallest"][0]) == pytest.approx(1.0)


def test_an_interrupted_run_continues_and_can_be_extended(tmp_path):
    objective, path = conv_objective(norm="eval"), tmp_path / "run.nc"
    points = list(path_of(objective))
    whole = along_training(points, objective=objective, tol=1e-6)

    class Interrupted(Exception):
        pass

    def interrupt(step: int) -> None:
        if step == 20:
            raise Interrupted

    with pytest.raises(Interrupted):
        along_training(points, objective=objective, tol=1e-6, out=path, progress=interrupt)
    assert load(path, ALONG_TRAINING)["step"].values.tolist() == [0, 10, 20]
    done: list[int] = []
    found = along_training(
        points, objective=objective, tol=1e-6, out=path, progress=done.append, thresholds={30: 2.0}
    )
    assert done == [30, 40]
    gap = np.abs(found["eigenvalue"].values - whole["eigenvalue"].values)
    assert (gap <= found["residual"].values + whole["residual"].values).all()
    np.testing.assert_array_equal(found["eigenvalue"][:3], whole["eigenvalue"][:3])
    kept = load(path, ALONG_TRAINING)
    assert kept["threshold"].values[3] == 2.0
    assert kept["theta_sha256"].values.tolist() == found["theta_sha256"].values.tolist()


def test_another_run_in_the_file_is_refused(tmp_path):
    objective, path = conv_objective(norm="eval"), tmp_path / "run.nc"
    points = list(path_of(objective, steps=2))
    along_training(points, objective=objective, out=path)
    with pytest.raises(ValueError, match="k is 3 there and 2 here"):
        along_training(points, k=2, objective=objective, out=path)
    with pytest.raises(ValueError, match="operator is"):
        along_training(points, objective=objective, out=path, params="head.*")
    moved = [(step, theta + 1e-3) for step, theta in points]
    with pytest.raises(ValueError, match="the weights at step 0"):
        along_training(moved, objective=objective, out=path)
    scaled = FunctionObjective(lambda t: 3 * objective.value(t), objective.theta, objective.space)
    with pytest.raises(ValueError, match="the loss at step 0"):
        along_training(points, objective=scaled, out=path)


def test_points_that_do_not_fit():
    objective = conv_objective(norm="eval")
    with pytest.raises(ValueError, match="no points"):
        along_training([], objective=objective)
    with pytest.raises(ValueError, match="step 1 is given twice"):
        along_training([(1, objective), (1, objective)])
    with pytest.raises(ValueError, match="give objective="):
        along_training([(1, objective.theta)])
    with pytest.raises(ValueError, match="tol is 0"):
        along_training([(1, objective)], tol=0)
    with pytest.raises(ValueError, match="its own options: leave out params"):
        along_training([(1, MatrixOperator(torch.eye(4)))], params="x")
    with pytest.raises(ValueError, match="at most 3"):
        along_training([(1, MatrixOperator(torch.eye(3)))], k=3)


def test_points_of_different_sizes_start_anew():
    found = along_training(
        [(0, MatrixOperator(symmetric([1.0, 2, 3]))), (1, MatrixOperator(symmetric([4.0, 5])))], k=1
    )
    np.testing.assert_allclose(found["eigenvalue"][:, 0], [3, 5], rtol=1e-3)


def test_checkpoint_folders_of_a_run(tmp_path):
    objective = conv_objective(norm="eval")
    with pytest.raises(ValueError, match="has no checkpoints"):
        run_checkpoints(tmp_path)
    for step in (1000, 500):
        folder = tmp_path / "checkpoints" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        tensors = objective.space.unflatten(objective.theta * step)
        save_file({k: v.clone() for k, v in tensors.items()}, folder / "model.safetensors")
        (folder / "meta.json").write_text(json.dumps({"step": step}))
    (tmp_path / "checkpoints" / "step_000700").mkdir()  # not complete
    found = run_checkpoints(tmp_path)
    assert [(step, folder.name) for step, folder in found] == [
        (500, "step_000500"),
        (1000, "step_001000"),
    ]
    for step, theta in run_points(tmp_path, objective.space):
        assert torch.equal(theta, objective.theta * step)
