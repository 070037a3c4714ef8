"""Paper figure of minima and passes (matplotlib)."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from landscape.plot import style
from landscape.plot.minima import Diagram, Minima, placed
from landscape.plot.paper import add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.sheet import Panel, Scale, Sheet
from landscape.plot.static import colorbar, level_values, three_ticks

_PASS = "#D55E00"


def topology(sheet: Sheet, minima: Minima, title: str, log: bool | None) -> Figure:
    """The persistence diagram, and the surface with its minima and passes, across a page."""
    (panel,) = sheet.panels
    scale = sheet.scale(sheet.choose_log(log))
    flat = panel.beta is not None
    with mpl.rc_context(style.PAPER):
        width, side, left, gap = style.PAGE_WIDTH, 2.3, 0.68, 0.62
        note = wrapped_note(sheet.footnote(*minima.remarks()), width)
        foot, top = 0.36 + note_height(note), 0.5 if title else 0.24
        figure = new_figure(width, foot + side + top, title, note)
        _diagram(add_axes(figure, (left, foot, side, side)), minima, minima.diagram(log))
        start = left + side + gap
        wide = side if flat else width - start - 0.16
        axes = add_axes(figure, (start, foot, wide, side))
        if flat:
            _contour(axes, panel, scale)
            colorbar(figure, scale, (start + wide + 0.16, foot, 0.09, side))
        else:
            _line(axes, panel, scale)
        axes.set_title(plain_text(panel.label), fontweight="bold", pad=3)
        _marks(axes, minima, scale)
        return figure


def _diagram(axes: Any, minima: Minima, d: Diagram) -> None:
    axes.fill_between(d.band_x, d.band_x, d.band_y, color=style.MUTED, alpha=0.18, linewidth=0)
    axes.plot([d.bottom, d.top], [d.bottom, d.top], color=style.MUTED, linewidth=0.7)
    axes.axhline(d.never, color=style.MUTED, linewidth=0.7, linestyle=":")
    noise = ~minima.significant
    hue = style.SUBJECT_COLOURS[0]
    axes.plot(d.x[noise], d.y[noise], ".", color=hue, markersize=3, alpha=0.8)
    _numbered(axes, minima, d.x, d.y, hue, "white")
    axes.set(xlim=(d.bottom, d.top), ylim=(d.bottom, d.top))
    axes.set_xticks(d.scale.ticks, d.scale.labels)
    axes.set_yticks([*d.scale.ticks, d.never], [*d.scale.labels, "no pass"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("loss at the minimum", labelpad=1)
    axes.set_ylabel("loss at the pass", labelpad=2)
    axes.set_title("Persistence", fontweight="bold", pad=3)


def _contour(axes: Any, panel: Panel, scale: Scale) -> None:
    z = np.ma.masked_invalid(scale.place(panel.loss))
    edges = level_values(scale)
    filled = axes.contourf(
        panel.alpha, panel.beta, z, levels=[scale.low, *edges, scale.high], cmap=style.SEQUENTIAL,
        norm=Normalize(scale.low, scale.high), extend="neither",
    )  # fmt: skip
    filled.set_edgecolor("face")
    axes.contour(
        panel.alpha, panel.beta, z, levels=edges, colors="white", linewidths=0.35, alpha=0.7
    )
    axes.set_xlabel(panel.titles[0], labelpad=1)
    axes.set_ylabel(panel.titles[1], labelpad=-2)
    for which in (axes.set_xticks, axes.set_yticks):
        which(three_ticks(panel.alpha))
    axes.margins(0.02)  # room for marks on the edge of the window
    axes.set_aspect("equal")


def _line(axes: Any, panel: Panel, scale: Scale) -> None:
    axes.plot(panel.alpha, scale.place(panel.loss), color=style.INK, linewidth=1)
    axes.set_yticks(scale.ticks, scale.labels)
    axes.set_ylim(*scale.padded(0.08, 0.08))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(panel.titles[0], labelpad=1)
    axes.set_ylabel("loss", labelpad=2)


def _marks(axes: Any, minima: Minima, scale: Scale) -> None:
    flat = minima.beta is not None
    y = minima.beta if minima.beta is not None else placed(scale, minima.loss)
    passes = minima.significant & np.isfinite(minima.saddle_loss)
    over = (
        minima.saddle_beta[passes]
        if minima.saddle_beta is not None
        else placed(scale, minima.saddle_loss[passes])
    )
    noise = ~minima.significant
    axes.plot(
        minima.alpha[noise], y[noise], ".", color="white" if flat else style.MUTED, markersize=2.2
    )
    axes.plot(
        minima.saddle_alpha[passes], over, "X", color=_PASS, markersize=6, markeredgecolor="white",
        markeredgewidth=0.7,
    )  # fmt: skip
    fill, ink = ("white", style.INK) if flat else (style.SUBJECT_COLOURS[0], "white")
    _numbered(axes, minima, minima.alpha, y, fill, ink)


def _numbered(axes: Any, minima: Minima, x: Any, y: Any, fill: str, ink: str) -> None:
    for i in np.flatnonzero(minima.significant):
        marker = "s" if minima.doubtful[i] else "o"
        axes.plot(
            x[i], y[i], marker, color=fill, markersize=8, markeredgecolor=style.INK, markeredgewidth=0.6,
            clip_on=False, zorder=5,
        )  # fmt: skip
        axes.annotate(
            str(minima.number[i]), (x[i], y[i]), ha="center", va="center_baseline", color=ink,
            fontsize=style.PAPER_FONT_SIZE - 2, zorder=6, annotation_clip=False,
        )  # fmt: skip
