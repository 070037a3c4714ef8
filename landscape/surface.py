"""Evaluate an objective over a plane: a labelled Dataset with a written schema, resumable, saved atomically."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import grid
from landscape.choice import choose
from landscape.directions import Plane
from landscape.evaluator import Evaluator
from landscape.grid import Index, Span
from landscape.health import health_record
from landscape.holding import held
from landscape.objective import Objective
from landscape.parallel import Team
from landscape.resume import check_centre, continued
from landscape.schedule import EveryPoint, Refining, Schedule
from landscape.store import json_text, writable
from landscape.surface_file import SurfaceFile

_SAVE_EVERY = 10.0  # seconds between two saves of the whole
_ROUND_SECONDS = 0.2  # what a process that is killed may lose, if a point does not take longer
_MAX_ROUND = 256


def evaluate(
    objective: Objective,
    plane: Plane,
    span: Span = None,
    points: int = 51,
    out: str | os.PathLike[str] | None = None,
    label: str = "",
    progress: Callable[[int, int], None] | None = None,
    *,
    executor: str = "auto",
    tolerance: float | None = None,
    basin_tolerance: float | None = None,
    keep_terms: bool = False,
    slopes: bool = False,
    shard: tuple[int, int] | None = None,
    team: Team | None = None,
    observer: Callable[[xr.Dataset], None] | None = None,
) -> xr.Dataset:
    """Loss and metrics of ``objective`` on a regular grid over ``plane``.

    Points are evaluated coarse to fine. The objective and its model are never changed. Losses that are
    NaN or infinite are kept as they are; ``evaluated`` tells them from points that are still to come.

    Args:
        objective: the function.
        plane: one or two directions; two give a square grid.
        span: half-width of each axis in units of its direction, or a pair ``(low, high)``. Left out,
            it is 1; on an interpolation about a quarter of the points lie beyond either end, and both
            ends are on the grid.
        points: number of points on each axis, at least 2; an odd number puts one on the centre.
        out: file that makes the run resumable: saved whole about every ten seconds, at the end, and when the
            run is interrupted; in between each round of points (0.2 s, or one point) is kept in a
            journal beside it, so that a process that is killed loses no more than the round it was
            computing. A file of the same run is continued, a complete one returned.
        label: name of the subject, shown on figures.
        progress: called as ``progress(done, total)`` after each point.
        executor: how points are computed: ``"plain"``, ``"chunked"``, ``"fused"``, ``"vmap"``,
            ``"compile"``, ``"cudagraph"``, or ``"auto"``: the candidates are run on the first points, checked against
            ``plain``, and the fastest is taken. All agree to rounding, not to the bit; a resumed run keeps
            the one it began with. ``"repeatable"`` takes a fast one without asking the clock, for runs that
            must agree in every bit.
        tolerance: evaluate only as many points as it takes to know the whole surface to this share of its
            range, and interpolate the others (:mod:`landscape.refine`); 0.01 as a rule.
        basin_tolerance: with ``tolerance``, also a pointwise relative tolerance where the loss is low.
        keep_terms: also keep the terms of every mean (examples, or tasks of a meta objective), as the
            variable ``terms``.
        slopes: also compute the derivatives along each axis, first (``slope_alpha``, one gradient a
            point) and second (``curvature_alpha``, one Hessian product an axis).
        shard: ``(i, n)``, ``1 <= i <= n``: evaluate every n-th point only, for job arrays; put the files
            together with :func:`landscape.merge`. The executor must be named, or ``"repeatable"``.
        team: processes that share the work (:func:`landscape.parallel.join`).
        observer: called with the unfinished surface at every save.

    Returns:
        Dataset with dims ``(beta, alpha)``, or ``(alpha,)`` for a line; see ``docs/schema.md``.

    Raises:
        ValueError: a bad grid or option, a folder that does not exist, a file in ``out`` that is no
            surface, or one of another run (the first setting that differs is named).
        HeldError: another process computes the surface in ``out``; a ``ValueError`` too.
        WriteError: the disk refuses. What was kept before is kept, and the same call continues it.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2))
    >>> surface = evaluate(bowl, Plane(torch.zeros(2), torch.eye(2)), points=3)
    >>> surface["loss"].values.tolist()
    [[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]
    """
    team = team or Team()
    coordinates, ends = grid.axis(plane, span, points)
    surface = grid.blank(objective, plane, coordinates, ends, label)
    options = {
        "tolerance": tolerance,
        "basin_tolerance": basin_tolerance,
        "keep_terms": int(keep_terms) or None,
        "slopes": int(slopes) or None,
        "shard": None if shard is None else f"{shard[0]}/{shard[1]}",
    }
    surface.attrs |= {name: value for name, value in options.items() if value is not None}
    _check(objective, plane, executor, tolerance, basin_tolerance, shard)
    path = None if out is None else writable(out)
    with held(path if team.leads else None) as hold:
        file = None if path is None or hold is None else SurfaceFile(path, hold)
        if file is not None:
            file.recover()
        if path is not None and team.agree(path.exists()):
            surface = continued(path, surface)
        if "health" in surface.attrs:  # written last, when everything is there
            return surface
        run = _Run(objective, plane, surface, file, progress, observer, team, slopes, keep_terms)
        if tolerance is None:
            schedule: Schedule = EveryPoint(surface, shard)
        else:
            schedule = Refining(surface, tolerance, basin_tolerance)
        run.complete(schedule, executor, path)
    return surface


def _check(
    objective: Objective,
    plane: Plane,
    executor: str,
    tolerance: float | None,
    basin_tolerance: float | None,
    shard: tuple[int, int] | None,
) -> None:
    if basin_tolerance is not None and tolerance is None:
        raise ValueError(
            "basin_tolerance needs tolerance: both decide together where to add points"
        )
    if shard is not None:
        if not 1 <= shard[0] <= shard[1]:
            raise ValueError(f"shard is {shard}: expected (i, n) with 1 <= i <= n")
        if tolerance is not None:
            raise ValueError(
                "shards and tolerance do not go together: where to add points depends on all of them; "
                "use the ranks of torchrun, or leave tolerance out"
            )
        if executor == "auto":
            raise ValueError(
                "a shard must not choose its executor by the clock, or shards may differ: "
                "name one, or say executor='repeatable'"
            )
    if getattr(objective, "norm", None) == "interpolated" and not plane.buffers:
        raise ValueError(
            "norm='interpolated' needs a plane that carries statistics: "
            "interpolation(objective, a, b, buffers=(state_dict of a, state_dict of b))"
        )


class _Run:
    """One call of :func:`evaluate`: computes what a schedule asks for, stores it, keeps the file."""

    def __init__(
        self,
        objective: Objective,
        plane: Plane,
        surface: xr.Dataset,
        file: SurfaceFile | None,
        progress: Callable[[int, int], None] | None,
        observer: Callable[[xr.Dataset], None] | None,
        team: Team,
        slopes: bool,
        keep_terms: bool,
    ) -> None:
        self.objective, self.plane, self.surface, self.file = objective, plane, surface, file
        self.progress, self.observer, self.team = progress, observer, team
        self.slopes, self.keep_terms = slopes, keep_terms
        self.saved = time.monotonic()
        self.round = 1

    def complete(self, schedule: Schedule, executor: str, path: Path | None) -> None:
        """Do what the schedule asks for; whatever ends the run, the work done is kept."""
        check_centre(self.surface, float(self.objective.value(self.plane.origin)), path)
        evaluator = self._evaluator(executor, schedule, path)
        try:
            if self.file is not None:  # how it is computed must be known to whoever continues it
                self.file.save(self.surface)
            for wanted in schedule:
                self._evaluate(evaluator, wanted, schedule)
            schedule.finish()
            self.surface.attrs["health"] = json_text(
                health_record(self.surface, self.objective, self.plane)
            )
        finally:
            self._save()

    def _evaluator(self, executor: str, schedule: Schedule, path: Path | None) -> Evaluator:
        kept = self.surface.attrs.get("executor")
        if kept is not None and executor not in ("auto", "repeatable", kept):
            raise ValueError(
                f"{path} holds another surface: executor is {kept} there and {executor} here; "
                "give another out=, or delete the file"
            )
        name = self.team.agree(kept or executor)
        ahead = grid.place(self.surface, schedule.ahead())
        choice = choose(self.objective, self.plane, ahead, name) if self.team.leads else None
        name = self.team.agree(choice.evaluator.name if choice else name)
        if choice is None:  # the leader measured; the others take what it found
            choice = choose(self.objective, self.plane, ahead, name)
        self.surface.attrs["executor"] = name
        if choice.seconds:
            self.surface.attrs["executor_trial"] = json_text(choice.report())
        return choice.evaluator

    def _evaluate(self, evaluator: Evaluator, wanted: list[Index], schedule: Schedule) -> None:
        while wanted:
            count = self.team.agree(self.round) * self.team.size
            batch, wanted = wanted[:count], wanted[count:]
            start = time.monotonic()
            rows = self.team.gather(self._rows(evaluator, self.team.mine(batch)))
            if self.file is not None:  # first: what progress has told is kept
                self.file.note(self.surface, batch, rows)
            for index, row in zip(batch, rows, strict=True):
                grid.store(self.surface, index, row)
                if self.progress is not None:
                    self.progress(int(self.surface["evaluated"].values.sum()), schedule.total)
            each = (time.monotonic() - start) * self.team.size / len(batch)
            self.round = int(np.clip(_ROUND_SECONDS / max(each, 1e-9), 1, _MAX_ROUND))
            if abs(time.monotonic() - self.saved) > _SAVE_EVERY:
                self._save()

    def _rows(self, evaluator: Evaluator, indices: list[Index]) -> list[dict[str, Any]]:
        if not indices:
            return []
        places = grid.place(self.surface, indices)
        columns = evaluator(places, terms=self.keep_terms)
        rows = [{name: column[i] for name, column in columns.items()} for i in range(len(indices))]
        if self.slopes:
            for row, where in zip(rows, places, strict=True):
                row.update(_derivatives(self.objective, self.plane, where))
        return rows

    def _save(self) -> None:
        if self.file is not None:
            self.file.save(self.surface)
        if self.team.leads and self.observer is not None:
            self.observer(self.surface)
        self.saved = time.monotonic()


def _derivatives(objective: Objective, plane: Plane, where: grid.Array) -> dict[str, float]:
    """First and second derivatives along each axis, in units of its direction."""
    theta = plane.point(*(float(c) for c in where))
    gradient = objective.gradient(theta)
    row: dict[str, float] = {}
    for name, direction in zip(("alpha", "beta"), plane.basis, strict=False):
        row[f"slope_{name}"] = float(gradient @ direction)
        row[f"curvature_{name}"] = float(objective.hvp(theta, direction) @ direction)
    return row
