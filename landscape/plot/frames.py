"""What interactive figures of eigenvalues share: axes, bands, legend and the linear/log switch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, add_switch, safe
from landscape.plot.grid import arrange_legend
from landscape.plot.sheet import runs
from landscape.plot.signed import Axis, Values
from landscape.plot.words import broken

MOVING = ("x", "y", "error_y.array", "error_y.arrayminus")

Traces = list[go.Scatter]

PLAIN: dict[str, Any] = {
    "showgrid": True,
    "gridcolor": "#eceff2",
    "zeroline": False,
    "linecolor": style.MUTED,
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
}
LEGEND: dict[str, Any] = {
    "orientation": "h",
    "x": 0,
    "y": 1.01,
    "yanchor": "bottom",
    "font": {"size": 13},
}


def axis_layout(axis: Axis, title: str, gap: float = 0.09) -> dict[str, Any]:
    """Range, ticks at least ``gap`` apart, zero line and title of an axis of eigenvalues."""
    values, labels = axis.ticks(gap=gap)
    return {
        **PLAIN,
        "range": axis.reach(),
        "tickvals": axis.place(values).tolist(),
        "ticktext": labels,
        "zeroline": True,
        "zerolinecolor": style.MUTED,
        "zerolinewidth": 1,
        "title": {"text": title, "standoff": 8},
    }


def decades(low: float, high: float) -> dict[str, Any]:
    """Range and ticks of a plain logarithmic axis."""
    ends = [math.log10(low), math.log10(high)]
    ticks, labels = style.log_ticks(*ends)
    return {
        "type": "log",
        "range": ends,
        "tickvals": [10.0**t for t in ticks],
        "ticktext": labels,
    }


def entry(label: str) -> str:
    """A label as a legend shows it."""
    return "<br>".join(safe(line) for line in broken(label))


def make_room(figure: go.Figure, labels: Sequence[str]) -> None:
    """Make room above the panels for the legend, whose entries may have several lines."""
    more = 17 * (max(len(broken(label)) for label in labels) - 1)
    figure.layout.showlegend = True  # plotly leaves it out for a single trace
    figure.layout.height += more
    figure.layout.margin.t += more
    figure.layout.updatemenus[0].pad.b += more
    arrange_legend(figure, labels, TITLE_HEIGHT)


def filled(x: Values, low: Values, high: Values, hue: str, **options: Any) -> go.Scatter:
    """A band as closed polygons, one per run of finite points."""
    xs: list[float] = []
    ys: list[float] = []
    for run in runs(np.isfinite(low) & np.isfinite(high)):
        xs += [*x[run].tolist(), *x[run][::-1].tolist(), math.nan]
        ys += [*high[run].tolist(), *low[run][::-1].tolist(), math.nan]
    return go.Scatter(
        x=np.asarray(xs, np.float32),
        y=np.asarray(ys, np.float32),
        fill="toself",
        fillcolor=style.translucent(hue, 0.16),
        line={"width": 0},
        mode="lines",
        name="band",
        **options,
    )


def add_axis_switch(
    figure: go.Figure, states: Sequence[Traces], layouts: Sequence[Mapping[str, Any]], start: bool
) -> None:
    """Buttons that move all traces and one axis between the linear and the signed log scale."""
    arguments = []
    # What both scales place alike stays: a page would hold it twice more.
    moving = [key for key in MOVING if _differs(states, key)]
    for traces, layout in zip(states, layouts, strict=True):
        data: dict[str, list[Any]] = {}
        for key in moving:
            data[key] = [_digits(_at(trace, key)) for trace in traces]
        moved = ("range", "tickvals", "ticktext")
        axes = {f"{name}.{k}": part[k] for name, part in layout.items() for k in moved}
        arguments.append([data, axes, list(range(len(traces)))])
    add_switch(figure, arguments, start)


def _differs(states: Sequence[Traces], key: str) -> bool:
    """Whether any trace has other values of ``key`` on the other scale."""
    for traces in zip(*states, strict=True):
        one, *others = (_at(trace, key) for trace in traces)
        if one is not None and not all(np.array_equal(one, v, equal_nan=True) for v in others):
            return True
    return False


def _at(trace: go.Scatter, key: str) -> Any:
    parent, _, name = key.partition(".")
    return trace[parent][name] if name else trace[parent]


def _digits(values: Any) -> list[float] | None:
    # Six digits: a button's arguments are text, and a figure holds them twice.
    return None if values is None else [float(f"{v:.6g}") for v in values]
