"""Paths of training over paper figures (matplotlib): on contours and on 3-D surfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from landscape.plot import style
from landscape.plot.sheet import Scale
from landscape.plot.trails import Trail, colour, place, read_trails, stems

_OVER = 20  # the order of drawing: in front of surfaces and contours


def on_contour(figure: Figure, panel: int, trajectory: xr.Dataset | Trail, hue: int = 0) -> None:
    """Draw a path over a panel of filled contours; see `landscape.plot.paths.on_contour`.

    Args:
        figure: what `landscape.plot.contour` returned; changed in place.
        panel: index of the panel.
        trajectory: what :func:`landscape.trajectory.follow` returned.
        hue: index of the path's colour.
    """
    trail = trajectory if isinstance(trajectory, Trail) else read_trails(trajectory)[0]
    axes = figure.axes[panel]
    casing = [withStroke(linewidth=2.6, foreground=style.INK)]
    axes.plot(
        trail.alpha,
        trail.beta,
        color=colour(hue),
        linewidth=1.3,
        zorder=_OVER,
        path_effects=casing,
    )
    axes.scatter(
        trail.alpha, trail.beta, s=trail.sizes(7, 46), zorder=_OVER + 1, **_markers(trail, hue)
    )
    for i, words, above in trail.ends():
        axes.annotate(
            words,
            (trail.alpha[i], trail.beta[i]),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            color="white",
            fontweight="bold",
            fontsize=style.PAPER_FONT_SIZE - 1,
            zorder=_OVER + 2,
            path_effects=[withStroke(linewidth=1.8, foreground=style.INK)],
        )


def on_surface(
    figure: Figure, panel: int, trajectory: xr.Dataset | Trail, scale: Scale, hue: int = 0
) -> None:
    """Draw a path over a 3-D surface with stems to the true losses; see `landscape.plot.paths.on_surface`.

    Args:
        figure: what `landscape.plot.surface3d` returned; changed in place.
        panel: index of the panel.
        trajectory: what :func:`landscape.trajectory.follow` returned.
        scale: the vertical scale of the figure.
        hue: index of the path's colour.
    """
    trail = trajectory if isinstance(trajectory, Trail) else read_trails(trajectory)[0]
    axes: Any = figure.axes[panel]
    axes.computed_zorder = False  # else a path in front of the surface may be drawn behind it
    if trail.surface_loss is not None:
        foot = place(trail.surface_loss, scale.log)
        axes.plot(trail.alpha, trail.beta, foot, color=style.INK, linewidth=0.8, zorder=_OVER)
    x, y, z = stems(trail)
    axes.plot(x, y, place(z, scale.log), color=colour(hue), linewidth=0.9, zorder=_OVER + 1)
    axes.scatter(
        trail.alpha,
        trail.beta,
        place(trail.loss, scale.log),
        s=trail.sizes(5, 24),
        depthshade=False,
        zorder=_OVER + 2,
        **_markers(trail, hue),
    )


def _markers(trail: Trail, hue: int) -> dict[str, Any]:
    return {
        "c": np.arange(len(trail.steps)),
        "cmap": LinearSegmentedColormap.from_list("steps", ["white", colour(hue)]),
        "vmin": 0,
        "vmax": max(len(trail.steps) - 1, 1),
        "edgecolors": "black",
        "linewidths": 0.5,
    }
