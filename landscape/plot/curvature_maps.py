"""Interactive maps of curvature over a plane (plotly): both ends of the spectrum and their ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, dress, safe
from landscape.plot.grid import PHONE, axis_key
from landscape.plot.readings import Map
from landscape.plot.signed import Axis, Values, fit
from landscape.plot.words import map_note

DIVERGING = "RdBu_r"
HIDDEN = {"hoverinfo": "skip", "showlegend": False}


@dataclass(frozen=True)
class Layer:
    """One quantity of all maps: a row of panels with one colour scale.

    Attributes:
        name: the quantity, with plotly's subscripts.
        values: one array per map.
        marks: where they have not converged.
        colours: the colour scale, known to plotly and to matplotlib.
        axis: which colours the values have.
        clipped: whether values lie above the colours.
    """

    name: str
    values: list[Values]
    marks: list[NDArray[np.bool_]]
    colours: str
    axis: Axis
    clipped: bool = False

    def ticks(self) -> tuple[list[float], list[str]]:
        """Values marked on the colour bar, and their labels."""
        values, labels = self.axis.ticks(5, 0.16)
        if self.clipped and values[-1] == self.axis.high:
            labels[-1] = f"≥ {labels[-1]}"
        return values, labels

    def colour_range(self) -> list[float]:
        """Ends of the colour scale, as positions on the axis."""
        return [float(v) for v in self.axis.place([self.axis.low, self.axis.high])]


def layers(maps: Sequence[Map], log: bool | None) -> list[Layer]:
    """The three quantities: largest, smallest (white at zero), and the size of their ratio."""
    top, low, ratio = ([getattr(m, n) for m in maps] for n in ("largest", "smallest", "ratio"))
    marks = [[m.unconverged[0] for m in maps], [m.unconverged[1] for m in maps]]
    either = [a | b for a, b in zip(*marks, strict=True)]
    size = float(np.nanmax([np.nanmax(np.abs(v)) for v in low])) or 1.0
    known = [r for r in ratio if np.isfinite(r).any()]
    largest = float(max((np.nanmax(r) for r in known), default=1.0)) or 1.0
    return [
        Layer("λ<sub>max</sub>", top, marks[0], style.SEQUENTIAL, _close(top, log)),
        Layer("λ<sub>min</sub>", low, marks[1], DIVERGING, Axis(False, -size, size)),
        Layer(
            "|λ<sub>min</sub> ÷ λ<sub>max</sub>|",
            ratio,
            either,
            "cividis",
            # At a ratio of 1 the negative curvature is as large as the positive one.
            Axis(False, 0.0, min(1.0, largest)),
            largest > 1,
        ),
    ]


def _close(values: list[Values], log: bool | None) -> Axis:
    """The axis of a sequential scale: it ends at the data and need not hold the zero."""
    axis = fit(values, log)
    low = float(min(np.nanmin(v) for v in values))
    high = float(max(np.nanmax(v) for v in values))
    return Axis(axis.log, low, high if high > low else low + (abs(low) * 0.01 or 1.0), axis.unit)


def curvature_map(maps: Sequence[Map], log: bool | None, title: str) -> go.Figure:
    """One row of panels per quantity; see `landscape.plot.curvature_map`."""
    rows = layers(maps, log)
    count = len(maps)
    figure = go.Figure()
    for k, layer in enumerate(rows):
        for i, m in enumerate(maps):
            panel = k * count + i
            axes = {"xaxis": axis_key("x", panel), "yaxis": axis_key("y", panel)}
            figure.add_trace(_heat(m, layer, i, axis_key("coloraxis", k), axes))
            if m.loss is not None:
                figure.add_trace(_loss(maps, i, axes))
            figure.add_trace(_marks(m, layer.marks[i], axes))
            figure.add_trace(_centre(axes))
            _panel_axes(figure, m, panel)
        values, labels = layer.ticks()
        low, high = layer.colour_range()
        figure.layout[axis_key("coloraxis", k)] = {
            "colorscale": layer.colours,
            "cmin": low,
            "cmax": high,
            "colorbar": {
                "title": {"text": layer.name, "side": "top"},
                "thickness": 12,
                "outlinewidth": 0,
                "tickvals": layer.axis.place(values).tolist(),
                "ticktext": labels,
            },
        }
    dress(figure, title, map_note(maps))
    _arrange(figure, maps, rows)
    return figure


def _heat(m: Map, layer: Layer, index: int, key: str, axes: dict[str, str]) -> go.Heatmap:
    shown = [m.largest, m.residuals[0], m.smallest, m.residuals[1], m.ratio]
    return go.Heatmap(
        x=m.alpha,
        y=m.beta,
        z=layer.axis.place(layer.values[index]),
        customdata=np.stack(shown, axis=-1),
        hovertemplate=f"<b>{safe(m.label)}</b><br>α %{{x:.3g}}, β %{{y:.3g}}"
        "<br>λ<sub>max</sub> = %{customdata[0]:.4g} ± %{customdata[1]:.2g}"
        "<br>λ<sub>min</sub> = %{customdata[2]:.4g} ± %{customdata[3]:.2g}"
        "<br>|ratio| = %{customdata[4]:.3g}<extra></extra>",
        hoverongaps=False,
        coloraxis=key,
        name=safe(m.label),
        **axes,
    )


def loss_levels(maps: Sequence[Map]) -> tuple[float, float, float]:
    """Levels of the loss, the same for all maps: first, last, step."""
    finite = np.concatenate([m.loss[np.isfinite(m.loss)] for m in maps if m.loss is not None])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return style.levels(low, high if high > low else low + 1.0, 8)


def _loss(maps: Sequence[Map], index: int, axes: dict[str, str]) -> go.Contour:
    m = maps[index]
    first, last, step = loss_levels(maps)
    return go.Contour(
        x=m.alpha,
        y=m.beta,
        z=m.loss,
        autocontour=False,
        contours={"start": first, "end": last, "size": step, "coloring": "none"},
        line={"width": 0.8, "color": "rgba(27,31,36,0.45)"},
        name=f"{safe(m.label)}: loss",
        **HIDDEN,
        **axes,
    )


def _marks(m: Map, mark: NDArray[np.bool_], axes: dict[str, str]) -> go.Scatter:
    rows, columns = np.nonzero(mark)
    return go.Scatter(
        x=m.alpha[columns].tolist(),
        y=m.beta[rows].tolist(),
        mode="markers",
        marker={
            "symbol": "x",
            "size": 8,
            "color": style.INK,
            "line": {"width": 1, "color": "white"},
        },
        name=f"{safe(m.label)}: not converged",
        **HIDDEN,
        **axes,
    )


def _centre(axes: dict[str, str]) -> go.Scatter:
    return go.Scatter(
        x=[0],
        y=[0],
        mode="markers",
        marker={"symbol": "cross", "size": 9, "color": "white", "line": {"width": 1}},
        **HIDDEN,
        **axes,
    )


def _panel_axes(figure: go.Figure, m: Map, panel: int) -> None:
    quiet = {"showgrid": False, "zeroline": False, "ticks": "outside", "ticklen": 4, "nticks": 5}
    x, y = axis_key("x", panel), axis_key("y", panel)
    figure.layout[axis_key("xaxis", panel)] = {
        **quiet,
        "anchor": y,
        "title": {"text": style.axis_title("α", m.attrs), "standoff": 6},
        "constrain": "domain",
    }
    figure.layout[axis_key("yaxis", panel)] = {
        **quiet,
        "anchor": x,
        "title": {"text": style.axis_title("β", m.attrs), "standoff": 2},
        "scaleanchor": x,
        "constrain": "domain",
    }


def _arrange(figure: go.Figure, maps: Sequence[Map], rows: Sequence[Layer]) -> None:
    """Place panels and colour bars for a wide and for a narrow figure, and title the panels."""
    figure.layout.annotations = [
        {
            "text": "<br>".join(f"<b>{safe(part)}</b>" for part in _title(m)) + f"<br>{layer.name}",
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 13},
        }
        for layer in rows
        for m in maps
    ]
    room = 17 * (1 + max(len(_title(m)) for m in maps)) + 8
    wide = _placing(len(maps), len(rows), room, phone=False)
    figure.layout.update({k.replace(".", "_"): v for k, v in wide.items() if "[" not in k})
    for i, annotation in enumerate(figure.layout.annotations):
        annotation.x, annotation.y = wide[f"annotations[{i}].x"], wide[f"annotations[{i}].y"]
    phone = _placing(len(maps), len(rows), room, phone=True)
    figure.layout.meta = {
        "title_height": TITLE_HEIGHT,
        "arrangements": [{"below": PHONE, "layout": phone}, {"below": 1e9, "layout": wide}],
    }


def _title(m: Map) -> list[str]:
    return wrap(m.label, 30) or [""]


def _placing(count: int, quantities: int, room: int, phone: bool) -> dict[str, Any]:
    """Layout changes, as `landscape.plot.grid` makes them; every quantity has its colour bar.

    A phone has one column. A wide figure has one row per quantity with its bar at the right, or,
    for a single map, one column per quantity with its bar underneath.
    """
    under = phone or count == 1
    columns = 1 if phone else (quantities if count == 1 else count)
    lines = math.ceil(count * quantities / columns)
    bar = 64 if under else 0
    panel = 290 if phone else {3: 300, 2: 330}.get(columns, 240)
    below = 52  # tick labels and title of the horizontal axis
    tops: list[float] = []  # pixels from the top of the first title
    at = 0.0
    for line in range(lines):
        tops.append(at + room)
        last = not phone or (line + 1) % count == 0
        at += room + panel + below + (bar if last else 0)
    margin = {"t": 16 + TITLE_HEIGHT + room, "b": below + bar}
    inner = at - room - margin["b"]
    out: dict[str, Any] = {
        "height": inner + margin["t"] + margin["b"],
        "margin.t": margin["t"],
        "margin.b": margin["b"],
        "margin.l": 58,
        "margin.r": 16 if under else 92,
    }
    gap = 74 / (340 if phone else 1120)
    cell = (1 - gap * (columns - 1)) / columns
    for k in range(quantities):
        for i in range(count):
            index = k * count + i
            line, column = divmod(index, columns)
            x0 = column * (cell + gap)
            y1 = 1 - (tops[line] - room) / inner
            x, y = [x0, x0 + cell], [max(0.0, y1 - panel / inner), min(1.0, y1)]
            out[f"{axis_key('xaxis', index)}.domain"] = x
            out[f"{axis_key('yaxis', index)}.domain"] = y
            out[f"annotations[{index}].x"] = sum(x) / 2
            out[f"annotations[{index}].y"] = y1 + 3 / inner
        prefix = f"{axis_key('coloraxis', k)}.colorbar"
        out |= {
            f"{prefix}.orientation": "h" if under else "v",
            f"{prefix}.x": sum(x) / 2 if under else 1.02,
            f"{prefix}.xanchor": "center" if under else "left",
            f"{prefix}.y": y[0] - below / inner if under else sum(y) / 2,
            f"{prefix}.yanchor": "top" if under else "middle",
            f"{prefix}.len": (x[1] - x[0]) * 0.9 if under else panel / inner,
            f"{prefix}.title.side": "right" if under else "top",
            f"{prefix}.title.text": "" if under else _NAMES[k],
        }
    return out


_NAMES = ("λ<sub>max</sub>", "λ<sub>min</sub>", "|ratio|")
