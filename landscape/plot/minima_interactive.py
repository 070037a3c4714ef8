"""Interactive figure of minima and passes (plotly)."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, dress, hover, safe
from landscape.plot.frames import PLAIN
from landscape.plot.grid import arrange
from landscape.plot.minima import Diagram, Minima, placed
from landscape.plot.sheet import Panel, Scale, Sheet

_PASS = "#D55E00"


def topology(sheet: Sheet, minima: Minima, title: str, log: bool | None) -> go.Figure:
    """The persistence diagram, and the surface with its minima and passes."""
    (panel,) = sheet.panels
    scale = sheet.scale(sheet.choose_log(log))
    diagram = minima.diagram(log)
    figure = go.Figure(
        [*_diagram(minima, diagram), *_surface(panel, scale), *_marks(minima, scale)]
    )
    axis = {
        **PLAIN, "range": [diagram.bottom, diagram.top], "tickvals": diagram.scale.ticks,
        "ticktext": diagram.scale.labels,
    }  # fmt: skip
    figure.layout.xaxis = {
        **axis,
        "anchor": "y",
        "title": {"text": "loss at the minimum", "standoff": 6},
    }
    figure.layout.yaxis = {
        **axis, "anchor": "x", "title": {"text": "loss at the pass", "standoff": 6},
        "tickvals": [*diagram.scale.ticks, diagram.never], "ticktext": [*diagram.scale.labels, "no pass"],
    }  # fmt: skip
    quiet = {"showgrid": False, "zeroline": False, "ticks": "outside", "ticklen": 4}
    figure.layout.xaxis2 = {
        **quiet, "anchor": "y2", "title": {"text": panel.titles[0], "standoff": 6}, "nticks": 5,
    }  # fmt: skip
    figure.layout.yaxis2 = {
        **quiet, "anchor": "x2", "title": {"text": panel.titles[1], "standoff": 2}, "nticks": 5,
    }  # fmt: skip
    if panel.beta is not None:
        figure.layout.xaxis2.constrain = figure.layout.yaxis2.constrain = "domain"
        figure.layout.yaxis2.scaleanchor = "x2"
    else:
        figure.layout.xaxis2.update(PLAIN)
        figure.layout.yaxis2.update(
            **PLAIN, title={"text": "loss", "standoff": 6}, tickvals=scale.ticks, ticktext=scale.labels,
            range=scale.padded(0.08, 0.08),
        )  # fmt: skip
    dress(figure, title, sheet.footnote(*minima.remarks()))
    figure.layout.showlegend = False
    figure.layout.coloraxis = {
        "colorscale": style.SEQUENTIAL, "cmin": scale.low, "cmax": scale.high,
        "colorbar": {
            "title": {"text": "loss"}, "thickness": 12, "outlinewidth": 0, "tickvals": scale.ticks,
            "ticktext": scale.labels,
        },
    }  # fmt: skip
    arrange(figure, ["Persistence", panel.label], kind="axis", title_height=TITLE_HEIGHT)
    return figure


def _diagram(minima: Minima, d: Diagram) -> list[go.Scatter]:
    ends = [d.bottom, d.top]
    quiet: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip"}
    traces = [
        go.Scatter(
            x=[*d.band_x, *d.band_x[::-1]], y=[*d.band_y, *d.band_x[::-1]], fill="toself",
            fillcolor=style.translucent(style.MUTED, 0.18), line={"width": 0}, name="noise band", **quiet,
        ),
        go.Scatter(x=ends, y=ends, line={"color": style.MUTED, "width": 1}, name="no persistence", **quiet),
        go.Scatter(
            x=ends, y=[d.never] * 2, line={"color": style.MUTED, "width": 1, "dash": "dot"},
            name="never joined", **quiet,
        ),
    ]  # fmt: skip
    for real in (False, True):
        which = np.flatnonzero(minima.significant == real)
        traces.append(
            go.Scatter(
                x=d.x[which], y=d.y[which], name="minima" if real else "noise",
                hovertext=[minima.hover(int(i)) for i in which], hoverinfo="text",
                **_look(minima, which, real, style.SUBJECT_COLOURS[0], "white"),
            )
        )  # fmt: skip
    return traces


def _surface(panel: Panel, scale: Scale) -> list[Any]:
    shared: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2", "name": safe(panel.label)}
    if panel.beta is None:
        return [
            go.Scatter(
                x=panel.alpha, y=scale.place(panel.loss), mode="lines", hoverinfo="skip",
                line={"color": style.INK, "width": 1.6}, **shared,
            )
        ]  # fmt: skip
    first, last, step = scale.levels
    return [
        go.Contour(
            x=panel.alpha, y=panel.beta, z=scale.place(panel.loss), coloraxis="coloraxis",
            customdata=np.stack(panel.known(), axis=-1), hovertemplate=hover(panel), connectgaps=False,
            autocontour=False, contours={"start": first, "end": last, "size": step, "coloring": "fill"},
            line={"width": 0.6, "color": "rgba(255,255,255,0.65)"}, **shared,
        )
    ]  # fmt: skip


def _marks(minima: Minima, scale: Scale) -> list[go.Scatter]:
    flat = minima.beta is not None
    axes: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2", "hoverinfo": "text"}
    height = minima.beta if minima.beta is not None else placed(scale, minima.loss)
    passes = np.flatnonzero(minima.significant & np.isfinite(minima.saddle_loss))
    over = minima.saddle_beta if minima.saddle_beta is not None else None
    traces = [
        go.Scatter(
            x=minima.saddle_alpha[passes],
            y=over[passes] if over is not None else placed(scale, minima.saddle_loss[passes]),
            mode="markers", name="passes",
            hovertext=[f"pass of minimum {minima.number[i]}<br>loss {minima.saddle_loss[i]:.4g}" for i in passes],
            marker={"symbol": "x", "size": 10, "color": _PASS, "line": {"color": "white", "width": 1.4}},
            **axes,
        )
    ]  # fmt: skip
    for real in (False, True):
        which = np.flatnonzero(minima.significant == real)
        fill, ink = ("white", style.INK) if flat else (style.SUBJECT_COLOURS[0], "white")
        traces.append(
            go.Scatter(
                x=minima.alpha[which], y=height[which], name="minima" if real else "noise",
                hovertext=[minima.hover(int(i)) for i in which],
                **_look(minima, which, real, fill, ink), **axes,
            )
        )  # fmt: skip
    return traces


def _look(minima: Minima, which: Any, real: bool, fill: str, ink: str) -> dict[str, Any]:
    if not real:
        marker = {
            "size": 4,
            "color": fill,
            "opacity": 0.75,
            "line": {"color": style.INK, "width": 0.4},
        }
        return {"mode": "markers", "marker": marker}
    symbols = ["square" if minima.doubtful[i] else "circle" for i in which]
    return {
        "mode": "markers+text",
        "text": [str(minima.number[i]) for i in which],
        "textfont": {"color": ink, "size": 10},
        "textposition": "middle center",
        "marker": {
            "size": 16,
            "symbol": symbols,
            "color": fill,
            "line": {"color": style.INK, "width": 1},
        },
    }
