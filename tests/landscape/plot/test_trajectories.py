"""Figures of paths of training: what is drawn, what moves with the switch and the slider, what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape import plot, trajectory_page
from landscape.plot import paths, paths_static, trajectories
from landscape.plot.sheet import gather
from landscape.plot.trails import place, reaching, read_trails, span_of, stems

EVIL = "<script>alert(1)</script>"
STEPS = [0, 10, 20, 40]


def surface(**attrs: Any) -> xr.Dataset:
    grid = np.linspace(-0.5, 1.5, 9)
    loss = 0.1 + grid[None, :] ** 2 + 0.5 * grid[:, None] ** 2
    settings = {
        "label": "net", "normalize": "none", "ignore": [], "span": [-0.5, 1.5], "points": 9, "axes": 2,
        "basis_sha256": "b", "origin_sha256": "o", "plane": json.dumps({"kind": "pca"}), "centre_loss": 0.1,
    }  # fmt: skip
    return xr.Dataset(
        {"loss": (("beta", "alpha"), loss)}, {"beta": grid, "alpha": grid}, settings | attrs
    )


def path(label: str = "run", **attrs: Any) -> xr.Dataset:
    alpha, beta = np.array([1.0, 0.7, 0.3, 0.0]), np.array([0.2, 1.0, 0.6, 0.0])
    foot = 0.1 + alpha**2 + 0.5 * beta**2
    columns = {
        "alpha": alpha,
        "beta": beta,
        "residual": np.array([0.4, 0.5, 0.1, 0.0]),
        "residual_share": np.array([0.3, 0.6, 0.2, 0.0]),
        "loss": foot + np.array([0.9, 0.0, -0.05, 0.0]),
        "loss_stderr": np.full(4, 0.02),
        "surface_loss": foot,
        "accuracy": np.array([0.2, 0.4, 0.6, 0.8]),
        "sam": np.array([0.1, 0.2, 0.3, 0.4]),
        "sam_low": np.array([0.05, 0.1, 0.2, np.nan]),
        "sam_high": np.array([0.15, 0.3, 0.4, np.nan]),
        "sam_converged": np.array([1, 0, 1, 1]),
    }
    settings = {
        "schema": "landscape.trajectory/1", "label": label, "variance": [0.7, 0.2], "seed": 4,
        "measures": '["sam"]', "measure_titles": '{"sam": "rise after one ascent step"}',
        "basis_sha256": "b", "origin_sha256": "o",
    }  # fmt: skip
    return xr.Dataset(
        {k: ("step", v) for k, v in columns.items()}, {"step": STEPS}, settings | attrs
    )


def of(figure: go.Figure, kind: str) -> list[Any]:
    return [t for t in figure.data if t.type == kind]


def test_the_path_lies_over_the_contours_with_its_ends_named() -> None:
    figure = plot.trajectory(surface(), path())
    markers = next(t for t in of(figure, "scatter") if t.mode == "markers" and len(t.x) == 4)
    np.testing.assert_array_equal(markers.x, path()["alpha"])
    np.testing.assert_array_equal(markers.y, path()["beta"])
    assert np.argmax(markers.marker.size) == 1 and markers.marker.size[3] == min(
        markers.marker.size
    )
    assert list(markers.marker.color) == [0, 1, 2, 3]
    assert "step 10" in markers.customdata[1] and "60.0% of its distance" in markers.customdata[1]
    assert (
        "loss 2.02 ± 0.02" in markers.customdata[0] and "in the plane 1.12" in markers.customdata[0]
    )
    assert "accuracy 20.0%" in markers.customdata[0]
    named = {a.text: (a.x, a.y, a.yanchor) for a in figure.layout.annotations}
    assert named["step 0"] == (1.0, 0.2, "top") and named["step 40"] == (0.0, 0.0, "top")
    note = figure.layout.title.subtitle.text
    assert "holds 90% of the variance" in note and "at most 60%" in note


def test_the_slider_starts_at_the_end_and_every_frame_is_a_beginning_of_the_path() -> None:
    figure = plot.trajectory(surface(), path())
    (slider,) = figure.layout.sliders
    assert slider.active == 3 and [s.label for s in slider.steps] == ["0", "10", "20", "40"]
    assert [f.name for f in figure.frames] == [s.args[0][0] for s in slider.steps]
    for k, frame in enumerate(figure.frames, 1):
        grown, head = frame.data[2], frame.data[3]
        np.testing.assert_array_equal(grown.x, path()["alpha"][:k])
        np.testing.assert_array_equal(head.x, path()["alpha"][k - 1 : k])
        assert [figure.data[i].type for i in frame.traces] == ["scatter"] * 4
        assert len(figure.data[frame.traces[2]].x) == 4  # drawn whole at first
    play, pause = figure.layout.updatemenus[-1].buttons
    assert play.args[0] is None and list(pause.args[0]) == [None]
    assert play.args[1]["frame"]["duration"] > 0
    # Room for them under the panels, at every width.
    alone = plot.contour(surface()).layout
    assert figure.layout.height == alone.height + paths.SLIDER_ROOM
    for ours, plain in zip(
        figure.layout.meta["arrangements"], alone.meta["arrangements"], strict=True
    ):
        assert ours["layout"]["margin.b"] == plain["layout"]["margin.b"] + paths.SLIDER_ROOM


def test_in_a_page_the_slider_needs_no_room_and_no_second_play_button() -> None:
    sheet, trails = gather(surface(), axes=2), read_trails(path())
    figure = trajectories.contour(sheet, trails, "", None, alone=False)
    assert len(figure.frames) == 4 and figure.layout.sliders
    assert [[b.label for b in m.buttons] for m in figure.layout.updatemenus] == [["linear", "log"]]
    assert figure.layout.height == plot.contour(surface()).layout.height


def test_two_paths_share_the_slider() -> None:
    other = path("other").assign_coords(step=[0, 5, 20, 50])
    figure = plot.trajectory(surface(), [path(), other])
    assert [f.name for f in figure.frames] == ["0", "5", "10", "20", "40", "50"]
    frame = figure.frames[2]  # step 10: two points of the first, two of the second
    assert [len(t.x) for t in frame.data] == [2, 2, 2, 1, 2, 2, 2, 1]
    hues = {
        t.marker.colorscale[-1][1]
        for t in of(figure, "scatter")
        if t.mode == "markers" and len(t.x) == 4
    }
    assert len(hues) == 2


def test_among_others_a_path_ends_in_its_name() -> None:
    said = [
        a.text for a in plot.trajectory(surface(), [path("one"), path("two")]).layout.annotations
    ]
    assert said.count("one") == said.count("two") == 1
    assert not any(str(text).startswith("step") for text in said)


def test_paths_of_several_surfaces_go_to_their_own_panels() -> None:
    pair = [surface(label="a"), surface(label="b")]
    for draw, axis in ((plot.contour, "xaxis"), (plot.surface3d, "scene")):
        figure = draw(pair, paths={"b": path("b")})
        drawn = [t for t in figure.data if t.type.startswith("scatter") and len(t.x) > 1]
        assert drawn and all(str(t[axis]).endswith("2") for t in drawn)
    opacities = [t.opacity for t in figure.data if t.type == "surface"]
    assert opacities[0] is None and opacities[1] < 1  # what lies under it shows through
    assert len(plot.contour(pair, "matplotlib", paths={"b": path("b")}).axes[1].collections) > len(
        plot.contour(pair, "matplotlib").axes[1].collections
    )
    with pytest.raises(ValueError, match="paths has 'c': expected labels of the surfaces, a, b"):
        plot.contour(pair, paths={"c": path("c")})


def test_a_long_path_has_few_frames_with_both_ends() -> None:
    many = path().isel(step=[0] * 500).assign_coords(step=np.arange(500))
    names = [f.name for f in plot.trajectory(surface(), many).frames]
    assert len(names) == 60 and (names[0], names[-1]) == ("0", "499")


def test_one_checkpoint_has_no_slider() -> None:
    figure = plot.trajectory(surface(), path().isel(step=[3]))
    assert not figure.frames and not figure.layout.sliders


@pytest.mark.parametrize("log", [False, True])
def test_stems_lead_from_the_plane_to_the_true_losses_on_both_scales(log: bool) -> None:
    figure = plot.trajectory(surface(), path(), kind="surface3d", log=log)
    line, stem, marks = of(figure, "scatter3d")
    sheet = reaching(gather(surface(), axes=2), read_trails(path()))
    assert sheet.high == pytest.approx(float(surface()["loss"].max()))
    scale = sheet.scale(log)
    lift = paths._LIFT * (scale.high - scale.low)
    to = np.log10 if log else np.asarray
    np.testing.assert_allclose(marks.z, to(path()["loss"]) + lift)
    np.testing.assert_allclose(line.z, to(path()["surface_loss"]) + lift)
    np.testing.assert_allclose(np.reshape(stem.z, (4, 3))[:, 0], line.z)
    np.testing.assert_allclose(np.reshape(stem.z, (4, 3))[:, 1], marks.z)
    assert np.isnan(np.reshape(stem.z, (4, 3))[:, 2]).all()
    np.testing.assert_array_equal(np.reshape(stem.x, (4, 3))[:, 0], path()["alpha"])
    assert [a.text for a in figure.layout.scene.annotations] == ["step 0", "step 40"]
    # The buttons move all of it, whichever scale it starts on.
    for button, other in zip(figure.layout.updatemenus[0].buttons, (False, True), strict=True):
        data, layout, traces = button.args
        assert list(traces) == [0, 1, 2, 3]
        scale = sheet.scale(other)
        lift = paths._LIFT * (scale.high - scale.low)
        to = np.log10 if other else np.asarray
        np.testing.assert_allclose(data["z"][3], to(path()["loss"]) + lift, rtol=1e-3)
        assert data["z"][2][2] is None
        assert {len(value) for value in data.values()} == {4}
        assert data["contours.z.size"][1:] == [None] * 3
        assert layout["scene.annotations[0].z"] == pytest.approx(data["z"][3][0], rel=1e-3)


def test_the_camera_stands_over_the_lowest_corner() -> None:
    eye = plot.trajectory(surface(), path(), kind="surface3d").layout.scene.camera.eye
    assert eye.x < 0 and eye.y < 0
    turned = surface()
    turned["loss"] = turned["loss"].copy(data=turned["loss"].values[:, ::-1])
    eye = plot.trajectory(turned, path(), kind="surface3d").layout.scene.camera.eye
    assert eye.x > 0 and eye.y < 0
    paper = plot.trajectory(turned, path(), "matplotlib", kind="surface3d")
    assert paper.axes[0].azim == -52


def test_the_vertical_range_holds_losses_beyond_the_surface() -> None:
    high = path()
    high["loss"][0] = 50.0
    figure = plot.trajectory(surface(), high, kind="surface3d", log=False)
    assert figure.layout.scene.zaxis.range[1] > 50
    low = path()
    low["loss"][0] = -1.0  # must not cost the surface its logarithmic scale
    figure = plot.trajectory(surface(), low, kind="surface3d", log=True)
    assert np.isnan(of(figure, "scatter3d")[2].z[0])


def test_overlays_go_to_the_panel_asked_for() -> None:
    pair = [surface(), surface(label="other")]
    flat = plot.contour(pair)
    paths.on_contour(flat, 1, path())
    assert {t.xaxis for t in of(flat, "scatter") if t.mode == "markers" and len(t.x) == 4} == {"x2"}
    assert [a.xref for a in flat.layout.annotations if "step" in a.text] == ["x2", "x2"]
    solid = plot.surface3d(pair)
    sheet = gather(pair, axes=2)
    before = len(solid.data)
    paths.on_surface(solid, 0, path(), sheet.scale(False))
    paths.on_surface(solid, 1, path(), sheet.scale(False), hue=1)
    assert {t.scene for t in solid.data[before + 3 :]} == {"scene2"}
    data, _, traces = solid.layout.updatemenus[0].buttons[1].args
    assert len(traces) == len(data["z"]) == before + 6
    np.testing.assert_allclose(
        np.array(data["z"][-1]) - np.log10(path()["loss"]),
        paths._LIFT * span_of(sheet.scale(False), True),
        atol=1e-4,
    )


def test_paper_figures_hold_the_same_numbers() -> None:
    flat = plot.trajectory(surface(), path(), "matplotlib", group="training data")
    assert isinstance(flat, Figure)
    dots = flat.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(dots, np.stack([path()["alpha"], path()["beta"]], axis=1))
    words = " ".join(t.get_text() for t in flat.findobj(Text))
    for part in ("step 0", "step 40", "holds 90% of the variance", "training data"):
        assert part in words
    solid = plot.trajectory(surface(), path(), "matplotlib", kind="surface3d")
    drawn = solid.axes[0].collections[-1]._offsets3d
    np.testing.assert_allclose(drawn[2], path()["loss"])
    twice = plot.contour([surface(), surface(label="b")], "matplotlib")
    paths_static.on_contour(twice, 1, path())
    assert len(twice.axes[1].collections[-1].get_offsets()) == 4


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_panels_along_training(backend: Any) -> None:
    figure = plot.along_path([path(), path("other")], backend)
    if backend == "plotly":
        titles = [a.text for a in figure.layout.annotations]
        assert titles[0] == "<b>loss</b>" and "off the plane" in titles[1]
        assert titles[2] == "<b>sam: rise after one ascent step</b>"
        shown = [t for t in figure.data if t.yaxis == "y3" and t.mode == "lines+markers"]
        assert [list(t.y) for t in shown] == [[0.1, 0.2, 0.3, 0.4]] * 2
        assert list(shown[0].marker.symbol) == ["circle", "x", "circle", "circle"]
        bands = [t for t in figure.data if t.yaxis == "y3" and t.fill == "toself"]
        assert np.nanmin(bands[0].y) == 0.05 and np.nanmax(bands[0].y) == 0.4
        loss = [t for t in figure.data if t.yaxis == "y" and t.mode == "lines+markers"]
        assert [t.line.dash for t in loss] == ["solid", "dash"] * 2
        np.testing.assert_array_equal(loss[1].y, path()["surface_loss"])
        assert "×: not converged" in figure.layout.title.subtitle.text
        assert figure.layout.yaxis2.tickformat == ".0%"
    else:
        assert len(figure.axes) == 3
        np.testing.assert_array_equal(figure.axes[2].lines[0].get_ydata(), path()["sam"])


def test_values_over_many_decades_are_logarithmic() -> None:
    steep = path()
    steep["sam"] = ("step", [1e-4, 1e-2, 1.0, 10.0])
    assert plot.along_path(steep).layout.yaxis3.type == "log"
    assert plot.along_path(steep, "matplotlib").axes[2].get_yscale() == "log"
    assert plot.along_path(path()).layout.yaxis3.type != "log"


def test_labels_are_text_and_not_html() -> None:
    for figure in (
        plot.trajectory(surface(label=EVIL), path(EVIL)),
        plot.trajectory(surface(), path(EVIL), kind="surface3d"),
        plot.along_path(path(EVIL)),
    ):
        assert EVIL not in json.dumps(figure.to_plotly_json(), default=str)


def test_paths_over_another_plane_and_other_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="over another plane: its directions differ"):
        plot.trajectory(surface(), path(basis_sha256="x"))
    with pytest.raises(ValueError, match="its origin differ"):
        plot.trajectory(surface(), path(origin_sha256="x"))
    with pytest.raises(ValueError, match="kind='line'"):
        plot.trajectory(surface(), path(), kind="line")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no variable 'residual_share'"):
        plot.along_path(path().drop_vars("residual_share"))
    with pytest.raises(TypeError, match=r"xarray.Dataset"):
        plot.along_path([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.trajectory(surface(), [])


def test_what_the_plane_hides_is_told() -> None:
    found = trajectory_page.cautions(path(variance=[0.5, 0.2]))
    assert any("holds 70% of the variance" in text for text in found)
    assert any("1 of 4 checkpoints (step 10) lie off the plane" in text for text in found)
    assert any("at step 0 the loss in the plane is 1.12" in text for text in found)
    assert "sam is not converged at 1 of 4 checkpoints" in found
    good = path(measures="[]").isel(step=[2, 3])
    good["surface_loss"] = good["loss"]
    assert trajectory_page.cautions(good) == []
    broken = path()
    broken["loss"][1] = np.nan
    assert any("NaN or infinite at 1 of 4" in text for text in trajectory_page.cautions(broken))


def test_the_page_says_it_above_everything_else(tmp_path: Any) -> None:
    file = trajectory_page.write(
        tmp_path / "p.html", surface(), path(EVIL, variance=[0.5, 0.2]), ["norm layers: mind"]
    )
    text = file.read_text(encoding="utf-8")
    top = text.split("<section", 1)[0]
    assert "holds 70% of the variance" in top and "norm layers: mind" in top
    assert EVIL not in text
    assert text.count('<figure class="plot"') == 3
    told = str(trajectory_page.table(path()).rows[1])
    assert "60.0%" in told and "flag=True" in told


def test_pieces() -> None:
    (trail,) = read_trails({"named": path()})
    assert trail.label == "named"
    x, _, z = stems(trail)
    assert (x[3], x[4]) == (0.7, 0.7) and z[0] == pytest.approx(1.12)
    np.testing.assert_array_equal(place([100.0, -1.0], True), [2.0, np.nan])
