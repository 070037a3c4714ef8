"""A surface cut along its two axes, with the quadratic model of each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from landscape.plot import style
from landscape.plot.curvature import Backend, wants_plotly
from landscape.plot.marks import quadratic_of
from landscape.plot.sheet import gather


def cross_sections(
    surface: xr.Dataset,
    backend: Backend = "plotly",
    *,
    title: str = "Loss along both axes",
    group: str | None = None,
    log: bool | None = None,
) -> Any:
    """The loss along each axis of a plane through its centre, in one figure.

    The quadratic model at the centre is drawn dotted where the surface carries one
    (:func:`landscape.quadratic_model`). In curvature units both models are the same parabola, up to sign and slope.

    Args:
        surface: a Dataset over ``beta`` and ``alpha`` with a point at the centre.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        group: which data the loss was taken on, stated in the footnote.
        log: vertical scale to start with; None: logarithmic above two decades.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        ValueError: not a plane, no point at its centre, or nothing finite to draw.
    """
    sheet = gather(cuts(surface), axes=1, group=group)
    if wants_plotly(backend):
        from landscape.plot import curves

        return curves.line(sheet, title, log, False)
    from landscape.plot import static

    return static.line(sheet, title, log, False)


def cuts(surface: xr.Dataset) -> list[xr.Dataset]:
    """The lines along alpha and beta through the centre, as lines over ``alpha``."""
    if "loss" not in surface or set(surface["loss"].dims) != {"alpha", "beta"}:
        raise ValueError("cross sections are of a surface over alpha and beta; use line for a line")
    model = quadratic_of(surface.attrs)
    found = []
    for index, (name, other) in enumerate((("alpha", "beta"), ("beta", "alpha"))):
        near = np.flatnonzero(np.abs(np.asarray(surface[other].values)) <= 1e-12)
        if not len(near):
            raise ValueError(f"{other} = 0 is not on the grid: use an odd number of points")
        cut = surface.isel({other: int(near[0])}).drop_vars(other)
        cut = cut.rename({"beta": "alpha"}) if name == "beta" else cut
        title = style.axis_title("αβ"[index], surface.attrs).partition(" (")[0]
        kept = {n: v for n, v in surface.attrs.items() if n not in ("marks", "path", "quadratic")}
        attrs = kept | {"label": title, "axes": 1, "axis_titles": ["step along the axis"]}
        if model is not None:
            one = {
                "loss": model.loss,
                "slope": [model.slope[index]],
                "curvature": [model.curvature[index]],
            }
            attrs["quadratic"] = json.dumps(one)
        cut.attrs = attrs
        found.append(cut)
    return found
