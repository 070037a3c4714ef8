"""Paper figures (matplotlib): column widths, 8-point text, vectors, no pyplot.

Sizes are laid out in inches by hand: the automatic layouts of matplotlib leave 3-D axes small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from landscape.plot import marks_static, style
from landscape.plot.paper import DASHES, add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.sheet import MAX_SCENES, Scale, Sheet

_SHORT = 4  # characters of a number beside a tick that has room
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
            marks_static.over_surface(axes, panel, scale)
            for axis, name in ((axes.xaxis, panel.titles[0]), (axes.yaxis, panel.titles[1])):
                axis.set_label_text(_short(name))
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
        colorbar(figure, scale, (width - bar + 0.1, foot + inner * 0.18, 0.09, inner * 0.64))
        return figure


def contour(sheet: Sheet, title: str, log: bool | None) -> Figure:
    """Filled contours at the same levels; a cross at the centre, or the plane's named points."""
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
            edges = level_values(scale)
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
                panel.alpha, panel.beta, z, levels=edges, colors="white", linewidths=0.35, alpha=0.7,
                linestyles="solid",
            )  # fmt: skip
            marks_static.over_contour(axes, panel)
            axes.set_title(plain_text(panel.label), fontweight="bold", pad=3)
            axes.set_aspect("equal")
            ticks = three_ticks(panel.alpha)
            names = tick_words(ticks)
            axes.set_xticks(ticks, names)
            axes.set_yticks(ticks, names)
            axes.tick_params(labelleft=column == 0, labelbottom=row == rows - 1)
            if columns > 1:
                inside(axes, ticks)
            if row == rows - 1:
                axes.set_xlabel(_fitted(sheet, 0, side), labelpad=1)
            if column == 0:
                axes.set_ylabel(
                    _fitted(sheet, 1, side), labelpad=-2 if max(map(len, names)) < 3 else 0
                )
        inner = side + (rows - 1) * step
        colorbar(figure, scale, (width - bar + 0.12, foot, 0.09, inner))
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
        if any(p.quadratic is not None for p in sheet.panels):
            remark.append("dotted: quadratic model at the centre")
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
        marks_static.beside_lines(axes, sheet)
        axes.set_xlim(float(sheet.panels[0].alpha.min()), float(sheet.panels[0].alpha.max()))
        axes.set_yticks([10.0**t for t in scale.ticks] if start else scale.ticks, scale.labels)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        marks_static.quadratics(axes, sheet, start)
        axes.set_xlabel(sheet.panels[0].titles[0], labelpad=1)
        axes.set_ylabel("loss − loss at the centre" if relative else "loss", labelpad=2)
        _end_labels(axes, ends, height - foot)
        return figure


def _draw_surface(axes: Axes3D, alpha: Any, beta: Any, z: Any, scale: Scale) -> None:
    floor, ceiling = scale.padded(FLOOR, 0.02)
    norm = Normalize(scale.low, scale.high)
    x, y = np.meshgrid(alpha, beta)
    edges = level_values(scale)
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
    ticks = three_ticks(alpha)
    axes.set_xticks(ticks, tick_words(ticks))
    axes.set_yticks(ticks, tick_words(ticks))
    keep = list(zip(scale.ticks, scale.labels, strict=True))[:: 2 if len(scale.ticks) > 5 else 1]
    axes.set_zticks([t for t, _ in keep], [label for _, label in keep])
    axes.set_xlabel("α", labelpad=-9)
    axes.set_ylabel("β", labelpad=-9)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_tick_params(
            pad=-1.5 if axis is axes.zaxis else -3.5, labelsize=style.PAPER_FONT_SIZE - 2
        )
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis.line.set_color(style.MUTED)
        axis._axinfo["grid"].update(color=style.GRID, linewidth=0.35)
    axes.view_init(elev=24, azim=-52)
    axes.set_box_aspect((1, 1, 0.92), zoom=1.02)
    axes.patch.set_visible(False)  # panels overlap a little: nothing may be painted over


def three_ticks(coordinates: Any) -> list[float]:
    """Ticks at both ends and the centre of an axis that is symmetric with short numbers; else at round values."""
    low, high = float(coordinates.min()), float(coordinates.max())
    short = low == -high and len(style.number(high)) <= _SHORT
    return [low, 0.0, high] if short else style.linear_ticks(low, high, 3)[0]


def tick_words(ticks: Sequence[float]) -> list[str]:
    """Numbers beside ticks, in as few characters as they need."""
    return [style.number(v).replace("-", "−") for v in ticks]


def inside(axes: Axes, ticks: Sequence[float]) -> None:
    """Keep the labels at both ends of a horizontal axis within it: the next panel's begin right beside."""
    low, high = axes.get_xlim()
    for tick, label in zip(ticks, axes.get_xticklabels(), strict=True):
        share = (tick - low) / (high - low)
        label.set_horizontalalignment(
            "left" if share < 0.05 else "right" if share > 0.95 else "center"
        )


def _short(title: str) -> str:
    """An axis title without its unit: there is no room beside a box in 3-D."""
    return plain_text(title.partition(" (")[0])


def _fitted(sheet: Sheet, axis: int, inches: float) -> str:
    """The axis title with its unit, if that is one for all panels and fits beside ``inches`` of panel."""
    titles = {p.titles[axis] for p in sheet.panels}
    title = sheet.panels[0].titles[axis]
    return plain_text(title) if len(titles) == 1 and len(title) * 0.058 < inches else _short(title)


def level_values(scale: Scale) -> list[float]:
    """Contour levels strictly inside a scale, as positions on it."""
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


def colorbar(figure: Figure, scale: Scale, box: tuple[float, float, float, float]) -> None:
    """A colour bar in a box given in inches, drawn as vectors."""
    axes = add_axes(figure, box)
    colours = ScalarMappable(Normalize(scale.low, scale.high), style.SEQUENTIAL)
    bar = figure.colorbar(colours, cax=axes)
    bar.set_ticks(scale.ticks, labels=scale.labels)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.solids.set(edgecolor="face", rasterized=False)  # type: ignore[union-attr]
    axes.set_title("loss", fontsize=style.PAPER_FONT_SIZE - 1, pad=4)
