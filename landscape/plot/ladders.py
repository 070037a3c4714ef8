"""Which radius? Perturbation-based sharpness over curvature, one panel a relation, on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, dress, safe
from landscape.plot.frames import PLAIN, entry, filled
from landscape.plot.grid import arrange, axis_key
from landscape.plot.paper import DASHES, add_axes, new_figure, note_height, plain_text, wrapped_note
from landscape.plot.readings import Datasets, labelled
from landscape.plot.signed import Axis
from landscape.plot.spectra_static import legend, line_handles

NOTE = (
    "2 · rise / radius² over the curvature it tends to: 1 where the loss is quadratic · "
    "bars: 95 % intervals · band: that of the curvature itself"
)
_FLOOR, _TOP = 0.03, 30.0  # beyond: what the axis does not show, drawn at its end
_MARKS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Ladder:
    """One relation of one subject, divided by its limit: ``radius``, ``ratio``, ``low``, ``high``."""

    label: str
    index: int
    radius: NDArray[np.float64]
    ratio: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    limit: float
    band: tuple[float, float]


def consistency(
    datasets: Datasets,
    backend: str = "plotly",
    *,
    title: str = "Which radius? Sharpness over a radius against curvature",
) -> Any:
    """Ratios of finite-radius sharpness to curvature over the radius, all panels on one scale.

    Args:
        datasets: one Dataset or several, also by label, of schema ``landscape.consistency/1``
            (``docs/schema.md``).
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        ValueError: nothing to draw, or an unknown backend.
    """
    panels, labels = _panels(datasets)
    if backend not in ("plotly", "matplotlib"):
        raise ValueError(f"unknown backend {backend!r}: expected 'plotly' or 'matplotlib'")
    return (
        _interactive(panels, labels, title)
        if backend == "plotly"
        else _static(panels, labels, title)
    )


def _panels(datasets: Datasets) -> tuple[dict[str, list[Ladder]], list[str]]:
    known = [(str(d.attrs.get("label", "")), d) for d in labelled(datasets, "ladder of radii")]
    panels: dict[str, list[Ladder]] = {}
    for index, (label, dataset) in enumerate(known):
        for name in dataset["relation"].values.tolist():
            one = dataset.sel(relation=name)
            limit = float(one["limit"])
            columns = [
                one[key].values / (1.0 if key == "radius" else limit or math.nan)
                for key in ("radius", "curvature", "curvature_low", "curvature_high")
            ]
            kept = np.isfinite(columns[0]) & np.isfinite(columns[1])
            if not kept.any():  # no rung, or a limit of zero: nothing to be a share of
                continue
            radius, ratio, low, high = (column[kept] for column in columns)
            low, high = np.fmin(low, high), np.fmax(low, high)  # a negative limit turns them round
            ends = sorted(
                float(one[f"limit_{end}"]) / (limit or math.nan) for end in ("low", "high")
            )
            ladder = Ladder(label, index, radius, ratio, low, high, limit, (ends[0], ends[1]))
            panels.setdefault(str(one["text"].item()), []).append(ladder)
    if not panels:
        raise ValueError("nothing to draw: expected a finite curvature at a radius at least")
    return panels, [label for label, _ in known]


def _axis(panels: Mapping[str, list[Ladder]]) -> Axis:
    """One vertical axis for all panels, logarithmic on both sides of a narrow zone around zero."""
    seen = np.concatenate([np.append(x.ratio, x.band) for group in panels.values() for x in group])
    seen = seen[np.isfinite(seen)]
    low, high = float(seen.min(initial=0.5)), float(seen.max(initial=2.0))
    # 0.3 leaves room below 1 where all agree; the linear zone holds ratios near and below zero.
    low = max(low, -_TOP) if low < _FLOOR else min(low, 0.3)
    return Axis(True, low, min(max(high, 3.0), _TOP), unit=_FLOOR if low < _FLOOR else _FLOOR / 10)


def _interactive(
    panels: Mapping[str, list[Ladder]], labels: Sequence[str], title: str
) -> go.Figure:
    axis, figure = _axis(panels), go.Figure()
    values, names = axis.ticks(count=7)
    dress(figure, title, NOTE)
    first: set[str] = set()
    for i, ladders in enumerate(panels.values()):
        x, y = axis_key("x", i), axis_key("y", i)
        for ladder in ladders:
            for trace in _traces(ladder, axis, len(labels)):
                show = bool(trace.showlegend) and ladder.label not in first
                first |= {ladder.label} if show else set()
                figure.add_trace(trace.update(xaxis=x, yaxis=y, showlegend=show))
        low, high = _reach(ladders)
        ticks, shown = _radius_ticks(ladders)
        figure.layout[axis_key("xaxis", i)] = {
            **PLAIN,
            "anchor": y,
            "type": "log",
            "range": [math.log10(low), math.log10(high)],
            "tickvals": ticks,
            "ticktext": shown,
            "title": {"text": "radius (σ or ρ)", "standoff": 6},
        }
        figure.layout[axis_key("yaxis", i)] = {
            **PLAIN,
            "anchor": x,
            "range": axis.reach(),
            "tickvals": axis.place(values).tolist(),
            "ticktext": names,
        }
        figure.add_shape(
            type="line", xref=f"{x} domain", yref=y, x0=0, x1=1, layer="below",
            y0=float(axis.place(1.0)), y1=float(axis.place(1.0)),
            line={"color": style.INK, "width": 1, "dash": "dot"},
        )  # fmt: skip
    arrange(figure, list(panels), kind="axis", title_height=TITLE_HEIGHT)
    figure.layout.showlegend = len(labels) > 1
    if len(labels) > 1:
        _legend_below(figure)
    return figure


def _legend_below(figure: go.Figure, room: int = 34) -> None:
    """Room under the panels, on wide screens and on narrow ones, for a legend."""
    figure.layout.legend = {
        "orientation": "h",
        "x": 0,
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
    }
    figure.layout.height += room
    figure.layout.margin.b += room
    for arrangement in figure.layout.meta["arrangements"]:
        arrangement["layout"]["height"] += room
        arrangement["layout"]["margin.b"] += room


def _traces(ladder: Ladder, axis: Axis, count: int) -> list[go.Scatter]:
    hue, group = style.colour(ladder.index), str(ladder.index)
    shift = 1 + 0.03 * (ladder.index - (count - 1) / 2)  # bars of several do not overlap
    place, top = axis.place, axis.high
    ratio, low, high = (
        place(np.clip(v, -top, top)) for v in (ladder.ratio, ladder.low, ladder.high)
    )
    ends = np.array(_reach([ladder]))
    below, above = (np.full(2, float(place(v))) for v in ladder.band)
    words = (
        f"{safe(ladder.label)}<br>radius %{{customdata[0]:.3g}}<br>%{{customdata[1]:.3g}} of the curvature "
        f"{ladder.limit:.4g} [%{{customdata[2]:.3g}}, %{{customdata[3]:.3g}}]<extra></extra>"
    )
    return [
        filled(ends, below, above, hue, hoverinfo="skip", showlegend=False, legendgroup=group),
        go.Scatter(
            x=(ladder.radius * shift).tolist(),
            y=ratio.tolist(),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (high - ratio).tolist(),
                "arrayminus": (ratio - low).tolist(),
                "thickness": 1.4,
                "width": 4,
                "color": hue,
            },
            customdata=np.column_stack([ladder.radius, ladder.ratio, ladder.low, ladder.high]),
            hovertemplate=words,
            mode="lines+markers",
            line={"color": hue, "width": 2, "dash": style.DASHES[ladder.index % 4]},
            marker={"size": 8, "symbol": _MARKS[ladder.index % 4]},
            name=entry(ladder.label),
            showlegend=True,
            legendgroup=group,
        ),
    ]


def _static(panels: Mapping[str, list[Ladder]], labels: Sequence[str], title: str) -> Figure:
    with mpl.rc_context(style.PAPER):
        axis, width = _axis(panels), style.PAGE_WIDTH
        columns = min(len(panels), 2)
        rows = math.ceil(len(panels) / columns)
        note = wrapped_note(NOTE, width)
        foot, head, high, left, gap = 0.34 + note_height(note), 0.2, 1.35, 0.5, 0.16
        top = (0.26 if title else 0.06) + (0.16 if len(labels) > 1 else 0.0)
        each = (width - left - 0.1 - gap * (columns - 1)) / columns
        step = high + head + 0.3
        figure = new_figure(width, foot + rows * step - 0.3 + top, title, note)
        values, names = axis.ticks(count=6)
        for i, (text, ladders) in enumerate(panels.items()):
            row, column = divmod(i, columns)
            bottom = foot + (rows - 1 - row) * step
            axes = add_axes(figure, (left + column * (each + gap), bottom, each, high))
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(plain_text(text), pad=3)
            axes.set_xscale("log")
            low, high_end = _reach(ladders)
            axes.set_xlim(low, high_end)
            ticks, shown = _radius_ticks(ladders)
            axes.set_xticks(ticks, shown)
            axes.minorticks_off()
            axes.set_ylim(*axis.reach())
            axes.set_yticks(axis.place(values), names if column == 0 else [""] * len(names))
            axes.axhline(float(axis.place(1.0)), color=style.INK, linewidth=0.6, linestyle=":")
            if row == rows - 1:
                axes.set_xlabel("radius (σ or ρ)", labelpad=1)
            if column == 0:
                axes.set_ylabel("share of the curvature", labelpad=2)
            for ladder in ladders:
                _draw(axes, ladder, axis, len(labels))
        if len(labels) > 1:
            legend(figure, line_handles(len(labels)), labels, title)
        return figure


def _draw(axes: Any, ladder: Ladder, axis: Axis, count: int) -> None:
    hue = style.colour(ladder.index)
    ratio, low, high = (
        axis.place(np.clip(v, -axis.high, axis.high))
        for v in (ladder.ratio, ladder.low, ladder.high)
    )
    below, above = (float(axis.place(v)) for v in ladder.band)
    axes.axhspan(below, above, color=hue, alpha=0.14, linewidth=0)
    dashes: Any = DASHES
    axes.errorbar(
        ladder.radius * (1 + 0.03 * (ladder.index - (count - 1) / 2)),
        ratio,
        yerr=[ratio - low, high - ratio],
        color=hue,
        linestyle=dashes[ladder.index % 4],
        marker="osD^"[ladder.index % 4],
        markersize=3,
        capsize=1.6,
        elinewidth=0.8,
    )


def _reach(ladders: Sequence[Ladder]) -> tuple[float, float]:
    radii = np.concatenate([x.radius for x in ladders])
    return float(radii.min()) / 1.4, float(radii.max()) * 1.4


def _radius_ticks(ladders: Sequence[Ladder]) -> tuple[list[float], list[str]]:
    radii = sorted({float(r) for x in ladders for r in x.radius})
    return radii, [style.number(r) for r in radii]
