"""Figures of curvature along training, over a plane and at the edge of stability."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from curvature_figures import named, path, sheet, words
from matplotlib.collections import PolyCollection, QuadMesh

from landscape import plot

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
