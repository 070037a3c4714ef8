"""Which points of a surface are wanted, in which order, and what to make of them in the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import xarray as xr

from landscape import grid
from landscape.grid import Index
from landscape.refine import Refined, Refiner
from landscape.store import json_text


class Schedule(Protocol):
    """Rounds of points; what the surface has already is left out.

    Attributes:
        total: how many points will be asked for, at most.
    """

    total: int

    def __iter__(self) -> Iterator[list[Index]]:
        """The rounds; each may depend on the values of the ones before."""

    def ahead(self) -> list[Index]:
        """The points that are sure to be asked for, first ones first."""

    def finish(self) -> None:
        """Complete the surface when every round is done."""


class EveryPoint:
    """Every point of the grid, coarse to fine; of a shard ``(i, n)`` every n-th of them."""

    def __init__(self, surface: xr.Dataset, shard: tuple[int, int] | None = None) -> None:
        self._surface = surface
        points = grid.order(surface["loss"].shape)
        self._points = points if shard is None else points[shard[0] - 1 :: shard[1]]
        self.total = len(self._points)

    def ahead(self) -> list[Index]:
        """Those that are not evaluated yet."""
        done = self._surface["evaluated"].values
        return [index for index in self._points if not done[index]]

    def __iter__(self) -> Iterator[list[Index]]:
        """A single round: everything that is missing."""
        yield self.ahead()

    def finish(self) -> None:
        """Nothing is left to do."""


class Refining:
    """As many points as it takes to know the surface to a tolerance; the others are interpolated."""

    def __init__(
        self, surface: xr.Dataset, tolerance: float, basin_tolerance: float | None
    ) -> None:
        self._surface = surface
        shape = surface["loss"].shape
        self._refiner = Refiner(shape, tolerance, basin_tolerance)
        self.total = math.prod(shape)
        done = [tuple(int(i) for i in where) for where in np.argwhere(surface["evaluated"].values)]
        self._refiner.tell(done, [surface["loss"].values[index] for index in done])

    def ahead(self) -> list[Index]:
        """The next batch, with the grid's other points behind it: it is not known how many are needed."""
        first = self._refiner.ask()
        done = self._surface["evaluated"].values
        chosen = set(first)
        return first + [
            index for index in grid.order(done.shape) if index not in chosen and not done[index]
        ]

    def __iter__(self) -> Iterator[list[Index]]:
        """Batches where the error is greatest, and points held out to check it."""
        while batch := self._refiner.ask():
            yield batch
            self._refiner.tell(batch, [self._surface["loss"].values[index] for index in batch])

    def finish(self) -> None:
        """Fill in the interpolated losses and say how good they are."""
        found = self._refiner.result()
        dims = self._surface["loss"].dims
        missing = ~found.evaluated
        self._surface["loss"].values[missing] = found.values[missing]
        self._surface["loss_error"] = (dims, found.error)
        self._surface["interpolated"] = (dims, missing.astype(np.int8))
        self._surface.attrs["refinement"] = json_text(_record(found))


def _record(found: Refined) -> dict[str, float | int | str | None]:
    return {
        "outcome": found.outcome,
        "evaluations": int(found.evaluated.sum()),
        "achieved": found.achieved,
        "held_out": found.held_out,
        "held_out_max_error": found.held_out_max_error,
        "basin_achieved": found.basin_achieved,
        "basin_points": int(found.basin.sum()),
        "basin_held_out": found.basin_held_out,
        "basin_held_out_max_error": found.basin_held_out_max_error,
    }
