"""Comparisons of solutions: one page to look at, vector figures for a paper, and what to distrust."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from landscape import plot
from landscape.contrast import surface_difference
from landscape.figures import described, save
from landscape.plot import style
from landscape.plot.page import Section, write_page
from landscape.plot.sheet import MAX_SCENES
from landscape.plot.table import Table
from landscape.soundness import checks, health
from landscape.subjects import Subject, groups, labelled

_CONTRAST = (
    "Red where the loss of the second rises more above its own centre than that of the first, blue where it rises "
    "less: blue all around is flatter along these directions. Dots mark what the data cannot tell from 0."
)
_SPECTRUM = (
    "Eigenvalues of the Hessian at each solution, and where asked for how all others are spread. They do not depend "
    "on the directions above, but they do on the scale of the weights; the table says which measures do not."
)


def comparison_page(
    path: str | os.PathLike[str],
    subjects: Sequence[Subject],
    tables: Sequence[Table],
    *,
    title: str,
    lead: str,
    settings: Mapping[str, Any],
    warnings: Sequence[str] = (),
    before: Sequence[Section] = (),
    after: Sequence[Section] = (),
) -> Path:
    """Write the page that compares subjects: tables, then per group surfaces, contours, lines and eigenvalues.

    Args:
        path: the HTML file; it works offline.
        subjects: what is compared, in the order in which it is drawn.
        tables: the numbers, drawn first.
        title: title of the page.
        lead: the question and its answer; paragraphs separated by empty lines.
        settings: everything else that changes a number.
        warnings: what to distrust, put before the findings of :func:`landscape.soundness.health`.
        before: sections drawn before the numbers, such as the verdicts.
        after: sections drawn last.

    Returns:
        The path of the file.

    Raises:
        ValueError: no subjects, or surfaces of one group that must not be compared.
        OSError: the file cannot be written.
    """
    _require(subjects)
    sections = [*before]
    if tables:
        sections.append(Section("Numbers", tables=tables))
    for group in groups(subjects):
        sections += _sections(subjects, group)
    sections += after
    distrust = list(dict.fromkeys([*warnings, *health(subjects)]))
    shown = {**settings, "subjects": {s.label: _settings(s) for s in subjects}}
    return write_page(path, title, lead, sections, shown, distrust, checks(subjects))


def _sections(subjects: Sequence[Subject], group: str) -> Iterable[Section]:
    """The figures of one group of data."""
    surfaces, lines = (labelled(subjects, group, kind) for kind in ("surfaces", "lines"))
    figures: list[Any] = [
        plot.surface3d(some, title="Loss surfaces", group=group)
        for some in _batches(surfaces, MAX_SCENES)
    ]
    if surfaces:
        figures.append(plot.contour(surfaces, title="The same, as contours", group=group))
    if lines:
        figures.append(plot.line(lines, title="Along one direction", group=group))
        figures.append(plot.line(lines, title="Rise above the centre", group=group, relative=True))
    yield Section(_sentence(group), figures=figures)
    of = "loss" if any(s["alpha"].values.all() for s in surfaces) else "rise"
    changes = [surface_difference(surfaces[0], other) for other in surfaces[1:]]
    if changes:
        drawn = plot.difference(changes, of=of, group=group)  # type: ignore[arg-type]
        yield Section(f"{_sentence(group)}: differences", _CONTRAST, [drawn])
    known = {s.label: s.spectra[group] for s in subjects if group in s.spectra}
    if known:
        # The figure wants all standard errors or none.
        whole = all(s.stderr for s in known.values())
        columns = {name: s.columns if whole else s.columns[:2] for name, s in known.items()}
        shades = {
            name: s.density.assign_attrs(label=name)
            for name, s in known.items()
            if s.density is not None
        }
        missed = [
            f"{s.label}: {s.spectra[group].outcome}"
            for s in subjects
            if group in s.spectra and not s.spectra[group].converged
        ]
        drawn = plot.spectrum(
            columns, bulk=shades or None, title="Largest eigenvalues", refused=missed
        )
        figures = [drawn]
        if shades:
            figures.append(plot.density(list(shades.values())))
        yield Section(f"{_sentence(group)}: eigenvalues", _SPECTRUM, figures)


def _settings(subject: Subject) -> dict[str, Any]:
    kinds = (("surface", subject.surfaces), ("line", subject.lines))
    shown = {
        f"{kind}, {group}": dict(one.attrs) for kind, many in kinds for group, one in many.items()
    }
    spectra = {f"eigenvalues, {group}": dict(s.settings) for group, s in subject.spectra.items()}
    return {**subject.settings, **shown, **spectra}


def paper_figures(folder: str | os.PathLike[str], subjects: Sequence[Subject]) -> list[Path]:
    """Write vector figures in column widths, each with its caption and settings beside it.

    Args:
        folder: receives ``GROUP-surfaces.pdf``, ``-contours.pdf``, ``-line.pdf`` and
            ``-rise.pdf``, and a ``.txt`` of the same name; made when missing.
        subjects: what is compared.

    Returns:
        The files written, every figure followed by its caption.

    Raises:
        ValueError: no subjects, or surfaces of one group that must not be compared.
        OSError: a file cannot be written.
    """
    _require(subjects)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for group in groups(subjects):
        options: dict[str, Any] = {"backend": "matplotlib", "title": "", "group": group}
        drawn: dict[str, tuple[Any, str, list[xr.Dataset]]] = {}
        surfaces = labelled(subjects, group, "surfaces")
        batches = list(_batches(surfaces, MAX_SCENES))
        for i, some in enumerate(batches, 1):
            name = "surfaces" if len(batches) == 1 else f"surfaces-{i}"
            words = "Loss over a plane through each solution; one scale for all panels"
            drawn[name] = plot.surface3d(some, **options), words, some
        if surfaces:
            words = "Loss over a plane through each solution (cross), the same levels in all panels"
            drawn["contours"] = plot.contour(surfaces, **options), words, surfaces
        changes = [surface_difference(surfaces[0], other) for other in surfaces[1:]]
        if changes and not surfaces[0]["alpha"].values.all():
            words = (
                "Difference of the rises of the loss above each solution: red where that of the second is larger; dots "
                "where the 95 % interval holds 0"
            )
            drawn["differences"] = plot.difference(changes, **options), words, surfaces
        lines = labelled(subjects, group, "lines")
        if lines:
            words = f"Loss along one direction; bands are ±{style.Z95} standard errors of the mean"
            drawn["line"] = plot.line(lines, **options), words, lines
            words = (
                "Rise of the loss above its value at the solution, along one direction; bands are "
                f"±{style.Z95} standard errors of the paired differences"
            )
            drawn["rise"] = plot.line(lines, relative=True, **options), words, lines
        for name, (figure, words, shown) in drawn.items():
            file = folder / f"{_slug(group)}-{name}.pdf"
            written += save(described(figure, words, shown, group), file)
    return written


def _require(subjects: Sequence[Subject]) -> None:
    if not subjects:
        raise ValueError("nothing to compare: expected at least one Subject")


def _batches(many: Sequence[xr.Dataset], size: int) -> Iterable[list[xr.Dataset]]:
    for start in range(0, len(many), size):
        yield list(many[start : start + size])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "group"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
