"""Paper figures of spectra (matplotlib): eigenvalues by rank, densities with their outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscape.plot import style
from landscape.plot.paper import DASHES, add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.readings import Density, Spectrum
from landscape.plot.signed import Axis
from landscape.plot.spectra import reach
from landscape.plot.words import broken, density_note, rank_ticks, side_by_side, spectrum_note

MARKERS = ("o", "s", "D", "^")
LINE = 0.135  # inches between the lines of a legend


def spectrum(
    spectra: Sequence[Spectrum],
    names: Sequence[str],
    bulk: Mapping[str, Density],
    axis: Axis,
    title: str,
    refused: Sequence[str] = (),
) -> Figure:
    """Eigenvalues by rank, subjects side by side; see `landscape.plot.spectrum`."""
    with mpl.rc_context(style.PAPER):
        slots = len(names) + bool(bulk)
        width = style.COLUMN_WIDTH if slots * len(spectra) <= 40 else style.PAGE_WIDTH
        labels = [s.label for s in spectra]
        note = spectrum_note(spectra, bulk, refused)
        figure, (axes,) = sheet(width, [1.75], labels, title, note, axis.ticks()[1])
        handles: list[Any] = []
        for i, s in enumerate(spectra):
            x = np.asarray(s.ranks) + side_by_side(i, len(spectra))
            hue = style.colour(i)
            bars = np.where(np.isfinite(s.residuals), s.residuals, np.nan)
            axes.errorbar(
                x, s.values, yerr=bars, fmt="none", ecolor=hue, elinewidth=2.6, alpha=0.45
            )
            if s.errors is not None:
                spread = np.where(np.isfinite(s.errors), s.errors, np.nan)
                axes.errorbar(
                    x, s.values, yerr=spread, fmt="none", ecolor=hue, elinewidth=0.7, capsize=1.8
                )
            marker = MARKERS[i % 4]
            axes.plot(x, s.values, marker, color=hue, markersize=3.2, label=plain_text(s.label))
            handles.append(Line2D([], [], color=hue, marker=marker, linestyle="", markersize=3.5))
            if s.label in bulk:
                _bulk(axes, bulk[s.label], i, slots + side_by_side(i, len(spectra), 0.28))
        places, shown = rank_ticks(names, bool(bulk))
        axes.set_xlim(0.5, slots + 0.5)
        axes.set_xticks(places, shown)
        axes.set_xlabel("rank" if names[-1] != "P" else "rank from 1 to P", labelpad=1)
        apply(axes, axis, "y", "eigenvalue")
        legend(figure, handles, labels, title)
        return figure


def _bulk(axes: Any, density: Density, index: int, x: float) -> None:
    (low, high), edges = density.bulk(), density.edges()
    hue = style.colour(index)
    axes.plot([x, x], [low, high], color=hue, linewidth=4, alpha=0.45, solid_capstyle="butt")
    axes.plot([x, x], edges, color=hue, linewidth=0.8)
    axes.plot([0.5, x], [edges[1], edges[1]], color=hue, linewidth=0.6, linestyle=":")


def density(densities: Sequence[Density], axis: Axis, title: str) -> Figure:
    """Densities above, cumulative curves below; see `landscape.plot.density`."""
    with mpl.rc_context(style.PAPER):
        labels = [d.label for d in densities]
        bottom, top = reach(densities)
        ticks, names = style.log_ticks(np.log10(bottom), np.log10(top))
        figure, (upper, lower) = sheet(
            style.COLUMN_WIDTH, [1.55, 0.7], labels, title, density_note(densities), names
        )
        upper.set_yscale("log")
        upper.set_ylim(bottom, top)
        for i, d in enumerate(densities):
            hue, dash = style.colour(i), DASHES[i % 4]
            for axes, band, values in (
                (upper, d.bands[0], d.density),
                (lower, d.bands[1], d.cumulative),
            ):
                if band is not None:
                    low = np.maximum(band[0], bottom / 10) if axes is upper else band[0]
                    axes.fill_between(d.grid, low, band[1], color=hue, alpha=0.16, linewidth=0)
                axes.plot(d.grid, values, color=hue, linestyle=dash)
            upper.vlines(d.outliers, bottom / 10, d.one, color=hue, linewidth=0.8)
            marker = MARKERS[i % 4]
            upper.plot(d.outliers, np.full(len(d.outliers), d.one), marker, color=hue, markersize=3)
        heights = {d.one: i for i, d in reversed(list(enumerate(densities)))}
        for height, i in heights.items():
            hue = style.MUTED if len(heights) == 1 else style.colour(i)
            upper.axhline(height, color=hue, linewidth=0.8, linestyle=":")
        upper.set_yticks([10.0**t for t in ticks], names)
        upper.minorticks_off()
        upper.set_ylabel("density", labelpad=2)
        lower.set_ylim(-0.03, 1.04)
        lower.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        lower.set_ylabel("below λ", labelpad=2)
        for axes in (upper, lower):
            apply(axes, axis, "x", "eigenvalue λ" if axes is lower else "")
        upper.tick_params(labelbottom=False)
        legend(figure, line_handles(len(densities)), labels, title)
        return figure


def line_handles(count: int) -> list[Any]:
    """Samples of the lines of subjects, for a legend."""
    dashes: Any = DASHES
    return [Line2D([], [], color=style.colour(i), linestyle=dashes[i % 4]) for i in range(count)]


def sheet(
    width: float,
    heights: Sequence[float],
    labels: Sequence[str],
    title: str,
    note: str,
    marks: Sequence[str],
) -> tuple[Figure, list[Any]]:
    """A figure with axes under each other and room for a legend above them.

    Args:
        width: of the figure, in inches.
        heights: of the axes, in inches.
        labels: of the legend.
        title: of the figure.
        note: its footnote.
        marks: labels of the vertical ticks, which decide the room beside the axes.
    """
    left = max(0.56, 0.26 + 0.058 * max(map(len, marks), default=0))
    lines = wrapped_note(note, width)
    foot, gap = 0.36 + note_height(lines), 0.12
    top = (
        (0.26 if title else 0.06)
        + LINE * sum(_lines(labels, r) for r in legend_rows(labels, width))
        + 0.05
    )
    total = foot + sum(heights) + gap * (len(heights) - 1) + top
    figure = new_figure(width, total, title, lines)
    out: list[Any] = []
    at = total - top
    for height in heights:
        at -= height
        axes = add_axes(figure, (left, at, width - left - 0.16, height))
        axes.spines[["top", "right"]].set_visible(False)
        out.append(axes)
        at -= gap
    return figure, out


def legend_rows(labels: Sequence[str], width: float) -> list[list[int]]:
    """Which labels stand in which line of a legend ``width`` inches wide.

    >>> legend_rows(["MAML", "Sharp-MAML", "a label that is much longer than the others"], 3.25)
    [[0, 1], [2]]
    """
    rows: list[list[int]] = []
    used = 0.0
    for i, label in enumerate(labels):
        needed = 0.42 + 0.062 * max(map(len, broken(label)))
        if not rows or used + needed > width - 0.3:
            rows.append([])
            used = 0.0
        rows[-1].append(i)
        used += needed
    return rows


def _lines(labels: Sequence[str], row: Sequence[int]) -> int:
    return max(len(broken(labels[i])) for i in row)


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], title: str) -> None:
    """Labels between the title and the axes, in as many lines as they need."""
    width, height = figure.get_size_inches()
    y = height - (0.26 if title else 0.06)
    for row in legend_rows(labels, width):
        figure.legend(
            [handles[i] for i in row],
            [plain_text("\n".join(broken(labels[i]))) for i in row],
            ncols=len(row),
            loc="upper left",
            bbox_to_anchor=(0.5 / width, y / height),
            borderaxespad=0,
            borderpad=0,
            frameon=False,
            handlelength=1.6,
            handletextpad=0.5,
            columnspacing=1.2,
        )
        y -= LINE * _lines(labels, row)


def apply(axes: Any, axis: Axis, which: str, title: str) -> None:
    """Give one direction of matplotlib axes the range, ticks and zero line of an `Axis`."""
    if axis.log:
        getattr(axes, f"set_{which}scale")("function", functions=(axis.place, axis.unplace))
    ends = axis.unplace(axis.reach())
    values, labels = axis.ticks(gap=0.09 if which == "y" else 0.15)
    getattr(axes, f"set_{which}lim")(*ends)
    getattr(axes, f"set_{which}ticks")(values, labels)
    getattr(axes, f"set_{which}label")(title, labelpad=1 if which == "x" else 2)
    getattr(axes, f"{which}axis").set_minor_locator(mpl.ticker.NullLocator())
    line = axes.axhline if which == "y" else axes.axvline
    line(0, color=style.MUTED, linewidth=0.5, zorder=0.5)
