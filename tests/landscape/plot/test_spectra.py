"""Figures of spectra: they show the numbers they are given, on one scale, and refuse the rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from curvature_figures import EVIL, PARAMS, WIDTH, cloud, named, path, sheet, words
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape import plot
from landscape.plot import style
from landscape.plot.page import Section, write_page
from landscape.plot.readings import read_densities
from landscape.plot.signed import Axis, fit

# ------------------------------------------------------------------------------ the signed axis


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=9).filter(lambda v: any(v)),
    st.sampled_from([None, True, False]),
)
@example([0.0, 5e-324], None)
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
    assert "y" not in data  # both scales have the same heights: a page would hold them twice more
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
        figure.canvas.draw()  # a PDF is laid out in points, these are its own pixels
        width, height = figure.canvas.get_width_height()
        for text in figure.findobj(match=Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= -2 and box.x1 <= width + 2, text.get_text()
                assert box.y0 >= -2 and box.y1 <= height + 2, text.get_text()
