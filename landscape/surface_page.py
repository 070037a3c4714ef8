"""Surfaces for people: one page with figures, how they were computed, and what to distrust."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from landscape import plot
from landscape.plot.page import Section, write_page
from landscape.soundness import passed, troubles


def write(
    path: Path,
    surfaces: Sequence[xr.Dataset],
    told: Sequence[Sequence[str]] = (),
    figures: Sequence[go.Figure] = (),
) -> Path:
    """Write surfaces, or lines, on one scale as a page that works offline.

    Args:
        path: the HTML file.
        surfaces: over one grid, each with its label.
        told: sentences about each surface, such as its barriers.
        figures: what is drawn; the surfaces themselves when left out.

    Raises:
        ValueError: nothing finite to draw, or surfaces that must not be compared.
        OSError: the file cannot be written.
    """
    names = [str(s.attrs.get("label") or "a solution") for s in surfaces]
    flat = surfaces[0]["loss"].ndim == 2
    if not figures:
        figures = _figures(surfaces, flat)
    many = len(surfaces) > 1
    warnings = [
        f"{name}: {trouble}" if many else trouble
        for name, surface in zip(names, surfaces, strict=True)
        for trouble in troubles(surface)
    ]
    lead = [
        f"{name}: loss {float(s.attrs['centre_loss']):.6g} at the solution."
        for name, s in zip(names, surfaces, strict=True)
        if "centre_loss" in s.attrs
    ]
    words = [_sentence(line) for lines in told for line in lines]
    settings: dict[str, Any] = {
        name: dict(s.attrs) for name, s in zip(names, surfaces, strict=True)
    }
    kind = "Loss surface" if flat else "Loss along a line"
    return write_page(
        path,
        f"{kind}: {' and '.join(names)}",
        "\n\n".join(lead),
        [Section(kind, "\n\n".join(words), figures)],
        settings if many else settings[names[0]],
        warnings,
        passed(surfaces),
    )


def _figures(surfaces: Sequence[xr.Dataset], flat: bool) -> list[go.Figure]:
    if flat:
        return [plot.surface3d(surfaces), plot.contour(surfaces)]
    return [plot.line(surfaces)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
