"""Figures: what is drawn, on which scale, and what is refused."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape import plot
from landscape.plot import style
from landscape.plot.sheet import gather


def bowl(label: str, sharpness: float = 1.0, axes: int = 2, **attrs: Any) -> xr.Dataset:
    """A quadratic bowl as a surface file would hold it."""
    grid = np.linspace(-1, 1, 7)
    if axes == 2:
        loss = 1 + sharpness * (grid[None, :] ** 2 + grid[:, None] ** 2)
        dims: tuple[str, ...] = ("beta", "alpha")
    else:
        loss, dims = 1 + sharpness * grid**2, ("alpha",)
    settings = {
        "label": label,
        "normalize": "filter",
        "ignore": ["bias", "norm"],
        "seed": 3,
        "span": 1.0,
        "points": 7,
        "axes": axes,
        "centre_loss": 1.0,
        "objective": json.dumps({"episodes": 8}),
    }
    return xr.Dataset(
        {
            "loss": (dims, loss),
            "loss_stderr": (dims, np.full(loss.shape, 0.1)),
            "accuracy": (dims, np.full(loss.shape, 0.5)),
            "evaluated": (dims, np.ones(loss.shape, np.int8)),
        },
        coords=dict.fromkeys(dims, grid),
        attrs=settings | attrs,
    )


def test_surfaces_share_range_colours_levels_and_camera() -> None:
    figure = plot.compare([bowl("flat", 1.0), bowl("sharp", 8.0)])
    assert isinstance(figure, go.Figure)
    scenes = figure.layout.scene, figure.layout.scene2
    assert scenes[0].zaxis.range == scenes[1].zaxis.range
    assert scenes[0].zaxis.range[0] < 1 < 17 <= scenes[0].zaxis.range[1]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (1.0, 17.0)
    assert scenes[0].camera.eye == scenes[1].camera.eye
    assert {s.aspectmode for s in scenes} == {"cube"}
    assert len({str(t.contours.z) for t in figure.data}) == 1
    assert [t.z.dtype for t in figure.data] == [np.float32, np.float32]
    assert [a.text for a in figure.layout.annotations] == ["<b>flat</b>", "<b>sharp</b>"]
    assert scenes[0].xaxis.title.text == "α (filter-normalized)"


def test_hover_data_lie_as_each_trace_reads_them() -> None:
    surface = bowl("a")
    surface["loss"][0, 5] = 9.0  # beta is the row
    assert plot.contour(surface).data[0].customdata[0, 5, 0] == 9.0
    assert plot.surface3d(surface).data[0].customdata[5, 0, 0] == 9.0
    template = plot.surface3d(surface).data[0].hovertemplate
    assert "α %{x" in template and "± %{customdata[1]" in template and "accuracy" in template
    bare = plot.contour(surface.drop_vars(["loss_stderr", "accuracy"])).data[0].hovertemplate
    assert "±" not in bare and "accuracy" not in bare


def test_footnote_states_every_setting_of_the_directions() -> None:
    for figure in (
        plot.surface3d(bowl("a"), group="test episodes"),
        plot.contour(bowl("a"), group="test episodes"),
    ):
        note = figure.layout.title.subtitle.text
        for part in ("test episodes", "filter", "bias, norm", "seed 3", "±1", "7×7 points"):
            assert part in note


@pytest.mark.parametrize("kind", ["surface3d", "contour"])
def test_the_switch_moves_every_panel_and_the_colours(kind: str) -> None:
    figure = plot.compare([bowl("flat"), bowl("sharp", 8.0)], kind)  # type: ignore[arg-type]
    linear, log = figure.layout.updatemenus[0].buttons
    data, layout, traces = log.args
    assert list(traces) == [0, 1]
    np.testing.assert_allclose(data["z"][1], np.log10(bowl("", 8.0)["loss"]), atol=1e-4)
    assert layout["coloraxis.cmax"] == pytest.approx(np.log10(17))
    np.testing.assert_allclose(linear.args[0]["z"][0], bowl("")["loss"], rtol=1e-4)
    assert figure.layout.updatemenus[0].active == 0


def test_two_decades_start_on_the_logarithmic_scale() -> None:
    figure = plot.surface3d(bowl("steep", 500.0))
    assert figure.layout.updatemenus[0].active == 1
    assert figure.data[0].z.max() == pytest.approx(np.log10(1001))
    assert "1000" in figure.layout.coloraxis.colorbar.ticktext
    assert plot.surface3d(bowl("steep", 500.0), log=False).layout.updatemenus[0].active == 0


def test_losses_that_are_not_positive_have_no_logarithmic_scale() -> None:
    low = bowl("low")
    low["loss"] = low["loss"] - 2
    assert not plot.surface3d(low).layout.updatemenus
    with pytest.raises(ValueError, match="log=False"):
        plot.contour(low, log=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_points_that_are_not_finite_stay_gaps(bad: float) -> None:
    surface = bowl("gap")
    surface["loss"][0, 0] = bad
    for figure in (plot.surface3d(surface), plot.contour(surface)):
        assert np.isnan(figure.data[0].z[0, 0])
        assert np.isfinite(figure.data[0].z).sum() == 48
        assert figure.data[0].connectgaps is False
    line = bowl("gap", axes=1)
    line["loss"][3] = bad
    band, mean = plot.line(line).data
    assert np.isnan(mean.y[3])
    assert np.isnan(band.x).sum() == 2  # two closed outlines, one on either side of the gap


def test_nothing_finite_is_an_error() -> None:
    surface = bowl("empty")
    surface["loss"][:] = np.nan
    with pytest.raises(ValueError, match="no finite loss"):
        plot.surface3d(surface)


@pytest.mark.parametrize(
    ("name", "value"),
    [("normalize", "layer"), ("ignore", ["bias"]), ("span", 0.5), ("points", 9), ("seed", 4)],
)
@pytest.mark.parametrize("kind", ["surface3d", "contour", "line"])
def test_compare_refuses_what_must_not_be_compared(kind: str, name: str, value: Any) -> None:
    axes = 1 if kind == "line" else 2
    pair = [bowl("one", axes=axes), bowl("two", axes=axes, **{name: value})]
    with pytest.raises(ValueError, match=rf"{name} differs .*'one'.*'two'"):
        plot.compare(pair, kind)  # type: ignore[arg-type]


def test_attributes_read_back_from_a_file_still_agree() -> None:
    # NetCDF gives a list of strings back as an array, and a number as a numpy scalar.
    other = bowl("b", ignore=np.array(["norm", "bias"]), seed=np.int64(3))
    assert len(plot.compare([bowl("a"), other]).data) == 2


def test_lines_of_all_subjects_stand_on_one_axis() -> None:
    lines = [bowl("one", axes=1), bowl("two", 3.0, axes=1)]
    figure = plot.compare(lines, "line")
    bands, means = figure.data[:2], figure.data[2:]
    assert {t.xaxis for t in figure.data} == {None}
    assert [m.line.color for m in means] == [style.colour(0), style.colour(1)]
    assert "one" in means[0].name and "two" in means[1].name
    assert bands[0].y[0] - means[0].y[0] == pytest.approx(1.96 * 0.1, rel=1e-5)
    assert figure.layout.updatemenus[0].buttons[1].args[1]["yaxis.type"] == "log"


def test_a_rise_has_the_band_of_its_paired_differences() -> None:
    line = bowl("one", 3.0, axes=1)
    line["rise"] = line["loss"] - line["loss"][3]
    line["rise_stderr"] = abs(line["alpha"]) * 0.5
    figure = plot.line(line, relative=True)
    band, mean = figure.data
    assert mean.y[3] == 0 and mean.y[0] == pytest.approx(3.0)
    assert band.y[0] - mean.y[0] == pytest.approx(1.96 * 0.5, rel=1e-5)
    assert "paired difference" in figure.to_json()
    low, high = figure.layout.yaxis.range
    drawn = band.y[np.isfinite(band.y)]
    assert low <= drawn.min() and drawn.max() <= high
    static = plot.line(line, relative=True, backend="matplotlib")
    assert any("paired" in text.get_text() for text in static.findobj(match=Text))


def test_a_rise_without_them_is_zero_at_the_centre_and_has_no_band() -> None:
    figure = plot.line(bowl("one", 3.0, axes=1), relative=True)
    (mean,) = figure.data
    assert mean.y[3] == 0 and mean.y[0] == pytest.approx(3.0)
    with pytest.raises(ValueError, match="relative"):
        plot.line(bowl("one", axes=1), relative=True, log=True)


def test_the_lower_edge_of_a_band_can_be_drawn_on_a_logarithmic_axis() -> None:
    line = bowl("wide", 500.0, axes=1)
    line["loss_stderr"][:] = 1e4
    figure = plot.line(line)
    assert figure.layout.yaxis.type == "log"
    outline = figure.data[0].y
    assert (outline[np.isfinite(outline)] > 0).all()


def test_a_line_has_room_for_its_band_but_not_for_any_band() -> None:
    line = bowl("one", axes=1)
    loss = line["loss"].values
    height = loss.max() - loss.min()
    for error, room in ((0.1, 0.196), (height, 0.5 * height)):
        line["loss_stderr"][:] = error
        low, high = plot.line(line, log=False).layout.yaxis.range
        # 6 % under and 8 % over what is to be seen
        seen = (1 + 0.08) * (loss.max() + room) - 0.08 * max(loss.min() - room, loss.min() / 2)
        assert high == pytest.approx(seen, rel=1e-6)
        assert low < loss.min()
    assert plot.line(line).layout.yaxis.type == "linear"  # by the lines, however low a band reaches
    ends = plot.line(line, log=True).layout.yaxis.range
    assert ends[0] > np.log10(loss.min() / 2) - 0.1


def test_labels_are_text_and_not_markup() -> None:
    label = "<script>alert(1)</script><b>x</b>"
    for figure in (plot.surface3d(bowl(label)), plot.contour(bowl(label))):
        assert "<script" not in figure.to_json().replace("\\u003c", "<")
    assert "<script" not in plot.line(bowl(label, axes=1)).to_json().replace("\\u003c", "<")


def test_spectrum_draws_residuals_as_bars() -> None:
    figure = plot.spectrum({"a": ([3.0, 1.0], [0.2, 0.1]), "b": ([2.0], [0.3])})
    assert list(figure.data[0].y) == [3.0, 1.0]
    assert list(figure.data[0].error_y.array) == [0.2, 0.1]
    with pytest.raises(ValueError, match="residual"):
        plot.spectrum({"a": ([1.0], [])})
    with pytest.raises(ValueError, match="at least one"):
        plot.spectrum({})


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="at most 4"):
        plot.surface3d([bowl(str(i)) for i in range(5)])
    with pytest.raises(ValueError, match="use line"):
        plot.surface3d(bowl("a", axes=1))
    with pytest.raises(ValueError, match="surface3d or contour"):
        plot.line(bowl("a"))
    with pytest.raises(TypeError, match="Dataset"):
        plot.contour([np.zeros((3, 3))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one"):
        plot.compare([])
    with pytest.raises(ValueError, match="kind"):
        plot.compare([bowl("a")], "pie")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend"):
        plot.contour(bowl("a"), "gnuplot")  # type: ignore[arg-type]


def test_a_constant_surface_is_drawn() -> None:
    for backend in ("plotly", "matplotlib"):
        plot.contour(bowl("flat", 0.0), backend)  # type: ignore[arg-type]


def test_dims_are_taken_by_name() -> None:
    surface = bowl("a")
    surface["loss"][0, 1] = 9.0
    (panel,) = gather(surface.transpose("alpha", "beta"), axes=2).panels
    assert panel.loss[0, 1] == 9.0


def test_paper_figures_are_vectors_of_column_width(tmp_path: Any) -> None:
    surfaces = [bowl("one $x$"), bowl("two", 500.0)]
    surfaces[0]["loss"][0, 0] = np.nan
    lines = [bowl("one", axes=1), bowl("two", 500.0, axes=1)]
    drawn = {
        "surface": (plot.surface3d(surfaces, "matplotlib", title="t"), style.PAGE_WIDTH),
        "single": (plot.surface3d(surfaces[0], "matplotlib"), style.COLUMN_WIDTH),
        "contour": (plot.contour(surfaces, "matplotlib"), style.PAGE_WIDTH),
        "line": (plot.line(lines, "matplotlib"), style.COLUMN_WIDTH),
        "spectrum": (plot.spectrum({"a": ([1.0], [0.1])}, "matplotlib"), style.COLUMN_WIDTH),
    }
    for name, (figure, width) in drawn.items():
        assert isinstance(figure, Figure)
        assert figure.get_size_inches()[0] == pytest.approx(width)
        file = tmp_path / f"{name}.pdf"
        figure.savefig(file)
        assert file.stat().st_size < 1_000_000
        assert b"/Subtype /Image" not in file.read_bytes() or name != "line"


def test_paper_panels_share_range_and_colours() -> None:
    figure = plot.surface3d([bowl("one"), bowl("two", 8.0)], "matplotlib")
    panels = [a for a in figure.axes if hasattr(a, "get_zlim")]
    assert panels[0].get_zlim() == panels[1].get_zlim()
    limits = {tuple(c.get_clim()) for a in panels for c in a.collections}
    assert limits == {(1.0, 17.0)}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [340, 610, 630, 790, 810, 990, 1010, 1190])
def test_no_scene_is_much_higher_than_wide(count: int, width: int) -> None:
    """What a scene shows grows with its height; where it is narrower, labels beside the box are cut off."""
    figure = plot.surface3d([bowl(name) for name in "ABCD"[:count]])
    changes = next(
        one["layout"] for one in figure.layout.meta["arrangements"] if width < one["below"]
    )
    inner_width = width - changes["margin.l"] - changes["margin.r"]
    inner_height = changes["height"] - changes["margin.t"] - changes["margin.b"]
    for i in range(count):
        scene = f"scene{i + 1 if i else ''}"
        (x0, x1), (y0, y1) = (changes[f"{scene}.domain.{name}"] for name in "xy")
        ratio = (x1 - x0) * inner_width / ((y1 - y0) * inner_height)
        # The title of the vertical axis stands outside of everything else.
        assert ratio > (
            1.03 if changes[f"{scene}.zaxis.title.text"] else 0.95 if width > 620 else 0.88
        )


def test_a_phone_has_axis_titles_in_3d_without_their_units() -> None:
    titles = ["α (1 = from first.pt to second.pt)", "β"]
    figure = plot.surface3d(bowl("A", axis_titles=titles))
    phone, *_, wide = figure.layout.meta["arrangements"]
    assert phone["layout"]["scene.xaxis.title.text"] == "α"
    assert (
        wide["layout"]["scene.xaxis.title.text"]
        == titles[0]
        == figure.layout.scene.xaxis.title.text
    )
    assert phone["layout"]["coloraxis.colorbar.orientation"] == "h"


@pytest.mark.parametrize("span", [0.7, 1.0, 0.25])
def test_labels_of_ticks_of_neighbouring_paper_panels_do_not_meet(span: float) -> None:
    grid = span * np.linspace(-1, 1, 7)
    many = [bowl(name, span=span).assign_coords(alpha=grid, beta=grid) for name in "ABCD"]
    figure = plot.contour(many, "matplotlib")
    figure.draw_without_rendering()
    boxes = [
        label.get_window_extent()
        for axes in figure.axes[:4]
        for label in axes.get_xticklabels()
        if label.get_text()
    ]
    assert len(boxes) == 12
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
