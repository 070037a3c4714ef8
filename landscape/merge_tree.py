"""Which basins of a grid of values meet where: a union-find over sub-level sets, in NumPy and lists."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """The life of one component of the sub-level sets ``{value <= level}``, as the level rises.

    Attributes:
        minimum: flat index of its lowest cell, where it is born.
        saddle: flat index of the cell at which it meets an older one; None for one that never does.
        into: ``minimum`` of that older component; None likewise.
        cells: how many cells it has when it meets the older one.
    """

    minimum: int
    saddle: int | None
    into: int | None
    cells: int


def merge_tree(values: Array, connectivity: int) -> list[Branch]:
    """Branches of the merge tree of a grid, by the elder rule.

    The filtration is the lower star's: a cell enters at its own value, and an edge between neighbours with
    the later of both. Where components meet, the one with the lowest minimum lives on. Cells of equal
    value enter in the order of their index; a component that dies at the level of its birth is left out.

    Args:
        values: of any number of dimensions; cells that are not finite are absent.
        connectivity: 4, neighbours along the axes, or 8, diagonal ones too (in a plane; on a line both
            are the two neighbours).

    Returns:
        In the order in which they die; last those that never do, lowest first. A component that lives on
        because gaps part it from all others is among these.

    >>> merge_tree(np.array([3.0, 0.0, 2.0, 1.0, 5.0]), 4)
    [Branch(minimum=3, saddle=2, into=1, cells=1), Branch(minimum=1, saddle=None, into=None, cells=5)]
    """
    padded = np.pad(values, 1, constant_values=np.nan)
    steps = _steps(padded.shape, connectivity)
    flat = padded.ravel()
    present = np.flatnonzero(np.isfinite(flat))
    order = present[np.argsort(flat[present], kind="stable")]
    inner = np.full(flat.size, -1)  # index in the padded grid -> index in the grid that was given
    inner[np.arange(flat.size).reshape(padded.shape)[(slice(1, -1),) * values.ndim].ravel()] = (
        range(values.size)
    )
    parent = [-1] * flat.size
    rank, cells = [0] * flat.size, [0] * flat.size
    heights = flat.tolist()
    living: dict[int, None] = {}
    branches: list[Branch] = []
    for age, cell in enumerate(order.tolist()):
        roots = {_root(parent, cell + step) for step in steps if parent[cell + step] >= 0}
        if not roots:
            parent[cell], rank[cell], cells[cell] = cell, age, 1
            living[cell] = None
            continue
        eldest = min(roots, key=rank.__getitem__)
        parent[cell] = eldest
        for root in sorted(roots - {eldest}, key=rank.__getitem__, reverse=True):
            if heights[root] < heights[cell]:
                branches.append(
                    Branch(int(inner[root]), int(inner[cell]), int(inner[eldest]), cells[root])
                )
            parent[root] = eldest
            cells[eldest] += cells[root]
            del living[root]
        cells[eldest] += 1
    return branches + [Branch(int(inner[root]), None, None, cells[root]) for root in living]


def beside_gaps(values: Array, connectivity: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells on the boundary of the grid, and cells next to an absent one; of the shape of ``values``."""
    inside = np.pad(np.zeros(values.shape, bool), 1, constant_values=True)
    absent = np.pad(~np.isfinite(values), 1, constant_values=False)
    return _beside(inside, 4), _beside(absent, connectivity)


def _beside(marked: NDArray[np.bool_], connectivity: int) -> NDArray[np.bool_]:
    flat = marked.ravel()
    found = np.zeros(flat.size, bool)
    for step in _steps(marked.shape, connectivity):
        found |= np.roll(flat, -step)
    return found.reshape(marked.shape)[(slice(1, -1),) * marked.ndim]


def _steps(shape: tuple[int, ...], connectivity: int) -> list[int]:
    """Flat distances to the neighbours of a cell in a grid of this shape."""
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    ways = (way for way in itertools.product((-1, 0, 1), repeat=len(shape)) if any(way))
    if connectivity == 4:
        ways = (way for way in ways if sum(map(abs, way)) == 1)
    return [sum(w * s for w, s in zip(way, strides, strict=True)) for way in ways]


def _root(parent: list[int], cell: int) -> int:
    while parent[cell] != cell:
        parent[cell] = parent[parent[cell]]  # halves the path
        cell = parent[cell]
    return cell
