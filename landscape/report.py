"""Comparisons of solutions: one page to look at, vector figures for a paper, and what to distrust."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr

from landscape import plot
from landscape.plot import style
from landscape.plot.page import Section, write_page
from landscape.plot.sheet import MAX_SCENES, MUST_AGREE
from landscape.plot.table import Table

CENTRE_TOLERANCE = 1e-3  # relative; the grid's centre and the objective's own value are one number
COSINE_TOLERANCE = 0.1  # random directions in many dimensions are orthogonal; these are not
# Settings in which two subjects differ by being two subjects.
_OWN = {"checkpoint", "path", "label", "name", "fingerprint"}


@dataclass(frozen=True)
class Subject:
    """One solution to be compared with others.

    Attributes:
        label: its name on figures and in tables; takes the place of the Datasets' own label.
        surfaces: group (such as ``"test episodes"``) -> surface over a plane.
        lines: group -> surface along a line.
        settings: how the solution was made; shown on the page.
    """

    label: str
    surfaces: Mapping[str, xr.Dataset] = field(default_factory=dict)
    lines: Mapping[str, xr.Dataset] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def comparison_page(
    path: str | os.PathLike[str],
    subjects: Sequence[Subject],
    tables: Sequence[Table],
    *,
    title: str,
    lead: str,
    settings: Mapping[str, Any],
    warnings: Sequence[str] = (),
) -> Path:
    """Write the page that compares subjects: tables, then per group surfaces, contours and lines.

    Args:
        path: the HTML file; it works offline.
        subjects: what is compared, in the order in which it is drawn.
        tables: the numbers, drawn first.
        title: title of the page.
        lead: the question and its answer; paragraphs separated by empty lines.
        settings: everything else that changes a number.
        warnings: what to distrust, put before the findings of `health`.

    Returns:
        The path of the file.

    Raises:
        ValueError: no subjects, or surfaces of one group that must not be compared.
        OSError: the file cannot be written.
    """
    _require(subjects)
    sections = [Section("Numbers", tables=tables)] if tables else []
    for group in _groups(subjects):
        figures = []
        surfaces = _labelled(subjects, group, "surfaces")
        for some in _batches(surfaces, MAX_SCENES):
            figures.append(plot.surface3d(some, title="Loss surfaces", group=group))
        if surfaces:
            figures.append(plot.contour(surfaces, title="The same, as contours", group=group))
        lines = _labelled(subjects, group, "lines")
        if lines:
            figures.append(plot.line(lines, title="Along one direction", group=group))
            figures.append(
                plot.line(lines, title="Rise above the centre", group=group, relative=True)
            )
        sections.append(Section(_sentence(group), figures=figures))
    shown = {
        **settings,
        "subjects": {
            s.label: {
                **s.settings,
                **{
                    f"{kind}, {group}": dict(surface.attrs)
                    for kind, many in (("surface", s.surfaces), ("line", s.lines))
                    for group, surface in many.items()
                },
            }
            for s in subjects
        },
    }
    distrust = list(dict.fromkeys([*warnings, *health(subjects)]))
    return write_page(path, title, lead, sections, shown, distrust)


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
    for group in _groups(subjects):
        options: dict[str, Any] = {"backend": "matplotlib", "title": "", "group": group}
        drawn: dict[str, tuple[Any, str, list[xr.Dataset]]] = {}
        surfaces = _labelled(subjects, group, "surfaces")
        batches = list(_batches(surfaces, MAX_SCENES))
        for i, some in enumerate(batches, 1):
            name = "surfaces" if len(batches) == 1 else f"surfaces-{i}"
            words = "Loss over a plane through each solution; one scale for all panels"
            drawn[name] = plot.surface3d(some, **options), words, some
        if surfaces:
            words = "Loss over a plane through each solution (cross), the same levels in all panels"
            drawn["contours"] = plot.contour(surfaces, **options), words, surfaces
        lines = _labelled(subjects, group, "lines")
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
            with mpl.rc_context(style.PAPER):  # the kind of the fonts is decided on saving
                figure.savefig(file, metadata={"CreationDate": None})
            caption = file.with_suffix(".txt")
            caption.write_text(_caption(words, group, shown), encoding="utf-8")
            written += [file, caption]
    return written


def health(subjects: Sequence[Subject]) -> list[str]:
    """What a reader should distrust in the surfaces themselves, one sentence each.

    Looks for points that are missing, NaN or infinite, for directions that are far from orthogonal,
    for a grid whose centre is not the objective's own value, and for settings in which subjects
    of one group differ.
    """
    found: list[str] = []
    for group in _groups(subjects):
        for kind in ("surfaces", "lines"):
            many = _labelled(subjects, group, kind)
            for surface in many:
                where = f"{surface.attrs['label']}, {group}, {kind[:-1]}"
                found += [f"{where}: {trouble}" for trouble in troubles(surface)]
            found += [f"{group}, {kind}: {trouble}" for trouble in _differences(many)]
    return found


def troubles(surface: xr.Dataset) -> list[str]:
    """What to distrust in one surface, one sentence each; :func:`refusals` are among them."""
    loss, done = _known(surface)
    found = []
    if not done.all():
        found.append(
            f"{np.count_nonzero(~done)} of {loss.size} points are not evaluated yet; "
            "the figure is incomplete"
        )
    bad = done & ~np.isfinite(loss)
    if bad.any():
        share = np.count_nonzero(bad) / loss.size
        found.append(
            f"{np.count_nonzero(bad)} of {loss.size} points ({share:.1%}) are NaN or infinite "
            "and drawn as gaps"
        )
    cosine = float(surface.attrs.get("direction_cosine", 0.0))
    if abs(cosine) > COSINE_TOLERANCE:
        found.append(
            f"the directions are not orthogonal (cosine {cosine:.2f}), so shapes are sheared"
        )
    return found + refusals(surface)


def refusals(surface: xr.Dataset) -> list[str]:
    """Why a surface cannot be vouched for: checks of its own that it fails."""
    loss, _ = _known(surface)
    found = []
    refinement = style.refinement(surface.attrs)
    if refinement is not None and refinement["outcome"] not in ("certified", "complete"):
        found.append(f"the interpolated points are not certified ({refinement['outcome']})")
    own = surface.attrs.get("centre_loss")
    at = {name: np.flatnonzero(surface[name].values == 0) for name in surface["loss"].dims}
    if own is not None and all(len(where) == 1 for where in at.values()):
        centre = float(loss[tuple(int(where[0]) for where in at.values())])
        if math.isfinite(centre) and abs(centre - own) > CENTRE_TOLERANCE * max(abs(own), 1e-12):
            found.append(
                f"the loss at the grid's centre is {centre:.6g}, the objective's own value there "
                f"is {float(own):.6g}; the two must be equal"
            )
    return found


def _known(surface: xr.Dataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The loss, and where there is one: computed, or interpolated with a known error."""
    loss = np.asarray(surface["loss"].values, np.float64)
    done = np.ones(loss.shape, bool)
    if "evaluated" in surface:
        done = np.asarray(surface["evaluated"].transpose(*surface["loss"].dims).values) != 0
    if "interpolated" in surface:
        done |= np.asarray(surface["interpolated"].transpose(*surface["loss"].dims).values) != 0
    return loss, done


