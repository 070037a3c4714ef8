"""Figures of loss surfaces, as published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from landscape import plot
from landscape.figures.saving import described
from landscape.plot import style
from landscape.plot.paper import add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.sheet import Sheet, gather
from landscape.plot.static import three_ticks

_LOSS, _ACCURACY = style.SUBJECT_COLOURS[
    :2
]  # blue and vermilion, where Li et al. have blue and red
_COLUMNS = 3
_MOST_LEVELS = 13
_TICKS = 6


def li2018_figure1(
    surface_without: xr.Dataset,
    surface_with: xr.Dataset,
    *,
    labels: tuple[str, str] = ("without skip connections", "with skip connections"),
    log: bool = True,
) -> Figure:
    """Two surfaces in 3-D, a network without skip connections and one with them, on one scale.

    Figure 1 of Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the Loss Landscape of Neural Nets":
    ResNet-56, filter-normalized directions, logarithmic height.

    Args:
        surface_without: of the network without skip connections.
        surface_with: of the one with them, on the same grid and directions' rule and seed.
        labels: titles of the panels.
        log: logarithmic height, as in the paper.

    Raises:
        ValueError: surfaces that must not be compared, nothing finite, or ``log`` with a loss of 0 or less.
    """
    pair = [
        s.assign_attrs(label=label)
        for s, label in zip((surface_without, surface_with), labels, strict=True)
    ]
    figure = plot.surface3d(pair, "matplotlib", title="", log=log)
    scale = "logarithmic" if log else "linear"
    words = (
        f"Loss surfaces {labels[0]} and {labels[1]}, one {scale} scale for both, "
        f"{style.footnote({k: v for k, v in pair[0].attrs.items() if k in ('normalize', 'ignore')})}"
    )
    return described(figure, words, pair, _group(pair))


def sharp_maml_landscape(surfaces: Sequence[xr.Dataset], *, log: bool | None = None) -> Figure:
    """Surfaces of MAML and of its sharpness-aware variants side by side in 3-D, on one scale.

    The landscape figure of Abbas, Xiao, Chen, Chen & Chen 2022, "Sharp-MAML: Sharpness-Aware
    Model-Agnostic Meta Learning" (MAML and Sharp-MAML low, up, both). The paper says neither which loss it
    is nor how the directions are normalized; the caption here does.

    Args:
        surfaces: up to four, named by their attribute ``label``.
        log: scale of the loss; None: logarithmic above two decades.

    Raises:
        ValueError: none, more than four, or surfaces that must not be compared.
    """
    many = list(surfaces)
    figure = plot.surface3d(many, "matplotlib", title="", log=log)
    words = f"Loss around the solutions of {_listed(many)}; one scale for all panels"
    return described(figure, words, many, _group(many))


def li2018_figure5(
    surfaces: Sequence[xr.Dataset],
    *,
    levels: Sequence[float] | None = None,
    log: bool | None = None,
) -> Figure:
    """Contour lines labelled with their loss, one panel a network, three in a row.

    Figure 5 of Li et al. 2018 (networks of several depths, with and without skip connections; a panel's
    title there has the test error). The lines are the same in all panels.

    Args:
        surfaces: named by their attribute ``label``, in the order of the panels.
        levels: losses that have a line; None: round ones, about ten (the paper: 0.1, 0.6, ... 9.6).
        log: whether these are spaced logarithmically; None: above two decades.

    Raises:
        ValueError: no surface, surfaces that must not be compared, or levels outside of all losses.
    """
    many = list(surfaces)
    sheet = gather(many, axes=2)
    scale = sheet.scale(sheet.choose_log(log))
    drawn = np.asarray(_round_levels(sheet, scale.log) if levels is None else sorted(levels), float)
    if not ((drawn > sheet.low) & (drawn < sheet.high)).any():
        raise ValueError(
            f"no level lies between the lowest loss, {sheet.low:.4g}, and the highest, {sheet.high:.4g}"
        )
    with mpl.rc_context(style.PAPER):
        columns = min(len(many), _COLUMNS)
        rows = -(-len(many) // columns)
        width = style.COLUMN_WIDTH if columns == 1 else style.PAGE_WIDTH
        left, gap, title = 0.5, 0.16, 0.24
        side = (width - left - 0.12 - gap * (columns - 1)) / columns
        note = wrapped_note(sheet.footnote("the same levels in all panels"), width)
        step, foot = side + title + 0.04, 0.34 + note_height(note)
        figure = new_figure(width, title + side + (rows - 1) * step + foot, "", note)
        first, last = (float(v) for v in scale.place(drawn[[0, -1]]))
        # The last colours of the map are too light for lines on white.
        norm = Normalize(first, last + 0.12 * (last - first) + 1e-12)
        for i, panel in enumerate(sheet.panels):
            row, column = divmod(i, columns)
            box = (left + column * (side + gap), foot + (rows - 1 - row) * step, side, side)
            axes = add_axes(figure, box)
            z = np.ma.masked_invalid(scale.place(panel.loss))
            lines = axes.contour(
                panel.alpha, panel.beta, z, levels=scale.place(drawn), cmap=style.SEQUENTIAL,
                norm=norm, linewidths=0.9,
            )  # fmt: skip
            names = dict(zip(lines.levels, map(style.number, drawn.tolist()), strict=True))
            axes.clabel(lines, fmt=names, fontsize=style.PAPER_FONT_SIZE - 2, inline_spacing=2)
            axes.set_title(plain_text(panel.label), pad=3)
            axes.set_aspect("equal")
            for which in (axes.set_xticks, axes.set_yticks):
                which(three_ticks(panel.alpha))
            axes.tick_params(labelleft=column == 0, labelbottom=i + columns >= len(many))
            if i + columns >= len(many):
                axes.set_xlabel("α", labelpad=1)
            if column == 0:
                axes.set_ylabel("β", labelpad=-2)
    told = ", ".join(style.number(v) for v in drawn)
    words = f"Contours of the loss around {_listed(many)}; lines at {told} in all panels"
    return described(figure, words, many, _group(many))


def li2018_figure2(
    train: xr.Dataset | Sequence[xr.Dataset],
    test: xr.Dataset | Sequence[xr.Dataset] = (),
    *,
    log: bool = False,
) -> Figure:
    """Loss (left axis) and accuracy (right axis) along a line, on training and on test data.

    The curves of Li et al. 2018, figure 2: from a solution of small batches at 0 to one of large batches
    at 1. Solid lines are training data, dashed ones test data; one panel a line, on the same two scales.

    Args:
        train: lines with ``loss`` and ``accuracy``, named by their attribute ``label``.
        test: the same lines on test data, as many; none leaves the dashed curves out.
        log: logarithmic loss.

    Raises:
        ValueError: no line, no accuracy in any, another number of ``test`` than of ``train``, or lines that
            must not be compared.
    """
    solid, dashed = ([s] if isinstance(s, xr.Dataset) else list(s) for s in (train, test))
    if dashed and len(dashed) != len(solid):
        raise ValueError(
            f"{len(solid)} lines on training data and {len(dashed)} on test data: as many"
        )
    sheet = gather([*solid, *dashed], axes=1)
    if not any(p.accuracy is not None for p in sheet.panels):
        raise ValueError("no line has a variable 'accuracy': draw the loss alone with plot.line")
    scale = sheet.scale(sheet.choose_log(log))
    count = len(solid)
    with mpl.rc_context(style.PAPER):
        columns = min(count, _COLUMNS)
        rows = -(-count // columns)
        width = style.COLUMN_WIDTH if columns == 1 else style.PAGE_WIDTH
        left, right, gap, high, title = 0.52, 0.5, 0.32, 1.5, 0.22
        cell = (width - left - right - gap * (columns - 1)) / columns
        extra = ["solid: training, dashed: test"] if dashed else []
        note = wrapped_note(sheet.footnote(*extra), width)
        step, foot = high + title + 0.08, 0.36 + note_height(note)
        figure = new_figure(width, title + high + (rows - 1) * step + foot, "", note)
        for i in range(count):
            row, column = divmod(i, columns)
            box = (left + column * (cell + gap), foot + (rows - 1 - row) * step, cell, high)
            axes = add_axes(figure, box)
            axes.set_title(plain_text(sheet.panels[i].label), pad=3)
            twin = axes.twinx()
            for j, dash in ((i, "-"), (count + i, (0, (4, 1.6)))):
                if j < len(sheet.panels):
                    panel = sheet.panels[j]
                    axes.plot(panel.alpha, scale.place(panel.loss), color=_LOSS, linestyle=dash)
                    if panel.accuracy is not None:
                        twin.plot(
                            panel.alpha, 100 * panel.accuracy, color=_ACCURACY, linestyle=dash
                        )
            axes.set_ylim(*scale.padded(0.04, 0.04))
            thin = slice(None, None, -(-len(scale.ticks) // _TICKS))
            axes.set_yticks(scale.ticks[thin], scale.labels[thin])
            axes.set_xlim(float(sheet.panels[i].alpha[0]), float(sheet.panels[i].alpha[-1]))
            twin.set_ylim(-4, 104)
            twin.set_yticks([0, 25, 50, 75, 100])
            axes.tick_params(axis="y", colors=_LOSS, labelleft=column == 0)
            last = column == columns - 1 or i == count - 1
            twin.tick_params(axis="y", colors=_ACCURACY, labelright=last)
            if column == 0:
                axes.set_ylabel("loss", color=_LOSS, labelpad=2)
            if last:
                twin.set_ylabel("accuracy, %", color=_ACCURACY, labelpad=2)
            axes.tick_params(labelbottom=i + columns >= count)
            if i + columns >= count:
                axes.set_xlabel(sheet.panels[i].titles[0], labelpad=1)
            axes.spines["top"].set_visible(False)
            twin.spines["top"].set_visible(False)
    kinds = " on training data (solid) and on test data (dashed)" if dashed else ""
    words = (
        f"Loss (blue, left) and accuracy (vermilion, right) along a line{kinds}: {_listed(solid)}"
    )
    return described(figure, words, [*solid, *dashed], _group(solid))


def _round_levels(sheet: Sheet, log: bool) -> list[float]:
    """About ten levels at round values."""
    if not log:
        first, last, step = style.levels(sheet.low, sheet.high, 9)
        return [first + k * step for k in range(round((last - first) / step) + 1)]
    found: list[float] = []
    decades = range(math.floor(math.log10(sheet.low)), math.ceil(math.log10(sheet.high)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**d for d in decades for m in multiples]
        found = [v for v in found if sheet.low < v < sheet.high]
        if len(found) <= _MOST_LEVELS:
            break
    return found


def _listed(many: Sequence[xr.Dataset]) -> str:
    names = [str(s.attrs.get("label") or "a solution") for s in many]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _group(many: Sequence[Any]) -> str:
    return str(many[0].attrs.get("group", "")) if many else ""
