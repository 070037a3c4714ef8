"""Does flatter generalize better? Rank correlations over runs, and over tasks within runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.sharpness.report import SharpnessReport
from sharpmaml.reproduction.measuring import RunResult
from sharpmaml.reproduction.statistics import Correlation, Pooled, correlation, pooled

Array = NDArray[np.float64]
Measured = tuple[RunResult, Mapping[str, SharpnessReport]]

PRIMARY = ("lambda_max", "adapted_lambda_max")
"""The measures that the answer is about: fixed here, before any number is seen."""

MEASURES = {
    "initialization": ("lambda_max", "trace", "sam", "asam", "average"),
    "adapted": ("adapted_lambda_max", "adapted_trace", "adapted_sam", "adapted_average"),
}


@dataclass(frozen=True)
class Relation:
    """One measure against what generalization is.

    Attributes:
        name: of the measure.
        place: ``"initialization"`` or ``"adapted"``.
        methods: of each run.
        sharpness: of each run.
        goodness: score on unseen classes of each run, larger is better.
        test: correlation of sharpness and goodness over runs.
        gap: correlation of sharpness and the generalization gap over runs; ``None`` where training and
            test tasks are of one distribution.
        tasks: over tasks within runs, of a task's sharpness and its goodness; ``None`` at the
            initialization, which all tasks share.
        sixths: goodness of tasks by sixths of their sharpness within a run, ``(runs, 6)``; empty likewise.
    """

    name: str
    place: str
    methods: tuple[str, ...]
    sharpness: tuple[float, ...]
    goodness: tuple[float, ...]
    test: Correlation
    gap: Correlation | None
    tasks: Pooled | None
    sixths: tuple[tuple[float, ...], ...] = ()


def relations_of(
    measured: Sequence[Measured], test: str, train: str | None, sign: int
) -> list[Relation]:
    """Every measure of `MEASURES` that all runs have.

    Args:
        measured: runs with their reports by place.
        test: name of the score on unseen classes.
        train: name of the score on training classes; ``None`` where there is no gap to speak of.
        sign: 1 where more of the score is better, -1 where less is.
    """
    if not measured:
        return []
    good = [sign * float(np.mean(run.scores[test])) for run, _ in measured]
    gaps = None
    if train is not None:
        gaps = [
            sign * float(np.mean(run.scores[train])) - g
            for (run, _), g in zip(measured, good, strict=True)
        ]
    found = []
    for place, names in MEASURES.items():
        for name in names:
            if not all(name in reports[place] for _, reports in measured):
                continue
            values = [reports[place][name].value for _, reports in measured]
            over, sixths = _over_tasks(measured, name, sign) if place == "adapted" else (None, ())
            found.append(
                Relation(
                    name,
                    place,
                    tuple(run.method for run, _ in measured),
                    tuple(values),
                    tuple(good),
                    correlation(values, good),
                    None if gaps is None else correlation(values, gaps),
                    over,
                    sixths,
                )
            )
    return found


def task_values(report: SharpnessReport, name: str) -> list[float]:
    """The measure of every task: a mean over tasks and its influences say what they were."""
    row = report[name]
    return [row.value + term for term in row.influence.terms]


def _over_tasks(
    measured: Sequence[Measured], name: str, sign: int
) -> tuple[Pooled | None, tuple[tuple[float, ...], ...]]:
    x = [task_values(reports["adapted"], name) for _, reports in measured]
    y = [[sign * score for score in run.task_scores] for run, _ in measured]
    if {len(row) for row in x} != {len(y[0])} or not y[0]:
        return None, ()
    sixths = tuple(_sixths(a, b) for a, b in zip(x, y, strict=True)) if len(y[0]) >= 24 else ()
    return pooled(x, y), sixths


def _sixths(x: Sequence[float], y: Sequence[float]) -> tuple[float, ...]:
    order = np.argsort(np.asarray(x), kind="stable")
    return tuple(float(np.mean(np.asarray(y)[part])) for part in np.array_split(order, 6))
