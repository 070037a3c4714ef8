"""The quadratic model of a loss along the axes of a plane, and whether the surface agrees with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from landscape.directions import Plane
from landscape.objective import Objective
from landscape.store import json_text

_AXES = ("alpha", "beta")
_SECOND = np.array([-1.0, 16.0, -30.0, 16.0, -1.0]) / 12
_FIRST = np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12
_DIGITS = 2e-6  # losses of float32 networks are known to about this share
_TOLERANCE = 0.01


@dataclass(frozen=True)
class QuadraticModel:
    """``L(a) ≈ loss + slope a + curvature a² / 2`` along each axis, by derivatives at the origin.

    Attributes:
        loss: the loss at the origin.
        slope: ``g·d`` for every axis.
        curvature: ``dᵀHd`` for every axis.
        mixed: ``d₁ᵀHd₂`` of a plane; NaN on a line, and where only derivatives along the axes are known.
    """

    loss: float
    slope: tuple[float, ...]
    curvature: tuple[float, ...]
    mixed: float = math.nan

    def attached(self, surface: xr.Dataset) -> xr.Dataset:
        """The surface with this model and its :meth:`agreement`, which figures then draw."""
        found = asdict(self) | {
            "mixed": None if math.isnan(self.mixed) else self.mixed,
            "agreement": [asdict(a) for a in self.agreement(surface)],
        }
        return surface.assign_attrs(quadratic=json_text(found))

    def agreement(self, surface: xr.Dataset) -> list[Agreement]:
        """The same derivatives from differences of the surface at its centre, one entry an axis.

        Empty where the centre and two neighbours on either side are not on the grid or not evaluated. Differences
        over five points err by the sixth derivative times the fourth power of the step; how far they are from
        those over three points bounds that where the grid is fine enough.
        """
        found = []
        names = [name for name in _AXES if name in surface["loss"].dims]
        for name, slope, curvature in zip(names, self.slope, self.curvature, strict=True):
            cut = cross_section(surface, name)
            middle = _nearest_zero(np.asarray(cut[name].values, np.float64))
            if middle is None or not 1 < middle < cut.sizes[name] - 2:
                continue
            step = float(cut[name].values[middle + 1] - cut[name].values[middle])
            known = np.asarray(cut["evaluated"].values) if "evaluated" in cut else None
            if known is not None and not known[middle - 2 : middle + 3].all():
                continue
            near = np.asarray(cut["loss"].values, np.float64)[middle - 2 : middle + 3]
            three = (near[1] - 2 * near[2] + near[3]) / step**2
            five = float(near @ _SECOND) / step**2
            rounding = _DIGITS * float(np.abs(near).max()) / step**2
            found.append(
                Agreement(
                    axis=name,
                    curvature=curvature,
                    difference=five,
                    uncertainty=max(abs(five - float(three)), rounding),
                    slope=slope,
                    slope_difference=float(near @ _FIRST) / step,
                    step=step,
                )
            )
        return found


@dataclass(frozen=True)
class Agreement:
    """Derivatives along one axis: exact, and from differences of the surface.

    Attributes:
        axis: ``"alpha"`` or ``"beta"``.
        curvature: ``dᵀHd``.
        difference: the second difference of the surface over five points.
        uncertainty: what that may be off: its distance from the difference over three points, or rounding.
        slope: ``g·d``.
        slope_difference: the first difference over five points.
        step: distance between two points.
    """

    axis: str
    curvature: float
    difference: float
    uncertainty: float
    slope: float
    slope_difference: float
    step: float

    @property
    def agrees(self) -> bool:
        """Whether the two curvatures differ by no more than the differences may be off, or by 1 %."""
        apart = abs(self.curvature - self.difference)
        scale = max(abs(self.curvature), abs(self.difference))
        return apart <= max(self.uncertainty, _TOLERANCE * scale)

    def text(self) -> str:
        """The comparison in words."""
        words = (
            f"along {self.axis}: curvature {self.curvature:.4g} by derivatives, {self.difference:.4g} ± "
            f"{self.uncertainty:.1g} by differences of the surface"
        )
        return words if self.agrees else f"{words}: they disagree; a kink at the centre, or a fault"


def quadratic_model(objective: Objective, plane: Plane) -> QuadraticModel:
    """Slopes and curvatures of the loss along the axes of a plane at its origin.

    One gradient and one Hessian-vector product an axis.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] + 3 * t[0] ** 2 + t[1] ** 2, torch.zeros(2))
    >>> found = quadratic_model(bowl, Plane(torch.zeros(2), torch.eye(2)))
    >>> found.slope, found.curvature, found.mixed
    ((1.0, 0.0), (6.0, 2.0), 0.0)
    """
    gradient = objective.gradient(plane.origin).double()
    products = [objective.hvp(plane.origin, row).double() for row in plane.basis]
    rows = plane.basis.double()
    return QuadraticModel(
        loss=float(objective.value(plane.origin)),
        slope=tuple(float(gradient @ row) for row in rows),
        curvature=tuple(float(p @ row) for p, row in zip(products, rows, strict=True)),
        mixed=float(products[0] @ rows[1]) if plane.axes == 2 else math.nan,
    )


def quadratic_from_slopes(surface: xr.Dataset) -> QuadraticModel:
    """The model from a surface that was evaluated with ``slopes=True``, at no further cost.

    Raises:
        ValueError: it was evaluated without, or its centre is not on the grid or not evaluated.
    """
    names = [name for name in _AXES if name in surface["loss"].dims]
    if f"curvature_{names[0]}" not in surface:
        raise ValueError("the surface has no slopes: evaluate it with slopes=True")
    centre = {name: _nearest_zero(np.asarray(surface[name].values)) for name in names}
    missing = [name for name, index in centre.items() if index is None]
    if missing:
        raise ValueError(f"{missing[0]} = 0 is not on the grid: use an odd number of points")
    at: Mapping[Any, Any] = centre
    point = surface.isel(at)
    if "evaluated" in point and not int(point["evaluated"]):
        raise ValueError("the centre of the surface is not evaluated yet")
    return QuadraticModel(
        loss=float(point["loss"]),
        slope=tuple(float(point[f"slope_{name}"]) for name in names),
        curvature=tuple(float(point[f"curvature_{name}"]) for name in names),
    )


def cross_section(surface: xr.Dataset, name: str) -> xr.Dataset:
    """The surface along one axis through its centre; the line itself where it has one axis.

    Raises:
        ValueError: the centre is not on the grid.
    """
    others = [n for n in surface["loss"].dims if n != name]
    for other in others:
        index = _nearest_zero(np.asarray(surface[other].values, np.float64))
        if index is None:
            raise ValueError(f"{other} = 0 is not on the grid: use an odd number of points")
        surface = surface.isel({other: index})
    return surface


def _nearest_zero(values: np.ndarray[Any, Any]) -> int | None:
    near = np.flatnonzero(np.abs(values) <= 1e-12)
    return int(near[0]) if len(near) else None
