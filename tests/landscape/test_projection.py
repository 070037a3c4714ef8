"""Projections on a plane, and windows around them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import normal

from landscape.directions import Plane
from landscape.projection import project, window

F64 = torch.float64


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
