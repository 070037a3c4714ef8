"""Figures of surfaces, lines and curvature.

Numbers in, pictures out: everything here reads the Datasets described in ``docs/schema.md`` (or
plain numbers) and computes no loss. Panels of one figure always share one range, one colour scale
and one set of directions; surfaces that must not be compared are refused.

Interactive figures are ``plotly.graph_objects.Figure``, paper figures ``matplotlib.figure.Figure``
(made without pyplot, so no global state is touched and nothing has to be closed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from landscape.plot.following import along_path, trajectory
from landscape.plot.ladders import consistency
from landscape.plot.minima import topology
from landscape.plot.overlaid import contour as contour_with
from landscape.plot.overlaid import surface3d as surface3d_with
from landscape.plot.sections import cross_sections
from landscape.plot.sheet import Surfaces, gather

Kind = Literal["surface3d", "contour", "line"]

__all__ = [
    "along_path",
    "along_training",
    "compare",
    "consistency",
    "contour",
    "cross_sections",
    "curvature_map",
    "density",
    "difference",
    "line",
    "spectrum",
    "stability",
    "surface3d",
    "topology",
    "trajectory",
]


def surface3d(
    surface: Surfaces,
    backend: Backend = "plotly",
    *,
    title: str = "Loss surface",
    group: str | None = None,
    log: bool | None = None,
    paths: Mapping[str, xr.Dataset] | None = None,
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
        paths: label of a surface -> the way of training to it (`landscape.follow`), drawn over its panel with
            stems from the loss in the plane to the true loss of each checkpoint.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, more than four surfaces, a path of no surface, or surfaces that
            must not be compared (another normalization, ignored parameters, span, points or seed).
    """
    return surface3d_with(gather(surface, axes=2, group=group), backend, title, log, paths)


def contour(
    surface: Surfaces,
    backend: Backend = "plotly",
    *,
    title: str = "Loss contours",
    group: str | None = None,
    log: bool | None = None,
    paths: Mapping[str, xr.Dataset] | None = None,
) -> Any:
    """The loss over a plane as filled contours; several side by side at the same levels.

    A cross marks the centre, which is the solution itself. Arguments, result and errors are those
    of `surface3d`, without a limit on the number of panels.
    """
    return contour_with(gather(surface, axes=2, group=group), backend, title, log, paths)


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
    else:
        log = sheet.choose_log(log)  # by the lines, not by their bands
        sheet = sheet.with_bands()
    if wants_plotly(backend):
        from landscape.plot import curves

        return curves.line(sheet, title, log, relative)
    from landscape.plot import static

    return static.line(sheet, title, log, relative)


def difference(
    differences: Surfaces,
    backend: Backend = "plotly",
    *,
    of: Literal["rise", "loss"] = "rise",
    title: str | None = None,
    group: str | None = None,
    log: bool | None = None,
) -> Any:
    """Differences of surfaces on one diverging scale: blue where the second is lower, red where it is higher.

    Dots mark what cannot be told from zero (95 % intervals).

    Args:
        differences: one Dataset of `landscape.surface_difference`, or several.
        backend: ``"plotly"`` or ``"matplotlib"``.
        of: ``"rise"``, the loss above each surface's own centre, which is a question of shape; ``"loss"``, the
            losses themselves.
        title: short title of the figure.
        group: which data the loss was taken on, stated in the footnote.
        log: logarithmic on both sides of zero, or linear; None: logarithmic where few differences are large.
            Interactive figures have a switch.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, or differences over other planes.
    """
    from landscape.plot import differences as interactive

    many = [differences] if isinstance(differences, xr.Dataset) else list(differences)
    contrasts = interactive.read(many, of)
    attrs = dict(many[0].attrs)
    group = attrs.get("group", "") if group is None else group
    if title is None:
        title = "Whose loss rises more?" if of == "rise" else "Difference of the losses"
    if wants_plotly(backend):
        return interactive.difference(contrasts, attrs, group, title, log, of)
    from landscape.plot import differences_static as static

    return static.difference(contrasts, attrs, group, title, log)


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
    draw: dict[str, Callable[..., Any]] = {"surface3d": surface3d, "contour": contour, "line": line}
    if kind not in draw:
        raise ValueError(f"kind={kind!r} is not known; expected one of {', '.join(draw)}")
    return draw[kind](surfaces, backend, **options)
