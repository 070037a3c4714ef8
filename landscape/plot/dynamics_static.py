"""Paper figures of training's dynamics (matplotlib): eigenvalues over steps, edge of stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from landscape.plot import style
from landscape.plot.dynamics import ZONES, gauge_end, gauge_ticks
from landscape.plot.paper import add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.readings import Gauge, Path
from landscape.plot.signed import Axis
from landscape.plot.spectra_static import apply, legend, sheet
from landscape.plot.words import GAUGE_NOTE, gauge_value, path_note, thresholds


def along_training(paths: Sequence[Path], axis: Axis, title: str) -> Figure:
    """Eigenvalues over steps; see `landscape.plot.along_training`."""
    with mpl.rc_context(style.PAPER):
        labels = [p.label for p in paths]
        figure, (axes,) = sheet(
            style.COLUMN_WIDTH, [1.8], labels, title, path_note(paths), axis.ticks()[1]
        )
        handles: list[Any] = []
        for i, p in enumerate(paths):
            hue = style.colour(i)
            alone = "o" if len(p.steps) == 1 else None
            for k in reversed(range(p.values.shape[1])):
                values, errors = p.values[:, k], p.residuals[:, k]
                axes.fill_between(
                    p.steps, values - errors, values + errors, color=hue, alpha=0.16, linewidth=0
                )
                (drawn,) = axes.plot(
                    p.steps,
                    values,
                    color=hue,
                    alpha=1.0 if k == 0 else 0.6,
                    linewidth=1.4 if k == 0 else 0.7,
                    marker=alone,
                )
            handles.append(drawn)
            if p.smallest is not None:
                if p.smallest_residuals is not None:
                    axes.fill_between(
                        p.steps,
                        p.smallest - p.smallest_residuals,
                        p.smallest + p.smallest_residuals,
                        color=hue,
                        alpha=0.16,
                        linewidth=0,
                    )
                axes.plot(p.steps, p.smallest, "--", color=hue, linewidth=0.8, marker=alone)
        for p, hue in thresholds(paths):
            axes.step(p.steps, np.asarray(p.threshold), ":", where="post", color=hue, linewidth=1.1)
        axes.set_xlabel("step", labelpad=1)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
        first, last = min(p.steps.min() for p in paths), max(p.steps.max() for p in paths)
        if last > first:
            axes.set_xlim(first, last)
        apply(axes, axis, "y", "eigenvalue")
        legend(figure, handles, labels, title)
        return figure


def stability(gauges: Sequence[Gauge], title: str) -> Figure:
    """Horizontal gauges with the edge of stability at 1; see `landscape.plot.stability`."""
    with mpl.rc_context(style.PAPER):
        width, bar = style.COLUMN_WIDTH, 0.1
        note = wrapped_note(GAUGE_NOTE, width)
        foot, top = 0.5 + note_height(note), 0.28 if title else 0.06
        texts = [(wrap(g.label, 30) or [""], wrap(g.rule, 60)) for g in gauges]
        heights = [0.14 * len(a) + bar + 0.1 * len(b) + 0.14 for a, b in texts]
        figure = new_figure(width, top + sum(heights) + foot, title, note)
        axes = add_axes(figure, (0.12, foot, width - 0.24, sum(heights)))
        end, at = gauge_end(gauges), 0.0
        axes.set_xlim(0, end)
        axes.set_ylim(sum(heights), 0)  # inches from the top
        for i, (g, (labels, rules), height) in enumerate(zip(gauges, texts, heights, strict=True)):
            middle = at + 0.05 + 0.14 * len(labels) + bar / 2
            _gauge(axes, g, i, middle, bar, end)
            edge = axes.get_yaxis_transform()
            shared = {"transform": edge, "va": "top"}
            axes.text(0, at + 0.03, plain_text("\n".join(labels)), fontweight="bold", **shared)
            reading = gauge_value(g.value, g.low, g.high)
            axes.text(1, at + 0.03, reading, ha="right", **shared)
            small = {"fontsize": 6, "color": style.MUTED}
            under = middle + bar / 2 + 0.03
            axes.text(0, under, plain_text("\n".join(rules)), **small, **shared)
            at += height
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xticks(*gauge_ticks(end))
        axes.set_xlabel("sharpness ÷ its threshold", labelpad=1)
        return figure


def _gauge(axes: Any, g: Gauge, index: int, y: float, bar: float, end: float) -> None:
    hue = style.colour(index)
    axes.barh(y, 1, bar, color=ZONES[0], zorder=0.5)
    axes.barh(y, end - 1, bar, left=1, color=ZONES[1], zorder=0.5)
    axes.plot([1, 1], [y - 0.06, y + 0.06], color=style.INK, linewidth=1.2, clip_on=False)
    if not math.isfinite(g.low) or not math.isfinite(g.value):
        low, high = math.nan, math.nan
    else:
        low, high = g.low, min(g.high, end)
    axes.plot([low, high], [y, y], color=hue, linewidth=4, alpha=0.5, solid_capstyle="butt")
    axes.plot(
        end if g.value > end else g.value,
        y,
        ">" if g.value > end else "o",
        color=hue,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.7,
        clip_on=False,
        zorder=3,
    )
