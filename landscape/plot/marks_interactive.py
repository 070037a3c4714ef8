"""Named points and paths in interactive figures (plotly)."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.chrome import safe
from landscape.plot.grid import axis_key
from landscape.plot.marks import heights, lines_at
from landscape.plot.sheet import Panel, Scale, Sheet

_DARK = "rgba(20,24,30,0.78)"
_PATH = "#ffffff"


def over_contour(figure: go.Figure, panel: Panel, index: int) -> None:
    """Paths and named points over filled contours; a cross at the centre where nothing has a name."""
    axes = {"xaxis": axis_key("x", index), "yaxis": axis_key("y", index)}
    if panel.path is not None:
        for width, hue in ((4.5, _DARK), (2.2, _PATH)):
            figure.add_trace(
                go.Scatter(
                    x=panel.path.alpha, y=panel.path.beta, mode="lines", hoverinfo="skip",
                    line={"width": width, "color": hue}, showlegend=False, **axes,
                )
            )  # fmt: skip
    if not panel.marks:
        figure.add_trace(
            go.Scatter(
                x=[0],
                y=[0],
                mode="markers",
                marker={"symbol": "cross-thin", "size": 11, "line": {"width": 2, "color": "white"}},
                hoverinfo="skip",
                showlegend=False,
                **axes,
            )
        )
        return
    figure.add_trace(
        go.Scatter(
            x=[m.alpha for m in panel.marks],
            y=[m.beta for m in panel.marks],
            mode="markers",
            marker={"symbol": "circle", "size": 8, "color": "white",
                    "line": {"width": 1.5, "color": style.INK}},
            customdata=[safe(m.label) for m in panel.marks],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
            **axes,
        )
    )  # fmt: skip


def label_contour(figure: go.Figure, panel: Panel, index: int) -> None:
    """The names of the points, each beside its own; after the panels have been arranged."""
    for mark in panel.marks:
        figure.add_annotation(
            x=mark.alpha,
            y=mark.beta,
            xref=axis_key("x", index),
            yref=axis_key("y", index),
            text=safe(mark.label),
            showarrow=False,
            yanchor="bottom",
            yshift=7,
            font={"size": 12, "color": "white"},
            bgcolor=_DARK,
            borderpad=2,
        )


def over_surface(figure: go.Figure, sheet: Sheet, scale: Scale) -> list[int]:
    """Paths and named points over 3-D surfaces; the indices of the panels they belong to."""
    owners: list[int] = []
    for i, panel in enumerate(sheet.panels):
        for trace in _in_scene(panel, scale):
            figure.add_trace(trace.update(scene=axis_key("scene", i)))
            owners.append(i)
    return owners


def label_surface(figure: go.Figure, sheet: Sheet, scale: Scale) -> None:
    """The names of the points, in front of whatever surface hides the points themselves."""
    for i, panel in enumerate(sheet.panels):
        if not panel.marks:
            continue
        figure.layout[axis_key("scene", i)].annotations = [
            {
                "x": mark.alpha,
                "y": mark.beta,
                "z": z,
                "text": safe(mark.label),
                "showarrow": False,
                "yshift": 14,
                "font": {"size": 12, "color": "white"},
                "bgcolor": _DARK,
                "borderpad": 2,
            }
            for mark, z in zip(panel.marks, _label_heights(panel, scale), strict=True)
        ]


def moved_labels(sheet: Sheet, scale: Scale) -> dict[str, float]:
    """Changes of the layout that put these names at the heights of another scale."""
    return {
        f"{axis_key('scene', i)}.annotations[{k}].z": z
        for i, panel in enumerate(sheet.panels)
        for k, z in enumerate(_label_heights(panel, scale))
    }


def _label_heights(panel: Panel, scale: Scale) -> list[float]:
    alpha, beta, loss = (
        [getattr(m, name) for m in panel.marks] for name in ("alpha", "beta", "loss")
    )
    placed = scale.place(heights(panel, alpha, beta, loss))
    # A point over a gap of the surface is named at the top of the box, where it hides nothing.
    return [float(f"{v:.5g}") if np.isfinite(v) else scale.high for v in placed.tolist()]


def raised(sheet: Sheet, scale: Scale) -> list[list[float | None]]:
    """The heights of what :func:`over_surface` drew, on another scale."""
    return [
        [None if not np.isfinite(v) else float(f"{v:.5g}") for v in np.asarray(trace.z, float)]
        for panel in sheet.panels
        for trace in _in_scene(panel, scale)
    ]


def _in_scene(panel: Panel, scale: Scale) -> list[go.Scatter3d]:
    lift = 0.015 * (scale.high - scale.low)  # else half of a line lies inside the surface
    traces = []
    if panel.path is not None:
        p = panel.path
        z = scale.place(heights(panel, p.alpha, p.beta, p.loss)) + lift
        traces.append(
            go.Scatter3d(
                x=p.alpha, y=p.beta, z=z, mode="lines", line={"width": 6, "color": style.INK},
                hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip
    if panel.marks:
        alpha, beta, loss = (
            [getattr(m, name) for m in panel.marks] for name in ("alpha", "beta", "loss")
        )
        traces.append(
            go.Scatter3d(
                x=alpha, y=beta, z=scale.place(heights(panel, alpha, beta, loss)) + lift,
                mode="markers", text=[safe(m.label) for m in panel.marks],
                marker={"size": 4.5, "color": "white", "line": {"width": 1.5, "color": style.INK}},
                hovertemplate="%{text}<extra></extra>", showlegend=False,
            )
        )  # fmt: skip
    return traces


def beside_lines(figure: go.Figure, sheet: Sheet) -> None:
    """Named points of lines: a vertical rule each, with the name at its top."""
    last = float(sheet.panels[0].alpha[-1])
    width = last - float(sheet.panels[0].alpha[0])
    for alpha, label in lines_at(sheet.panels):
        left = alpha < last - 0.1 * width
        figure.add_shape(
            type="line", x0=alpha, x1=alpha, y0=0, y1=1, yref="y domain", layer="below",
            line={"width": 1, "color": style.MUTED, "dash": "dot"},
        )  # fmt: skip
        figure.add_annotation(
            x=alpha, y=1, yref="y domain", text=f"<b>{safe(label)}</b>", showarrow=False,
            xanchor="left" if left else "right", yanchor="top", xshift=2 if left else -2,
            font={"size": 12, "color": style.MUTED},
        )  # fmt: skip


def quadratics(figure: go.Figure, sheet: Sheet) -> None:
    """The quadratic model of each line at its centre, dotted, in the line's colour."""
    first = True
    for i, p in enumerate(sheet.panels):
        if p.quadratic is None:
            continue
        model: Any = p.quadratic.along(p.alpha)
        figure.add_trace(
            go.Scatter(
                x=p.alpha, y=np.where(model > 0, model, np.nan) if sheet.low > 0 else model,
                mode="lines", hovertemplate="quadratic model %{y:.4g}<extra></extra>",
                line={"color": style.colour(i), "width": 1.6, "dash": "1px,3px"},
                name="quadratic model", showlegend=first, legendgroup="quadratic",
            )
        )  # fmt: skip
        first = False
