"""Interactive figures of spectra (plotly): eigenvalues by rank, densities with their outliers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    decades,
    entry,
    filled,
    make_room,
)
from landscape.plot.readings import Density, Spectrum
from landscape.plot.signed import Axis, Values
from landscape.plot.words import density_note, rank_ticks, side_by_side, spectrum_note

SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def spectrum(
    spectra: Sequence[Spectrum],
    names: Sequence[str],
    bulk: Mapping[str, Density],
    axes: tuple[Axis, Axis],
    log: bool,
    title: str,
    refused: Sequence[str] = (),
) -> go.Figure:
    """Eigenvalues by rank; see `landscape.plot.spectrum`.

    Args:
        spectra: the subjects.
        names: of the ranks, in order.
        bulk: densities by label.
        axes: linear and signed logarithmic.
        log: which of them the figure starts with.
        title: short title of the figure.
        refused: why some of them cannot be vouched for.
    """
    states = [_spectrum_traces(spectra, len(names), bulk, axis) for axis in axes]
    figure = go.Figure(states[log])
    dress(figure, title, spectrum_note(spectra, bulk, refused))
    slots = len(names) + bool(bulk)
    places, shown = rank_ticks(names, bool(bulk))
    layouts = [axis_layout(axis, "eigenvalue") for axis in axes]
    figure.update_layout(
        height=385 + TITLE_HEIGHT,
        margin={"l": 64, "r": 16, "t": 66 + TITLE_HEIGHT, "b": 56},
        legend=LEGEND,
        xaxis={
            **PLAIN,
            "showgrid": False,
            "title": {"text": "rank" if names[-1] != "P" else "rank from 1 to P", "standoff": 8},
            "tickvals": places,
            "ticktext": shown,
            "range": [0.5, slots + 0.5],
        },
        yaxis=layouts[log],
    )
    add_axis_switch(figure, states, [{"yaxis": part} for part in layouts], log)
    make_room(figure, [s.label for s in spectra])
    return figure


def _spectrum_traces(
    spectra: Sequence[Spectrum], ranks: int, bulk: Mapping[str, Density], axis: Axis
) -> Traces:
    out: Traces = []
    for i, s in enumerate(spectra):
        up, down = axis.bars(s.values, s.residuals)
        errors = np.full(len(s.values), np.nan) if s.errors is None else s.errors
        hover = (
            "λ<sub>%{customdata[0]}</sub> = %{customdata[1]:.5g}<br>residual %{customdata[2]:.2g}"
        )
        if s.errors is not None:
            hover += "<br>standard error over the data %{customdata[3]:.2g}"
        names = [rank if rank <= ranks else "" for rank in s.ranks]
        out.append(
            go.Scatter(
                x=[k + side_by_side(i, len(spectra)) for k in s.ranks],
                y=axis.place(s.values).tolist(),
                error_y={
                    **_lengths(up, down),
                    "thickness": 5,
                    "width": 0,
                    "color": style.translucent(style.colour(i), 0.45),
                },
                customdata=list(zip(names, s.values, s.residuals, errors, strict=True)),
                hovertemplate=hover,
                mode="markers",
                marker={"color": style.colour(i), "size": 8, "symbol": SYMBOLS[i % 4]},
                name=entry(s.label),
                legendgroup=str(i),
            )
        )
    for i, s in enumerate(spectra):
        if s.errors is not None:
            up, down = axis.bars(s.values, s.errors)
            out.append(
                go.Scatter(
                    x=[k + side_by_side(i, len(spectra)) for k in s.ranks],
                    y=axis.place(s.values).tolist(),
                    error_y={**_lengths(up, down), "thickness": 1.2, "width": 5},
                    mode="markers",
                    marker={"color": style.colour(i), "size": 1},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=str(i),
                    name=f"{safe(s.label)}: standard errors over the data",
                )
            )
    for i, s in enumerate(spectra):
        if s.label in bulk:
            out += _bulk(bulk[s.label], i, len(spectra), ranks + 1, axis)
    return out


def _bulk(density: Density, index: int, count: int, slot: int, axis: Axis) -> Traces:
    """The quantile range as a thick bar, the edges as a thin one; its upper end drawn across."""
    (low, high), edges = density.bulk(), density.edges()
    x = slot + side_by_side(index, count, 0.28)
    hue = style.colour(index)
    words = (
        f"<b>{safe(density.label)}</b><br>98 % of the bulk between {low:.3g} and {high:.3g}"
        f"<br>edges {edges[0]:.3g} and {edges[1]:.3g}<extra></extra>"
    )
    shared = {"mode": "lines", "showlegend": False, "legendgroup": str(index)}
    name = safe(density.label)
    return [
        go.Scatter(
            x=[x, x],
            y=axis.place([low, high]).tolist(),
            line={"width": 7, "color": style.translucent(hue, 0.45)},
            hovertemplate=words,
            name=f"{name}: bulk",
            **shared,
        ),
        go.Scatter(
            x=[x, x],
            y=axis.place(edges).tolist(),
            line={"width": 1.6, "color": hue},
            hovertemplate=words,
            name=f"{name}: edges of the bulk",
            **shared,
        ),
        go.Scatter(
            x=[0.5, x],
            y=axis.place([edges[1], edges[1]]).tolist(),
            line={"width": 1, "color": hue, "dash": "dot"},
            hoverinfo="skip",
            name=f"{name}: upper edge of the bulk",
            **shared,
        ),
    ]


def density(
    densities: Sequence[Density], axes: tuple[Axis, Axis], log: bool, title: str
) -> go.Figure:
    """Densities above, cumulative curves below; see `landscape.plot.density`."""
    states = [_density_traces(densities, axis) for axis in axes]
    figure = go.Figure(states[log])
    dress(figure, title, density_note(densities))
    layouts = [
        axis_layout(axis, "eigenvalue λ", 0.15) | {"anchor": "y2", "tickangle": 0} for axis in axes
    ]
    figure.update_layout(
        height=520 + TITLE_HEIGHT,
        margin={"l": 64, "r": 16, "t": 66 + TITLE_HEIGHT, "b": 56},
        legend=LEGEND,
        xaxis=layouts[log],
        yaxis={
            **PLAIN,
            **decades(*reach(densities)),
            "title": {"text": "density"},
            "domain": [0.36, 1],
        },
        yaxis2={
            **PLAIN,
            "title": {"text": "share below λ"},
            "domain": [0, 0.29],
            "range": [-0.03, 1.04],
            "tickvals": [0, 0.5, 1],
            "tickformat": ".0%",
        },
    )
    add_axis_switch(figure, states, [{"xaxis": part} for part in layouts], log)
    make_room(figure, [d.label for d in densities])
    return figure


def reach(densities: Sequence[Density]) -> tuple[float, float]:
    """Ends of the logarithmic axis of densities: half a decade under one eigenvalue, and the top."""
    tops = [np.nanmax(d.density) for d in densities]
    tops += [np.nanmax(b[1]) for d in densities if (b := d.bands[0]) and np.isfinite(b[1]).any()]
    floor = min(d.one for d in densities)
    return floor / 3, max(2 * float(max(tops)), 10 * floor)


def _density_traces(densities: Sequence[Density], axis: Axis) -> Traces:
    out: Traces = []
    bottom, _ = reach(densities)
    for i, d in enumerate(densities):
        for band, y, least in ((d.bands[0], "y", bottom / 10), (d.bands[1], "y2", -math.inf)):
            if band is not None:
                low, high = (np.maximum(part, least) for part in band)
                hidden = {"hoverinfo": "skip", "showlegend": False, "legendgroup": str(i)}
                out.append(
                    filled(axis.place(d.grid), low, high, style.colour(i), yaxis=y, **hidden)
                )
    for i, d in enumerate(densities):
        dash = style.DASHES[i % len(style.DASHES)]
        rows = (("y", d.density, "density %{y:.3g}"), ("y2", d.cumulative, "%{y:.3%} below"))
        for y, values, words in rows:
            out.append(
                go.Scatter(
                    x=axis.place(d.grid).tolist(),
                    y=values.tolist(),
                    yaxis=y,
                    mode="lines",
                    connectgaps=False,
                    customdata=d.grid.tolist(),
                    hovertemplate=f"λ %{{customdata:.4g}}: {words}",
                    line={"color": style.colour(i), "width": 2, "dash": dash},
                    name=entry(d.label),
                    legendgroup=str(i),
                    showlegend=y == "y",
                )
            )
    for i, d in enumerate(densities):
        out += _spikes(d, i, bottom / 10, axis)
    ends = axis.unplace(axis.reach())
    for i, d in enumerate(densities):
        if all(d.one != other.one for other in densities[:i]):
            alone = len({other.one for other in densities}) == 1
            out.append(
                go.Scatter(
                    x=axis.place(ends).tolist(),
                    y=[d.one, d.one],
                    mode="lines",
                    line={
                        "color": style.MUTED if alone else style.colour(i),
                        "width": 1.2,
                        "dash": "dot",
                    },
                    hovertemplate=f"one eigenvalue of {d.params}<extra></extra>",
                    showlegend=False,
                    name="one eigenvalue",
                )
            )
    return out


def _spikes(d: Density, index: int, bottom: float, axis: Axis) -> Traces:
    count = len(d.outliers)
    if not count:
        return []
    stem = np.stack([d.outliers, d.outliers, np.full(count, np.nan)], axis=1).ravel()
    hidden = {"showlegend": False, "legendgroup": str(index)}
    return [
        go.Scatter(
            x=axis.place(stem).tolist(),
            y=[bottom, d.one, math.nan] * count,
            mode="lines",
            line={"color": style.colour(index), "width": 1.4},
            hoverinfo="skip",
            name=f"{safe(d.label)}: spikes",
            **hidden,
        ),
        go.Scatter(
            x=axis.place(d.outliers).tolist(),
            y=[d.one] * count,
            mode="markers",
            marker={"color": style.colour(index), "size": 8, "symbol": SYMBOLS[index % 4]},
            customdata=list(zip(d.outliers, d.residuals, strict=True)),
            hovertemplate=f"<b>{safe(d.label)}</b><br>λ = %{{customdata[0]:.5g}} ± "
            f"%{{customdata[1]:.2g}}<br>mass 1/{d.params}<extra></extra>",
            name=f"{safe(d.label)}: outliers",
            **hidden,
        ),
    ]


def _lengths(up: Values, down: Values) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "array": up.tolist(), "arrayminus": down.tolist()}
