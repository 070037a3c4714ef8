"""Interactive figures of planes (plotly): 3-D surfaces and contours."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, add_switch, dress, hover, safe
from landscape.plot.grid import arrange, axis_key
from landscape.plot.marks_interactive import (
    label_contour,
    label_surface,
    moved_labels,
    over_contour,
    over_surface,
    raised,
)
from landscape.plot.sheet import MAX_SCENES, Array, Scale, Sheet

CAMERA = {"eye": {"x": 1.5, "y": 1.5, "z": 1.1}, "center": {"x": 0.0, "y": 0.0, "z": -0.15}}
FROM_ALPHA = {**CAMERA, "eye": {"x": 0.9, "y": -1.8, "z": 1.3}}
FLOOR = 0.22  # how far under the lowest point the projected contours lie, in heights
LIGHT = {"ambient": 0.72, "diffuse": 0.55, "specular": 0.06, "roughness": 0.9, "fresnel": 0.05}


def surface3d(sheet: Sheet, title: str, log: bool | None, units: bool = True) -> go.Figure:
    """Surfaces side by side: one scene each, one z range, one colour scale, one camera.

    Without ``units`` the axes of the plane have their short titles.
    """
    if len(sheet.panels) > MAX_SCENES:
        raise ValueError(
            f"a figure holds at most {MAX_SCENES} 3-D scenes, got {len(sheet.panels)}: browsers "
            "draw only a few; split the list, or use contour"
        )
    start = sheet.choose_log(log)
    scale = sheet.scale(start)
    first, last, step = scale.levels
    traces = [
        go.Surface(
            x=p.alpha,
            y=p.beta,
            z=scale.place(p.loss),
            # A surface is asked for its hover data as [column][row], unlike every other trace.
            customdata=np.stack([a.T for a in p.known()], axis=-1),
            meta={"columns": p.columns()},
            hovertemplate=hover(p),
            coloraxis="coloraxis",
            scene=axis_key("scene", i),
            name=safe(p.label),
            connectgaps=False,
            lighting=LIGHT,
            contours_z={
                "show": True,
                "usecolormap": True,
                "project_z": True,
                "start": first,
                "end": last,
                "size": step,
                "width": 2,
            },
        )
        for i, p in enumerate(sheet.panels)
    ]
    figure = go.Figure(traces)
    over_surface(figure, sheet, scale)
    # Planes through named points have most of them on the near side of this one.
    camera = FROM_ALPHA if any(p.marks for p in sheet.panels) else CAMERA
    quiet = {
        "showbackground": False,
        "gridcolor": style.GRID,
        "zeroline": False,
        "showspikes": False,
        "tickfont": {"size": 10},
        "title_font_size": 12,
        "linecolor": style.MUTED,
    }
    for i, p in enumerate(sheet.panels):
        figure.layout[axis_key("scene", i)] = {
            "aspectmode": "cube",
            "camera": camera,
            "xaxis": {**quiet, "nticks": 5, "title_text": _fitted(p.titles[0], units)},
            "yaxis": {**quiet, "nticks": 5, "title_text": _fitted(p.titles[1], units)},
            "zaxis": {**quiet, **_z_axis(scale), "title_text": "loss"},
        }
    label_surface(figure, sheet, scale)
    dress(figure, title, sheet.footnote())
    _colours(figure, scale)
    arrange(figure, [p.label for p in sheet.panels], kind="scene", title_height=TITLE_HEIGHT)
    if sheet.can_log:
        _switch(figure, sheet, start)
    return figure


def contour(sheet: Sheet, title: str, log: bool | None) -> go.Figure:
    """Filled contours side by side, at the same levels; a cross at the centre, or the plane's named points."""
    start = sheet.choose_log(log)
    scale = sheet.scale(start)
    first, last, step = scale.levels
    figure = go.Figure()
    for i, p in enumerate(sheet.panels):
        axes = {"xaxis": axis_key("x", i), "yaxis": axis_key("y", i)}
        figure.add_trace(
            go.Contour(
                x=p.alpha,
                y=p.beta,
                z=scale.place(p.loss),
                customdata=np.stack(p.known(), axis=-1),
                meta={"columns": p.columns()},
                hovertemplate=hover(p),
                coloraxis="coloraxis",
                name=safe(p.label),
                connectgaps=False,
                autocontour=False,
                contours={"start": first, "end": last, "size": step, "coloring": "fill"},
                line={"width": 0.6, "color": "rgba(255,255,255,0.65)"},
                **axes,
            )
        )
    for i in range(len(sheet.panels)):
        over_contour(figure, sheet.panels[i], i)
        quiet = {"showgrid": False, "zeroline": False, "ticks": "outside", "ticklen": 4}
        figure.layout[axis_key("xaxis", i)] = {
            **quiet,
            "anchor": axis_key("y", i),
            "title": {"text": sheet.panels[i].titles[0], "standoff": 6},
            "nticks": 5,
            "constrain": "domain",
        }
        figure.layout[axis_key("yaxis", i)] = {
            **quiet,
            "anchor": axis_key("x", i),
            "title": {"text": sheet.panels[i].titles[1], "standoff": 2},
            "nticks": 5,
            "scaleanchor": axis_key("x", i),
            "constrain": "domain",
        }
    dress(figure, title, sheet.footnote())
    _colours(figure, scale)
    arrange(figure, [p.label for p in sheet.panels], kind="axis", title_height=TITLE_HEIGHT)
    for i, p in enumerate(sheet.panels):
        label_contour(figure, p, i)
    if sheet.can_log:
        _switch(figure, sheet, start)
    return figure


