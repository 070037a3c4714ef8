"""Sharpness reports for people: one page with the numbers, the differences, and which radius means what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape import plot
from landscape.plot.page import Section, write_page
from landscape.plot.table import Cell, Table
from landscape.sharpness.consistency import consistency, quadratic_up_to
from landscape.sharpness.measurement import Measurement
from landscape.sharpness.paired import differences
from landscape.sharpness.remarks import differing, settings_text
from landscape.sharpness.report import SharpnessReport
from landscape.sharpness.text import grouped
from landscape.sharpness.verdicts import Differences, percent

_RADIUS = (
    "A rise over a radius, doubled and divided by the radius squared, is a curvature: it tends to the trace (the "
    "average case) or to the largest eigenvalue (the worst case) as the radius shrinks. Where a curve stays at 1, "
    "the radius asks the same question as the Hessian; where it leaves, the loss is no longer quadratic that far "
    "out and the measure says something else. A gradient that is not zero lifts the worst case at small radii."
)
_INVARIANT = (
    "Invariant: whether the value stays when whole layers / single neurons of this very checkpoint are rescaled "
    "without changing its function."
)


def write(reports: Mapping[str, SharpnessReport], path: Path) -> Path:
    """Write sharpness reports as one page that works offline.

    Args:
        reports: label -> report; with several, each is compared with the first.
        path: the HTML file.

    Raises:
        ValueError: no report, or reports that must not be compared.
    """
    if not reports:
        raise ValueError("no report to show: expected at least one")
    (first, base), *others = reports.items()
    found = [differences(base, report, first, label) for label, report in others]
    sections = [
        verdicts_section(found),
    ]
    sections = [s for s in sections if s.tables]
    ladders = {label: d for label, r in reports.items() if (d := _ladders(label, r)) is not None}
    if ladders:
        regimes = [f"{label}: {_regime(d)}" for label, d in ladders.items()]
        text = "\n\n".join([_RADIUS, *regimes])
        sections.append(Section("Which radius?", text, figures=[plot.consistency(ladders)]))
    sections += [
        Section(f"All measures, {label}", tables=[_numbers(label, report)])
        for label, report in reports.items()
    ]
    return write_page(
        path,
        "Sharpness of " + ", ".join(reports),
        _lead(reports),
        sections,
        {label: _settings(report) for label, report in reports.items()},
        [
            warning if len(reports) == 1 else f"{label}: {warning}"
            for label, report in reports.items()
            for warning in _warnings(report)
        ],
    )


def _lead(reports: Mapping[str, SharpnessReport]) -> str:
    told = []
    for label, report in reports.items():
        loss = report.context.get("loss", math.nan)
        data = report.objective
        terms = data.get("examples") or data.get("tasks")
        count = f" over {terms} {'examples' if data.get('examples') else 'tasks'}" if terms else ""
        told.append(
            f"{label}: loss {loss:.4g}{count}, {len(report)} measures, {report.spent:.0f} gradients."
        )
    told.append(
        "Intervals hold 95 %. The 2023 study of 'A Modern Look at Sharpness' found that sharpness often does not "
        "track generalization: read these numbers as a description of this minimum, not as a forecast."
    )
    return "\n\n".join(told)


def _numbers(label: str, report: SharpnessReport) -> Table:
    rows: list[list[Cell | str]] = []
    for row in report.values():
        title = str(report.about.get(row.name, {}).get("title", ""))
        mark = _mark(report.invariance.get(row.name))
        rows.append([row.name, title, _cell(row), mark, f"{row.cost:.1f}", _words(row.settings)])
        for variant in row.variants:
            rows.append(["", "", _cell(variant), "", "", _words(differing(row, variant))])
    caption = (
        "± is the standard error over data and random draws together, else the interval is shown. Cost: of the "
        f"measure alone, in gradients over the same data. {_INVARIANT}"
    )
    columns = ["measure", "", "value", "invariant", "cost", "settings"]
    return Table(f"Sharpness of {label}", columns, rows, caption)


def verdicts_section(found: Sequence[Differences], where: str = "") -> Section:
    """The paired verdicts as a section: one table for each comparison, and what chance alone would say."""
    return Section("Which is flatter?", _chance(found), tables=[_verdicts(f, where) for f in found])


def _verdicts(found: Differences, where: str = "") -> Table:
    rows: list[list[Cell | str]] = []
    for row in found:
        name = row.name if not row.settings else f"{row.name}, {_words(row.settings)}"
        low, high = row.interval or (None, None)
        rows.append(
            [
                name,
                Cell(row.first),
                Cell(row.second),
                Cell(row.value, low=low, high=high) if low is not None else Cell(row.value),
                percent(row.change),
                row.verdict + (" *" if row.p is not None and row.holm else ""),
            ]
        )
    columns = ["measure", found.first, found.second, "difference", "change", f"{found.second} is"]
    caption = (
        "Differences are paired: the same data, and the same draws where both have as many parameters. 'cannot tell': "
        "the 95 % interval holds 0. *: also after Holm's correction for all verdicts of the table."
    )
    place = f", {where}" if where else ""
    return Table(f"{found.second} against {found.first}{place}", columns, rows, caption)


def _chance(found: Sequence[Differences]) -> str:
    told = [f"{0.05 * f.tested:.1f} of {f.tested} against {f.first}" for f in found if f.tested]
    return (
        f"Were nothing different, about this many verdicts of each table would be flatter or sharper by chance: "
        f"{'; '.join(dict.fromkeys(told))}."
        if told
        else ""
    )


def _ladders(label: str, report: SharpnessReport) -> Any:
    try:
        return consistency(report, label)
    except ValueError:  # the measures that it takes were not asked for
        return None


def _regime(dataset: Any) -> str:
    told = []
    for name, (low, high) in quadratic_up_to(dataset).items():
        where = (
            "at none of its radii"
            if math.isnan(low)
            else f"at {low:g}"
            if low == high
            else f"from {low:g} to {high:g}"
        )
        told.append(f"{name} {where}")
    return f"within 25 % of the curvature: {'; '.join(told)}."


def _warnings(report: SharpnessReport) -> list[str]:
    told = [f"{grouped(mark.rows)}: {mark.text}" for mark in report.remarks()]
    return told + [f"{name} was skipped: {why}" for name, why in report.skipped.items()]


def _settings(report: SharpnessReport) -> dict[str, Any]:
    return {
        "objective": dict(report.objective),
        "seed": report.seed,
        "measures": {name: dict(settings) for name, settings in report.asked.items()},
        "cost beside the measures, FB": dict(report.overhead),
    }


def _cell(row: Measurement) -> Cell:
    low, high = row.interval if row.interval and row.stderr is None else (None, None)
    return Cell(row.value, row.stderr, low, high, row.note, not row.converged)


def _mark(found: Mapping[str, Any] | None) -> str:
    """``yes / no (x3.1)``: under rescaling of layers, of neurons."""
    if not found:
        return "–"

    def one(key: str) -> str:
        if found.get(key) is None:
            return "–"
        ratio = found.get(f"{key}_ratio")
        return "yes" if found[key] else "no" if ratio is None else f"no (×{ratio:.3g})"

    return f"{one('layers')} / {one('neurons')}"


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(settings_text(settings))
