"""A surface as triangles: an open sheet, or a solid with a flat base."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from landscape.exchange.files import Array, values


@dataclass(frozen=True)
class Relief:
    """Heights over a grid, between 0 and 1.

    Attributes:
        x: positions of the columns, ``(columns,)``, ascending from 0; the longest side is 1.
        y: positions of the rows, ``(rows,)``, in the same unit.
        heights: ``(rows, columns)``; 0 is the lowest loss, 1 the highest, NaN a hole.
        low: the loss (or its log10) at height 0.
        high: the same at height 1.
        log: whether heights are those of log10 of the loss.
        notes: what was clipped, in sentences.
    """

    x: Array
    y: Array
    heights: Array
    low: float
    high: float
    log: bool
    notes: tuple[str, ...]

    @property
    def holes(self) -> int:
        """How many points have no height."""
        return int(np.isnan(self.heights).sum())


def relief(
    surface: xr.Dataset, size: float, height: float, log: bool, clip: float | None
) -> Relief:
    """The heights that a mesh is made of.

    Losses that are NaN or infinite are holes. With ``clip`` they are drawn at ``clip`` where the point was
    computed, and so is every loss above it: a loss that overflowed is higher than any. Points that were not
    computed stay holes.

    Args:
        surface: over a plane.
        size: longest side, positive.
        height: of the relief, positive.
        log: heights are log10 of the loss.
        clip: the highest loss drawn.

    Raises:
        ValueError: a line, axes that do not ascend, nothing finite, a loss that is not positive with
            ``log``, or a size, height or clip that is no usable number.

    >>> bowl = xr.Dataset({"loss": (("beta", "alpha"), [[2.0, 1.0], [1.0, 0.0]])},
    ...                   {"alpha": [0.0, 1.0], "beta": [0.0, 1.0]})
    >>> relief(bowl, 100.0, 40.0, False, 1.5).heights.round(3).tolist()
    [[1.0, 0.667], [0.667, 0.0]]
    """
    for name, given in (("size", size), ("height", height)):
        positive(name, given)
    if set(surface["loss"].dims) != {"alpha", "beta"}:
        raise ValueError(
            "a line has one axis and no mesh: expected a surface over alpha and beta (use .csv or .json)"
        )
    x, y = (np.asarray(surface[name].values, np.float64) for name in ("alpha", "beta"))
    for name, axis in (("alpha", x), ("beta", y)):
        if len(axis) < 2 or not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
            raise ValueError(f"{name} does not ascend over two points or more: no mesh of it")
    loss, notes = _clipped(surface, values(surface, "loss").astype(np.float64), clip)
    known = loss[np.isfinite(loss)]
    if not known.size:
        raise ValueError("no finite loss: there is nothing to draw")
    if log and known.min() <= 0:
        raise ValueError(
            f"log needs positive losses, the smallest is {known.min():g}: leave log out"
        )
    placed = np.log10(loss) if log else loss
    low, high = (float(f(placed[np.isfinite(placed)])) for f in (np.min, np.max))
    scale = max(np.ptp(x), np.ptp(y))
    heights = (placed - low) / (high - low) if high > low else placed * 0.0
    return Relief((x - x[0]) / scale, (y - y[0]) / scale, heights, low, high, log, notes)


def _clipped(surface: xr.Dataset, loss: Array, clip: float | None) -> tuple[Array, tuple[str, ...]]:
    finite = np.isfinite(loss)
    if clip is None:
        return np.where(finite, loss, np.nan), ()
    if not math.isfinite(clip):
        raise ValueError(f"clip is {clip}: expected a finite loss")
    computed = values(surface, "evaluated") != 0 if "evaluated" in surface else np.ones_like(finite)
    above, lost = finite & (loss > clip), computed & ~finite
    cut = np.where(above | lost, clip, np.where(finite, loss, np.nan))
    if not (cut[finite] < clip).any():
        lowest = f"the lowest is {loss[finite].min():g}" if finite.any() else "none is finite"
        raise ValueError(f"clip is {clip:g}, but no loss lies below it: {lowest}")
    told = [
        f"{count} of {loss.size} losses {words}, drawn at {clip:g}"
        for count, words in ((int(above.sum()), f"above {clip:g}"), (int(lost.sum()), "not finite"))
        if count
    ]
    return cut, tuple(told)


def positive(name: str, value: float) -> None:
    """ValueError unless ``value`` is a positive number."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}: expected a positive number")


def sheet(relief: Relief) -> Array:
    """Triangles ``(triangles, 3)`` over the grid, counterclockwise from above.

    Indices are ``row * columns + column``. Each cell is cut along the diagonal whose ends
    differ less in height; what touches a hole is left out.
    """
    index = np.arange(relief.heights.size).reshape(relief.heights.shape)
    corners = (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, 1:], np.s_[1:, :-1])
    a, b, c, d = (index[corner].ravel() for corner in corners)
    flat = relief.heights.ravel()
    one, other = (np.nan_to_num(np.abs(flat[p] - flat[q]), nan=np.inf) for p, q in ((a, c), (b, d)))
    along = (one <= other)[:, None]
    first = np.where(along, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(along, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    triangles = np.stack([first, second], 1).reshape(-1, 3)
    whole: Array = triangles[np.isfinite(flat[triangles]).all(axis=1)]
    return whole


def solid(relief: Relief, size: float, height: float, base: float) -> tuple[Array, Array]:
    """The volume between the relief and a flat bottom: vertices ``(n, 3)`` and triangles ``(m, 3)``.

    Every edge belongs to two triangles that run along it in opposite directions, and all normals point
    outwards. The bottom is at 0, the lowest loss at ``base``, the highest at ``base + height``.

    Raises:
        ValueError: the relief has holes.
    """
    if relief.holes:
        raise ValueError(
            f"{relief.holes} of {relief.heights.size} points have no finite loss, and a solid has no holes: "
            "compute the missing ones; for losses that are NaN or infinite give a clip"
        )
    rows, columns = relief.heights.shape
    x, y = np.meshgrid(relief.x * size, relief.y * size)
    top = np.stack([x, y, base + height * relief.heights], -1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    rim = np.concatenate(
        [index[0, :-1], index[:-1, -1], index[-1, :0:-1], index[:0:-1, 0]]
    )  # counterclockwise from above
    floor = top[rim] * [1.0, 1.0, 0.0]
    middle = np.array([[relief.x[-1] * size / 2, relief.y[-1] * size / 2, 0.0]])
    here = np.arange(len(rim))
    there = np.roll(here, -1)
    p, q, p0, q0 = rim, rim[there], len(top) + here, len(top) + there
    centre = np.full_like(here, len(top) + len(rim))
    triangles = [
        sheet(relief),
        np.stack([p0, q0, q], 1),
        np.stack([p0, q, p], 1),
        np.stack([q0, p0, centre], 1),
    ]
    return np.concatenate([top, floor, middle]), np.concatenate(triangles)
