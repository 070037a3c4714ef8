"""Where points lie over a plane, and how far off it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landscape.device import one_thread
from landscape.directions import Plane

PARALLEL = 0.999
"""Cosine of two directions above which coordinates along them mean nothing."""

OBLIQUE = 0.1
"""Cosine above which a result says that shapes in the plane are sheared."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Points over a plane; see :func:`project`.

    Attributes:
        coordinates: ``(points, axes)`` float64, in units of the directions.
        residuals: ``(points,)``, distance of each point from its foot in the plane.
        shares: ``(points,)``, that over the distance from the origin: 0 in the plane, 1 where the plane
            holds nothing of it; 0 for the origin itself.
        cosine: of the angle between the directions; NaN for a line.
        note: what to mind; empty where the directions are (nearly) orthogonal.
    """

    coordinates: NDArray[np.float64]
    residuals: NDArray[np.float64]
    shares: NDArray[np.float64]
    cosine: float
    note: str = ""


@one_thread()
def project(plane: Plane, thetas: Iterable[Tensor]) -> Projection:
    """Orthogonal projection of points onto a plane whose directions need be neither unit nor orthogonal.

    The coordinates ``(a, b)`` minimize ``‖θ - origin - a dx - b dy‖``: the solution of the 2 x 2 Gram
    system ``[⟨dx,dx⟩ ⟨dx,dy⟩; ⟨dx,dy⟩ ⟨dy,dy⟩] (a, b) = (⟨δ,dx⟩, ⟨δ,dy⟩)``, in float64. Dividing
    ``⟨δ,dx⟩`` by ``‖dx‖`` instead is right for unit, orthogonal directions alone.

    Args:
        plane: a plane or a line.
        thetas: points ``(params,)`` each, or ``(points, params)``; one is in memory as float64 at a time.

    Raises:
        ValueError: a point of another shape or that is not finite, a direction that is zero, or
            directions that are nearly parallel (``|cos| > 0.999``).

    >>> import torch
    >>> plane = Plane(torch.zeros(3), torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    >>> found = project(plane, [torch.tensor([5.0, 3.0, 4.0])])  # 1 * dx + 3 * dy, and 4 above it
    >>> found.coordinates.round(9).tolist(), found.residuals.round(9).tolist()
    ([[1.0, 3.0]], [4.0])
    """
    origin = plane.origin.double()
    lengths = plane.basis.double().norm(dim=1)
    if not (lengths > 0).all():
        raise ValueError("a direction of the plane is zero: nothing can be measured along it")
    basis = plane.basis.double() / lengths[:, None]
    cosine = float(basis[0] @ basis[1]) if plane.axes == 2 else math.nan
    if abs(cosine) > PARALLEL:
        raise ValueError(
            f"the directions are nearly parallel (cosine {cosine:.6f}): coordinates along them mean "
            "nothing; use other directions"
        )
    places, residuals, shares = [], [], []
    for k, theta in enumerate(thetas):
        if theta.shape != origin.shape:
            raise ValueError(
                f"point {k} has shape {tuple(theta.shape)}, expected {tuple(origin.shape)}"
            )
        step = theta.detach().to(origin) - origin
        distance = float(step.norm())
        if not math.isfinite(distance):
            raise ValueError(f"point {k} is not finite: it lies nowhere over the plane")
        onto = basis @ step
        if plane.axes == 2:  # the Gram system of unit directions, solved by hand
            onto = (onto - cosine * onto.flip(0)) / (1 - cosine**2)
        residual = float((step - onto @ basis).norm())
        places.append((onto / lengths).tolist())
        residuals.append(residual)
        shares.append(min(residual / distance, 1.0) if distance else 0.0)
    note = ""
    if abs(cosine) > OBLIQUE:
        note = f"the directions are not orthogonal (cosine {cosine:.2f}), so shapes are sheared"
    coordinates = np.array(places, np.float64).reshape(-1, plane.axes)
    return Projection(coordinates, np.array(residuals), np.array(shares), cosine, note)


def window(
    coordinates: NDArray[np.float64], points: int, margin: float = 0.15
) -> tuple[float, float]:
    """Ends of a square grid that holds points and the origin, with the origin on the grid.

    Both axes of a surface have the same ends. The spacing is widened to one with few binary digits, so
    that the grid point at the origin is exactly 0.

    Args:
        coordinates: ``(points, axes)``, as in :class:`Projection`.
        points: of the grid on each axis, at least 3.
        margin: beyond the outermost points, as a share of their extent.

    Raises:
        ValueError: fewer than three points, or no extent.

    >>> low, high = window(np.array([[0.0, 0.0], [1.0, -0.25]]), points=11)
    >>> low <= -0.25 - 0.15 and high >= 1.15, 0.0 in np.linspace(low, high, 11)
    (True, True)
    """
    if points < 3:
        raise ValueError(f"points is {points}: expected at least 3 on each axis")
    low = min(0.0, float(np.min(coordinates)))
    high = max(0.0, float(np.max(coordinates)))
    room = margin * (high - low)
    if not (np.isfinite(room) and high > low):
        raise ValueError("the points have no extent: expected one that is not the origin")
    low, high = low - room, high + room
    below = np.arange(1, points - 1)
    spacings = np.maximum(-low / below, high / (points - 1 - below))
    best = int(np.argmin(spacings))
    fraction, exponent = math.frexp(float(spacings[best]))
    spacing = math.ldexp(math.ceil(fraction * 4096), exponent - 12)
    return -spacing * int(below[best]), spacing * int(points - 1 - below[best])
