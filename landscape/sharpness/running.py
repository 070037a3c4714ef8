"""Runs measures one after another: within a budget, and from where an earlier run stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from landscape.holding import held
from landscape.objective import Objective, digest
from landscape.operators import operator_of
from landscape.operators.selftest import require
from landscape.operators.symmetric import SymmetricOperator
from landscape.sharpness import resume
from landscape.sharpness.budget import Budget, Purse
from landscape.sharpness.documents import canonical
from landscape.sharpness.invariance import invariances
from landscape.sharpness.measurement import Measurement, NotApplicable
from landscape.sharpness.point import Point
from landscape.sharpness.registry import (
    Entry,
    available,
    forecast,
    resolved,
    unknown_measure,
)
from landscape.sharpness.remarks import context_of
from landscape.sharpness.report import SharpnessReport
from landscape.store import writable

Announce = Callable[[int, int, str], None]

FAILED = "failed"
"""How the reason begins for which a measure is skipped that should have worked."""

_ABOUT = ("title", "family", "orientation", "rise")
_INVARIANCE = "invariance"
_PIECE = 128  # examples that invariance is tested on


def sharpness(
    objective: Objective,
    measures: str | Iterable[str] = "all",
    seed: int = 0,
    theta: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    budget: str | Budget | None = None,
    invariance: bool = False,
    out: str | Path | None = None,
    announce: Announce | None = None,
    keep: Callable[[SharpnessReport], None] | None = None,
) -> SharpnessReport:
    """Sharpness of an objective at a point, by every measure asked for.

    What measures share (the gradient, the top eigenvector, random draws) is computed once; the cost in a
    row is what that measure costs on its own, ``paid`` what it took here. ``"all"`` goes from the measures that
    say most for their cost to those that say least, and skips with the reason what has no meaning for this
    objective or fails; a measure asked for by name raises instead.

    Args:
        objective: the function.
        measures: ``"all"``, one name, or names.
        seed: of every random draw; equal seeds give equal draws to any two objectives of one size.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        progress: called as ``progress(done, total)`` after each measure.
        settings: what to change, by measure: ``{"sam": {"rho": 0.1}}``.
        budget: such as ``"60s"``, ``"5min"`` or ``"200FB"``, of this call. A measure whose forecast does not fit into
            what is left is skipped, and cheaper ones after it still run; one that has begun is finished, so
            that a wrong forecast can overrun the budget.
        invariance: also test which values stay when the network is rescaled without changing its function.
            Off here, because every measure is then computed at up to two more points.
        out: JSON file, written whole after every measure. Rows that it holds are kept where the settings are
            the same, and computed again where they are not: the rows of a report do not depend on how often
            it was interrupted, apart from ``paid``.
        announce: called as ``announce(done, total, what)`` before each measure, with a forecast.
        keep: called with the report so far after each measure.

    Raises:
        ValueError: an unknown measure or setting, a setting or budget out of range, a file that holds the report
            of another objective, point or seed.
        HeldError: another process writes the report in ``out``; a ``ValueError`` too.
        WriteError: the disk refuses. What was kept before is kept, and the same call continues it.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]).double())
    >>> report = sharpness(bowl, ["gradient_norm", "sam"], settings={"sam": {"rho": 0.1}})
    >>> round(report["gradient_norm"].value, 9), round(report["sam"].value, 9)
    (10.0, 1.01)
    """
    table = available(objective)
    everything = measures == "all"
    asked = [measures] if isinstance(measures, str) else measures
    names = list(table if everything else dict.fromkeys(asked))
    for name in names:
        if name not in table:
            raise ValueError(unknown_measure(name, table))
    path = None if out is None else writable(out)
    with held(path):
        run = _Run(
            _TestedPoint(objective, theta, seed),
            table,
            names,
            settings or {},
            None if budget is None else Budget.parse(budget),
            path,
            everything,
        )
        try:
            for done, name in enumerate(names, start=1):
                if run.needs(name):
                    if announce is not None:
                        announce(done - 1, len(names), f"{name}, {run.outlook(name)}")
                    run.measure(name)
                    run.save(keep)
                if progress is not None:
                    progress(done, len(names))
            if invariance:
                if announce is not None:
                    announce(len(names), len(names), "invariance under rescaling")
                run.rescale()
                run.save(keep)
            return run.report()
        finally:
            # What measures shared refers back to the point: a cycle with all that was kept for it.
            run.point.ledger.forget()


class _TestedPoint(Point):
    """A point that knows what the self-test of its Hessian took."""

    tested = 0.0

    @cached_property
    def hessian(self) -> SymmetricOperator:
        operator = operator_of(self.objective, self.theta, check=False)
        self.tested = require(operator).cost
        return operator


class _Run:
    """The state of one call of :func:`sharpness`."""

    def __init__(
        self,
        point: _TestedPoint,
        table: Mapping[str, Entry],
        names: Sequence[str],
        chosen: Mapping[str, Mapping[str, Any]],
        budget: Budget | None,
        out: Path | None,
        everything: bool,
    ) -> None:
        self.point, self.table, self.names, self.chosen = point, table, names, chosen
        self.out, self.everything = out, everything
        self.full = resolved(table, chosen)
        self.objective = resume.plain_settings(point.objective)
        self.theta_sha256 = digest([point.theta])
        self.overhead: dict[str, float] = {}
        self.done: list[Entry] = []
        self.purse = Purse(budget, _spending(point, self.overhead))
        with self._apart("loss at the point"):
            self.context = context_of(point, ())
        earlier = None
        if out is not None:
            earlier = resume.continued(
                out, self.objective, self.theta_sha256, point.seed, self.context["loss"]
            )
        self.earlier = earlier or SharpnessReport(())
        self.rows = {
            name: row
            for name, row in self.earlier.items()
            if name not in names or self.earlier.asked.get(name) == canonical(self.full[name])
        }
        self.skipped = {
            name: reason for name, reason in self.earlier.skipped.items() if name not in names
        }
        self.invariance = {
            name: found for name, found in self.earlier.invariance.items() if name in self.rows
        }
        self.context = {**self.earlier.context, **self.context}
        if budget is not None and budget.unit == "s":
            with self._apart("timing one gradient"):
                point.gradient  # noqa: B018

    def needs(self, name: str) -> bool:
        return name not in self.rows

    def outlook(self, name: str) -> str:
        cost = forecast(self.table[name], self.full[name], self.done)
        seconds = cost * self.purse.seconds_per_fb
        told = f"about {cost:.0f} FB"
        return told if math.isnan(seconds) else f"{told}, {seconds:.0f} s"

    def measure(self, name: str) -> None:
        entry = self.table[name]
        refusal = self.purse.refusal(forecast(entry, self.full[name], self.done))
        if refusal:
            self.skipped[name] = refusal
            return
        try:
            row: Measurement = entry.measure(self.point, **self.chosen.get(name, {}))
        except NotApplicable as error:
            if not self.everything:
                raise
            self.skipped[name] = str(error)
            return
        except (ValueError, RuntimeError) as error:
            # One measure that this network does not allow must not cost the user all others.
            if not self.everything or name in self.chosen:
                raise
            self.skipped[name] = _failure(error)
            return
        self.done.append(entry)
        self.skipped.pop(name, None)
        self.rows[name] = _canonical(row)
        self.invariance.pop(name, None)
        if entry.rise:
            with self._apart("slopes"):
                self.context |= context_of(self.point, (entry.rise,))

    def rescale(self) -> None:
        """Test the invariance of rows that were not tested yet."""
        wanted = [n for n in self.names if n in self.rows and n not in self.invariance]
        self.skipped.pop(_INVARIANCE, None)
        if not wanted:
            return
        refusal = self.purse.refusal(self._rescaling_forecast(wanted))
        if refusal:
            self.skipped[_INVARIANCE] = refusal
            return
        try:
            found = invariances(
                self.point.objective, wanted, self.chosen, self.point.seed, self.point.theta, _PIECE
            )
        except (ValueError, RuntimeError) as error:
            self.skipped[_INVARIANCE] = _failure(error)
            return
        self.overhead[_INVARIANCE] = self.overhead.get(_INVARIANCE, 0.0) + found.cost
        self.invariance |= canonical(found.plain())

    def _rescaling_forecast(self, names: Sequence[str]) -> float:
        """About what the test of invariance costs, in FB: each measure thrice, on one piece of the data."""
        settings = self.point.objective.settings
        if settings.get("objective") != "data":  # nothing to rescale
            return 0.0
        share = min(1.0, _PIECE / max(int(settings.get("examples", 1)), 1))
        return share * sum(self.table[name].forecast for name in names)

    def report(self) -> SharpnessReport:
        order = [name for name in self.names if name in self.rows]
        order += [name for name in self.rows if name not in order]
        entries = {name: self.table[name] for name in order if name in self.table}
        about = {
            name: {key: value for key, value in vars(entry).items() if key in _ABOUT}
            for name, entry in entries.items()
        }
        asked = {name: canonical(self.full[name]) for name in self.names if name in self.rows}
        overhead = {**self.overhead}
        if self.point.tested:
            overhead["self-test of the Hessian"] = self.point.tested
        for purpose, cost in self.earlier.overhead.items():
            overhead[purpose] = overhead.get(purpose, 0.0) + cost
        return SharpnessReport(
            tuple(self.rows[name] for name in order),
            self.objective,
            self.point.seed,
            dict(self.skipped),
            dict(self.invariance),
            {**{n: s for n, s in self.earlier.asked.items() if n in self.rows}, **asked},
            {**{n: s for n, s in self.earlier.about.items() if n in self.rows}, **about},
            dict(self.context),
            self.theta_sha256,
            overhead,
        )

    def save(self, keep: Callable[[SharpnessReport], None] | None) -> None:
        if self.out is None and keep is None:
            return
        report = self.report()
        if self.out is not None:
            resume.save(report, self.out)
        if keep is not None:
            keep(report)

    @contextmanager
    def _apart(self, purpose: str) -> Iterator[None]:
        """Account for what no measure pays."""
        with self.point.ledger.measuring() as tally:
            yield
        if tally.paid:
            self.overhead[purpose] = self.overhead.get(purpose, 0.0) + tally.paid


def _spending(point: _TestedPoint, overhead: Mapping[str, float]) -> Callable[[], float]:
    # Not a method: the run holds its purse, and a cycle would keep the graphs of a meta objective in
    # memory until Python looks for cycles, which may be gigabytes later.
    return lambda: point.ledger.spent + point.tested + overhead.get(_INVARIANCE, 0.0)


def _failure(error: Exception) -> str:
    return f"{FAILED}: {type(error).__name__}: {' '.join(str(error).split())}"


def _canonical(row: Measurement) -> Measurement:
    """The row as it comes back from a file."""
    return replace(
        row,
        value=float(row.value),
        cost=round(row.cost, 9),  # a sum of thirds: its last digits depend on the order
        paid=round(row.paid, 9),
        settings=canonical(row.settings),
        variants=tuple(_canonical(variant) for variant in row.variants),
    )
