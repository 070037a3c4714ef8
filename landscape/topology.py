"""Minima, barriers and persistence of a saved surface, thresholded by its error bars.

Sub-level sets of the grid are followed as the level rises: a component is born at a minimum and dies at the
saddle where it meets one with a lower minimum (:mod:`landscape.merge_tree`). The height in between is the
minimum's persistence (Edelsbrunner, Letscher & Zomorodian 2002). A minimum counts only if its persistence is
more than the error of that difference explains.

Neighbours are 8 by default, diagonal ones too. Ravines of a loss rarely follow the axes of the figure, and
with 4 neighbours one that runs diagonally falls apart into a minimum at every grid point. For the surface
that a figure draws, linear along the grid's lines, 8 neighbours bound every barrier from below and 4 from
above: where both find the same minima, the grid is fine enough to tell.

Only the plane is looked at: a barrier in it can be passed outside of it, and a minimum in it is a minimum of
the loss in two directions of many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from landscape.merge_tree import Branch, beside_gaps, merge_tree
from landscape.pair_errors import PairErrors, pair_errors

Array = NDArray[np.float64]

SCHEMA = "landscape.topology/1"
"""Name and version of what :meth:`Topology.to_dataset` gives."""

_LEVELS = 33
_CARRIED = ("label", "group", "normalize", "ignore", "seed", "span", "points", "axes", "plane")


@dataclass(frozen=True)
class Minimum:
    """A local minimum of the grid, and the saddle at which its basin meets a deeper one.

    Attributes:
        number: place in :attr:`Topology.minima`.
        position: ``(alpha, beta)``, or ``(alpha,)`` on a line.
        loss: the loss there.
        saddle: position of the lowest pass to a deeper minimum; None where there is none.
        saddle_loss: the loss on that pass; infinite where there is none.
        into: number of the deeper minimum behind the pass; None where there is none.
        persistence: ``saddle_loss - loss``.
        stderr: standard error of ``persistence``; 0 where there is no pass.
        threshold: what ``persistence`` must exceed: ``z`` standard errors, errors of interpolation and
            rounding.
        significant: whether it does.
        on_boundary: the minimum lies on the window's edge: the loss may fall on outside.
        beside_gap: a neighbour is missing, NaN or infinite: the loss may fall on in there.
        cells: grid points of its basin below the pass.
    """

    number: int
    position: tuple[float, ...]
    loss: float
    saddle: tuple[float, ...] | None
    saddle_loss: float
    into: int | None
    persistence: float
    stderr: float
    threshold: float
    significant: bool
    on_boundary: bool
    beside_gap: bool
    cells: int


@dataclass(frozen=True)
class Topology:
    """Minima of a surface with the passes between them.

    Attributes:
        minima: by persistence, largest first; those without a pass come first, lowest loss first.
        passes: ``(n, n)``, the lowest level that joins each pair of the ``n`` significant minima, in
            their order; a minimum's own loss on the diagonal, infinite where gaps part them.
        levels: losses at which components were counted.
        components: components of ``{loss <= level}`` at each level.
        significant_components: the same, counting only significant minima.
        connectivity: 4 or 8 neighbours.
        z: standard errors that a persistence must exceed.
        errors: what the standard errors are made of.
        absent: points that are NaN or infinite.
        missing: points that are not evaluated yet; paths through them could lower every barrier.
        settings: attributes of the surface that a figure states.
    """

    minima: tuple[Minimum, ...]
    passes: Array
    levels: Array
    components: NDArray[np.int64]
    significant_components: NDArray[np.int64]
    connectivity: int
    z: float
    errors: str
    absent: int
    missing: int
    settings: dict[str, Any] = field(repr=False)

    @property
    def significant(self) -> tuple[Minimum, ...]:
        """The minima that stand out of the noise."""
        return tuple(m for m in self.minima if m.significant)

    @property
    def barriers(self) -> Array:
        """``(n, n)``: the climb from each significant minimum (row) to reach each other (column)."""
        return np.asarray(self.passes - np.diag(self.passes)[:, None], np.float64)

    def to_dataset(self) -> xr.Dataset:
        """All of it as arrays over ``minimum``, ``level`` and ``first`` × ``second``; see ``docs/topology.md``."""
        many = self.minima
        nowhere = (math.nan,) * len(many[0].position)
        data: dict[str, Any] = {}
        for axis, name in enumerate(("alpha", "beta")[: len(nowhere)]):
            data[name] = ("minimum", [m.position[axis] for m in many])
            data[f"saddle_{name}"] = ("minimum", [(m.saddle or nowhere)[axis] for m in many])
        for name in ("loss", "saddle_loss", "persistence", "stderr", "threshold", "cells"):
            data[name] = ("minimum", [getattr(m, name) for m in many])
        for name in ("significant", "on_boundary", "beside_gap"):
            data[name] = ("minimum", np.array([getattr(m, name) for m in many], np.int8))
        data["into"] = ("minimum", [-1 if m.into is None else m.into for m in many])
        data["passes"] = (("first", "second"), self.passes)
        data["components"] = ("level", self.components)
        data["significant_components"] = ("level", self.significant_components)
        names = [m.number for m in self.significant]
        coords = {"level": self.levels, "first": names, "second": names}
        told = ("connectivity", "z", "errors", "absent", "missing")
        attrs = {"schema": SCHEMA, **self.settings, **{name: getattr(self, name) for name in told}}
        return xr.Dataset(data, coords, attrs)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; infinities stay, as Python's ``json`` writes them."""
        arrays = ("passes", "levels", "components", "significant_components")
        plain = {name: getattr(self, name).tolist() for name in arrays}
        told = ("connectivity", "z", "errors", "absent", "missing")
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in told},
            "settings": self.settings,
            "minima": [asdict(m) for m in self.minima],
            **plain,
            "barriers": self.barriers.tolist(),
        }

    def to_json(self) -> str:
        """``to_dict`` as text."""
        return json.dumps(self.to_dict(), default=str)

    def doubts(self) -> list[str]:
        """What to distrust, one sentence each."""
        found = []
        if self.missing:
            found.append(
                f"{self.missing} points are not evaluated yet: every barrier is an upper bound"
            )
        if self.absent:
            found.append(
                f"{self.absent} points are NaN or infinite and taken as walls that no path crosses"
            )
        if self.minima[0].on_boundary:
            found.append("the lowest point lies on the edge of the window: make the span larger")
        for m in self.significant[1:]:
            where = "on the edge of the window" if m.on_boundary else "beside a gap"
            if m.on_boundary or m.beside_gap:
                found.append(f"minimum {m.number} lies {where}: it may be no minimum farther out")
        return found


