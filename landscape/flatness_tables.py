"""Flatness numbers of several solutions, as tables and as sentences."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.plot.table import Cell, Table
from landscape.sharpness import ENTRIES, Measurement, SharpnessReport, difference
from landscape.sharpness import MEASURES as REGISTRY
from landscape.sharpness.paired import same_data
from landscape.sharpness.registry import WORST_CASE
from landscape.sharpness.verdicts import Difference, Differences, percent

MEASURES = ("gradient_norm", "lambda_max", "trace", "sam", "asam", "worst_l2", "average")
QUICK: dict[str, dict[str, Any]] = {
    "lambda_max": {"k": 1},
    "trace": {"k": 1, "probes": 32},
    "worst_l2": {"ladder": (), "m": None},
    "worst_l2_adaptive": {"ladder": (), "m": None},
    "worst_linf_adaptive": {"ladder": (), "m": None},
    "average": {"ladder": (), "pairs": 20},
    "average_adaptive": {"ladder": (), "pairs": 20},
    "filter_average": {"ladder": (), "pairs": 20},
}
"""Settings of a comparison where they are not those of a full report: it shows one radius and one eigenvalue."""

_HEADINGS = {
    "gradient_norm": "gradient norm",
    "lambda_max": "λ max",
    "trace": "trace",
    "sam": "SAM",
    "asam": "ASAM",
    "worst_l2": "worst case",
    "average": "average case",
}


def flatness_table(
    group: str,
    rows: Sequence[tuple[str, Mapping[str, float], SharpnessReport]],
    measures: Sequence[str],
    chosen: Mapping[str, Mapping[str, Any]],
) -> Table:
    """The loss and the measures of each solution, one row each.

    Args:
        group: which data they were measured on.
        rows: label, metrics and report of each solution.
        measures: names of the columns.
        chosen: settings of the measures, by name; what is left out is as in :data:`QUICK`.
    """
    columns = ["", "loss", *(heading(name) for name in measures)]
    caption = (
        "of one and the same objective. ± is a standard error: over the objective's terms (tasks or examples) or "
        "its parts (tasks or batches), for trace and average case over the random draws too. Where nothing was "
        "sampled, λ max carries the interval that its residual guarantees. "
    )
    made = [_row(*row, measures) for row in rows]
    return Table(f"Flatness, {group}", columns, made, caption + _radii(measures, chosen))


def verdict_table(group: str, found: Sequence[Differences], measures: Sequence[str]) -> Table:
    """What each solution is, compared with the first, by each measure that says flatter or sharper.

    Args:
        group: which data they were measured on.
        found: the paired differences of each other solution to the first.
        measures: names of the columns.
    """
    told = [n for n in measures if n not in ENTRIES or ENTRIES[n].orientation]
    rows: list[list[Cell | str]] = []
    for each in found:
        at = {row.name: row for row in each if not row.settings}
        rows.append([each.second, *(_verdict(at.get(name)) for name in told)])
    caption = (
        "Paired over the same data and draws; the change is in percent of the first. 'cannot tell': the 95 % interval "
        "holds 0. *: also after Holm's correction for all verdicts of that solution. Intervals are in the full tables, "
        "at the end of the page."
    )
    first = found[0].first
    columns = ["", *(heading(name) for name in told)]
    return Table(f"Against {first}, {group}", columns, rows, caption)


def _verdict(row: Difference | None) -> str:
    if row is None:
        return "–"
    if not row.decided or row.change is None:
        return row.verdict
    return f"{row.verdict} ({100 * row.change[0]:+.0f} %)".replace("-", "−") + " *" * row.holm


def sentence(group: str, reports: Mapping[str, SharpnessReport], measures: Sequence[str]) -> str:
    """Each solution against the first by the measures people ask for; empty where there is only one."""
    (first, base), *others = reports.items()
    asked = [n for n in ("lambda_max", "trace", "sam") if n in measures] or measures
    changes = [
        f"{label}: " + ", ".join(f"{heading(n)} {_change(n, base, report)}" for n in asked)
        for label, report in others
    ]
    return f"On {group}, against {first}: {'; '.join(changes)}." if changes else ""


def settings_of(name: str, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All settings of a measure: its defaults, and what was chosen instead."""
    parameters = inspect.signature(REGISTRY[name]).parameters
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    return {**defaults, **QUICK.get(name, {}), **chosen.get(name, {})}


def doubt_of(row: Measurement) -> str:
    """Why a value is not to be trusted; empty when it is."""
    if not math.isfinite(row.value):
        return row.note or f"the value is {row.value}"
    if row.converged or (row.name in ENTRIES and ENTRIES[row.name].family == WORST_CASE):
        return ""  # a largest rise is a lower bound anyway, and its note says so
    return row.note or "not converged"


def heading(name: str) -> str:
    """The heading of a measure's column."""
    return _HEADINGS.get(name, name.replace("_", " "))


def _row(
    label: str, metrics: Mapping[str, float], report: SharpnessReport, measures: Sequence[str]
) -> list[Cell | str]:
    row: list[Cell | str] = [label, Cell(metrics["loss"], metrics["loss_stderr"])]
    for name in measures:
        m = report[name]
        doubt = doubt_of(m)
        if m.interval and (m.stderr is None or (m.stderr == 0 and m.bound > 0)):
            row.append(Cell(m.value, None, *m.interval, doubt, bool(doubt)))
        else:
            row.append(Cell(m.value, m.stderr, None, None, doubt, bool(doubt)))
    return row


def _radii(measures: Sequence[str], chosen: Mapping[str, Mapping[str, Any]]) -> str:
    shown = []
    for name in measures:
        used = settings_of(name, chosen)
        for key, letter in (("rho", "ρ"), ("sigma", "σ")):
            if key in used:
                shown.append(f"{heading(name)}: {letter} = {used[key]:g}")
    return "Radii: " + ", ".join(shown) + "." if shown else ""


def _change(name: str, base: SharpnessReport, other: SharpnessReport) -> str:
    """``"−12 % [−20, −4]"``: the paired difference in percent of the old value, with its 95 % interval."""
    old, new = base[name], other[name]
    share = new.value / old.value if old.value else math.nan
    if not 0 <= share < math.inf:
        return f"{old.value:.3g} → {new.value:.3g}"
    if not same_data(base.objective, other.objective):
        alike = base.context.get("params") == other.context.get("params")
        change = difference(old, new, draws=alike).change
        if change is not None:
            return percent(change)
    return percent((share - 1, share - 1, share - 1))
