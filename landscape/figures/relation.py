"""Sharpness against generalization, as published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import kendalltau

from landscape.figures.saving import described
from landscape.plot import style
from landscape.plot.paper import add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.spectra_static import LINE, legend, legend_rows

MARKERS = ("o", "s", "D", "^", "v", "P")
_COLUMNS = 3
_LOG_ABOVE = 10.0


@dataclass(frozen=True)
class Run:
    """One trained network.

    Attributes:
        method: how it was trained; one colour and marker each.
        sharpness: by measure.
        generalization: its test error, its generalization gap or its accuracy.
    """

    method: str
    sharpness: Mapping[str, float]
    generalization: float


def kendall(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Kendall's τ-b with its 95 % interval (Bonett & Wright 2000, by Fisher's transform).

    Args:
        x: one quantity.
        y: the other, as many.

    Returns:
        τ, lower and upper end. The ends are NaN below five points, all three where one does not vary.

    >>> [round(v, 3) for v in kendall([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])]
    [0.867, 0.383, 0.977]
    """
    tau = float(kendalltau(np.asarray(x, float), np.asarray(y, float)).statistic)
    n = len(x)
    if n < 5 or math.isnan(tau):
        return tau, math.nan, math.nan
    # At ±1 the transform has no interval; half of the smallest step of τ inside, there is one.
    edge = 1 - 2 / (n * (n - 1))
    centre = math.atanh(max(min(tau, edge), -edge))
    half = style.Z95 * math.sqrt(0.437 / (n - 4))
    return tau, math.tanh(centre - half), math.tanh(centre + half)


def sharpness_vs_generalization(
    rows: Sequence[Run],
    measures: Sequence[str] | None = None,
    *,
    generalization: str = "test error",
    titles: Mapping[str, str] | None = None,
    more: Sequence[str] = (),
) -> Figure:
    """Sharpness against generalization over runs: one panel a measure, with Kendall's τ.

    The figure of Andriushchenko, Croce, Müller, Hein & Flammarion 2023, "A Modern Look at the Relationship
    between Sharpness and Generalization", with the interval of τ that theirs leaves out. Sharpness is on
    a logarithmic axis where it is positive and ranges over more than a decade.

    Args:
        rows: the runs.
        measures: which measures, in order; None: all that every run has.
        generalization: title of the vertical axis.
        titles: titles of the panels, by measure; the measure's name otherwise.
        more: settings for the caption, a line each.

    Raises:
        ValueError: no runs, or a measure that a run lacks.
    """
    if not rows:
        raise ValueError("nothing to draw: expected at least one Run")
    names = [m for m in rows[0].sharpness if all(m in row.sharpness for row in rows)]
    chosen = list(names if measures is None else measures)
    lacking = [m for m in chosen if m not in names]
    if lacking or not chosen:
        raise ValueError(
            f"{lacking[0]!r} is not a measure of every run; these are: {', '.join(names) or 'none'}"
            if lacking
            else "the runs have no measure in common"
        )
    methods = list(dict.fromkeys(row.method for row in rows))
    y = [row.generalization for row in rows]
    found = {m: kendall([row.sharpness[m] for row in rows], y) for m in chosen}
    note_text = (
        f"{len(rows)} runs · a point is a run · τ: Kendall's rank correlation, 95 % interval"
    )
    with mpl.rc_context(style.PAPER):
        columns = 2 if len(chosen) == 4 else min(len(chosen), _COLUMNS)
        width = style.COLUMN_WIDTH if columns == 1 else style.PAGE_WIDTH
        rows_of_panels = -(-len(chosen) // columns)
        note = wrapped_note(note_text, width)
        left, gap, high, step = 0.56, 0.14, 1.55, 2.28
        foot = 0.4 + note_height(note)
        head = 0.1 + LINE * len(legend_rows(methods, width)) + 0.36
        cell = (width - left - 0.14 - gap * (columns - 1)) / columns
        total = foot + high + (rows_of_panels - 1) * step + head
        figure = new_figure(width, total, "", note)
        for i, measure in enumerate(chosen):
            row, column = divmod(i, columns)
            box = (left + column * (cell + gap), total - head - high - row * step, cell, high)
            axes = add_axes(figure, box)
            _points(axes, rows, methods, measure)
            axes.set_title(_titled((titles or {}).get(measure, measure), found[measure]), pad=4)
            axes.set_xlabel("sharpness", labelpad=1)
            axes.tick_params(labelleft=column == 0)
            if column == 0:
                axes.set_ylabel(plain_text(generalization), labelpad=2)
        handles = [
            Line2D([], [], color=style.colour(i), marker=MARKERS[i % 6], linestyle="", markersize=4)
            for i in range(len(methods))
        ]
        legend(figure, handles, methods, "")
    words = (
        f"{generalization[:1].upper()}{generalization[1:]} against sharpness over {len(rows)} runs; "
        "above each panel Kendall's τ with its 95 % interval (Bonett & Wright 2000)"
    )
    told = [f"{m}: {_tau(found[m])}" for m in chosen]
    return described(figure, words, [], "", [*told, *more])


def _points(axes: Any, rows: Sequence[Run], methods: Sequence[str], measure: str) -> None:
    for i, method in enumerate(methods):
        some = [row for row in rows if row.method == method]
        axes.plot(
            [row.sharpness[measure] for row in some], [row.generalization for row in some],
            MARKERS[i % 6], color=style.colour(i), markersize=3.8, markeredgecolor="white",
            markeredgewidth=0.4,
        )  # fmt: skip
    values = [row.sharpness[measure] for row in rows if math.isfinite(row.sharpness[measure])]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high / low > _LOG_ABOVE:
        axes.set_xscale("log")
        pad = 0.06 * math.log10(high / low)
        ends = (math.log10(low) - pad, math.log10(high) + pad)
        ticks, labels = style.log_ticks(*ends)
        thin = -(-len(ticks) // 4)
        axes.set_xlim(10.0 ** ends[0], 10.0 ** ends[1])
        axes.set_xticks([10.0**t for t in ticks][::thin], labels[::thin])
        axes.minorticks_off()
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.spines[["top", "right"]].set_visible(False)


def _titled(name: str, found: tuple[float, float, float]) -> str:
    return f"{plain_text(name)}\n{_tau(found)}"


def _tau(found: tuple[float, float, float]) -> str:
    tau, low, high = found
    if math.isnan(tau):
        return "τ undefined: one of both does not vary"
    ends = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"τ = {tau:.2f}{ends}".replace("-", "−")
