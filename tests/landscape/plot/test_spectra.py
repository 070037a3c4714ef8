"""Figures of curvature: they show the numbers they are given, on one scale, and refuse the rest."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape import plot
from landscape.plot import style
from landscape.plot.page import Section, write_page
from landscape.plot.readings import read_densities
from landscape.plot.signed import Axis, fit

WIDTH, PARAMS = 0.05, 1000
EVIL = "<script>alert(1)</script>"


def cloud(
    label: str | None = "a", scale: float = 1.0, outliers: tuple[float, ...] = (10.0, -4.0)
) -> Any:
    """A normal bulk of deviation 1 with exact outliers, as ``Density.to_dataset`` writes it."""
    grid = np.unique(
        np.concatenate([np.linspace(-6, 6, 481), *(x + np.arange(-4, 5) * WIDTH for x in outliers)])
    )
    share = (PARAMS - len(outliers)) / PARAMS
    bulk = share * np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    below = share * np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in grid])
    for x in outliers:
        z = (grid - x) / WIDTH
        bulk += np.exp(-z * z / 2) / (WIDTH * math.sqrt(2 * math.pi)) / PARAMS
        below += (grid >= x) / PARAMS
    columns = {
        "density": bulk / scale,
        "density_low": bulk / scale / 2,
        "density_high": bulk / scale * 2,
    }
    columns |= {
        "cumulative": below,
        "cumulative_low": below - 0.01,
        "cumulative_high": below + 0.01,
    }
    ends = np.array(outliers) * scale
    attrs = {
        "params": PARAMS,
        "width": WIDTH * scale,
        "products": 99,
        "seed": 7,
        "settings": json.dumps({"probes": 10, "steps": 80}),
    }
    return xr.Dataset(
        {k: ("grid", v) for k, v in columns.items()}
        | {"outlier": ("outliers", ends), "outlier_residual": ("outliers", np.abs(ends) * 1e-3)},
        {"grid": grid * scale},
        attrs | ({"label": label} if label else {}),
    )


def path(label: str = "run", factor: float = 1.0) -> xr.Dataset:
    values = factor * np.array([[1.0, 0.5], [4.0, 2.0], [np.nan, 3.0], [9.0, 3.5]])
    return xr.Dataset(
        {
            "eigenvalue": (("step", "rank"), values),
            "residual": (("step", "rank"), np.full((4, 2), 0.25)),
            "smallest": ("step", [-1.0, -2.0, -2.5, -3.0]),
            "smallest_residual": ("step", np.full(4, 0.1)),
            "threshold": ("step", [8.0, 8.0, 8.0, 12.0]),
        },
        {"step": [0, 10, 20, 30], "rank": [1, 2]},
        {"label": label, "seed": 3, "threshold_rule": "2/η"},
    )


def sheet(label: str = "map", factor: float = 1.0, **attrs: Any) -> xr.Dataset:
    grid = np.linspace(-1, 1, 5)
    top = factor * (2 + grid[None, :] ** 2 + 3 * grid[:, None] ** 2 + 0.1 * grid[None, :])
    low = -0.5 * top + grid[None, :]
    dims = ("beta", "alpha")
    return xr.Dataset(
        {
            "lambda_max": (dims, top),
            "lambda_min": (dims, low),
            "lambda_max_residual": (dims, top * 1e-5),
            "lambda_min_residual": (dims, np.abs(low) * 1e-5),
        },
        {"alpha": grid, "beta": grid},
        {
            "label": label,
            "normalize": "filter",
            "ignore": ["bias"],
            "seed": 3,
            "span": 1.0,
            "points": 5,
            "axes": 2,
            "tol": 1e-3,
        }
        | attrs,
    )


def words(figure: Any) -> str:
    """All texts of a figure."""
    if isinstance(figure, go.Figure):
        return figure.layout.title.text + figure.layout.title.subtitle.text
    return " ".join(t.get_text().replace("\n", " · ") for t in figure.findobj(match=Text))


def named(figure: go.Figure, part: str) -> list[Any]:
    return [t for t in figure.data if part in (t.name or "")]


# ------------------------------------------------------------------------------ the signed axis


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=9).filter(lambda v: any(v)),
    st.sampled_from([None, True, False]),
)
def test_a_signed_axis_keeps_order_and_can_be_undone(values: list[float], log: bool | None) -> None:
    axis = fit([values], log)
    placed = axis.place(sorted(values))
    assert (np.diff(placed) >= 0).all()
    np.testing.assert_allclose(
        axis.unplace(placed), sorted(values), rtol=1e-9, atol=1e-9 * axis.unit
    )
    np.testing.assert_allclose(axis.place(-np.array(values)), -axis.place(values))
    low, high = axis.reach()
    assert low < placed[0] and placed[-1] < high and axis.low <= 0 <= axis.high
    ticks, labels = axis.ticks()
    assert len(ticks) == len(labels) <= 14
    assert all(axis.low * 1.001 <= t <= axis.high * 1.001 for t in ticks)


def test_a_signed_axis_is_logarithmic_away_from_zero_and_linear_near_it() -> None:
    axis = Axis(True, -1e3, 1e6, unit=1e-2)
    assert axis.place(1e5) - axis.place(1e4) == pytest.approx(1)
    assert axis.place(2e-4) / axis.place(1e-4) == pytest.approx(2, rel=1e-3)
    assert fit([[1.0, 99.0]], None).log is False and fit([[1.0, 101.0]], None).log is True


def test_small_values_have_readable_ticks() -> None:
    ticks, labels = Axis(False, -2e-9, 4e-9).ticks(4)
    assert "−10⁻⁹" in labels or "−2×10⁻⁹" in labels
    assert ticks[labels.index("0")] == 0


# ------------------------------------------------------------------------------ spectrum

TWO = {"a": ([3.0, 1.0], [0.2, 0.1], [0.5, 0.4]), "b": ([2.0], [0.3])}


def test_residuals_and_data_errors_are_two_kinds_of_bars() -> None:
    figure = plot.spectrum(TWO)
    a, b, whiskers = figure.data
    assert (list(a.y), list(b.y), list(whiskers.y)) == ([3.0, 1.0], [2.0], [3.0, 1.0])
    assert list(a.error_y.array) == list(a.error_y.arrayminus) == [0.2, 0.1]
    assert list(b.error_y.array) == [0.3]
    assert list(whiskers.error_y.array) == [0.5, 0.4]
    assert a.error_y.thickness > 2 * whiskers.error_y.thickness
    assert [list(row) for row in a.customdata] == [[1, 3.0, 0.2, 0.5], [2, 1.0, 0.1, 0.4]]
    assert "standard error over the data" in words(figure)
    assert "standard error" not in words(plot.spectrum({"b": TWO["b"]}))
    assert figure.layout.yaxis.range[0] < 0 < 3.5 < figure.layout.yaxis.range[1]


def test_both_backends_draw_the_same_eigenvalues_and_bars() -> None:
    (axes,) = plot.spectrum(TWO, "matplotlib").axes
    drawn = [
        line for line in axes.lines if len(line.get_xdata()) and line.get_label() in ("a", "b")
    ]
    assert [list(line.get_ydata()) for line in drawn] == [[3.0, 1.0], [2.0]]
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    lengths = [[float(s[1, 1] - s[0, 1]) for s in c.get_segments()] for c in bars]
    np.testing.assert_allclose(np.concatenate(lengths), [0.4, 0.2, 1.0, 0.8, 0.6])


def test_the_lower_end_stands_last_and_under_the_zero_line() -> None:
    lowest = {"a": ([-5.0, -2.0], [0.1, 0.2]), "b": ([-1.0], [0.05])}
    figure = plot.spectrum(TWO, lowest=lowest)
    a, b = figure.data[:2]
    assert list(a.y) == [3.0, 1.0, -5.0, -2.0] and list(b.y) == [2.0, -1.0]
    assert [round(x) for x in a.x] == [1, 2, 4, 3] and [round(x) for x in b.x] == [1, 4]
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "P−1", "P"]
    assert figure.layout.yaxis.zeroline and figure.layout.yaxis.range[0] < -5.1
    assert np.isnan(figure.data[2].error_y.array[2:]).all()  # no data errors at the lower end
    with pytest.raises(ValueError, match="lowest names 'c'"):
        plot.spectrum(TWO, lowest={"c": ([1.0], [1.0])})


def test_a_single_subject_is_named() -> None:
    for figure in (plot.spectrum({"a": ([1.0], [0.1])}), plot.along_training(path("a"))):
        assert figure.layout.showlegend and "a" in {t.name for t in figure.data}


def test_the_log_switch_moves_values_with_their_bars() -> None:
    figure = plot.spectrum({"a": ([1000.0, 1.0, -10.0], [100.0, 0.5, 2.0])})
    assert figure.layout.updatemenus[0].active == 1
    axis = Axis(True, -12.0, 1100.0, unit=1.0)
    np.testing.assert_allclose(figure.data[0].y, axis.place([1000, 1, -10]))
    top = np.asarray(figure.data[0].y) + figure.data[0].error_y.array
    bottom = np.asarray(figure.data[0].y) - figure.data[0].error_y.arrayminus
    np.testing.assert_allclose(axis.unplace(top), [1100, 1.5, -8])
    np.testing.assert_allclose(axis.unplace(bottom), [900, 0.5, -12])
    data, layout, traces = figure.layout.updatemenus[0].buttons[0].args
    assert data["y"] == [[1000, 1, -10]] and data["error_y.array"] == [[100, 0.5, 2]]
    assert list(traces) == [0] and layout["yaxis.range"][1] > 1100
    assert plot.spectrum({"a": ([1000.0, 1.0], [1, 1])}, log=False).data[0].y[0] == 1000


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_values_that_are_not_finite_are_gaps(backend: Any) -> None:
    figure = plot.spectrum({"a": ([math.inf, 2.0, math.nan], [1.0, math.inf, 1.0])}, backend)
    if backend == "plotly":
        y, bars = figure.data[0].y, figure.data[0].error_y.array
    else:
        y, bars = figure.axes[0].lines[-2].get_ydata(), [0, math.nan]
    np.testing.assert_array_equal(np.asarray(y, float), [math.nan, 2.0, math.nan])
    assert np.isnan(bars[1])
    with pytest.raises(ValueError, match="no eigenvalue is finite"):
        plot.spectrum({"a": ([math.nan], [1.0])}, backend)


def test_wrong_spectra_are_refused() -> None:
    for wrong, message in (
        (([1.0], [], [1.0]), "one residual per eigenvalue"),
        (([1.0], [1.0], []), "one standard error per eigenvalue"),
        (([1.0],), "expected .eigenvalues, residuals"),
        (([], []), "at least one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.spectrum({"a": wrong})
    with pytest.raises(ValueError, match="backend"):
        plot.spectrum(TWO, "gnuplot")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Dataset"):
        plot.spectrum(TWO, bulk={"a": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="bulk names 'z'"):
        plot.spectrum(TWO, bulk={"z": cloud()})


def test_the_bulk_is_drawn_from_its_quantiles_without_the_outliers() -> None:
    figure = plot.spectrum(TWO, bulk={"b": cloud()})
    (quantiles,) = (t for t in figure.data if t.name == "b: bulk")
    np.testing.assert_allclose(quantiles.y, [-2.326, 2.326], atol=0.02)  # of a normal distribution
    (edges,) = (t for t in figure.data if t.name == "b: edges of the bulk")
    one = 1 / PARAMS / (WIDTH * math.sqrt(2 * math.pi))
    end = math.sqrt(-2 * math.log(one * math.sqrt(2 * math.pi)))
    np.testing.assert_allclose(edges.y, [-end, end], atol=0.03)
    assert quantiles.line.color == style.translucent(style.colour(1), 0.45)
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "bulk"]
    static = plot.spectrum(TWO, "matplotlib", bulk={"b": cloud()}).axes[0]
    drawn = [line.get_ydata() for line in static.lines]
    assert any(np.allclose(y, quantiles.y) for y in drawn if len(y) == 2)


# ------------------------------------------------------------------------------ density


def test_density_shows_curves_bands_and_spikes_of_one_eigenvalue() -> None:
    data = cloud("a")
    figure = plot.density(data, log=False)
    upper, lower = (t for t in figure.data if t.name == "a" and t.mode == "lines")
    np.testing.assert_array_equal(upper.x, data["grid"])
    np.testing.assert_array_equal(upper.y, data["density"])
    np.testing.assert_array_equal(lower.y, data["cumulative"])
    assert (upper.yaxis, lower.yaxis) == ("y", "y2") and figure.layout.yaxis.type == "log"
    (spikes,) = named(figure, "outliers")
    one = 1 / PARAMS / (WIDTH * math.sqrt(2 * math.pi))
    assert list(spikes.x) == [10.0, -4.0] and spikes.y == pytest.approx([one, one])
    np.testing.assert_allclose(np.array(spikes.customdata, float), [[10, 0.01], [-4, 0.004]])
    assert "mass 1/1000" in spikes.hovertemplate
    (floor,) = named(figure, "one eigenvalue")
    assert floor.y == pytest.approx([one, one]) and floor.line.dash == "dot"
    # A lone outlier, smoothed, peaks at its spike.
    assert data["density"].sel(grid=10.0) == pytest.approx(one, rel=1e-3)
    low, high = (10**v for v in figure.layout.yaxis.range)
    assert low < one and high >= float(data["density_high"].max())
    band = figure.data[0]
    n = data.sizes["grid"]
    seen = data["density_high"].values > low  # what lies under the axis is cut, for its logarithm
    np.testing.assert_allclose(np.asarray(band.y[:n])[seen], data["density_high"][seen])
    for part in ("P = 1000", "10 probes", "80 steps", "kernel width 0.05", "seed 7", "1/P"):
        assert part in words(figure) and part in words(plot.density(data, "matplotlib"))


def test_both_backends_draw_the_same_density() -> None:
    data = [cloud("a"), cloud("b", 0.01)]
    upper, lower = plot.density(data, "matplotlib", log=True).axes
    curves = [line for line in upper.lines if len(line.get_xdata()) == data[0].sizes["grid"]]
    for line, one in zip(curves, data, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), one["grid"])
        np.testing.assert_array_equal(line.get_ydata(), one["density"])
    for line, one in zip(lower.lines, data, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), one["cumulative"])
    stems = [c for c in upper.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose([s[1, 0] for s in stems[1].get_segments()], [0.1, -0.04])
    heights = {round(d.one, 9) for d in read_densities(data)}
    assert {round(float(s[1, 1]), 9) for c in stems for s in c.get_segments()} == heights
    assert upper.get_xlim() == lower.get_xlim()
    assert sum(isinstance(c, PolyCollection) for c in upper.collections) == 2


def test_subjects_share_the_signed_axis_and_the_switch_moves_all_of_them() -> None:
    figure = plot.density({"x": cloud(None), "y": cloud(None, 1e-3)}, log=True)
    assert {t.xaxis for t in figure.data} == {None}
    axis = Axis(True, -6.0, 10.2, unit=WIDTH * 1e-3)
    (y,) = (t for t in figure.data if t.name == "y" and t.mode == "lines" and t.yaxis == "y")
    np.testing.assert_allclose(axis.unplace(y.x), cloud("", 1e-3)["grid"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(y.customdata, cloud("", 1e-3)["grid"])
    data, _, traces = figure.layout.updatemenus[0].buttons[0].args
    assert len(traces) == len(figure.data) == len(data["x"])
    index = list(figure.data).index(y)
    np.testing.assert_allclose(data["x"][index], cloud("", 1e-3)["grid"], rtol=1e-5)
    assert "kernel width 0.05, 5e-05" in words(figure)


def test_densities_need_not_have_bands_outliers_or_a_width() -> None:
    bare = cloud("a").drop_vars(
        ["density_low", "density_high", "cumulative_low", "outlier", "outlier_residual"]
    )
    del bare.attrs["width"], bare.attrs["settings"]
    figure = plot.density(bare)
    assert not named(figure, "band") and not named(figure, "outliers")
    assert named(figure, "one eigenvalue")[0].y == pytest.approx([1 / PARAMS, 1 / PARAMS])
    plot.density(bare, "matplotlib")
    gap = cloud("a")
    gap["density"][3] = np.inf
    curve = next(t for t in plot.density(gap).data if t.name == "a")
    assert np.isnan(curve.y[3]) and curve.connectgaps is False


def test_wrong_densities_are_refused() -> None:
    with pytest.raises(TypeError, match="Dataset"):
        plot.density([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one density"):
        plot.density([])
    with pytest.raises(ValueError, match="params"):
        plot.density(cloud().assign_attrs(params=0))
    with pytest.raises(ValueError, match="cumulative"):
        plot.density(cloud().drop_vars("cumulative"))
    with pytest.raises(ValueError, match="no variable 'density'"):
        plot.density(cloud().drop_vars("density"))
    with pytest.raises(ValueError, match="one outlier_residual per outlier"):
        plot.density(cloud().drop_vars("outlier_residual"))
    with pytest.raises(ValueError, match="no finite density"):
        plot.density(cloud().assign(density=cloud()["density"] * np.nan))


# ------------------------------------------------------------------------------ along training


def test_paths_show_every_rank_with_its_band_and_the_threshold() -> None:
    figure = plot.along_training(path())
    lines = [t for t in figure.data if t.name == "run"]
    by_rank = {t.hovertemplate.split("sub>")[1][:-2]: t for t in lines}
    np.testing.assert_array_equal(by_rank["1"].y, [1, 4, np.nan, 9])
    np.testing.assert_array_equal(by_rank["2"].y, [0.5, 2, 3, 3.5])
    np.testing.assert_array_equal(by_rank["min"].y, [-1, -2, -2.5, -3])
    assert by_rank["1"].line.width > by_rank["2"].line.width and by_rank["min"].line.dash == "dash"
    assert [t.showlegend for t in by_rank.values()].count(True) == 1
    (edge,) = named(figure, "edge of stability")
    assert list(edge.y) == [8, 8, 8, 12] and (edge.line.dash, edge.line.shape) == ("dot", "hv")
    low, second, first = named(figure, "band")
    assert list(low.y[:4]) == pytest.approx([-0.9, -1.9, -2.4, -2.9])
    assert list(second.y[:4]) == [0.75, 2.25, 3.25, 3.75]
    assert np.isnan(first.y).sum() == 2  # two polygons, one on either side of the gap
    assert "2/η" in words(figure) and "seed 3" in words(figure)
    reach = figure.layout.yaxis.range
    assert reach[0] < -3.1 and reach[1] > 12


def test_both_backends_draw_the_same_paths() -> None:
    figure = plot.along_training([path("one"), path("two", 2.0)], "matplotlib")
    drawn = [np.asarray(line.get_ydata(), float) for line in figure.axes[0].lines]
    for p in (path("one"), path("two", 2.0)):
        for values in (p["eigenvalue"][:, 0], p["eigenvalue"][:, 1], p["smallest"], p["threshold"]):
            assert any(np.array_equal(y, values, equal_nan=True) for y in drawn)
    bands = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    low, high = bands[2].get_datalim(figure.axes[0].transData).intervaly
    assert (low, high) == pytest.approx((-3.1, -0.9))  # of the smallest eigenvalue
    low, high = bands[0].get_datalim(figure.axes[0].transData).intervaly
    assert (low, high) == pytest.approx((0.25, 3.75))  # of the second largest
    same = sum(np.array_equal(y, [8, 8, 8, 12]) for y in drawn)
    assert same == 1  # a threshold that all share is drawn once
    assert len(named(plot.along_training([path("one"), path("two")]), "edge of stability")) == 1
    other = path("two").assign(threshold=path()["threshold"] * 2)
    assert len(named(plot.along_training([path("one"), other]), "edge of stability")) == 2


def test_a_single_step_and_missing_parts_are_drawn() -> None:
    short = path().isel(step=[1])[["eigenvalue", "residual"]]
    figure = plot.along_training(short)
    assert {t.mode for t in figure.data if t.name == "run"} == {"markers"}
    assert "dotted" not in words(figure) and "dashed" not in words(figure)
    plot.along_training(short, "matplotlib")
    with pytest.raises(ValueError, match="residual"):
        plot.along_training(path().drop_vars("residual"))
    with pytest.raises(ValueError, match="no finite eigenvalue"):
        plot.along_training(path().assign(eigenvalue=path()["eigenvalue"] * np.nan))
    with pytest.raises(ValueError, match="at least one path"):
        plot.along_training({})


# ------------------------------------------------------------------------------ curvature map


def heats(figure: go.Figure) -> list[Any]:
    return [t for t in figure.data if t.type == "heatmap"]


def test_maps_share_colours_and_show_the_values_given() -> None:
    maps = [sheet("one"), sheet("two", 4.0).transpose("alpha", "beta")]
    figure = plot.curvature_map(maps)
    first = heats(figure)
    for i, m in enumerate(maps):
        straight = m.transpose("beta", "alpha")
        np.testing.assert_array_equal(first[i].z, straight["lambda_max"])
        np.testing.assert_array_equal(first[2 + i].z, straight["lambda_min"])
        ratio = np.abs(straight["lambda_min"] / straight["lambda_max"])
        np.testing.assert_allclose(first[4 + i].z, ratio)
        np.testing.assert_allclose(first[i].customdata[..., 1], straight["lambda_max_residual"])
    assert [t.coloraxis for t in first] == [
        *["coloraxis"] * 2, *["coloraxis2"] * 2, *["coloraxis3"] * 2,
    ]  # fmt: skip
    top, low, ratio = (figure.layout[k] for k in ("coloraxis", "coloraxis2", "coloraxis3"))
    values = [t.z for t in first[:2]]
    assert (top.cmin, top.cmax) == pytest.approx((np.min(values), np.max(values)))
    assert low.cmin == -low.cmax == -max(np.abs(t.z).max() for t in first[2:4])
    assert ratio.cmin == 0 and ratio.cmax <= 1
    for part in ("filter-normalized", "without bias", "seed 3", "span ±1", "5×5 points"):
        assert part in words(figure) and part in words(plot.curvature_map(maps, "matplotlib"))
    static = plot.curvature_map(maps, "matplotlib")
    meshes = [c.get_array() for a in static.axes for c in a.collections if isinstance(c, QuadMesh)]
    panels = [np.asarray(m).reshape(5, 5) for m in meshes if m.size == 25]  # no colour bars
    for drawn, shown in zip(panels, first, strict=True):
        np.testing.assert_allclose(drawn, shown.z)


def test_gaps_and_unconverged_points() -> None:
    one = sheet()
    one["lambda_max"][0, 1] = np.nan
    one["lambda_min_residual"][2, 3] = 5.0
    one["lambda_max_residual"][4, 0] = np.nan  # a residual nobody knows proves nothing
    figure = plot.curvature_map(one)
    top, low, ratio = heats(figure)
    assert np.isnan(top.z[0, 1]) and np.isfinite(low.z[0, 1]) and np.isnan(ratio.z[0, 1])
    marks = [list(zip(t.x, t.y, strict=True)) for t in named(figure, "not converged")]
    assert marks == [[(-1.0, 1.0)], [(0.5, 0.0)], [(0.5, 0.0), (-1.0, 1.0)]]
    assert "residual above 0.001" in words(figure)
    static = plot.curvature_map(one, "matplotlib")
    crosses = [
        list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for axes in static.axes
        for line in axes.lines
        if line.get_marker() == "X"
    ]
    assert crosses == marks
    del one.attrs["tol"]
    assert not any(t.x for t in named(plot.curvature_map(one), "not converged"))


def test_a_ratio_above_one_ends_the_colours_and_keeps_its_value() -> None:
    one = sheet()
    one["lambda_min"][0, 0] = -100.0
    figure = plot.curvature_map(one)
    assert heats(figure)[2].z[0, 0] == pytest.approx(100 / float(one["lambda_max"][0, 0]))
    axis = figure.layout.coloraxis3
    assert axis.cmax == 1 and axis.colorbar.ticktext[-1] == "≥ 1"


def test_the_loss_is_drawn_as_lines_at_shared_levels() -> None:
    maps = [sheet("a"), sheet("b")]
    for i, m in enumerate(maps):
        m["loss"] = m["lambda_max"] * (i + 1)
    figure = plot.curvature_map(maps)
    lines = [t for t in figure.data if t.type == "contour"]
    assert len(lines) == 6 and len({str(t.contours) for t in lines}) == 1
    np.testing.assert_array_equal(lines[1].z, maps[1]["loss"])
    plot.curvature_map(maps, "matplotlib")


@pytest.mark.parametrize(
    ("name", "value"),
    [("normalize", "layer"), ("ignore", []), ("seed", 4), ("span", 2.0), ("points", 9)],
)
def test_maps_that_must_not_be_compared_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} differs"):
        plot.curvature_map([sheet("one"), sheet("two", **{name: value})])


def test_wrong_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="lambda_min"):
        plot.curvature_map(sheet().drop_vars("lambda_min"))
    with pytest.raises(ValueError, match="at most 4"):
        plot.curvature_map([sheet(str(i)) for i in range(5)])
    with pytest.raises(ValueError, match="no finite eigenvalue"):
        plot.curvature_map(sheet().assign(lambda_max=sheet()["lambda_max"] * np.nan))
    flat = sheet()
    flat["lambda_max"][:] = 3.0
    flat["lambda_min"][:] = 0.0
    for backend in ("plotly", "matplotlib"):
        plot.curvature_map(flat, backend)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ stability

GAUGES: dict[str, dict[str, Any]] = {
    "calm": {"value": 0.4, "low": 0.3, "high": 0.5, "rule": "SGD: edge 2/η = 20"},
    "over": {"value": 1.2},
}


def test_gauges_show_value_interval_and_rule() -> None:
    figure = plot.stability(GAUGES)
    interval, point, _, other = figure.data
    assert list(interval.x) == [0.3, 0.5] and list(point.x) == [0.4] and list(other.x) == [1.2]
    assert figure.layout.xaxis.range == (0, 1.5)
    ticks = dict(zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True))
    assert "edge of stability" in ticks[1.0]
    texts = [a.text for a in figure.layout.annotations]
    assert "0.4 [0.3, 0.5]" in texts and "SGD: edge 2/η = 20" in texts and "1.2" in texts
    edges = [s.x0 for s in figure.layout.shapes if s.type == "line"]
    assert edges == [1, 1]
    static = plot.stability(GAUGES, "matplotlib")
    drawn = [list(line.get_xdata()) for line in static.axes[0].lines]
    assert [0.3, 0.5] in drawn and [0.4] in drawn and [1.2] in drawn and drawn.count([1, 1]) == 2
    assert "0.4 [0.3, 0.5]" in words(static) and "edge of stability" in words(static)


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_readings_far_away_or_unknown(backend: Any) -> None:
    given = {"far": {"value": 57.0, "low": 3.0, "high": 60.0}, "none": {"value": math.nan}}
    figure = plot.stability(given, backend)
    if backend == "plotly":
        assert figure.layout.xaxis.range == (0, 4) and list(figure.data[0].x) == [3, 4]
        assert list(figure.data[1].x) == [4] and figure.data[1].marker.symbol == "triangle-right"
        assert figure.data[1].customdata[0][0] == 57 and math.isnan(figure.data[3].x[0])
        texts = " ".join(a.text for a in figure.layout.annotations)
    else:
        texts = words(figure)
    assert "57 [3, 60]" in texts and "not known" in texts


def test_wrong_gauges_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one gauge"):
        plot.stability({})
    with pytest.raises(ValueError, match="no 'value'"):
        plot.stability({"a": {}})
    with pytest.raises(ValueError, match="outside its interval"):
        plot.stability({"a": {"value": 2.0, "low": 0.0, "high": 1.0}})


# ------------------------------------------------------------------------------ all of them


def everything(label: str, backend: Any) -> list[Any]:
    bulk = {label: cloud(None)}
    return [
        plot.spectrum({label: ([3.0, 1.0], [0.1, 0.1])}, backend, bulk=bulk),
        plot.spectrum({label: ([3e-9, -1e-9], [1e-11, 1e-10])}, backend),
        plot.density(cloud(label), backend),
        plot.along_training(path(label), backend),
        plot.curvature_map(sheet(label), backend),
        plot.stability({label: {"value": 0.5, "rule": label}}, backend),
    ]


def test_labels_are_text_and_figures_fit_a_page(tmp_path: Any) -> None:
    figures = everything(EVIL, "plotly")
    for figure in figures:
        assert "<script" not in figure.to_json().replace("\\u003c", "<")
        last = figure.layout.meta["arrangements"][-1]
        assert last["layout"]["height"] == figure.layout.height
    page = write_page(tmp_path / "page.html", "t", "", [Section("s", "", figures)], {})
    assert EVIL not in page.read_text(encoding="utf-8")
    page.unlink()


def test_paper_figures_are_vectors_of_a_known_width(tmp_path: Any) -> None:
    for figure in everything(
        "a $x$ <b> and a label that is much longer than a column", "matplotlib"
    ):
        assert isinstance(figure, Figure)
        assert figure.get_size_inches()[0] in (style.COLUMN_WIDTH, style.PAGE_WIDTH)
        file = tmp_path / "figure.pdf"
        figure.savefig(file)
        assert file.stat().st_size < 500_000
        file.unlink()
        width, height = figure.canvas.get_width_height()
        for text in figure.findobj(match=Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= -2 and box.x1 <= width + 2, text.get_text()
                assert box.y0 >= -2 and box.y1 <= height + 2, text.get_text()
