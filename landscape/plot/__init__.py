"""Figures of surfaces, lines and curvature.

Numbers in, pictures out: everything here reads the Datasets described in ``docs/schema.md`` (or
plain numbers) and computes no loss. Panels of one figure always share one range, one colour scale
and one set of directions; surfaces that must not be compared are refused.

Interactive figures are ``plotly.graph_objects.Figure``, paper figures ``matplotlib.figure.Figure``
(made without pyplot, so no global state is touched and nothing has to be closed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import xarray as xr

from landscape.plot.curvature import (
    Backend,
    along_training,
    curvature_map,
    density,
    spectrum,
    stability,
    wants_plotly,
)
from landscape.plot.ladders import consistency
from landscape.plot.sheet import Surfaces, gather

Kind = Literal["surface3d", "contour", "line"]

__all__ = [
    "along_training",
    "compare",
    "consistency",
    "contour",
    "curvature_map",
    "density",
    "line",
    "spectrum",
    "stability",
    "surface3d",
]


def surface3d(
    surface: Surfaces,
    backend: Backend = "plotly",
    *,
    title: str = "Loss surface",
    group: str | None = None,
    log: bool | None = None,
) -> Any:
    """The loss over a plane as a surface, its contours projected on the floor.

    Several surfaces stand side by side (at most four) with one z range, one colour scale and one
    camera. Points that are NaN, infinite or not evaluated yet are gaps.

    Args:
        surface: one Dataset or several, with dimensions ``beta`` and ``alpha``.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        group: which data the loss was taken on (``"test episodes"``), stated in the footnote.
        log: vertical scale to start with; None: logarithmic above two decades. Interactive figures
            have a switch.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, more than four surfaces, or surfaces that must not be
            compared (another normalization, ignored parameters, span, points or seed).
    """
    sheet = gather(surface, axes=2, group=group)
    if wants_plotly(backend):
        from landscape.plot import interactive

        return interactive.surface3d(sheet, title, log)
    from landscape.plot import static

    return static.surface3d(sheet, title, log)


def contour(
    surface: Surfaces,
    backend: Backend = "plotly",
    *,
    title: str = "Loss contours",
    group: str | None = None,
    log: bool | None = None,
) -> Any:
    """The loss over a plane as filled contours; several side by side at the same levels.

    A cross marks the centre, which is the solution itself. Arguments, result and errors are those
    of `surface3d`, without a limit on the number of panels.
    """
    sheet = gather(surface, axes=2, group=group)
    if wants_plotly(backend):
        from landscape.plot import interactive

        return interactive.contour(sheet, title, log)
    from landscape.plot import static

    return static.contour(sheet, title, log)


def line(
    surface: Surfaces,
    backend: Backend = "plotly",
    *,
    title: str = "Loss along a line",
    group: str | None = None,
    log: bool | None = None,
    relative: bool = False,
) -> Any:
    """The loss along one direction, all subjects on one axis, with 95% bands of the mean.

    Args:
        surface: one Dataset or several, with the single dimension ``alpha``.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        group: which data the loss was taken on, stated in the footnote.
        log: vertical scale to start with; None: logarithmic above two decades.
        relative: draw the rise above each line's own loss at the centre: its shape without its
            height. Such a difference has no band, because its standard error is not in the file.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, lines that must not be compared, or ``log=True``
            together with ``relative=True`` (the rise at the centre is zero).
    """
    if relative and log:
        raise ValueError("log=True needs positive values, relative=True is zero at the centre")
    sheet = gather(surface, axes=1, group=group)
    if relative:
        sheet, log = sheet.relative(), False
    if wants_plotly(backend):
        from landscape.plot import curves

        return curves.line(sheet, title, log, relative)
    from landscape.plot import static

    return static.line(sheet, title, log, relative)


def compare(
    surfaces: Sequence[xr.Dataset],
    kind: Kind = "surface3d",
    backend: Backend = "plotly",
    **options: Any,
) -> Any:
    """Several surfaces or lines in one figure, on one scale.

    Args:
        surfaces: Datasets drawn along the same directions rule, seed, span and grid.
        kind: ``"surface3d"``, ``"contour"`` or ``"line"``.
        backend: ``"plotly"`` or ``"matplotlib"``.
        options: keyword arguments of the function named by ``kind``.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        ValueError: an unknown kind, or surfaces that must not be compared; the message names the
            attribute that differs.
    """
    draw = {"surface3d": surface3d, "contour": contour, "line": line}
    if kind not in draw:
        raise ValueError(f"kind={kind!r} is not known; expected one of {', '.join(draw)}")
    return draw[kind](surfaces, backend, **options)
