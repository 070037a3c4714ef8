"""Planes through a path of training, projections onto them, and paths followed, resumed, refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net, conv_objective, images, normal

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


def bowl(size: int = 6, dtype: torch.dtype = F64) -> FunctionObjective:
    return FunctionObjective(lambda t: (t * t).sum(), torch.zeros(size, dtype=dtype))


def walk(n: int = 7, size: int = 30, seed: int = 0) -> torch.Tensor:
    return normal(n, size, seed=seed).cumsum(0)


def components(path: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular values, right vectors and shares of variance by an SVD of the centred matrix."""
    x = path.numpy() - path.numpy().mean(axis=0)
    _, s, v = np.linalg.svd(x, full_matrices=False)
    return s, v, s**2 / np.sum(s**2)


def test_components_are_those_of_an_svd_of_the_centred_checkpoints():
    path = walk()
    plane = pca_plane(bowl(30), path, scale="unit")
    s, v, shares = components(path)
    np.testing.assert_allclose(plane.settings["singular_values"], s, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plane.settings["variance"], shares[:2], rtol=1e-5)
    np.testing.assert_allclose(np.abs(plane.basis.numpy() @ v[:2].T), np.eye(2), atol=1e-12)
    np.testing.assert_array_equal(plane.origin, path[-1])
    # Another plane than that of the differences to the last checkpoint, which are not centred.
    other = np.linalg.svd((path - path[-1]).numpy(), full_matrices=False)[2][:2]
    assert np.abs(plane.basis.numpy() @ other.T)[0, 0] < 0.99


def test_many_small_pieces_give_the_same_plane(monkeypatch):
    path = walk()
    whole = pca_plane(bowl(30), path)
    monkeypatch.setattr("landscape.pca._CHUNK_BYTES", 8 * 7 * 4)  # four columns
    pieces = pca_plane(bowl(30), path)
    torch.testing.assert_close(whole.basis, pieces.basis, rtol=1e-12, atol=1e-12)
    assert whole.settings == pieces.settings


