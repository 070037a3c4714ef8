"""Interactive figures of paths of training (plotly): over the plane, and step by step."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.plot import interactive, paths, style
from landscape.plot.chrome import TITLE_HEIGHT, dress, safe
from landscape.plot.frames import LEGEND, PLAIN, decades, filled
from landscape.plot.grid import PHONE, axis_key
from landscape.plot.sheet import Sheet
from landscape.plot.trail_series import Series, series, series_note
from landscape.plot.trails import WARN_SHARE, Trail, lowest_corner, reaching, trail_note

_ROW, _GAP = 170, 62  # pixels


def contour(
    sheet: Sheet, trails: Sequence[Trail], title: str, log: bool | None, alone: bool = True
) -> go.Figure:
    """Contours with the paths on them, and a slider over their steps; see `landscape.plot.trajectory`."""
    figure = interactive.contour(sheet, title, log)
    drawn = [paths.on_contour(figure, 0, t, i) for i, t in enumerate(trails)]
    dress(figure, title, sheet.footnote(*trail_note(trails)))
    paths.animate(figure, trails, drawn, alone)
    return figure


def surface3d(sheet: Sheet, trails: Sequence[Trail], title: str, log: bool | None) -> go.Figure:
    """The surface with the paths over it, each checkpoint at its true loss."""
    wide = reaching(sheet, trails)
    # The details in brackets of a component would be cut off at the edge.
    figure = interactive.surface3d(wide, title, log, units=False)
    scale = wide.scale(wide.choose_log(log))
    for i, trail in enumerate(trails):
        paths.on_surface(figure, 0, trail, scale, i)
    dress(figure, title, sheet.footnote(*trail_note(trails), "stems: to the true loss"))
    scene = figure.layout.scene
    x, y = lowest_corner(wide)  # a path down to it is in front of the surface, not behind
    scene.camera = interactive.CAMERA | {"eye": {"x": 1.5 * x, "y": 1.5 * y, "z": 1.1}}
    return figure


def along_path(trails: Sequence[Trail], title: str) -> go.Figure:
    """Loss, distance off the plane and sharpness over steps, one panel each."""
    rows = series(trails)
    figure = go.Figure()
    inner = len(rows) * _ROW + (len(rows) - 1) * _GAP
    for r, row in enumerate(rows):
        _draw(figure, row, trails, r)
        top = 1 - r * (_ROW + _GAP) / inner
        domain = [max(0.0, top - _ROW / inner), top]
        last = r == len(rows) - 1
        figure.layout[axis_key("yaxis", r)] = {
            **PLAIN,
            **_vertical(row),
            "domain": domain,
            "anchor": axis_key("x", r),
        }
        figure.layout[axis_key("xaxis", r)] = {
            **PLAIN,
            "anchor": axis_key("y", r),
            "nticks": 7,
            **({} if r == 0 else {"matches": "x"}),
            **({"title": {"text": "step", "standoff": 8}} if last else {}),
        }
        figure.add_annotation(
            text=f"<b>{safe(row.title)}</b>", xref="paper", yref="paper", x=0, y=top,
            xanchor="left", yanchor="bottom", yshift=4, showarrow=False, align="left",
            font={"size": 13, "color": style.INK},
        )  # fmt: skip
    dress(figure, title, series_note(rows, trails))
    top, bottom = 58 + TITLE_HEIGHT, 56
    height = inner + top + bottom
    fixed = {"height": height, "margin.t": top}
    figure.update_layout(
        height=height,
        margin={"l": 64, "r": 16, "t": top, "b": bottom},
        showlegend=True,
        legend={**LEGEND, "y": 1 + 26 / inner},
        meta={
            "title_height": TITLE_HEIGHT,
            "arrangements": [
                {"below": PHONE, "layout": {**fixed, **_titles(rows, 40)}},
                {"below": 1e9, "layout": {**fixed, **_titles(rows, 400)}},
            ],
        },
    )
    return figure


def _titles(rows: Sequence[Series], width: int) -> dict[str, str]:
    """The titles of the panels in lines of so many characters."""
    return {
        f"annotations[{r}].text": "<br>".join(
            f"<b>{safe(line)}</b>" for line in wrap(row.title, width)
        )
        for r, row in enumerate(rows)
    }


def _draw(figure: go.Figure, row: Series, trails: Sequence[Trail], r: int) -> None:
    axes: dict[str, Any] = {"xaxis": axis_key("x", r), "yaxis": axis_key("y", r)}
    for curve in row.curves:
        trail, hue = trails[curve.owner], style.colour(curve.owner)
        if curve.low is not None and curve.high is not None:
            low = np.where(curve.low > 0, curve.low, row.floor) if row.log else curve.low
            band = filled(
                trail.steps, low, curve.high, hue, hoverinfo="skip", showlegend=False, **axes
            )
            figure.add_trace(band)
        name = safe(trail.label) + (f", {curve.kind}" if curve.kind else "")
        figure.add_trace(
            go.Scatter(
                x=trail.steps,
                y=curve.values,
                mode="lines+markers",
                line={
                    "color": hue,
                    "width": 1.6 if curve.kind else 2.2,
                    "dash": "dash" if curve.kind else "solid",
                },
                marker={"size": 3 if curve.kind else 5, "symbol": curve.symbols("circle", "x")},
                name=name,
                showlegend=r == 0,
                hovertemplate=f"step %{{x}}: {'%{y:.1%}' if row.share else '%{y:.5g}'}",
                **axes,
            )
        )
    if row.share:
        figure.add_shape(
            type="line", x0=0, x1=1, xref=f"{axis_key('x', r)} domain", y0=WARN_SHARE, y1=WARN_SHARE,
            yref=axis_key("y", r), line={"width": 1, "dash": "dot", "color": style.MUTED},
        )  # fmt: skip


def _vertical(row: Series) -> dict[str, Any]:
    if row.share:
        return {"range": [-0.02, 1.02], "tickformat": ".0%"}
    low, high = row.ends
    if not row.log:
        places, labels = style.linear_ticks(low, high, 4)
        return {"range": [low, high], "tickvals": places, "ticktext": labels}
    return decades(low, high)
