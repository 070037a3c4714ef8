"""A comparison of solutions from end to end: surfaces, lines, flatness numbers, one page."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.directions import random_plane
from landscape.objective import Objective, digest
from landscape.plot.table import Cell, Table
from landscape.report import Subject, comparison_page, paper_figures
from landscape.sharpness import (
    ENTRIES,
    Measurement,
    SharpnessReport,
    difference,
    documents,
    sharpness,
)
from landscape.sharpness import MEASURES as REGISTRY
from landscape.sharpness.paired import same_data
from landscape.sharpness.registry import WORST_CASE
from landscape.sharpness.verdicts import percent
from landscape.spectra.eigenpairs import ConvergenceWarning
from landscape.surface import evaluate

Progress = Callable[[int, int, str], None]

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


@dataclass
class Comparison:
    """Measures solutions one by one on the same kind of objectives and puts them on one page.

    Every number of a subject is kept in ``folder``; a comparison that was interrupted, or is asked for
    again, computes only what is missing.

    Args:
        folder: where surfaces and reports are kept; made when missing. What was kept for another
            objective, seed or setting is never used: reports are computed again, surfaces refused.
        span: half-width of lines and planes, in units of the (filter-normalized) direction.
        points: points on each axis of the planes; 0 leaves the planes out.
        line_points: points of the lines; 0 leaves them out.
        seed: of directions and of every random draw.
        measures: names of sharpness measures, columns of the table.
        settings: settings of the measures, by name; what is left out is as in :data:`QUICK`.
    """

    folder: Path
    span: float = 1.0
    points: int = 25
    line_points: int = 51
    seed: int = 0
    measures: Sequence[str] = MEASURES
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    subjects: list[Subject] = field(default_factory=list, init=False)
    doubts: list[str] = field(default_factory=list, init=False)
    _rows: dict[str, list[list[Cell | str]]] = field(default_factory=dict, init=False)
    _reports: dict[str, dict[str, SharpnessReport]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Refuse unknown measures now, not after the surfaces.

        Raises:
            ValueError: an unknown measure.
        """
        for name in (*self.measures, *self.settings):
            if name not in REGISTRY:
                raise ValueError(f"unknown measure {name!r}: expected any of {', '.join(REGISTRY)}")

    def add(
        self,
        label: str,
        objectives: Mapping[str, Objective],
        progress: Progress | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Measure one solution at ``objective.theta``.

        Args:
            label: its name.
            objectives: group (such as ``"test episodes"``) -> objective.
            progress: called as ``progress(done, total, what)``.
            settings: how the solution was made, shown on the page.

        Raises:
            ValueError: what is kept in the folder belongs to another comparison, or another subject has
                the label, or one that makes the same file name.
        """
        for earlier in self.subjects:
            if _slug(earlier.label) == _slug(label):
                raise ValueError(
                    f"{label!r} cannot be told from {earlier.label!r}, which is in the comparison: "
                    "give each subject a label of its own"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        surfaces: dict[str, xr.Dataset] = {}
        lines: dict[str, xr.Dataset] = {}
        tell = progress or (lambda done, total, what: None)
        for group, objective in objectives.items():
            stem = self.folder / _slug(f"{label}-{group}")
            for axes, points, kept in ((1, self.line_points, lines), (2, self.points, surfaces)):
                if points:
                    what = f"{group}: {'line' if axes == 1 else 'surface'}"
                    kept[group] = evaluate(
                        objective,
                        random_plane(objective, seed=self.seed, axes=axes),
                        span=self.span,
                        points=points,
                        out=f"{stem}-{axes}d.nc",
                        label=label,
                        executor="repeatable",  # a page made again shows the same digits
                        progress=lambda done, total, what=what: tell(done, total, what),  # type: ignore[misc]
                    )
            metrics = objective.metrics(objective.theta)
            report = self._report(objective, metrics["loss"], Path(f"{stem}.json"), tell, group)
            self.doubts += [
                f"{label}, {group}: {_heading(row.name)}: {_doubt(row)}"
                for row in report.values()
                if row.name in self.measures and _doubt(row)
            ]
            self._reports.setdefault(group, {})[label] = report
            self._rows.setdefault(group, []).append(self._row(label, metrics, report))
        self.subjects.append(Subject(label, surfaces, lines, settings or {}))

    def tables(self) -> list[Table]:
        """One table of flatness numbers a group."""
        columns = ["", "loss", *(_heading(name) for name in self.measures)]
        caption = (
            "of one and the same objective. ± is a standard error: over the objective's terms (tasks or examples) or "
            "its parts (tasks or batches), for trace and average case over the random draws too. Where nothing was "
            "sampled, λ max carries the interval that its residual guarantees. "
        )
        return [
            Table(f"Flatness, {group}", columns, rows, caption + self._radii())
            for group, rows in self._rows.items()
        ]

    def report(self, group: str, label: str) -> SharpnessReport:
        """The sharpness report of one subject on one group of data."""
        return self._reports[group][label]

    def verdict(self) -> list[str]:
        """Each subject against the first by the measures people ask for, one sentence a group."""
        told = []
        for group, reports in self._reports.items():
            (first, base), *others = reports.items()
            asked = [
                n for n in ("lambda_max", "trace", "sam") if n in self.measures
            ] or self.measures
            changes = [
                f"{label}: " + ", ".join(f"{_heading(n)} {_change(n, base, report)}" for n in asked)
                for label, report in others
            ]
            if changes:
                told.append(f"On {group}, against {first}: {'; '.join(changes)}.")
        return told

    def write(
        self,
        path: Path,
        *,
        title: str = "Which solution is flatter?",
        lead: str = "",
        tables: Sequence[Table] = (),
        settings: Mapping[str, Any] | None = None,
        figures: bool = True,
    ) -> Path:
        """Write the page, and the vector figures into the folder.

        Args:
            path: the HTML file.
            title: of the page.
            lead: the question and its answer; paragraphs separated by empty lines.
            tables: put before the tables of flatness numbers.
            settings: everything else that changes a number.
            figures: whether to draw the vector figures too, which takes some seconds.
        """
        chosen = {
            "span": self.span, "points": self.points, "line points": self.line_points,
            "seed": self.seed, "measures": list(self.measures),
            "measure settings": {k: dict(v) for k, v in self.settings.items()},
            "torch": torch.__version__,
        }  # fmt: skip
        if figures:
            paper_figures(self.folder / "figures", self.subjects)
        return comparison_page(
            path,
            self.subjects,
            [*tables, *self.tables()],
            title=title,
            lead=lead,
            settings={**(settings or {}), **chosen},
            warnings=self.doubts,
        )

    def _report(
        self, objective: Objective, loss: float, file: Path, tell: Progress, group: str
    ) -> SharpnessReport:
        wanted = {name: _settings(name, self.settings) for name in self.measures}
        kept = _kept(file, objective, loss, self.seed, wanted)
        if kept is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # flagged in the table instead
                kept = sharpness(
                    objective,
                    self.measures,
                    seed=self.seed,
                    settings=wanted,
                    progress=lambda done, total: tell(done, total, f"{group}: sharpness"),
                )
            document = kept.document() | {"point": _point(objective, loss)}
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(documents.text(document), encoding="utf-8")
            temporary.replace(file)
        return kept

    def _row(
        self, label: str, metrics: Mapping[str, float], report: SharpnessReport
    ) -> list[Cell | str]:
        row: list[Cell | str] = [label, Cell(metrics["loss"], metrics["loss_stderr"])]
        for name in self.measures:
            m = report[name]
            doubt = _doubt(m)
            if m.interval and (m.stderr is None or (m.stderr == 0 and m.bound > 0)):
                row.append(Cell(m.value, None, *m.interval, doubt, bool(doubt)))
            else:
                row.append(Cell(m.value, m.stderr, None, None, doubt, bool(doubt)))
        return row

    def _radii(self) -> str:
        shown = []
        for name in self.measures:
            chosen = _settings(name, self.settings)
            for key, letter in (("rho", "ρ"), ("sigma", "σ")):
                if key in chosen:
                    shown.append(f"{_heading(name)}: {letter} = {chosen[key]:g}")
        return "Radii: " + ", ".join(shown) + "." if shown else ""


def short_label(path: Path, among: Sequence[Path]) -> str:
    """The shortest end of a path that tells it from the others.

    >>> short_label(Path("runs/a/w.pt"), [Path("runs/a/w.pt"), Path("runs/b/w.pt")])
    'a/w.pt'
    """
    for depth in range(1, len(path.parts) + 1):
        tails = ["/".join(other.parts[-depth:]) for other in among]
        if len(set(tails)) == len(tails):
            return "/".join(path.parts[-depth:])
    return str(path)


def _settings(name: str, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All settings of a measure: its defaults, and what was chosen instead."""
    parameters = inspect.signature(REGISTRY[name]).parameters
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    return {**defaults, **QUICK.get(name, {}), **chosen.get(name, {})}


def _point(objective: Objective, loss: float) -> dict[str, Any]:
    # Settings need not tell two functions apart; where they are taken, and their value there, do.
    return {"theta_sha256": digest([objective.theta]), "loss": loss}


def _kept(
    file: Path,
    objective: Objective,
    loss: float,
    seed: int,
    wanted: Mapping[str, Mapping[str, Any]],
) -> SharpnessReport | None:
    """A report of the same objective at the same point, of the same seed and settings, if there is one."""
    try:
        text = file.read_text(encoding="utf-8")
        report, point = SharpnessReport.from_json(text), json.loads(text)["point"]
        plain = json.loads(json.dumps(objective.settings, default=str))  # tuples come back as lists
        same = (
            set(wanted) <= set(report)
            and report.objective == plain
            and report.seed == seed
            and point["theta_sha256"] == digest([objective.theta])
            and np.isclose(point["loss"], loss, rtol=1e-4, atol=1e-12, equal_nan=True)
            and all(
                report.asked[name] == documents.canonical(settings)
                for name, settings in wanted.items()
            )
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None  # missing or damaged: computed again
    return report if same else None


def _doubt(row: Measurement) -> str:
    """Why a value is not to be trusted; empty when it is."""
    if not math.isfinite(row.value):
        return row.note or f"the value is {row.value}"
    if row.converged or (row.name in ENTRIES and ENTRIES[row.name].family == WORST_CASE):
        return ""  # a largest rise is a lower bound anyway, and its note says so
    return row.note or "not converged"


def _heading(name: str) -> str:
    return _HEADINGS.get(name, name.replace("_", " "))


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")


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
