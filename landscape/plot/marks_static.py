"""Named points, paths and quadratic models in paper figures (matplotlib)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from landscape.plot import style
from landscape.plot.marks import heights, lines_at
from landscape.plot.paper import plain_text
from landscape.plot.sheet import Panel, Scale, Sheet


def over_contour(axes: Axes, panel: Panel) -> None:
    """A path and named points over filled contours; a cross at the centre where nothing has a name."""
    if panel.path is not None:
        axes.plot(panel.path.alpha, panel.path.beta, color="white", linewidth=1.1,
                  path_effects=[_halo(2.2)])  # fmt: skip
    if not panel.marks:
        axes.plot(0, 0, "+", color="white", markersize=6, markeredgewidth=1.1)
    for mark in panel.marks:
        axes.plot(mark.alpha, mark.beta, "o", color="white", markersize=3.6,
                  markeredgewidth=0.7, markeredgecolor=style.INK)  # fmt: skip
        axes.annotate(
            plain_text(mark.label), (mark.alpha, mark.beta), xytext=(0, 4), ha="center",
            textcoords="offset points", color="white", fontweight="bold", path_effects=[_halo(1.6)],
            fontsize=style.PAPER_FONT_SIZE - 1,
        )  # fmt: skip


def over_surface(axes: Any, panel: Panel, scale: Scale) -> None:
    """The same over a 3-D surface, in front of it."""
    if panel.path is not None:
        p = panel.path
        z = scale.place(heights(panel, p.alpha, p.beta, p.loss))
        axes.plot(p.alpha, p.beta, z, color=style.INK, linewidth=1.1, zorder=20)
    for mark in panel.marks:
        (z,) = scale.place(heights(panel, [mark.alpha], [mark.beta], [mark.loss]))
        axes.plot([mark.alpha], [mark.beta], [z], "o", color="white", markersize=3,
                  markeredgewidth=0.7, markeredgecolor=style.INK, zorder=21)  # fmt: skip
        axes.text(mark.alpha, mark.beta, z + 0.05 * (scale.high - scale.low), plain_text(mark.label),
                  ha="center", fontweight="bold", zorder=22, path_effects=[_halo(1.6, "white")],
                  fontsize=style.PAPER_FONT_SIZE - 1)  # fmt: skip


def beside_lines(axes: Axes, sheet: Sheet) -> None:
    """Named points of lines: a vertical rule each, with the name at its top."""
    last = float(sheet.panels[0].alpha[-1])
    width = last - float(sheet.panels[0].alpha[0])
    for alpha, label in lines_at(sheet.panels):
        left = alpha < last - 0.1 * width
        axes.axvline(alpha, color=style.MUTED, linewidth=0.6, linestyle=":", zorder=0)
        axes.annotate(
            plain_text(label), (alpha, 1), xycoords=("data", "axes fraction"), xytext=(2 if left else -2, -1),
            textcoords="offset points", va="top", ha="left" if left else "right", color=style.MUTED, fontweight="bold",
            fontsize=style.PAPER_FONT_SIZE - 1,
        )  # fmt: skip


def quadratics(axes: Axes, sheet: Sheet, log: bool) -> None:
    """The quadratic model of each line at its centre, dotted."""
    for i, p in enumerate(sheet.panels):
        if p.quadratic is not None:
            model = p.quadratic.along(p.alpha)
            axes.plot(p.alpha, np.where(model > 0, model, np.nan) if log else model, ":",
                      color=style.colour(i), linewidth=0.9)  # fmt: skip


def _halo(width: float, colour: str = style.INK) -> Any:
    return withStroke(linewidth=width, foreground=colour)
