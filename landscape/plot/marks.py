"""What is drawn over a surface beside the loss: named points, a path, the quadratic model at the centre."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from landscape.plot.sheet import Panel

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Mark:
    """A named point of the plane; ``loss`` is NaN where only the surface knows it."""

    label: str
    alpha: float
    beta: float
    loss: float


@dataclass(frozen=True)
class Path:
    """A curve over the plane, with the loss at its points (NaN where only the surface knows it)."""

    label: str
    alpha: Array
    beta: Array
    loss: Array


@dataclass(frozen=True)
class Quadratic:
    """``loss + slope a + curvature a² / 2`` along each axis, from derivatives at the centre."""

    loss: float
    slope: tuple[float, ...]
    curvature: tuple[float, ...]

    def along(self, steps: Array, axis: int = 0) -> Array:
        """The model at ``steps`` along one axis.

        >>> Quadratic(1.0, (2.0,), (4.0,)).along(np.array([0.0, 1.0], np.float32)).tolist()
        [1.0, 5.0]
        """
        a = np.asarray(steps, np.float64)
        model = self.loss + self.slope[axis] * a + self.curvature[axis] * a * a / 2
        return np.asarray(model, np.float32)


def marks_of(attrs: Mapping[str, Any]) -> tuple[Mark, ...]:
    """The named points that a surface's attributes carry."""
    return tuple(
        Mark(str(m["label"]), float(m["alpha"]), float(m.get("beta", 0.0)), _number(m.get("loss")))
        for m in _json(attrs.get("marks"), [])
    )


def path_of(attrs: Mapping[str, Any]) -> Path | None:
    """The curve that a surface's attributes carry."""
    found = _json(attrs.get("path"), None)
    if not found:
        return None
    alpha, beta = (np.asarray(found[name], np.float32) for name in ("alpha", "beta"))
    loss = found.get("loss") or [None] * len(alpha)
    heights = np.asarray([_number(v) for v in loss], np.float32)
    return Path(str(found.get("label", "")), alpha, beta, heights)


def quadratic_of(attrs: Mapping[str, Any]) -> Quadratic | None:
    """The quadratic model that a surface's attributes carry."""
    found = _json(attrs.get("quadratic"), None)
    if not found:
        return None
    slope, curvature = (tuple(map(float, found[name])) for name in ("slope", "curvature"))
    return Quadratic(float(found["loss"]), slope, curvature)


def heights(panel: Panel, alpha: Any, beta: Any, loss: Any) -> Array:
    """Where points over a plane lie: at their own loss, or on the surface where that is not known."""
    known = np.asarray(loss, np.float32)
    return np.where(np.isfinite(known), known, _on_surface(panel, alpha, beta)).astype(np.float32)


def _on_surface(panel: Panel, alpha: Any, beta: Any) -> Array:
    """Bilinear interpolation; NaN outside the grid."""
    assert panel.beta is not None
    columns, a = _cell(panel.alpha, np.asarray(alpha, np.float64))
    rows, b = _cell(panel.beta, np.asarray(beta, np.float64))
    z = panel.loss
    low = z[rows, columns] * (1 - a) + z[rows, columns + 1] * a
    high = z[rows + 1, columns] * (1 - a) + z[rows + 1, columns + 1] * a
    inside = (a >= -1e-6) & (a <= 1 + 1e-6) & (b >= -1e-6) & (b <= 1 + 1e-6)
    return np.where(inside, low * (1 - b) + high * b, math.nan).astype(np.float32)


def _cell(grid: Array, values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    at = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    return at, (values - grid[at]) / (grid[at + 1] - grid[at])


def lines_at(panels: Sequence[Panel]) -> list[tuple[float, str]]:
    """Where the named points of several lines stand, each once."""
    return list(dict.fromkeys((m.alpha, m.label) for p in panels for m in p.marks))


def _json(value: Any, default: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value else default


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
