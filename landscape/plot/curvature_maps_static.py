"""Paper maps of curvature over a plane (matplotlib): both ends of the spectrum and their ratio."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from landscape.plot import style
from landscape.plot.curvature_maps import Layer, layers, loss_levels
from landscape.plot.paper import add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.readings import Map
from landscape.plot.static import inside, tick_words
from landscape.plot.words import map_note

_NAMES = (r"$\lambda_{\max}$", r"$\lambda_{\min}$", r"$|\lambda_{\min} / \lambda_{\max}|$")


def curvature_map(maps: Sequence[Map], log: bool | None, title: str) -> Figure:
    """One row per map, one column per quantity; see `landscape.plot.curvature_map`."""
    rows = layers(maps, log)
    with mpl.rc_context(style.PAPER):
        names = [wrap(plain_text(m.label), 30) or [""] for m in maps]
        beside = 0.14 * max(len(name) for name in names)
        width, left, right, gap = style.PAGE_WIDTH, 0.44 + beside, 0.1, 0.2
        side = (width - left - right - gap * (len(rows) - 1)) / len(rows)
        note = wrapped_note(map_note(maps), width)
        foot, top = 0.72 + note_height(note), 0.46 if title else 0.24
        step = side + 0.12
        total = top + step * len(maps) - 0.12 + foot
        figure = new_figure(width, total, title, note)
        for k, layer in enumerate(rows):
            x = left + k * (side + gap)
            low, high = layer.colour_range()
            colours = ScalarMappable(Normalize(low, high), layer.colours)
            for i in range(len(maps)):
                box = (x, foot + (len(maps) - 1 - i) * step, side, side)
                axes = add_axes(figure, box)
                _panel(axes, maps, i, layer, colours)
                axes.tick_params(labelleft=k == 0, labelbottom=i == len(maps) - 1)
                if k == 0:
                    axes.set_ylabel("β", labelpad=-1)
                    figure.text(
                        (0.06 + beside / 2) / width,
                        (box[1] + side / 2) / total,
                        "\n".join(names[i]),
                        fontweight="bold",
                        rotation=90,
                        ha="center",
                        va="center",
                        multialignment="center",
                    )
                if i == len(maps) - 1:
                    axes.set_xlabel("α", labelpad=1)
            centre = (x + side / 2) / width
            head = (total - top + 0.05) / total
            figure.text(centre, head, _NAMES[k], ha="center", va="bottom", fontsize=9)
            bar = add_axes(figure, (x + side * 0.05, foot - 0.46, side * 0.9, 0.08))
            _bar(figure, colours, layer, bar)
        return figure


def _panel(axes: Any, maps: Sequence[Map], i: int, layer: Layer, colours: ScalarMappable) -> None:
    m = maps[i]
    z = np.ma.masked_invalid(layer.axis.place(layer.values[i]))
    axes.pcolormesh(
        m.alpha,
        m.beta,
        z,
        shading="nearest",
        cmap=colours.cmap,
        norm=colours.norm,
        rasterized=True,
    )
    if m.loss is not None:
        first, last, step = loss_levels(maps)
        edges = first + step * np.arange(round((last - first) / step) + 1)
        loss = np.ma.masked_invalid(m.loss)
        edges = edges[(edges >= loss.min()) & (edges <= loss.max())]
        if edges.size:
            axes.contour(
                m.alpha, m.beta, loss, levels=edges, colors=style.INK, linewidths=0.4, alpha=0.45
            )
    rows, columns = np.nonzero(layer.marks[i])
    axes.plot(
        m.alpha[columns],
        m.beta[rows],
        "X",
        color=style.INK,
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
    )
    axes.plot(
        0, 0, "P", color="white", markersize=4.5, markeredgecolor=style.INK, markeredgewidth=0.4
    )
    span = float(np.abs(m.alpha).max())
    ticks = [-span, 0.0, span]
    axes.set_xticks(ticks, tick_words(ticks))
    axes.set_yticks(ticks, tick_words(ticks))
    inside(axes, ticks)


def _bar(figure: Figure, colours: ScalarMappable, layer: Layer, axes: Any) -> None:
    bar = figure.colorbar(colours, cax=axes, orientation="horizontal")
    values, labels = layer.ticks()
    bar.set_ticks(layer.axis.place(values).tolist(), labels=labels)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
