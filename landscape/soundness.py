"""What to distrust in surfaces, and what was looked at and found in order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from landscape.plot import style
from landscape.plot.sheet import MUST_AGREE
from landscape.refusals import (
    CENTRE_TOLERANCE,
    below_zero,
    centre_off,
    known,
    not_finite_share,
    not_finite_text,
    refusals,
)
from landscape.subjects import Subject, groups, labelled

__all__ = ["checks", "health", "passed", "refusals", "troubles"]

COSINE_TOLERANCE = 0.1  # random directions in many dimensions are orthogonal; these are not
# Settings in which two subjects differ by being two subjects.
_OWN = {"checkpoint", "path", "label", "name", "fingerprint"}


def health(subjects: Sequence[Subject]) -> list[str]:
    """What a reader should distrust in the surfaces themselves, one sentence each.

    Looks for points that are missing, NaN or infinite, for directions that are far from orthogonal,
    for a grid whose centre is not the objective's own value, and for settings in which subjects
    of one group differ.
    """
    found: list[str] = []
    for group in groups(subjects):
        for kind in ("surfaces", "lines"):
            many = labelled(subjects, group, kind)
            for surface in many:
                where = f"{surface.attrs['label']}, {group}, {kind[:-1]}"
                found += [f"{where}: {trouble}" for trouble in troubles(surface)]
            found += [f"{group}, {kind}: {trouble}" for trouble in _differences(many)]
        for s in subjects:
            if group in s.spectra and not s.spectra[group].converged:
                found.append(f"{s.label}, {group}, eigenvalues: {s.spectra[group].outcome}")
    return found


def checks(subjects: Sequence[Subject]) -> list[str]:
    """What :func:`health` looked at and found in order, one sentence each; what it found is not among them."""
    surfaces = [
        s
        for g in groups(subjects)
        for kind in ("surfaces", "lines")
        for s in labelled(subjects, g, kind)
    ]
    told = []
    if surfaces:
        told += passed(surfaces)
        if not any(
            True
            for g in groups(subjects)
            for kind in ("surfaces", "lines")
            for _ in _differences(labelled(subjects, g, kind))
        ):
            told.append(
                "the subjects of a figure agree in normalization, what stays fixed, seed, span and points, and in the "
                "settings of their objective"
            )
    spectra = [s.spectra[g] for g in groups(subjects) for s in subjects if g in s.spectra]
    if spectra and all(s.converged for s in spectra):
        worst = max(
            r / max(abs(v), 1e-300)
            for s in spectra
            for v, r in zip(s.values, s.residuals, strict=True)
        )
        told.append(f"all eigenvalues converged: residuals at most {worst:.1%} of the eigenvalue")
    return told


def passed(surfaces: Sequence[xr.Dataset]) -> list[str]:
    """The checks that all of some surfaces pass, one sentence each."""
    told = []
    seen = [known(s) for s in surfaces]
    points = sum(loss.size for loss, _ in seen)
    if all(done.all() and np.isfinite(loss[done]).all() for loss, done in seen):
        several = f" of {len(surfaces)} surfaces and lines" if len(surfaces) > 1 else ""
        told.append(f"all {points} points{several} are there and finite")
    cosines = [
        abs(float(s.attrs["direction_cosine"])) for s in surfaces if "direction_cosine" in s.attrs
    ]
    cosines = [c for c in cosines if not math.isnan(c)]
    if cosines and max(cosines) <= COSINE_TOLERANCE:
        told.append(f"the directions are orthogonal: cosine at most {max(cosines):.2g}")
    offs = [off for s in surfaces if (off := centre_off(s)) is not None]
    if offs and max(offs) <= CENTRE_TOLERANCE:
        told.append(f"each grid's centre is the objective's own value, to {max(offs):.1g} of it")
    modes = sorted({str(m) for s in surfaces if (m := _objective(s).get("norm")) is not None})
    if modes:
        told.append(f"norm layers: {', '.join(modes)}")
    return told


def troubles(surface: xr.Dataset) -> list[str]:
    """What to distrust in one surface, one sentence each; :func:`refusals` are among them."""
    loss, done = known(surface)
    found = []
    if not done.all():
        found.append(
            f"{np.count_nonzero(~done)} of {loss.size} points are not evaluated yet; "
            "the figure is incomplete"
        )
    if not_finite_share(loss, done):
        found.append(not_finite_text(loss, done))
    if (dip := below_zero(surface)) is not None:
        found.append(dip[0])
    cosine = float(surface.attrs.get("direction_cosine", 0.0))
    if abs(cosine) > COSINE_TOLERANCE:
        found.append(
            f"the directions are not orthogonal (cosine {cosine:.2f}), so shapes are sheared"
        )
    found += json.loads(surface.attrs.get("cautions", "[]"))
    return list(dict.fromkeys(found + refusals(surface)))


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
