"""Paper figures of paths of training (matplotlib): over the plane, and step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscape.plot import paths_static, static, style
from landscape.plot.paper import plain_text
from landscape.plot.sheet import Sheet
from landscape.plot.spectra_static import legend
from landscape.plot.spectra_static import sheet as stack
from landscape.plot.trail_series import Series, series, series_note
from landscape.plot.trails import WARN_SHARE, Trail, lowest_corner, reaching, trail_note


def contour(sheet: Sheet, trails: Sequence[Trail], title: str, log: bool | None) -> Figure:
    """Contours with the paths on them; see `landscape.plot.trajectory`."""
    figure = static.contour(_noted(sheet, trails), title, log)
    for i, trail in enumerate(trails):
        paths_static.on_contour(figure, 0, trail, i)
    return figure


def surface3d(sheet: Sheet, trails: Sequence[Trail], title: str, log: bool | None) -> Figure:
    """The surface with the paths over it, each checkpoint at its true loss."""
    wide = reaching(_noted(sheet, trails), trails)
    figure = static.surface3d(wide, title, log)
    scale = wide.scale(wide.choose_log(log))
    x, y = lowest_corner(wide)
    figure.axes[0].view_init(elev=24, azim=y * (52 if x > 0 else 128))  # type: ignore[attr-defined]
    for i, trail in enumerate(trails):
        paths_static.on_surface(figure, 0, trail, scale, i)
    return figure


def along_path(trails: Sequence[Trail], title: str) -> Figure:
    """Loss, distance off the plane and sharpness over steps, one panel each."""
    rows = series(trails)
    labels = [t.label for t in trails]
    handles = [Line2D([], [], color=style.colour(i)) for i in range(len(trails))]
    if any(curve.kind for curve in rows[0].curves):
        handles.append(Line2D([], [], color=style.INK, linestyle="--", linewidth=0.9))
        labels.append("in the plane")
    with mpl.rc_context(style.PAPER):
        ticks = [t for row in rows for t in _ticks(row)[1]]
        figure, panels = stack(
            style.COLUMN_WIDTH, [1.0] * len(rows), labels, title, series_note(rows, trails), ticks
        )
        for axes, row in zip(panels, rows, strict=True):
            _draw(axes, row, trails)
            axes.tick_params(labelbottom=axes is panels[-1])
        panels[-1].set_xlabel("step", labelpad=1)
        legend(figure, handles, labels, title)
        return figure


def _noted(sheet: Sheet, trails: Sequence[Trail]) -> Sheet:
    # The footnote decides the height of a paper figure, so it must be whole before the panels are placed.
    words = [sheet.group] if sheet.group else []
    return replace(sheet, group=" · ".join([*words, *trail_note(trails)]))


def _draw(axes: Any, row: Series, trails: Sequence[Trail]) -> None:
    if row.log:
        axes.set_yscale("log")
    for curve in row.curves:
        steps, hue = trails[curve.owner].steps, style.colour(curve.owner)
        if curve.low is not None and curve.high is not None:
            low = np.where(curve.low > 0, curve.low, row.floor) if row.log else curve.low
            axes.fill_between(steps, low, curve.high, color=hue, alpha=0.16, linewidth=0)
        style_of = {"linestyle": "--", "linewidth": 0.9} if curve.kind else {"linewidth": 1.2}
        axes.plot(steps, curve.values, color=hue, **style_of)
        if curve.converged is not None and not curve.converged.all():
            bad = ~curve.converged
            axes.plot(steps[bad], curve.values[bad], "x", color=hue, markersize=3)
    if row.share:
        axes.axhline(WARN_SHARE, color=style.MUTED, linewidth=0.6, linestyle=":")
    ends = (-0.02, 1.02) if row.share else row.ends
    axes.set_ylim(*ends)
    axes.set_yticks(*_ticks(row))
    axes.minorticks_off()
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.text(
        0.99, 0.97, plain_text(row.title), transform=axes.transAxes, ha="right", va="top",
        fontsize=style.PAPER_FONT_SIZE - 1, color=style.MUTED,
    )  # fmt: skip


def _ticks(row: Series) -> tuple[list[float], list[str]]:
    if row.share:
        return [0, 0.5, 1], ["0%", "50%", "100%"]
    low, high = row.ends
    if not row.log:
        return style.linear_ticks(low, high, 4)
    places, labels = style.log_ticks(float(np.log10(low)), float(np.log10(high)))
    return [10.0**p for p in places], labels
