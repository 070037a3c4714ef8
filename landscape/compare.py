"""A comparison of solutions from end to end: surfaces, lines, flatness numbers, one page."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from landscape.directions import random_plane
from landscape.objective import Objective
from landscape.plot.table import Cell, Table
from landscape.report import Subject, comparison_page, paper_figures
from landscape.sharpness import Measurement, SharpnessReport, sharpness
from landscape.spectrum import ConvergenceWarning
from landscape.surface import evaluate

Progress = Callable[[int, int, str], None]

MEASURES = ("gradient_norm", "lambda_max", "trace", "sam", "asam", "worst_l2", "average")
_HEADINGS = {
    "gradient_norm": "gradient norm",
    "lambda_max": "λ max",
    "trace": "trace",
    "sam": "SAM",
    "asam": "ASAM",
    "worst_l2": "worst case l2",
    "average": "average case",
}


@dataclass
class Comparison:
    """Measures solutions one by one on the same kind of objectives and puts them on one page.

    Every number of a subject is kept in ``folder``; a comparison that was interrupted, or is asked for
    again, computes only what is missing.

    Args:
        folder: where surfaces and reports are kept; made when missing.
        span: half-width of lines and planes, in units of the (filter-normalized) direction.
        points: points on each axis of the planes; 0 leaves the planes out.
        line_points: points of the lines; 0 leaves them out.
        seed: of directions and of every random draw.
        measures: names of sharpness measures, columns of the table.
        settings: settings of the measures, by name.
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
            ValueError: what is kept in the folder belongs to another comparison.
        """
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
                        progress=lambda done, total, what=what: tell(done, total, what),  # type: ignore[misc]
                    )
            report = self._report(objective, Path(f"{stem}.json"), f"{label}, {group}", tell, group)
            self._reports.setdefault(group, {})[label] = report
            self._rows.setdefault(group, []).append(self._row(label, objective, report))
        self.subjects.append(Subject(label, surfaces, lines, settings or {}))

    def tables(self) -> list[Table]:
        """One table of flatness numbers a group."""
        columns = ["", "loss", *(_HEADINGS[name] for name in self.measures)]
        caption = (
            "of one and the same objective. ± is a standard error: over the objective's terms (tasks or "
            "examples) for loss, gradient norm, SAM, ASAM and worst case; over random draws for trace and "
            "average case. λ max carries the interval that its residual guarantees. "
        )
        return [
            Table(f"Flatness, {group}", columns, rows, caption + self._radii())
            for group, rows in self._rows.items()
        ]

    def verdict(self) -> str:
        """Each subject against the first, by every measure, in one sentence a group."""
        told = []
        for group, reports in self._reports.items():
            (first, base), *others = reports.items()
            for label, report in others:
                words = [f"{_HEADINGS[n]} {_change(report[n], base[n])}" for n in self.measures]
                told.append(f"{group}, {label} against {first}: {', '.join(words)}")
        return "; ".join(told) + "." if told else "nothing to compare with."

    def write(
        self,
        path: Path,
        *,
        title: str = "Which solution is flatter?",
        lead: str = "",
        tables: Sequence[Table] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the page, and the vector figures into the folder.

        Args:
            path: the HTML file.
            title: of the page.
            lead: the question and its answer; paragraphs separated by empty lines.
            tables: put before the tables of flatness numbers.
            settings: everything else that changes a number.
        """
        chosen = {
            "span": self.span, "points": self.points, "line points": self.line_points,
            "seed": self.seed, "measures": list(self.measures),
            "measure settings": {k: dict(v) for k, v in self.settings.items()},
            "torch": torch.__version__,
        }  # fmt: skip
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
        self, objective: Objective, file: Path, name: str, tell: Progress, group: str
    ) -> SharpnessReport:
        kept = _kept(file, objective, self.seed, self.measures, self.settings)
        if kept is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # flagged in the table instead
                kept = sharpness(
                    objective,
                    self.measures,
                    seed=self.seed,
                    settings={k: v for k, v in self.settings.items() if k in self.measures},
                    progress=lambda done, total: tell(done, total, f"{group}: sharpness"),
                )
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(kept.to_json(), encoding="utf-8")
            temporary.replace(file)
        for row in kept.values():
            if _doubtful(row.name, row.note):
                self.doubts.append(f"{name}: {_HEADINGS[row.name]}: {row.note}")
        return kept

    def _row(self, label: str, objective: Objective, report: SharpnessReport) -> list[Cell | str]:
        metrics = objective.metrics(objective.theta)
        row: list[Cell | str] = [label, Cell(metrics["loss"], metrics["loss_stderr"])]
        for name in self.measures:
            m = report[name]
            flag = _doubtful(name, m.note)
            low, high = m.interval if m.interval and m.stderr is None else (None, None)
            row.append(Cell(m.value, m.stderr, low, high, m.note if flag else "", flag))
        return row

    def _radii(self) -> str:
        import inspect

        from landscape.sharpness import MEASURES as REGISTRY

        shown = []
        for name in self.measures:
            defaults = {
                key: p.default
                for key, p in inspect.signature(REGISTRY[name]).parameters.items()
                if p.default is not inspect.Parameter.empty
            }
            chosen = {**defaults, **self.settings.get(name, {})}
            radius = [
                f"{'ρ' if k == 'rho' else 'σ'} = {chosen[k]:g}"
                for k in ("rho", "sigma")
                if k in chosen
            ]
            shown += [f"{_HEADINGS[name]}: {r}" for r in radius]
        return "Radii: " + ", ".join(shown) + "." if shown else ""


def _kept(
    file: Path,
    objective: Objective,
    seed: int,
    measures: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
) -> SharpnessReport | None:
    """A report of the same objective, seed and settings, from an earlier run."""
    try:
        report = SharpnessReport.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: computed again
    same = (
        report.objective == objective.settings
        and report.seed == seed
        and set(measures) <= set(report)
    )
    for name in measures if same else ():
        same = same and all(
            report[name].settings.get(k) == v for k, v in settings.get(name, {}).items()
        )
    return report if same else None


def _doubtful(name: str, note: str) -> bool:
    return name == "lambda_max" and "residual, not data noise" not in note


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _change(new: Measurement, old: Measurement) -> str:
    """``"−12 %"``: how much of the old value the new one is more or less."""
    if old.value == 0 or new.value / old.value < 0:
        return f"{old.value:.3g} → {new.value:.3g}"
    return f"{100 * (new.value / old.value - 1):+.0f} %".replace("-", "−")
