"""Paper figures (matplotlib): column widths, 8-point text, vectors, no pyplot.

Sizes are laid out in inches by hand: the automatic layouts of matplotlib leave 3-D axes small.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from landscape.plot import style
from landscape.plot.paper import DASHES, add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.sheet import MAX_SCENES, Scale, Sheet

FLOOR = 0.3  # how far under the lowest point the projected contours lie, in heights


def surface3d(sheet: Sheet, title: str, log: bool | None) -> Figure:
    """Surfaces in a row with one z range and one colour scale; contours on the floor."""
    count = len(sheet.panels)
    if count > MAX_SCENES:
        raise ValueError(f"a figure holds at most {MAX_SCENES} 3-D panels, got {count}")
    scale = sheet.scale(sheet.choose_log(log))
    with mpl.rc_context(style.PAPER):
        width = style.COLUMN_WIDTH if count == 1 else style.PAGE_WIDTH
        columns = {1: 1, 2: 2, 3: 3, 4: 2}[count]
        rows = -(-count // columns)
        bar = 0.62
        cell = (width - bar) / columns
        tall = min(cell * 0.92, 2.45)
        top = 0.3 if title else 0.06
        note = wrapped_note(sheet.footnote(), width)
        foot = note_height(note)
        figure = new_figure(width, top + rows * tall + foot, title, note)
        for i, panel in enumerate(sheet.panels):
            row, column = divmod(i, columns)
            box = (column * cell, foot + (rows - 1 - row) * tall, cell, tall)
            axes = add_axes(figure, box, projection="3d")
            _draw_surface(axes, panel.alpha, panel.beta, scale.place(panel.loss), scale)
            # A label inside the box of the axes: 3-D axes keep much room above themselves.
            axes.text2D(
                0.5,
                0.97,
                plain_text(panel.label),
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontweight="bold",
            )
        inner = rows * tall
        _colorbar(figure, scale, (width - bar + 0.1, foot + inner * 0.18, 0.09, inner * 0.64))
        return figure


def contour(sheet: Sheet, title: str, log: bool | None) -> Figure:
    """Filled contours at the same levels; the centre is marked with a cross."""
    count = len(sheet.panels)
    scale = sheet.scale(sheet.choose_log(log))
    columns = min(count, 4)
    rows = -(-count // columns)
    with mpl.rc_context(style.PAPER):
        width = style.COLUMN_WIDTH if count == 1 else style.PAGE_WIDTH
        left, bar, gap = 0.46, 0.62, 0.14
        side = (width - left - bar - gap * (columns - 1)) / columns
        note = wrapped_note(sheet.footnote(), width)
        step, foot = side + 0.28, 0.34 + note_height(note)
        top = 0.5 if title else 0.24
        figure = new_figure(width, top + side + (rows - 1) * step + foot, title, note)
        for i, panel in enumerate(sheet.panels):
            row, column = divmod(i, columns)
            box = (left + column * (side + gap), foot + (rows - 1 - row) * step, side, side)
            axes = add_axes(figure, box)
            z = np.ma.masked_invalid(scale.place(panel.loss))
            edges = _levels(scale)
            filled = axes.contourf(
                panel.alpha,
                panel.beta,
                z,
                levels=[scale.low, *edges, scale.high],
                cmap=style.SEQUENTIAL,
                norm=Normalize(scale.low, scale.high),
                extend="neither",
            )
            filled.set_edgecolor("face")  # hides the hairlines between areas in PDF viewers
            axes.contour(
                panel.alpha, panel.beta, z, levels=edges, colors="white", linewidths=0.35, alpha=0.7
            )
            axes.plot(0, 0, "+", color="white", markersize=6, markeredgewidth=1.1)
            axes.set_title(plain_text(panel.label), fontweight="bold", pad=3)
            axes.set_aspect("equal")
            span = float(np.abs(panel.alpha).max())
            axes.set_xticks([-span, 0, span])
            axes.set_yticks([-span, 0, span])
            axes.tick_params(labelleft=column == 0, labelbottom=row == rows - 1)
            if row == rows - 1:
                axes.set_xlabel("α", labelpad=1)
            if column == 0:
                axes.set_ylabel("β", labelpad=-2)
        inner = side + (rows - 1) * step
        _colorbar(figure, scale, (width - bar + 0.12, foot, 0.09, inner))
        return figure


def line(sheet: Sheet, title: str, log: bool | None, relative: bool) -> Figure:
    """All lines on one axis with 95% bands, each labelled at its right-hand end."""
    start = sheet.choose_log(log)
    with mpl.rc_context(style.PAPER):
        width, height = style.COLUMN_WIDTH, 2.35
        top = 0.26 if title else 0.08
        bands = any(p.stderr is not None for p in sheet.panels)
        kind = "paired standard errors" if relative else "standard errors"
        remark = [f"band ±{style.Z95} {kind}"] if bands else []
        note = wrapped_note(sheet.footnote(*remark), width)
        foot = 0.36 + note_height(note)
        longest = max(len(p.label) for p in sheet.panels)
        right = min(1.15, 0.14 + 0.068 * longest)
        figure = new_figure(width, height + top, title, note)
        axes = add_axes(figure, (0.54, foot, width - 0.54 - right, height - foot))
        if start:
            axes.set_yscale("log")
        scale = sheet.scale(start)
        low, high = scale.padded(0.06, 0.06)
        axes.set_ylim(*((10.0**low, 10.0**high) if start else (low, high)))
        ends: list[tuple[float, str, str]] = []
        for i, p in enumerate(sheet.panels):
            if p.stderr is not None:
                half = style.Z95 * p.stderr
                lower = p.loss - half
                if start:
                    lower = np.where(lower < sheet.low / 10, sheet.low / 10, lower)
                axes.fill_between(
                    p.alpha, lower, p.loss + half, color=style.colour(i), alpha=0.16, linewidth=0
                )
            dash = DASHES[i % len(DASHES)]
            axes.plot(p.alpha, p.loss, color=style.colour(i), linestyle=dash)
            finite = p.loss[np.isfinite(p.loss)]
            if finite.size:
                ends.append((float(finite[-1]), plain_text(p.label), style.colour(i)))
        span = float(np.abs(sheet.panels[0].alpha).max())
        axes.set_xlim(-span, span)
        axes.set_yticks([10.0**t for t in scale.ticks] if start else scale.ticks, scale.labels)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(style.axis_title("α", sheet.attrs), labelpad=1)
        axes.set_ylabel("loss − loss at the centre" if relative else "loss", labelpad=2)
        _end_labels(axes, ends, height - foot)
        return figure


def _draw_surface(axes: Axes3D, alpha: Any, beta: Any, z: Any, scale: Scale) -> None:
    floor, ceiling = scale.padded(FLOOR, 0.02)
    norm = Normalize(scale.low, scale.high)
    x, y = np.meshgrid(alpha, beta)
    edges = _levels(scale)
    axes.contour(
        x,
        y,
        np.ma.masked_invalid(z),
        levels=edges,
        zdir="z",
        offset=floor,
        cmap=style.SEQUENTIAL,
        norm=norm,
        linewidths=0.6,
    )
    surface = axes.plot_surface(
        x,
        y,
        z,
        rcount=z.shape[0],
        ccount=z.shape[1],
        cmap=style.SEQUENTIAL,
        norm=norm,
        linewidth=0.15,
        antialiased=True,
        shade=False,
    )
    surface.set_edgecolor("face")  # hides the hairlines between patches in PDF viewers
    axes.set_zlim(floor, ceiling)
    span = float(np.abs(alpha).max())
    axes.set_xticks([-span, 0, span])
    axes.set_yticks([-span, 0, span])
    keep = list(zip(scale.ticks, scale.labels, strict=True))[:: 2 if len(scale.ticks) > 5 else 1]
    axes.set_zticks([t for t, _ in keep], [label for _, label in keep])
    axes.set_xlabel("α", labelpad=-9)
    axes.set_ylabel("β", labelpad=-9)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_tick_params(pad=-3.5, labelsize=style.PAPER_FONT_SIZE - 2)
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis.line.set_color(style.MUTED)
        axis._axinfo["grid"].update(color=style.GRID, linewidth=0.35)
    axes.view_init(elev=24, azim=-52)
    axes.set_box_aspect((1, 1, 0.92), zoom=1.02)
    axes.patch.set_visible(False)  # panels overlap a little: nothing may be painted over


def _levels(scale: Scale) -> list[float]:
    first, last, step = scale.levels
    count = round((last - first) / step) + 1
    values = (float(f"{first + k * step:.9g}") for k in range(count))
    return [v for v in values if scale.low < v < scale.high]


def _end_labels(axes: Axes, ends: list[tuple[float, str, str]], inches: float) -> None:
    """Label lines at their right-hand ends, pushed apart where they would overlap."""
    needed = 9.0 / 72 / inches  # the height of a text line as a fraction of the axes
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = sorted((to_axes.transform((0, y))[1], label, hue) for y, label, hue in ends)
    up: list[float] = []
    for wanted, _, _ in placed:
        up.append(max(wanted, up[-1] + needed) if up else wanted)
    down: list[float] = []
    for wanted, _, _ in reversed(placed):
        down.insert(0, min(wanted, down[0] - needed) if down else wanted)
    # Both keep the labels apart, one by moving them up and one by moving them down; their mean too.
    heights = [(a + b) / 2 for a, b in zip(up, down, strict=True)]
    for height, (_, label, hue) in zip(heights, placed, strict=True):
        axes.annotate(
            label,
            (1, height),
            xycoords="axes fraction",
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=hue,
            fontsize=style.PAPER_FONT_SIZE - 1,
        )


def _colorbar(figure: Figure, scale: Scale, box: tuple[float, float, float, float]) -> None:
    axes = add_axes(figure, box)
    colours = ScalarMappable(Normalize(scale.low, scale.high), style.SEQUENTIAL)
    bar = figure.colorbar(colours, cax=axes)
    bar.set_ticks(scale.ticks, labels=scale.labels)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.solids.set_edgecolor("face")  # type: ignore[union-attr]
    axes.set_title("loss", fontsize=style.PAPER_FONT_SIZE - 1, pad=4)
