"""Axis titles, named points, paths and quadratic models on figures of every kind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from landscape import plot
from landscape.plot import style
from landscape.plot.marks import Quadratic, heights
from landscape.plot.sheet import gather

TITLES = ["α along v₁ (λ₁ = 3; 1 = rise of 0.1)", "β along v₂ (λ₂ = 1; 1 = rise of 0.1)"]
MARKS = [
    {"label": "first & <b>", "alpha": 0.0, "beta": 0.0, "loss": None, "residual": 0.0},
    {"label": "second", "alpha": 0.5, "beta": 0.25, "loss": 7.0, "residual": 0.0},
]


def surface(axes: int = 2, kind: str = "eigen", **attrs: Any) -> xr.Dataset:
    grid = np.linspace(-1, 1, 9)
    flat = 1 + 3 * grid**2
    loss = flat if axes == 1 else 1 + 3 * grid[None, :] ** 2 + grid[:, None]
    dims = ("beta", "alpha")[-axes:]
    attrs = {
        "label": "net",
        "normalize": "none",
        "ignore": [],
        "seed": "null",
        "span": 1.0,
        "points": 9,
        "axes": axes,
        "axis_titles": TITLES[:axes],
        "directions": "Hessian eigenvectors 1 and 2, in curvature units",
        "plane": json.dumps({"kind": kind}),
        **attrs,
    }
    return xr.Dataset({"loss": (dims, loss + 0.5)}, coords=dict.fromkeys(dims, grid), attrs=attrs)


def marked(**attrs: Any) -> xr.Dataset:
    path = {"label": "way", "alpha": [0.0, 0.25, 0.5], "beta": [0.0, 0.2, 0.25]}
    return surface(marks=json.dumps(MARKS), path=json.dumps(path), **attrs)


def texts(figure: Any) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text)]


def test_titles_and_footnote_of_every_figure() -> None:
    contour, solid = plot.contour(surface()), plot.surface3d(surface())
    assert (contour.layout.xaxis.title.text, contour.layout.yaxis.title.text) == tuple(TITLES)
    assert solid.layout.scene.xaxis.title.text == TITLES[0]
    assert plot.line(surface(1)).layout.xaxis.title.text == TITLES[0]
    note = "Hessian eigenvectors 1 and 2, in curvature units · span ±1 · 9×9 points"
    assert contour.layout.title.subtitle.text == note
    assert TITLES[0] in texts(plot.contour(surface(), backend="matplotlib"))
    assert "α along v₁" in texts(plot.surface3d(surface(), backend="matplotlib"))
    long = surface(axis_titles=["α (" + 60 * "x" + ")", "β"])
    assert plot.surface3d(long).layout.scene.xaxis.title.text == "α"
    random = surface(directions="", axis_titles=[], plane=json.dumps({"kind": "random"}), seed=3)
    assert "unnormalized directions · seed 3" in style.footnote(random.attrs)
    asymmetric = surface(span=[-0.266666666, 1.3333333])
    assert "span -0.267 to 1.33" in style.footnote(asymmetric.attrs)


def test_titles_are_those_of_each_panel() -> None:
    other = surface(label="other", axis_titles=["α along v₁ (λ₁ = 9)", "β along v₂ (λ₂ = 8)"])
    figure = plot.contour([surface(), other])
    assert figure.layout.xaxis.title.text == TITLES[0]
    assert figure.layout.xaxis2.title.text == "α along v₁ (λ₁ = 9)"
    static = texts(plot.contour([surface(), other], backend="matplotlib"))
    assert "α along v₁" in static and TITLES[0] not in static


def test_named_points_take_the_place_of_the_cross() -> None:
    cross, points = plot.contour(surface()), plot.contour(marked())
    assert [t.marker.symbol for t in cross.data if t.type == "scatter"] == ["cross-thin"]
    scatter = [t for t in points.data if t.type == "scatter"]
    drawn = [t for t in scatter if t.mode == "markers"]
    assert [t.marker.symbol for t in drawn] == ["circle"]
    assert (list(drawn[0].x), list(drawn[0].y)) == ([0.0, 0.5], [0.0, 0.25])
    names = [a.text for a in points.layout.annotations]
    assert names == ["<b>net</b>", "first &amp; &lt;b&gt;", "second"]
    static = texts(plot.contour(marked(), backend="matplotlib"))
    assert {"first & <b>", "second"} <= set(static)
    (way, _) = [t for t in scatter if t.mode == "lines"]
    np.testing.assert_allclose(way.x, [0, 0.25, 0.5])


def test_points_stand_on_the_surface_on_both_scales() -> None:
    figure = plot.surface3d(marked(), log=False)
    assert figure.layout.scene.camera.eye != plot.surface3d(surface()).layout.scene.camera.eye
    way, points = figure.data[1:]
    lift = 0.015 * (figure.layout.coloraxis.cmax - figure.layout.coloraxis.cmin)
    np.testing.assert_allclose(points.z, np.array([1.5, 7.0]) + lift, rtol=1e-5)
    names = figure.layout.scene.annotations
    assert [(a.x, a.y, round(a.z, 4)) for a in names] == [(0, 0, 1.5), (0.5, 0.25, 7.0)]
    data, layout, traces = figure.layout.updatemenus[0].buttons[1].args
    assert list(traces) == [0, 1, 2]
    assert len(data["z"]) == 3
    assert [len(data[k]) for k in data if k != "z"] == [3, 3, 3]
    assert layout["scene.annotations[1].z"] == pytest.approx(np.log10(7.0), rel=1e-4)
    assert len(way.z) == 3
    back = figure.layout.updatemenus[0].buttons[0].args
    np.testing.assert_allclose(back[0]["z"][2], points.z, rtol=1e-4)
    plot.surface3d(marked(), backend="matplotlib")


def test_heights_are_bilinear_and_unknown_outside() -> None:
    (panel,) = gather(surface(), axes=2).panels
    found = heights(
        panel, [0.1, 0.25, 1.0, 1.2], [0.3, -1.0, 1.0, 0.0], [np.nan, np.nan, np.nan, 4]
    )
    cell = 1.5 + 3 * (0.25**2) * 0.4 + 0.3
    np.testing.assert_allclose(found, [cell, 1.5 + 3 / 16 - 1, 5.5, 4.0], rtol=1e-5)
    assert np.isnan(heights(panel, [1.2], [0.0], [np.nan]))


def test_named_points_of_lines() -> None:
    line = surface(1, marks=json.dumps(MARKS))
    figure = plot.line([line, line.assign_attrs(label="other")])
    assert [s.x0 for s in figure.layout.shapes] == [0.0, 0.5]
    assert "<b>second</b>" in [a.text for a in figure.layout.annotations]
    assert "second" in texts(plot.line(line, backend="matplotlib"))


def test_the_quadratic_model_is_dotted() -> None:
    model = {"loss": 1.5, "slope": [0.5, 1.0], "curvature": [6.0, 0.0]}
    line = surface(1, quadratic=json.dumps(model))
    for relative, base in ((False, 1.5), (True, 0.0)):
        figure = plot.line(line, relative=relative)
        dotted = figure.data[-1]
        grid = line["alpha"].values
        np.testing.assert_allclose(dotted.y, base + 0.5 * grid + 3 * grid**2, rtol=1e-5)
        assert dotted.name == "quadratic model"
    assert len(plot.line(surface(1)).data) == len(figure.data) - 1
    static = plot.line(line, backend="matplotlib")
    assert any("quadratic model" in t for t in texts(static))
    assert len(static.axes[0].lines) == 2
    negative = {"loss": 1.5, "slope": [-9.0], "curvature": [0.0]}
    shown = plot.line(surface(1, quadratic=json.dumps(negative)), log=True).data[-1]
    assert np.isnan(shown.y[-1]) and shown.y[0] == pytest.approx(10.5)


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_cross_sections(backend: Any) -> None:
    model = {"loss": 1.5, "slope": [0.0, 1.0], "curvature": [6.0, 0.0]}
    figure = plot.cross_sections(surface(quadratic=json.dumps(model)), backend)
    grid = np.linspace(-1, 1, 9)
    cuts = [1.5 + 3 * grid**2, 1.5 + grid]
    if backend == "matplotlib":
        lines = [line.get_ydata() for line in figure.axes[0].lines]
    else:
        lines = [t.y for t in figure.data]
        assert "α along v₁" in figure.data[0].name and "β along v₂" in figure.data[1].name
    assert len(lines) == 4
    for drawn, expected in zip(lines, [*cuts, *cuts], strict=True):
        np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_cross_sections_need_a_plane_with_a_centre() -> None:
    with pytest.raises(ValueError, match="use line"):
        plot.cross_sections(surface(1))
    with pytest.raises(ValueError, match="beta = 0 is not on the grid"):
        plot.cross_sections(surface().isel(beta=slice(0, 4), alpha=slice(0, 4)))
    assert Quadratic(1.0, (0.0, 2.0), (0.0, 4.0)).along(np.ones(1, np.float32), 1) == 5.0


def test_planes_of_two_kinds_are_not_drawn_together() -> None:
    with pytest.raises(ValueError, match="kind of plane differs .*'eigen'.*'pca'"):
        plot.contour([surface(), surface(kind="pca")])
    plot.line([surface(1, "interpolation"), surface(1, "curve", label="b")])
    plot.contour([surface(), surface(plane="")])  # a file that does not say


def test_axes_that_are_not_symmetric_are_drawn_whole() -> None:
    line = surface(1).assign_coords(alpha=np.linspace(-0.25, 1.75, 9))
    figure = plot.line(line, backend="matplotlib")
    assert figure.axes[0].get_xlim() == (-0.25, 1.75)
    grid = np.linspace(-0.25, 1.75, 9)
    drawn = plot.contour(surface().assign_coords(alpha=grid, beta=grid), backend="matplotlib")
    assert [t.get_text() for t in drawn.axes[0].get_xticklabels()] == ["0", "0.5", "1", "1.5"]