def test_a_path_in_a_plane_is_recovered_exactly():
    x, y = torch.linalg.qr(normal(30, 2, seed=1))[0].T
    places = np.array([[3.0, 0.0], [1.0, 2.0], [2.0, -1.0], [0.5, 0.5], [0.0, 0.0]])
    origin = normal(30, seed=2)
    path = [origin + a * x + b * y for a, b in places]
    plane = pca_plane(bowl(30), path, scale="unit")
    found = project(plane, path)
    assert sum(plane.settings["variance"]) == pytest.approx(1, abs=1e-6)
    assert plane.settings["cautions"] == []
    np.testing.assert_allclose(found.residuals, 0, atol=1e-12)
    np.testing.assert_allclose(found.shares, 0, atol=1e-12)
    for (a, b), theta in zip(found.coordinates, path, strict=True):
        torch.testing.assert_close(plane.point(a, b), theta)
    # Coordinates are rotated, not stretched: distances between checkpoints stay.
    gaps = lambda at: np.linalg.norm(at[:, None] - at[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(gaps(found.coordinates), gaps(places), atol=1e-12)


def test_the_path_fills_the_square_and_its_farthest_checkpoint_is_positive():
    for seed in range(5):
        path = walk(seed=seed)
        plane = pca_plane(bowl(30), path)
        places = project(plane, path).coordinates
        np.testing.assert_allclose(np.abs(places).max(axis=0), 1)
        np.testing.assert_allclose(places.max(axis=0), 1)
        unit = pca_plane(bowl(30), path, scale="unit")
        np.testing.assert_allclose(unit.norms, 1)
        np.testing.assert_allclose(project(unit, path).coordinates, places * plane.norms)
        flipped = pca_plane(bowl(30), -path)  # the rule decides, not the eigenvectors' own sign
        np.testing.assert_allclose(project(flipped, -path).coordinates, places, atol=1e-9)


def test_of_two_equally_far_the_earlier_is_positive():
    path = torch.tensor([[2.0, 0, 0], [0, 1, 0], [-2, 0, 0], [0, 0, 0]], dtype=F64)
    for seed in range(12):  # turned in space, the two are equal up to rounding only
        away = 1e3 * normal(30, seed=seed + 50)
        turned = away + path @ torch.linalg.qr(normal(30, 3, seed=seed))[0].T
        places = project(pca_plane(bowl(30), turned), turned).coordinates
        np.testing.assert_allclose(places[[0, 2], 0], [1, -1], atol=1e-9)


def test_the_origin_can_be_the_mean():
    path = walk()
    plane = pca_plane(bowl(30), path, origin="mean")
    torch.testing.assert_close(plane.origin, path.mean(0))
    found = project(plane, path)
    np.testing.assert_allclose(found.coordinates.sum(axis=0), 0, atol=1e-12)
    total = float((path - path.mean(0)).square().sum())
    held = 1 - np.sum(found.residuals**2) / total  # the definition of a share of variance
    assert held == pytest.approx(sum(plane.settings["variance"]), abs=1e-6)


def test_tensors_that_stay_fixed_count_as_variance_that_is_not_held():
    objective = conv_objective(norm="eval")
    path = [objective.theta + 0.1 * step for step in normal(5, objective.space.size, seed=3)]
    plane = pca_plane(objective, path, ignore=("bias", "norm"))
    still = [
        part.any()
        for part, role in zip(
            objective.space.unflatten(plane.basis.abs().sum(0)).values(),
            objective.space.roles,
            strict=True,
        )
        if role != "weight"
    ]
    assert still and not any(still)
    moving = torch.cat(
        [
            torch.full((size,), float(role == "weight"))
            for size, role in zip(objective.space.sizes, objective.space.roles, strict=True)
        ]
    )
    x = torch.stack(path) - torch.stack(path).mean(0)
    s = torch.linalg.svdvals(x * moving)
    np.testing.assert_allclose(plane.settings["variance"], s[:2] ** 2 / x.square().sum(), rtol=1e-5)
    assert "less than 80%" in plane.settings["cautions"][0]


def test_float32_checkpoints_are_centred_in_float64():
    exact = walk(size=300)
    shifted = exact.float() + 100
    plane = pca_plane(bowl(300, torch.float32), list(shifted), scale="unit")
    _, v, _ = components(shifted.double())
    assert plane.basis.dtype == torch.float32
    np.testing.assert_allclose(np.abs(plane.basis.double().numpy() @ v[:2].T), np.eye(2), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (walk(2), "2 checkpoints given"),
        (torch.ones(4, 30), "all checkpoints are equal"),
        (torch.outer(torch.arange(4.0), torch.ones(30)), "lie on one line"),
        (torch.randn(1, 30) + torch.outer(torch.rand(5), torch.randn(30)), "lie on one line"),
        (walk(4, 29), r"checkpoint 0 has shape \(29,\)"),
        (walk(4) * torch.tensor([1, 1, math.inf, 1])[:, None], "checkpoint 2 is not finite"),
    ],
)
def test_paths_without_a_plane(path, text):
    with pytest.raises(ValueError, match=text):
        pca_plane(bowl(30), path)


def test_unknown_options():
    for options, text in (
        ({"origin": "first"}, "origin is 'first'"),
        ({"scale": "big"}, "scale is 'big'"),
        ({"ignore": "heads"}, "unknown role"),
    ):
        with pytest.raises(ValueError, match=text):
            pca_plane(bowl(30), walk(), **options)


def oblique(seed: int = 0, cosine: float = 0.8) -> Plane:
    """Directions of very different length at an angle."""
    x, y = torch.linalg.qr(normal(12, 2, seed=seed))[0].T
    second = cosine * x + math.sqrt(1 - cosine**2) * y
    return Plane(normal(12, seed=seed + 1), torch.stack([1e3 * x, 1e-2 * second]))


def test_projection_against_an_independent_least_squares():
    plane, thetas = oblique(), normal(5, 12, seed=7)
    found = project(plane, thetas)
    for theta, at, residual, share in zip(
        thetas, found.coordinates, found.residuals, found.shares, strict=True
    ):
        delta = (theta - plane.origin).numpy()
        exact, *_ = np.linalg.lstsq(plane.basis.numpy().T, delta, rcond=None)
        np.testing.assert_allclose(at, exact, rtol=1e-9)
        off = np.linalg.norm(delta - exact @ plane.basis.numpy())
        assert residual == pytest.approx(off)
        assert share == pytest.approx(off / np.linalg.norm(delta))
    assert "cosine 0.80" in found.note
    assert project(oblique(cosine=0.05), thetas).note == ""


def test_directions_that_are_not_unit_and_not_orthogonal():
    # The known mistake divides by the norm of a direction and not by its square, and takes each alone.
    plane = Plane(torch.zeros(3), torch.tensor([[3.0, 0, 0], [2.0, 2.0, 0]]))
    found = project(plane, [plane.point(2.0, -1.0) + torch.tensor([0, 0, 5.0])])
    np.testing.assert_allclose(found.coordinates, [[2.0, -1.0]], rtol=1e-6)
    np.testing.assert_allclose(found.residuals, [5.0])


def test_projection_leaves_plane_and_points_alone():
    plane, thetas = oblique(), normal(2, 12)
    before = plane.origin.clone(), plane.basis.clone(), thetas.clone()
    project(plane, thetas)
    assert all(
        torch.equal(a, b) for a, b in zip((plane.origin, plane.basis, thetas), before, strict=True)
    )


def test_a_line_has_one_coordinate():
    line = Plane(torch.zeros(2), torch.tensor([[2.0, 0.0]]))
    found = project(line, [torch.tensor([3.0, 4.0]), torch.zeros(2)])
    np.testing.assert_allclose(found.coordinates, [[1.5], [0.0]])
    np.testing.assert_allclose(found.shares, [0.8, 0.0])
    assert math.isnan(found.cosine)


def test_planes_and_points_that_cannot_be_used():
    near = Plane(torch.zeros(3), torch.tensor([[1.0, 0, 0], [1.0, 0.01, 0]]))
    with pytest.raises(ValueError, match="nearly parallel"):
        project(near, [])
    opposite = Plane(torch.zeros(3), torch.tensor([[1.0, 0, 0], [-1.0, 0.01, 0]]))
    with pytest.raises(ValueError, match="nearly parallel"):
        project(opposite, [])
    with pytest.raises(ValueError, match="is zero"):
        project(Plane(torch.zeros(3), torch.tensor([[1.0, 0, 0], [0, 0, 0]])), [])
    with pytest.raises(ValueError, match=r"point 1 has shape \(2,\)"):
        project(oblique(), [torch.zeros(12), torch.zeros(2)])
    with pytest.raises(ValueError, match="point 0 is not finite"):
        project(oblique(), [torch.full((12,), math.nan)])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(-0.95, 0.95),
    st.floats(0.01, 100),
    st.floats(-3, 3),
)
def test_what_a_projection_does_not_depend_on(seed, cosine, factor, away):
    """Not on steps off the plane, and on the length of a direction only through its unit."""
    plane = oblique(seed, cosine)
    theta = normal(12, seed=seed + 2)
    at = project(plane, [theta]).coordinates[0]
    normal_to = normal(12, seed=seed + 3)
    span = torch.linalg.qr(plane.basis.T)[0]
    normal_to -= span @ (span.T @ normal_to)
    moved = project(plane, [theta + away * normal_to]).coordinates[0]
    np.testing.assert_allclose(moved, at, rtol=1e-6, atol=1e-6 * np.abs(at).max())
    longer = Plane(plane.origin, plane.basis * torch.tensor([[factor], [1.0]]))
    scaled = project(longer, [theta]).coordinates[0]
    np.testing.assert_allclose(scaled * [factor, 1], at, rtol=1e-6, atol=1e-6 * np.abs(at).max())
    foot = plane.point(*at)
    again = project(plane, [foot])
    np.testing.assert_allclose(again.coordinates[0], at, rtol=1e-6, atol=1e-6 * np.abs(at).max())
    assert again.residuals[0] <= 1e-9 * float((foot - plane.origin).norm())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6),
    st.integers(3, 60),
)
def test_a_window_holds_the_path_with_the_origin_on_its_grid(places, points):
    at = np.array(places)
    if np.ptp(np.append(at, 0)) < 1e-6:
        return
    low, high = window(at, points, margin=0.1)
    room = 0.1 * np.ptp(np.append(at, 0))
    assert low <= min(at.min(), 0) - 0.999 * room and high >= max(at.max(), 0) + 0.999 * room
    assert 0.0 in np.linspace(low, high, points)
    if points >= 20:
        assert high - low < 1.6 * (np.ptp(np.append(at, 0)) + 2 * room)


def test_windows_that_cannot_be():
    with pytest.raises(ValueError, match="points is 2"):
        window(np.ones((2, 2)), 2)
    with pytest.raises(ValueError, match="no extent"):
        window(np.zeros((2, 2)), 5)


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
