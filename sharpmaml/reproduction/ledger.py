"""The sharpness ledger: every measure of every method against the first, over tasks and over seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landscape.sharpness.measurement import Influence, Measurement, estimate
from landscape.sharpness.paired import difference
from landscape.sharpness.report import SharpnessReport
from landscape.sharpness.verdicts import FLATTER, NEITHER, SHARPER, UNDECIDED
from landscape.wording import one_line
from sharpmaml.reproduction.statistics import Mean, holm, mean_of

Reports = Mapping[str, SharpnessReport]


@dataclass(frozen=True)
class Change:
    """A measure of a method against that of the first method.

    Attributes:
        value: of this method, mean over seeds.
        mean: paired difference; "episodes" are tasks and random draws here.
        verdict: ``"flatter"``, ``"sharper"``, either "in these runs", ``"cannot tell"``, or ``"-"`` for a
            measure that says neither.
        holm: whether it also stands after Holm's correction for the whole ledger.
        seeds: how many.
    """

    value: float
    mean: Mean
    verdict: str
    holm: bool
    seeds: int

    @property
    def told(self) -> str:
        """The verdict after the correction."""
        return self.verdict if self.holm or self.verdict == NEITHER else UNDECIDED


@dataclass(frozen=True)
class Entry:
    """One measure at one place.

    Attributes:
        name: of the measure.
        place: ``"initialization"`` or ``"adapted"``.
        title: in a few words.
        orientation: 1 where a larger value is sharper, -1 where it is flatter, 0 where neither.
        cost: what it takes on its own, in gradients of the meta loss over the same tasks.
        base: value of the first method, mean over seeds.
        changes: by method.
        doubt: why values are not to be trusted; empty where they are.
    """

    name: str
    place: str
    title: str
    orientation: int
    cost: float
    base: float
    changes: Mapping[str, Change]
    doubt: str = ""


def read_report(file: Path) -> SharpnessReport:
    """A report that a run left behind.

    Raises:
        ValueError: it is damaged, or something else.
    """
    try:
        return SharpnessReport.from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is {one_line(error)}: delete it to measure again") from None


def ledger_of(methods: Sequence[str], reports: Mapping[str, Sequence[Reports]]) -> list[Entry]:
    """Every measure that the first method has, against all other methods.

    Args:
        methods: the first is what the others are held against.
        reports: method -> one mapping a seed, place -> report; seeds in the same order.
    """
    base = methods[0]
    entries: list[Entry] = []
    for place in dict.fromkeys(p for found in reports[base] for p in found):
        seen: dict[str, SharpnessReport] = {}
        for found in reports[base]:
            for name in found[place]:
                seen.setdefault(name, found[place])
        for name, told in seen.items():
            if any(e.name == name for e in entries):  # on more tasks than the ledger's own row
                entries = [e for e in entries if e.name != name]
            entries.append(_entry(name, place, told, methods, reports))
    return _corrected(entries)


def averaged(rows: Sequence[Measurement]) -> Measurement:
    """The mean over seeds of one measure on the same tasks with the same draws.

    Its influences are the means of theirs, so that its error is over tasks and draws, the seeds as
    they are.
    """
    first, value = rows[0], float(np.mean([row.value for row in rows]))
    return estimate(
        first.name,
        value,
        Influence(
            _mean([row.influence.terms for row in rows]),
            first.influence.weights,
            first.influence.of,
            _mean([row.influence.draws for row in rows]),
        ),
        first.settings,
        bound=float(np.mean([row.bound for row in rows])),
        converged=all(row.converged for row in rows),
    )


def _entry(
    name: str,
    place: str,
    told: SharpnessReport,
    methods: Sequence[str],
    reports: Mapping[str, Sequence[Reports]],
) -> Entry:
    about = told.about.get(name, {})
    orientation = int(about.get("orientation", 0))
    rows = {m: [found[place].get(name) for found in reports[m]] for m in methods}
    changes = {}
    for method in methods[1:]:
        pairs = [(a, b) for a, b in zip(rows[methods[0]], rows[method], strict=False) if a and b]
        if pairs:
            changes[method] = _change([a for a, _ in pairs], [b for _, b in pairs], orientation)
    known = [row for row in rows[methods[0]] if row is not None]
    doubts = [row.note for some in rows.values() for row in some if row and not row.converged]
    return Entry(
        name,
        place,
        str(about.get("title", name)),
        orientation,
        float(np.mean([row.cost for row in known])),
        float(np.mean([row.value for row in known])),
        changes,
        (doubts[0] or "not converged") if doubts else "",
    )


def _change(base: Sequence[Measurement], other: Sequence[Measurement], orientation: int) -> Change:
    over_tasks = difference(averaged(base), averaged(other), orientation)
    over_seeds = mean_of([[b.value - a.value] for a, b in zip(base, other, strict=True)])
    interval = over_tasks.interval
    mean = Mean(
        over_tasks.value,
        math.nan if interval is None else (interval[1] - interval[0]) / 2,
        over_seeds.seeds,
        math.nan if over_tasks.p is None else over_tasks.p,
        over_seeds.p_seeds,
    )
    verdict = mean.verdict(-orientation, (FLATTER, SHARPER)) if orientation else NEITHER
    return Change(over_tasks.second, mean, verdict, False, len(base))


def _corrected(entries: Sequence[Entry]) -> list[Entry]:
    keys = [(i, m) for i, e in enumerate(entries) if e.orientation for m in e.changes]
    stands = holm([entries[i].changes[m].mean.p for i, m in keys])
    passed = {key for key, stood in zip(keys, stands, strict=True) if stood}
    return [
        dataclasses.replace(
            entry,
            changes={
                m: dataclasses.replace(change, holm=(i, m) in passed)
                for m, change in entry.changes.items()
            },
        )
        for i, entry in enumerate(entries)
    ]


def _mean(columns: Sequence[Sequence[float]]) -> tuple[float, ...]:
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        return ()
    return tuple(np.mean(np.asarray(columns, dtype=np.float64), axis=0).tolist())
