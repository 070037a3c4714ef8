"""A comparison of solutions from end to end: surfaces, lines, flatness numbers, one page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape import compared_spectra
from landscape.compared_spectra import Asked, Spectrum
from landscape.directions import random_plane
from landscape.flatness_tables import (
    MEASURES,
    doubt_of,
    flatness_table,
    heading,
    sentence,
    settings_of,
    verdict_table,
)
from landscape.kept import keep, kept_report, kept_spectrum, spectrum_document
from landscape.objective import Objective
from landscape.pca import ENOUGH
from landscape.plot.page import Section
from landscape.plot.table import Table
from landscape.plot.trails import WARN_SHARE
from landscape.refusals import refusals
from landscape.report import comparison_page, paper_figures
from landscape.sharpness import MEASURES as REGISTRY
from landscape.sharpness import SharpnessReport, sharpness
from landscape.sharpness.paired import differences
from landscape.sharpness_page import verdicts_section
from landscape.spectra.eigenpairs import ConvergenceWarning
from landscape.subjects import Subject
from landscape.surface import evaluate
from landscape.together import Together, Way, together
from landscape.trajectory_page import over_plane, unconverged

_MOST_TERMS = 2_000_000
"""Numbers that a surface may keep of its terms: 16 MB. Above, differences of surfaces are not paired."""

Progress = Callable[[int, int, str], None]


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
        settings: settings of the measures, by name; what is left out is as in
            :data:`landscape.flatness_tables.QUICK`.
        spectrum: eigenvalues, and a density, to compute of each solution; None leaves them out.
    """

    folder: Path
    span: float = 1.0
    points: int = 25
    line_points: int = 51
    seed: int = 0
    measures: Sequence[str] = MEASURES
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spectrum: Asked | None = None
    subjects: list[Subject] = field(default_factory=list, init=False)
    doubts: list[str] = field(default_factory=list, init=False)
    _ways: dict[str, Together] = field(default_factory=dict, init=False)
    _metrics: dict[str, dict[str, Mapping[str, float]]] = field(default_factory=dict, init=False)
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
        tell = progress or (lambda done, total, what: None)
        found: dict[str, dict[str, Any]] = {kind: {} for kind in ("surfaces", "lines", "spectra")}
        for group, objective in objectives.items():
            for kind, part in self._measured(label, group, objective, tell).items():
                found[kind][group] = part
        self.subjects.append(Subject(label, settings=settings or {}, **found))

    def _measured(
        self, label: str, group: str, objective: Objective, tell: Progress
    ) -> dict[str, Any]:
        """Everything about one solution on one group of data, by the field of a Subject it goes to."""
        stem = self.folder / _slug(f"{label}-{group}")
        told = objective.settings  # counting the terms themselves would cost a pass over the data
        terms = int(told.get("tasks") or told.get("examples") or 1)
        found: dict[str, Any] = {}
        for axes, points, kind in ((1, self.line_points, "lines"), (2, self.points, "surfaces")):
            if not points:
                continue
            what = f"{group}: {'line' if axes == 1 else 'surface'}"
            plane = random_plane(objective, seed=self.seed, axes=axes)
            found[kind] = evaluate(
                objective,
                plane,
                span=self.span,
                points=points,
                out=f"{stem}-{axes}d.nc",
                label=label,
                executor="repeatable",  # a page made again shows the same digits
                keep_terms=axes == 2 and points**2 * terms <= _MOST_TERMS,
                progress=lambda done, total, what=what: tell(done, total, what),  # type: ignore[misc]
            )
            where = f"{label}, {group}, {kind[:-1]}"
            self.doubts += [f"{where}: {reason}" for reason in refusals(found[kind])]
        metrics = objective.metrics(objective.theta)
        report = self._report(objective, metrics["loss"], Path(f"{stem}.json"), tell, group)
        self.doubts += [
            f"{label}, {group}: {heading(row.name)}: {doubt_of(row)}"
            for row in report.values()
            if row.name in self.measures and doubt_of(row)
        ]
        self._reports.setdefault(group, {})[label] = report
        self._metrics.setdefault(group, {})[label] = metrics
        if self.spectrum is not None:
            file = Path(f"{stem}-spectrum.json")
            top = self._spectrum(objective, metrics["loss"], file, self.spectrum, tell, group)
            found["spectra"] = top
            if not top.converged:
                self.doubts.append(f"{label}, {group}: eigenvalues: {top.outcome}")
        return found

    def follow(
        self,
        group: str,
        objective: Objective,
        ways: Mapping[str, Way],
        progress: Progress | None = None,
    ) -> None:
        """Also show where training went: the checkpoints of the runs on one plane, over one function.

        Args:
            group: which data the function is taken on.
            objective: the function, the same for all runs.
            ways: label -> ``(step, theta)`` in the order of training.
            progress: called as ``progress(done, total, what)``.

        Raises:
            ValueError: fewer than three checkpoints, or one that does not fit.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ways[group] = together(
            objective, ways, self.folder / _slug(group), points=self.points or 25, seed=self.seed,
            progress=progress or (lambda done, total, what: None),
        )  # fmt: skip
        where, one = f"{group}, where training went", self._ways[group]
        self.doubts += [f"{where}: {reason}" for reason in refusals(one.surface)]
        for path in one.paths:
            self.doubts += [f"{path.attrs['label']}, {where}: {text}" for text in unconverged(path)]

    def tables(self) -> list[Table]:
        """One table of flatness numbers a group."""
        return [
            flatness_table(
                group,
                [(label, self._metrics[group][label], found) for label, found in reports.items()],
                self.measures,
                self.settings,
            )
            for group, reports in self._reports.items()
        ]

    def report(self, group: str, label: str) -> SharpnessReport:
        """The sharpness report of one subject on one group of data."""
        return self._reports[group][label]

    def verdict(self) -> list[str]:
        """Each subject against the first by the measures people ask for, one sentence a group."""
        told = [sentence(g, reports, self.measures) for g, reports in self._reports.items()]
        return [text for text in told if text]

    def verdicts(self) -> tuple[Section, Section]:
        """Which is flatter, at a glance, a table for each group; and the paired differences in full."""
        short: list[Table] = []
        full: list[Table] = []
        texts: list[str] = []
        for group, reports in self._reports.items():
            (first, base), *others = reports.items()
            found = []
            for label, report in others:
                try:
                    found.append(differences(base, report, first, label))
                except ValueError as error:  # measured on other data: told, not compared
                    texts.append(str(error))
            part = verdicts_section(found, group)
            full += part.tables
            texts += [part.text] if part.text else []
            if found:
                short.append(verdict_table(group, found, self.measures))
        words = "\n\n".join(dict.fromkeys(texts))
        return Section("Which is flatter?", words, tables=short), Section(
            "Paired differences", tables=full
        )

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
        at_a_glance, in_full = self.verdicts()
        if figures:
            paper_figures(self.folder / "figures", self.subjects)
        return comparison_page(
            path,
            self.subjects,
            [*tables, *self.tables()],
            title=title,
            lead=lead,
            settings={**(settings or {}), **chosen},
            warnings=[*self.doubts, *self._hidden()],
            before=[at_a_glance] if at_a_glance.tables else [],
            after=[
                over_plane(
                    one.surface,
                    one.paths,
                    f"{group[:1].upper()}{group[1:]}: where training went",
                    group,
                )
                for group, one in self._ways.items()
            ]
            + ([in_full] if in_full.tables else []),
        )

    def _hidden(self) -> list[str]:
        """What the plane of the ways does not show, a sentence for each group."""
        told = []
        for group, one in self._ways.items():
            held = sum(float(v) for v in one.paths[0].attrs["variance"])
            shares = np.concatenate([path["residual_share"].values for path in one.paths])
            far = int((shares > WARN_SHARE).sum())
            if held < ENOUGH or far:
                told.append(
                    f"{group}, where training went: the plane holds {held:.0%} of the variance of the checkpoints, and "
                    f"{far} of {shares.size} lie off it by more than {WARN_SHARE:.0%} of their distance from the "
                    "origin: the surface under them is not what training saw, their stems say what it was"
                )
        return told

    def _report(
        self, objective: Objective, loss: float, file: Path, tell: Progress, group: str
    ) -> SharpnessReport:
        wanted = {name: settings_of(name, self.settings) for name in self.measures}
        kept = kept_report(file, objective, loss, self.seed, wanted)
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
            keep(file, kept.document(), objective, loss)
        return kept

    def _spectrum(
        self,
        objective: Objective,
        loss: float,
        file: Path,
        asked: Asked,
        tell: Progress,
        group: str,
    ) -> Spectrum:
        found = kept_spectrum(file, objective, loss, self.seed, asked)
        if found is None:
            tell(0, 1, f"{group}: eigenvalues")
            found = compared_spectra.measure(objective, asked, self.seed)
            keep(file, spectrum_document(found, objective, self.seed, asked), objective, loss)
            tell(1, 1, f"{group}: eigenvalues")
        return found


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


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")
