"""Paths of training over interactive surfaces (plotly): on contours, on 3-D scenes, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from landscape.plot import style
from landscape.plot.chrome import safe
from landscape.plot.grid import axis_key
from landscape.plot.sheet import Scale
from landscape.plot.trails import Trail, Values, colour, place, read_trails, span_of, stems

CASING = "rgba(20,24,30,0.78)"
SLIDER_ROOM = 78  # pixels under a figure that stands alone
_MOST_FRAMES = 60
_LIFT = 0.012  # of the height: else half of a line or marker lies inside the surface


def on_contour(
    figure: go.Figure, panel: int, trajectory: xr.Dataset | Trail, hue: int = 0
) -> list[int]:
    """Draw a path over a panel of filled contours: line, markers by step, first and last step named.

    Args:
        figure: what `landscape.plot.contour` returned; changed in place.
        panel: index of the panel.
        trajectory: what :func:`landscape.trajectory.follow` returned.
        hue: index of the path's colour, where several lie over one panel.

    Returns:
        Indices of the three traces that grow with the steps, and of the ring around the last of them.
    """
    trail = _read(trajectory)
    axes = {"xaxis": axis_key("x", panel), "yaxis": axis_key("y", panel)}
    first = len(figure.data)
    for width, line in ((5.5, CASING), (3.0, colour(hue))):
        figure.add_trace(
            go.Scatter(
                x=trail.alpha, y=trail.beta, mode="lines", hoverinfo="skip", showlegend=False,
                line={"width": width, "color": line}, **axes,
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=trail.alpha,
            y=trail.beta,
            mode="markers",
            marker=_markers(trail, hue, 7, 17) | {"opacity": 1},
            customdata=_told(trail),
            hovertemplate="α %{x:.3g}, β %{y:.3g}<br>%{customdata}<extra></extra>",
            name=safe(trail.label),
            showlegend=False,
            **axes,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=trail.alpha[-1:], y=trail.beta[-1:], mode="markers", hoverinfo="skip",
            showlegend=False,
            marker={"symbol": "circle-open", "size": 22, "color": "white", "line": {"width": 2.5}},
            **axes,
        )
    )  # fmt: skip
    for i, words, above in trail.ends():
        figure.add_annotation(
            x=trail.alpha[i], y=trail.beta[i], xref=axes["xaxis"], yref=axes["yaxis"],
            text=words, showarrow=False, yanchor="bottom" if above else "top", yshift=13 if above else -13,
            font={"size": 12, "color": "white"}, bgcolor=CASING, borderpad=2,
        )  # fmt: skip
    return list(range(first, first + 4))


def on_surface(
    figure: go.Figure, panel: int, trajectory: xr.Dataset | Trail, scale: Scale, hue: int = 0
) -> None:
    """Draw a path over a 3-D surface: its foot on the surface, stems up to the true losses.

    The linear/log switch of the figure moves it along.

    Args:
        figure: what `landscape.plot.surface3d` returned; changed in place.
        panel: index of the scene.
        trajectory: what :func:`landscape.trajectory.follow` returned.
        scale: the vertical scale that the figure starts with; `landscape.plot.trails.reaching` widens a
            sheet so that the path fits.
        hue: index of the path's colour.
    """
    for trace in figure.data:  # what lies under the surface shows through it
        if trace.type == "surface" and (trace.scene or "scene") == axis_key("scene", panel):
            trace.opacity = 0.78
    trail = _read(trajectory)
    heights: list[Values] = []  # losses of each trace
    shared: dict[str, Any] = {"scene": axis_key("scene", panel), "showlegend": False}
    first = len(figure.data)
    if trail.surface_loss is not None:
        heights.append(trail.surface_loss)
        figure.add_trace(
            go.Scatter3d(
                x=trail.alpha, y=trail.beta, mode="lines", hoverinfo="skip",
                line={"width": 5, "color": style.INK}, **shared,
            )
        )  # fmt: skip
    x, y, z = stems(trail)
    heights.append(z)
    figure.add_trace(
        go.Scatter3d(
            x=x, y=y, mode="lines", hoverinfo="skip", line={"width": 4, "color": colour(hue)},
            **shared,
        )
    )  # fmt: skip
    heights.append(trail.loss)
    figure.add_trace(
        go.Scatter3d(
            x=trail.alpha,
            y=trail.beta,
            mode="markers",
            marker=_markers(trail, hue, 5, 10),
            customdata=_told(trail),
            hovertemplate="α %{x:.3g}, β %{y:.3g}<br>%{customdata}<extra></extra>",
            name=safe(trail.label),
            **shared,
        )
    )
    for trace, losses in zip(figure.data[first:], heights, strict=True):
        trace.z = _lifted(losses, scale, scale.log)
    names = [
        {
            "x": trail.alpha[i], "y": trail.beta[i], "z": z, "text": words, "showarrow": False,
            "yshift": 15, "font": {"size": 11, "color": "white"}, "bgcolor": CASING, "borderpad": 2,
        }
        for (i, words, _), z in zip(trail.ends(), _tips(trail, scale, scale.log), strict=True)
        if np.isfinite(z)
    ]  # fmt: skip
    scene = figure.layout[shared["scene"]]
    count = len(scene.annotations)
    scene.annotations = [*scene.annotations, *names]
    _join_switch(figure, first, heights, scale)
    _join_names(figure, shared["scene"], count, len(names), trail, scale)


def animate(
    figure: go.Figure, trails: Sequence[Trail], drawn: Sequence[list[int]], alone: bool
) -> None:
    """Add frames and a slider: every path up to a step. The figure starts at the last one.

    Args:
        figure: changed in place.
        trails: the paths.
        drawn: what :func:`on_contour` returned for each.
        alone: whether the figure stands by itself; a page has a slider and a play button of its own.
    """
    steps = sorted({float(s) for t in trails for s in t.steps})
    if len(steps) < 2:
        return
    if len(steps) > _MOST_FRAMES:
        kept = np.unique(np.linspace(0, len(steps) - 1, _MOST_FRAMES).round().astype(int))
        steps = [steps[i] for i in kept]
    figure.frames = [
        go.Frame(
            name=f"{step:.0f}",
            data=[go.Scatter(x=x, y=y) for t in trails for x, y in _up_to(t, step)],
            traces=[index for indices in drawn for index in indices],
        )
        for step in steps
    ]
    options: dict[str, Any] = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0},
    }
    names = [frame.name for frame in figure.frames]
    figure.layout.sliders = [
        {
            "active": len(names) - 1,
            "currentvalue": {"prefix": "step ", "font": {"size": 13}},
            "pad": {"t": 46, "l": 124},
            "x": 0,
            "len": 1,
            "steps": [
                {"label": name, "method": "animate", "args": [[name], options]} for name in names
            ],
        }
    ]
    if alone:
        _stand_alone(figure, options)


def _stand_alone(figure: go.Figure, options: dict[str, Any]) -> None:
    """Play and pause, and room for them and the slider under the panels."""
    playing = options | {"fromcurrent": True, "frame": {"duration": 350, "redraw": True}}
    buttons = [
        {"label": "play", "method": "animate", "args": [None, playing]},
        {"label": "pause", "method": "animate", "args": [[None], options]},
    ]
    menu = {
        "type": "buttons", "direction": "right", "showactive": False, "buttons": buttons, "x": 0,
        "xanchor": "left", "y": 0, "yanchor": "top", "pad": {"t": 64},
    }  # fmt: skip
    figure.layout.updatemenus = [*(figure.layout.updatemenus or ()), menu]
    figure.layout.height += SLIDER_ROOM
    figure.layout.margin.b += SLIDER_ROOM
    meta = dict(figure.layout.meta)
    meta["arrangements"] = [
        one
        | {
            "layout": one["layout"]
            | {k: one["layout"][k] + SLIDER_ROOM for k in ("height", "margin.b")}
        }
        for one in meta["arrangements"]
    ]
    figure.layout.meta = meta


def _up_to(trail: Trail, step: float) -> list[tuple[Values, Values]]:
    """Coordinates of the traces of a path that has come as far as a step."""
    count = int(np.searchsorted(trail.steps, step, side="right"))
    grown = (trail.alpha[:count], trail.beta[:count])
    last = slice(max(count - 1, 0), count)
    return [grown, grown, grown, (trail.alpha[last], trail.beta[last])]


def _join_switch(figure: go.Figure, first: int, heights: Sequence[Values], scale: Scale) -> None:
    """Let the linear/log buttons move further traces too."""
    for menu in _switches(figure):
        for button, log in zip(menu.buttons, (False, True), strict=True):
            data, layout, traces = button.args
            count = len(traces)
            moved = [_digits(_lifted(losses, scale, log)) for losses in heights]
            blanks = [None] * len(moved)
            changed = {
                key: [*(value if _is_list(value, count) else [value] * count), *blanks]
                for key, value in data.items()
            }
            changed["z"] = [*data["z"], *moved]
            button.args = [changed, layout, [*traces, *range(first, first + len(moved))]]


def _lifted(losses: Values, scale: Scale, log: bool) -> Values:
    return place(losses, log) + _LIFT * span_of(scale, log)


def _is_list(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count


def _digits(values: Values) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.5g}") for v in values]


def _markers(trail: Trail, hue: int, small: float, large: float) -> dict[str, Any]:
    return {
        "size": trail.sizes(small, large),
        "color": np.arange(len(trail.steps), dtype=float),
        "cmin": 0,
        "cmax": max(len(trail.steps) - 1, 1),
        "colorscale": [[0, "white"], [1, colour(hue)]],
        "showscale": False,
        "line": {"width": 1.2, "color": "black"},
    }


def _tips(trail: Trail, scale: Scale, log: bool) -> list[float]:
    """Heights of the names of the first and the last step."""
    return [float(_lifted(trail.loss[i : i + 1], scale, log)[0]) for i, *_ in trail.ends()]


def _join_names(
    figure: go.Figure, scene: str, first: int, count: int, trail: Trail, scale: Scale
) -> None:
    """Let the linear/log buttons move the names of steps too."""
    for menu in _switches(figure):
        for button, log in zip(menu.buttons, (False, True), strict=True):
            data, layout, traces = button.args
            tips = [z for z in _tips(trail, scale, log) if np.isfinite(z)][:count]
            moved = {f"{scene}.annotations[{first + i}].z": z for i, z in enumerate(tips)}
            button.args = [data, layout | moved, traces]


def _switches(figure: go.Figure) -> list[Any]:
    menus = figure.layout.updatemenus or ()
    return [m for m in menus if [button.label for button in m.buttons] == ["linear", "log"]]


def _told(trail: Trail) -> list[str]:
    """What hovering over a checkpoint says."""
    out = []
    for i, step in enumerate(trail.steps):
        lines = [f"<b>{safe(trail.label)}</b>, step {step:.0f}", f"loss {trail.loss[i]:.4g}"]
        if trail.stderr is not None and np.isfinite(trail.stderr[i]):
            lines[-1] += f" ± {trail.stderr[i]:.2g}"
        if trail.surface_loss is not None:
            lines.append(f"in the plane {trail.surface_loss[i]:.4g}")
        if trail.accuracy is not None:
            lines.append(f"accuracy {trail.accuracy[i]:.1%}")
        lines.append(f"{trail.share[i]:.1%} of its distance lies off the plane")
        out.append("<br>".join(lines))
    return out


def _read(trajectory: xr.Dataset | Trail) -> Trail:
    return trajectory if isinstance(trajectory, Trail) else read_trails(trajectory)[0]