def _fitted(title: str, unit: bool) -> str:
    """A title that fits beside a box in 3-D: without its unit where it is long."""
    return title if unit and len(title) <= 44 else title.partition(" (")[0]


def _colours(figure: go.Figure, scale: Scale) -> None:
    figure.layout.coloraxis = {
        "colorscale": style.SEQUENTIAL,
        "cmin": scale.low,
        "cmax": scale.high,
        "colorbar": {
            "title": {"text": "loss"},
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": scale.ticks,
            "ticktext": scale.labels,
        },
    }


def _z_axis(scale: Scale) -> dict[str, Any]:
    return {
        "range": scale.padded(FLOOR, 0.03),
        "tickvals": scale.ticks,
        "ticktext": scale.labels,
    }


def _switch(figure: go.Figure, sheet: Sheet, start: bool) -> None:
    """Buttons that move every panel, the colours and the levels to the other scale at once."""
    count = len(sheet.panels)
    solid = figure.data[0].type == "surface"
    states: list[list[Any]] = []
    for log in (False, True):
        scale = sheet.scale(log)
        prefix = "contours.z" if solid else "contours"
        first, last, step = scale.levels
        data: dict[str, Any] = {
            "z": [_digits(scale.place(p.loss)) for p in sheet.panels],
            f"{prefix}.start": first,
            f"{prefix}.end": last,
            f"{prefix}.size": step,
        }
        layout: dict[str, Any] = {
            "coloraxis.cmin": scale.low,
            "coloraxis.cmax": scale.high,
            "coloraxis.colorbar.tickvals": scale.ticks,
            "coloraxis.colorbar.ticktext": scale.labels,
        }
        if solid:
            for i in range(count):
                layout |= {
                    f"{axis_key('scene', i)}.zaxis.{k}": v for k, v in _z_axis(scale).items()
                }
        traces = list(range(count))
        if solid and len(figure.data) > count:
            above = raised(sheet, scale)
            blanks = [None] * len(above)
            data |= {k: [v] * count + blanks for k, v in data.items() if k != "z"}
            data["z"] = [*data["z"], *above]
            traces += range(count, count + len(above))
            layout |= moved_labels(sheet, scale)
        states.append([data, layout, traces])
    add_switch(figure, states, start)


def _digits(values: Array) -> list[list[float]]:
    """Values in five digits: plotly writes the arguments of a button as text, not as bytes."""
    return [[float(f"{v:.5g}") for v in row] for row in values.tolist()]