def _differences(many: Sequence[xr.Dataset]) -> Iterable[str]:
    for other in many[1:]:
        pair = f"{many[0].attrs['label']} and {other.attrs['label']}"
        for name in MUST_AGREE:
            a, b = (_comparable(s.attrs.get(name)) for s in (many[0], other))
            if a != b:
                yield f"{pair} differ in {name} ({a} and {b}) and must not be compared"
        first, second = (_objective(s) for s in (many[0], other))
        differing = [
            key for key in sorted({*first, *second} - _OWN) if first.get(key) != second.get(key)
        ]
        if differing:
            yield f"{pair} were measured with another objective: {', '.join(differing)} differ"


def _objective(surface: xr.Dataset) -> dict[str, Any]:
    text = surface.attrs.get("objective", "{}")
    try:
        settings = json.loads(text) if isinstance(text, str) else dict(text)
    except json.JSONDecodeError:
        settings = {"objective": text}
    return settings if isinstance(settings, dict) else {"objective": settings}


def _comparable(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(style.words(value)))
    return value.item() if isinstance(value, np.generic) else value


def _require(subjects: Sequence[Subject]) -> None:
    if not subjects:
        raise ValueError("nothing to compare: expected at least one Subject")


def _groups(subjects: Sequence[Subject]) -> list[str]:
    return list(dict.fromkeys(g for s in subjects for g in (*s.surfaces, *s.lines)))


def _labelled(subjects: Sequence[Subject], group: str, kind: str) -> list[xr.Dataset]:
    """The Datasets of a group, under the subjects' labels; subjects without one are left out."""
    return [
        getattr(s, kind)[group].assign_attrs(label=s.label)
        for s in subjects
        if group in getattr(s, kind)
    ]


def _batches(many: Sequence[xr.Dataset], size: int) -> Iterable[list[xr.Dataset]]:
    for start in range(0, len(many), size):
        yield list(many[start : start + size])


def _caption(words: str, group: str, shown: Sequence[xr.Dataset]) -> str:
    lines = [f"{words} ({group}).", "", style.footnote(shown[0].attrs, group), ""]
    for surface in shown:
        lines.append(str(surface.attrs["label"]))
        lines += [f"  {k}: {v}" for k, v in sorted(surface.attrs.items()) if k != "label"]
    return "\n".join(lines) + "\n"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "group"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
