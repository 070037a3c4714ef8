"""Figures of training as a path: over the surface of its plane, and step by step."""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr

from landscape.plot.curvature import Backend, wants_plotly
from landscape.plot.readings import Datasets
from landscape.plot.sheet import gather
from landscape.plot.trails import read_trails, require_plane


def trajectory(
    surface: xr.Dataset,
    paths: Datasets,
    backend: Backend = "plotly",
    *,
    kind: Literal["contour", "surface3d"] = "contour",
    title: str = "The path of training over its plane",
    group: str | None = None,
    log: bool | None = None,
) -> Any:
    """A surface with the path that training took over it.

    Markers turn from white to the path's colour with the steps, and grow with the share of a checkpoint's
    distance that lies off the plane. On contours the interactive figure has a slider over the steps, which
    starts at the last. In three dimensions stems lead from the loss in the plane to the checkpoint's own.

    Args:
        surface: a surface over the plane.
        paths: one Dataset of :func:`landscape.follow`, several, or a mapping from labels.
        backend: ``"plotly"`` or ``"matplotlib"``.
        kind: ``"contour"`` or ``"surface3d"``.
        title: short title of the figure.
        group: which data the loss was taken on, stated in the footnote.
        log: vertical scale to start with; None: logarithmic above two decades. Interactive figures
            have a switch.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, a path without its variables, or one over another plane.
    """
    if kind not in ("contour", "surface3d"):
        raise ValueError(f"kind={kind!r} is not known; expected one of contour, surface3d")
    require_plane(surface, paths)
    sheet, trails = gather(surface, axes=2, group=group), read_trails(paths)
    if wants_plotly(backend):
        from landscape.plot import trajectories as interactive

        draw = interactive.contour if kind == "contour" else interactive.surface3d
        return draw(sheet, trails, title, log)
    from landscape.plot import trajectories_static as static

    paper = static.contour if kind == "contour" else static.surface3d
    return paper(sheet, trails, title, log)


def along_path(
    paths: Datasets,
    backend: Backend = "plotly",
    *,
    title: str = "Along training",
) -> Any:
    """Loss, distance off the plane and sharpness over the steps of training, one panel each.

    The loss of a checkpoint is drawn solid, that of its foot in the plane dashed. Bands hold 95 %.

    Args:
        paths: one Dataset of :func:`landscape.follow`, several, or a mapping from labels.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: a path without its variables.
    """
    trails = read_trails(paths)
    if wants_plotly(backend):
        from landscape.plot import trajectories as interactive

        return interactive.along_path(trails, title)
    from landscape.plot import trajectories_static as static

    return static.along_path(trails, title)
