"""Interactive figures of curves (plotly): lines through a solution."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, add_switch, dress, hover, safe
from landscape.plot.frames import PLAIN
from landscape.plot.grid import arrange_legend
from landscape.plot.marks_interactive import beside_lines, quadratics
from landscape.plot.sheet import Sheet


def line(sheet: Sheet, title: str, log: bool | None, relative: bool) -> go.Figure:
    """All lines on one axis, each with its 95% band; see `landscape.plot.line`."""
    start = sheet.choose_log(log)
    bands = [p for p in sheet.panels if p.stderr is not None]
    figure = go.Figure()
    for i, p in enumerate(sheet.panels):
        if p.stderr is None:
            continue
        x, y = p.band(_floor(sheet) if start else None)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                fill="toself",
                fillcolor=style.translucent(style.colour(i), 0.16),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                legendgroup=str(i),
                name=f"{safe(p.label)} ± {style.Z95} stderr",
            )
        )
    for i, p in enumerate(sheet.panels):
        figure.add_trace(
            go.Scatter(
                x=p.alpha,
                y=p.loss,
                mode="lines",
                connectgaps=False,
                customdata=np.stack(p.known(), axis=-1),
                meta={"columns": p.columns()},
                hovertemplate=hover(p, flat=False),
                line={
                    "color": style.colour(i),
                    "width": 2.2,
                    "dash": style.DASHES[i % len(style.DASHES)],
                },
                name=f'<span style="color:{style.colour(i)}">{safe(p.label)}</span>',
                legendgroup=str(i),
            )
        )
    quadratics(figure, sheet)
    kind = "paired difference" if relative else "mean"
    seen = any((p.stderr > 0).any() for p in bands if p.stderr is not None)
    remark = (f"band: ±{style.Z95} standard errors of the {kind}",) if seen else ()
    dress(figure, title, sheet.footnote(*remark))
    figure.update_layout(
        height=(400 if relative else 425) + TITLE_HEIGHT,
        margin={"l": 64, "r": 16, "t": (42 if relative else 66) + TITLE_HEIGHT, "b": 56},
        hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 13}},
        xaxis={
            **PLAIN,
            "title": {"text": sheet.panels[0].titles[0], "standoff": 8},
        },
        yaxis={
            **PLAIN,
            **_y_axis(sheet, start),
            "title": {"text": "loss − loss at the centre" if relative else "loss"},
        },
    )
    if sheet.can_log and not relative:
        states = []
        for state in (False, True):
            edges = [p.band(_floor(sheet) if state else None)[1] for p in bands]
            axis = {f"yaxis.{k}": v for k, v in _y_axis(sheet, state).items()}
            states.append([{"y": edges} if edges else {}, axis, list(range(len(bands)))])
        add_switch(figure, states, start)
    beside_lines(figure, sheet)
    models = ["quadratic model"] if any(p.quadratic for p in sheet.panels) else []
    arrange_legend(figure, [*(p.label for p in sheet.panels), *models], TITLE_HEIGHT)
    return figure


def _floor(sheet: Sheet) -> float:
    return sheet.low / 10


def _y_axis(sheet: Sheet, log: bool) -> dict[str, Any]:
    scale = sheet.scale(log)
    ticks = [float(10.0**t) for t in scale.ticks] if log else scale.ticks
    return {
        "type": "log" if log else "linear",
        "range": scale.padded(0.06, 0.08),
        "tickvals": ticks,
        "ticktext": scale.labels,
    }
