"""Paper figures of differences of surfaces (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from landscape.plot import style
from landscape.plot.differences import (
    DIVERGING,
    Contrast,
    axes_of,
    note_of,
    refused_of,
    starts_log,
)
from landscape.plot.paper import add_axes, new_figure, note_height, plain_text, wrapped_note


def difference(
    contrasts: Sequence[Contrast], attrs: dict[str, Any], group: str, title: str, log: bool | None
) -> Figure:
    """Filled contours side by side on one diverging scale; see `landscape.plot.difference`."""
    axis = axes_of(contrasts)[starts_log(contrasts, log)]
    low, high = (float(v) for v in axis.place([axis.low, axis.high]))
    colours = ScalarMappable(Normalize(low, high), DIVERGING)
    columns = min(len(contrasts), 4)
    rows = -(-len(contrasts) // columns)
    with mpl.rc_context(style.PAPER):
        width = style.COLUMN_WIDTH if columns == 1 else style.PAGE_WIDTH
        words = style.footnote(attrs, group, [note_of(contrasts)], refused_of(contrasts))
        note = wrapped_note(words, width)
        foot, top, left, right, gap = (
            0.38 + note_height(note),
            0.42 if title else 0.22,
            0.44,
            0.62,
            0.16,
        )
        side = (width - left - right - gap * (columns - 1)) / columns
        step = side + 0.52
        figure = new_figure(width, top + rows * step - 0.52 + foot, title, note)
        for i, c in enumerate(contrasts):
            row, column = divmod(i, columns)
            box = (left + column * (side + gap), foot + (rows - 1 - row) * step, side, side)
            axes = add_axes(figure, box)
            z = np.ma.masked_invalid(axis.place(c.values))
            axes.contourf(
                c.alpha,
                c.beta,
                z,
                levels=np.linspace(low, high, 25),
                cmap=colours.cmap,
                norm=colours.norm,
            )
            x, y = c.dots()
            axes.plot(x, y, ".", color=style.MUTED, markersize=0.9)
            axes.plot(0, 0, "+", color="black", markersize=5, markeredgewidth=0.8)
            axes.set_title(plain_text(c.label), fontweight="bold", pad=3)
            axes.set_aspect("equal")
            axes.set_xlabel(plain_text(style.axis_title("α", attrs)), labelpad=1)
            if column == 0:
                axes.set_ylabel(plain_text(style.axis_title("β", attrs)), labelpad=0)
            ends = [float(c.alpha[0]), 0.0, float(c.alpha[-1])]
            axes.set_xticks(ends, labels=[style.number(v) for v in ends])
            axes.set_yticks(ends, labels=[style.number(v) for v in ends])
            axes.tick_params(labelleft=column == 0)
        bar = figure.colorbar(
            colours, cax=add_axes(figure, (width - right + 0.1, foot, 0.08, side))
        )
        values, labels = axis.ticks(5, 0.12)
        bar.set_ticks(axis.place(values).tolist(), labels=labels)
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        bar.ax.set_title("difference", fontsize=style.PAPER_FONT_SIZE - 1, pad=3)
        return figure
