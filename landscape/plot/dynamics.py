"""Interactive figures of training's dynamics (plotly): eigenvalues over steps, edge of stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, dress, safe
from landscape.plot.frames import (
    LEGEND,
    PLAIN,
    Traces,
    add_axis_switch,
    axis_layout,
    entry,
    filled,
    make_room,
)
from landscape.plot.readings import Gauge, Path
from landscape.plot.signed import Axis
from landscape.plot.words import GAUGE_NOTE, gauge_value, path_note, thresholds

OFF_SCALE = 4.0  # times the edge: further readings stand as arrows at the end of the gauge
ZONES = ("#e3f1ec", "#fae6d8")  # under the edge, over it


def along_training(
    paths: Sequence[Path], axes: tuple[Axis, Axis], log: bool, title: str
) -> go.Figure:
    """Eigenvalues over steps; see `landscape.plot.along_training`."""
    states = [_path_traces(paths, axis) for axis in axes]
    figure = go.Figure(states[log])
    dress(figure, title, path_note(paths))
    layouts = [axis_layout(axis, "eigenvalue") for axis in axes]
    figure.update_layout(
        height=425 + TITLE_HEIGHT,
        margin={"l": 64, "r": 16, "t": 66 + TITLE_HEIGHT, "b": 56},
        legend=LEGEND,
        xaxis={**PLAIN, "title": {"text": "step", "standoff": 8}, "nticks": 7},
        yaxis=layouts[log],
    )
    add_axis_switch(figure, states, [{"yaxis": part} for part in layouts], log)
    make_room(figure, [p.label for p in paths])
    return figure


def _path_traces(paths: Sequence[Path], axis: Axis) -> Traces:
    bands: Traces = []
    lines: Traces = []
    for i, p in enumerate(paths):
        hue = style.colour(i)
        shared = {"legendgroup": str(i), "showlegend": False}
        curves = [
            (str(k + 1), p.values[:, k], p.residuals[:, k], "solid")
            for k in reversed(range(p.values.shape[1]))
        ]
        if p.smallest is not None:
            error = p.smallest * math.nan if p.smallest_residuals is None else p.smallest_residuals
            curves.insert(0, ("min", p.smallest, error, "dash"))
        for name, values, errors, dash in curves:
            low, high = axis.place(values - errors), axis.place(values + errors)
            bands.append(filled(p.steps, low, high, hue, hoverinfo="skip", **shared))
            first = name == "1"
            lines.append(
                go.Scatter(
                    x=p.steps.tolist(),
                    y=axis.place(values).tolist(),
                    mode="lines" if len(p.steps) > 1 else "markers",
                    connectgaps=False,
                    customdata=list(zip(values, errors, strict=True)),
                    hovertemplate=f"step %{{x}}: λ<sub>{name}</sub> = %{{customdata[0]:.5g}} "
                    "± %{customdata[1]:.2g}",
                    line={
                        "color": hue if name in ("1", "min") else style.translucent(hue, 0.6),
                        "width": 2.4 if first else 1.3,
                        "dash": dash,
                    },
                    name=entry(p.label),
                    **{**shared, "showlegend": first},
                )
            )
    for p, hue in thresholds(paths):
        known = np.asarray(p.threshold)
        lines.append(
            go.Scatter(
                x=p.steps.tolist(),
                y=axis.place(known).tolist(),
                mode="lines",
                customdata=known.tolist(),
                hovertemplate="step %{x}: edge of stability %{customdata:.5g}<extra></extra>",
                line={"color": hue, "width": 1.8, "dash": "dot", "shape": "hv"},
                name=f"{safe(p.label)}: edge of stability",
                showlegend=False,
            )
        )
    return bands + lines


def stability(gauges: Sequence[Gauge], title: str) -> go.Figure:
    """Horizontal gauges with the edge of stability at 1; see `landscape.plot.stability`."""
    end = gauge_end(gauges)
    figure = go.Figure()
    at = 0.0  # the vertical axis counts pixels from the top
    for i, g in enumerate(gauges):
        labels, rules = wrap(g.label, 28) or [""], wrap(g.rule, 56)
        above, bar = 17 * len(labels) + 12, 14
        middle = at + above + bar / 2
        _gauge(figure, g, i, middle, bar, end)
        _note(figure, "<b>" + "<br>".join(map(safe, labels)) + "</b>", 0, at + 6, style.INK, 13)
        _note(figure, gauge_value(g.value, g.low, g.high), 1, at + 6, style.INK, 13)
        at += above + bar
        _note(figure, "<br>".join(map(safe, rules)), 0, at + 3, style.MUTED, 11)
        at += 15 * len(rules) + 14
    dress(figure, title, GAUGE_NOTE)
    top, bottom = 30 + TITLE_HEIGHT, 72
    ticks, names = gauge_ticks(end)
    figure.update_layout(
        height=at + top + bottom,
        margin={"l": 16, "r": 16, "t": top, "b": bottom},
        showlegend=False,
        xaxis={
            **PLAIN,
            "showgrid": False,
            "range": [0, end],
            "title": {"text": "sharpness ÷ its threshold", "standoff": 8},
            "tickvals": ticks,
            "ticktext": [name.replace("\n", "<br>") for name in names],
        },
        yaxis={"visible": False, "range": [at, 0], "fixedrange": True},
        meta={
            "title_height": TITLE_HEIGHT,
            "arrangements": [
                {"below": 1e9, "layout": {"height": at + top + bottom, "margin.t": top}}
            ],
        },
    )
    return figure


def gauge_end(gauges: Sequence[Gauge]) -> float:
    """Where all gauges end: at least 1.5, at most ``OFF_SCALE``."""
    ends = [v for g in gauges for v in (g.value, g.high) if math.isfinite(v)]
    return min(max(1.5, 1.08 * max(ends, default=0.0)), OFF_SCALE)


def gauge_ticks(end: float) -> tuple[list[float], list[str]]:
    r"""Marks of a gauge and their labels; that at 1 is named.

    >>> gauge_ticks(1.5)
    ([0.0, 0.5, 1.0, 1.5], ['0', '0.5', '1\nedge of stability', '1.5'])
    """
    ticks = [0.0, 0.5, 1.0, 1.5] if end < 2.5 else [0.0, 1.0, 2.0, 3.0, 4.0]
    ticks = [t for t in ticks if t <= end]
    return ticks, ["1\nedge of stability" if t == 1 else f"{t:g}" for t in ticks]


def _gauge(figure: go.Figure, g: Gauge, index: int, y: float, bar: float, end: float) -> None:
    for x0, x1, hue in ((0, 1, ZONES[0]), (1, end, ZONES[1])):
        figure.add_shape(
            type="rect",
            x0=x0,
            x1=x1,
            y0=y - bar / 2,
            y1=y + bar / 2,
            fillcolor=hue,
            line={"width": 0},
            layer="below",
        )
    figure.add_shape(
        type="line",
        x0=1,
        x1=1,
        y0=y - bar / 2 - 3,
        y1=y + bar / 2 + 3,
        line={"color": style.INK, "width": 2},
    )
    figure.add_trace(
        go.Scatter(
            x=[g.low, min(g.high, end)],
            y=[y, y],
            mode="lines",
            line={"color": style.translucent(style.colour(index), 0.5), "width": 8},
            hoverinfo="skip",
            name=f"{safe(g.label)}: interval",
        )
    )
    beyond = g.value > end
    figure.add_trace(
        go.Scatter(
            x=[end if beyond else g.value],
            y=[y],
            mode="markers",
            cliponaxis=False,
            marker={
                "color": style.colour(index),
                "size": 11,
                "symbol": "triangle-right" if beyond else "circle",
                "line": {"color": "white", "width": 1.5},
            },
            customdata=[[g.value, g.low, g.high]],
            hovertemplate="%{customdata[0]:.4g} [%{customdata[1]:.4g}, %{customdata[2]:.4g}]",
            name=safe(g.label),
        )
    )


def _note(figure: go.Figure, text: str, x: int, y: float, hue: str, size: int) -> None:
    if text:
        side = "right" if x else "left"
        figure.add_annotation(
            text=text,
            x=x,
            y=y,
            xref="paper",
            xanchor=side,
            yanchor="top",
            align=side,
            showarrow=False,
            borderpad=0,
            font={"size": size, "color": hue},
        )