def analyze(
    surface: xr.Dataset,
    level: float | Sequence[float] | None = None,
    *,
    connectivity: int = 8,
    z: float | None = None,
) -> Topology:
    """Minima of a surface, the passes between them, and which of both stand out of the noise.

    Args:
        surface: a plane or a line, complete or not (``docs/schema.md``).
        level: loss, or losses, at which components are counted; None: evenly from the lowest loss to the
            highest.
        connectivity: 8 neighbours, diagonal ones too, or 4.
        z: standard errors that a persistence must exceed. None: as many as keep 95 % confidence for all
            points of the grid together (Bonferroni; Student's t where the number of terms is known),
            because minima and saddles are picked out of all of them. This errs on the safe side: the
            largest persistence of pure noise rarely exceeds 2.5 standard errors (``docs/topology.md``).

    Raises:
        ValueError: no loss, nothing finite, another connectivity, or a negative ``z``.

    >>> x = np.linspace(-1.5, 1.5, 301)
    >>> found = analyze(xr.Dataset({"loss": ("alpha", (x**2 - 1) ** 2 + 0.1 * x)}, {"alpha": x}))
    >>> [round(m.position[0], 2) for m in found.significant], np.round(found.barriers, 3).tolist()
    ([-1.01, 0.99], [[0.0, 1.102], [0.902, 0.0]])
    """
    surface = _checked(surface, connectivity, z)
    loss = np.asarray(surface["loss"].values, np.float64)
    branches = merge_tree(loss, connectivity)
    errors = pair_errors(surface)
    z = errors.quantile(int(np.isfinite(loss).sum())) if z is None else float(z)
    minima = _minima(surface, branches, errors, z, connectivity)
    finite = loss[np.isfinite(loss)]
    levels = (
        np.linspace(finite.min(), finite.max(), _LEVELS)
        if level is None
        else np.atleast_1d(np.asarray(level, np.float64))
    )
    done = surface["evaluated"].values != 0 if "evaluated" in surface else np.ones(loss.shape, bool)
    if "interpolated" in surface:
        done = done | (surface["interpolated"].values != 0)
    return Topology(
        minima,
        _passes(branches, minima, loss.ravel(), surface),
        levels,
        _alive(minima, levels),
        _alive([m for m in minima if m.significant], levels),
        connectivity,
        z,
        errors.kind,
        int((done & ~np.isfinite(loss)).sum()),
        int((~done).sum()),
        {name: surface.attrs[name] for name in _CARRIED if name in surface.attrs},
    )


