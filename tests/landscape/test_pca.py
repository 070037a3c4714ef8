"""Planes through a path of checkpoints: exact principal components."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import conv_objective, normal

from landscape.objective import FunctionObjective
from landscape.pca import pca_plane
from landscape.projection import project

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