def _checked(surface: xr.Dataset, connectivity: int, z: float | None) -> xr.Dataset:
    """The surface with its dimensions in the order ``(beta, alpha)``."""
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity={connectivity!r}: expected 4 or 8 neighbours")
    if z is not None and not z >= 0:
        raise ValueError(f"z={z!r}: expected a number of standard errors, 0 or more")
    axes = set(surface["loss"].dims) if "loss" in surface else set()
    if axes not in ({"alpha"}, {"alpha", "beta"}):
        raise ValueError(
            f"expected a surface with loss over alpha, or over alpha and beta, got {sorted(map(str, axes))}"
        )
    if not np.isfinite(surface["loss"].values).any():
        raise ValueError("the surface has no finite loss: evaluate some of its points first")
    return surface.transpose(*(("beta", "alpha") if len(axes) == 2 else ("alpha",)), ...)


def _position(surface: xr.Dataset, cell: int) -> tuple[float, ...]:
    where = np.unravel_index(cell, surface["loss"].shape)
    dims = surface["loss"].dims
    return tuple(float(surface[d].values[i]) for d, i in zip(dims, where, strict=True))[::-1]


def _minima(
    surface: xr.Dataset, branches: list[Branch], errors: PairErrors, z: float, connectivity: int
) -> tuple[Minimum, ...]:
    loss = np.asarray(surface["loss"].values, np.float64)
    flat = loss.ravel()
    edge, gap = (marked.ravel() for marked in beside_gaps(loss, connectivity))

    def height(branch: Branch) -> float:
        return math.inf if branch.saddle is None else float(flat[branch.saddle])

    ordered = sorted(branches, key=lambda b: (float(flat[b.minimum]) - height(b), flat[b.minimum]))
    number = {b.minimum: i for i, b in enumerate(ordered)}
    found = []
    for i, b in enumerate(ordered):
        saddle = None if b.saddle is None else _position(surface, b.saddle)
        stderr = 0.0 if b.saddle is None else errors.stderr(b.minimum, b.saddle)
        bias = 0.0 if b.saddle is None else errors.bias(b.minimum, b.saddle)
        threshold = (z * stderr if stderr else 0.0) + bias
        persistence = height(b) - float(flat[b.minimum])
        found.append(
            Minimum(
                i,
                _position(surface, b.minimum),
                float(flat[b.minimum]),
                saddle,
                height(b),
                None if b.into is None else number[b.into],
                persistence,
                stderr,
                threshold,
                persistence > threshold,
                bool(edge[b.minimum]),
                bool(gap[b.minimum]),
                b.cells,
            )
        )
    return tuple(found)


def _passes(
    branches: list[Branch], minima: tuple[Minimum, ...], flat: Array, surface: xr.Dataset
) -> Array:
    """Minimax levels between significant minima: components join in the order of their saddles."""
    places = {_position(surface, b.minimum): b.minimum for b in branches}
    chosen = [places[m.position] for m in minima if m.significant]
    found = np.full((len(chosen), len(chosen)), np.inf)
    found[np.diag_indices(len(chosen))] = flat[chosen]
    members: dict[int, list[int]] = {b.minimum: [] for b in branches}
    members |= {cell: [i] for i, cell in enumerate(chosen)}
    for b in branches:
        if b.saddle is None or b.into is None:
            continue
        ours, theirs = members[b.minimum], members[b.into]
        for i in ours:
            found[i, theirs] = found[theirs, i] = flat[b.saddle]
        theirs += ours
    return found


def _alive(minima: Sequence[Minimum], levels: Array) -> NDArray[np.int64]:
    births = np.array([m.loss for m in minima])
    deaths = np.array([m.saddle_loss for m in minima])
    alive = (births <= levels[:, None]) & (deaths > levels[:, None])
    return np.asarray(alive.sum(1), np.int64)
