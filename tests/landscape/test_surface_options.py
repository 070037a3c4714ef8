import json

import numpy as np
import pytest
import torch
from problems import conv_net, conv_objective, images, normal, quadratic, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.directions import interpolation, random_plane
from landscape.health import health_text
from landscape.objective import FunctionObjective
from landscape.plot import surface3d
from landscape.plot.live import LivePage, preview
from landscape.soundness import refusals, troubles
from landscape.store import load
from landscape.surface import evaluate


def stop_after(count):
    def progress(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return progress


def steep():
    """A narrow basin between steep walls, in two of four coordinates."""
    theta = torch.tensor([0.1, -0.2, 1.0, 2.0], dtype=torch.float64)
    scale = torch.tensor([9.0, 4.0, 0.5, 0.1], dtype=torch.float64)
    return FunctionObjective(lambda t: (scale * t * t).sum() + (t**4).sum(), theta)


def test_a_tolerance_saves_points_and_keeps_its_word(tmp_path):
    objective = steep()
    plane = random_plane(objective, "none", seed=3)
    whole = evaluate(objective, plane, points=31)["loss"].values
    found = evaluate(
        objective, plane, points=31, tolerance=0.01, basin_tolerance=0.05, out=tmp_path / "s.nc"
    )
    record = json.loads(found.attrs["refinement"])
    evaluated = found["evaluated"].values == 1
    assert record["outcome"] == "certified"
    assert record["evaluations"] == evaluated.sum() < 0.5 * whole.size
    np.testing.assert_array_equal(found["loss"].values[evaluated], whole[evaluated])
    error = np.abs(found["loss"].values - whole)
    assert error.max() <= 0.01 * np.ptp(whole)
    assert record["achieved"] <= 0.01 and record["held_out"] >= 24
    assert (found["loss_error"].values[evaluated] == 0).all()
    assert (found["interpolated"].values == ~evaluated).all()
    assert np.isnan(found["loss_stderr"].values[~evaluated]).all()
    note = f"{evaluated.sum()} computed, others \u00b1{record['achieved']:.1%} of the range (certified)"
    assert note in surface3d(found).to_plotly_json()["layout"]["title"]["subtitle"]["text"]
    assert not refusals(found) and not any("not evaluated" in t for t in troubles(found))
    assert load(tmp_path / "s.nc").identical(found)


def test_a_refined_surface_resumed_is_the_uninterrupted_one(tmp_path):
    objective = steep()
    plane = random_plane(objective, "none", seed=3)
    whole = evaluate(objective, plane, points=21, tolerance=0.02)
    for count in (40, 95):
        with pytest.raises(KeyboardInterrupt):
            evaluate(
                objective, plane, points=21, tolerance=0.02, out=tmp_path / "s.nc",
                progress=stop_after(count),
            )  # fmt: skip
    partial = load(tmp_path / "s.nc")
    assert "health" not in partial.attrs and np.isnan(partial["loss"].values).any()
    again = evaluate(objective, plane, points=21, tolerance=0.02, out=tmp_path / "s.nc")
    assert again.drop_attrs().identical(whole.drop_attrs())
    assert again.attrs["refinement"] == whole.attrs["refinement"]
    with pytest.raises(ValueError, match=r"tolerance is 0.02 there and 0.01 here"):
        evaluate(objective, plane, points=21, tolerance=0.01, out=tmp_path / "s.nc")
    with pytest.raises(ValueError, match="tolerance is 0.02 there and None here"):
        evaluate(objective, plane, points=21, out=tmp_path / "s.nc")


def test_slopes_and_curvatures_of_a_quadratic():
    matrix = symmetric([3.0, 1.0, 0.5, -0.2])
    objective = quadratic(matrix, normal(4, seed=8))
    plane = random_plane(objective, "none")
    surface = evaluate(objective, plane, points=3, slopes=True)
    x, y = plane.basis
    for i, beta in enumerate(surface["beta"].values):
        for j, alpha in enumerate(surface["alpha"].values):
            gradient = matrix @ plane.point(alpha, beta)
            assert surface["slope_alpha"].values[i, j] == pytest.approx(float(gradient @ x))
            assert surface["slope_beta"].values[i, j] == pytest.approx(float(gradient @ y))
    np.testing.assert_allclose(surface["curvature_alpha"], float(x @ matrix @ x), rtol=1e-12)
    np.testing.assert_allclose(surface["curvature_beta"], float(y @ matrix @ y), rtol=1e-12)


def test_terms_are_kept_on_request_and_the_rise_is_paired():
    objective = conv_objective()
    plane = random_plane(objective)
    surface = evaluate(objective, plane, points=3, keep_terms=True)
    assert surface["terms"].dims == ("beta", "alpha", "term")
    terms = surface["terms"].values
    expected = objective.losses(plane.point(1.0, -1.0)).numpy()
    np.testing.assert_allclose(terms[0, 2], expected, rtol=1e-12)
    rise = terms - terms[1, 1]
    np.testing.assert_allclose(surface["rise"], rise.mean(-1), atol=1e-12)
    stderr = rise.std(-1, ddof=1) / np.sqrt(terms.shape[-1])
    np.testing.assert_allclose(surface["rise_stderr"], stderr, atol=1e-12)
    assert surface["rise"].values[1, 1] == 0 == surface["rise_stderr"].values[1, 1]
    assert "terms" not in evaluate(objective, plane, points=2)


def test_the_executor_is_recorded_kept_and_not_exchanged(tmp_path):
    objective = conv_objective()
    plane = random_plane(objective)
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            objective, plane, points=5, out=tmp_path / "s.nc", executor="fused",
            progress=stop_after(3),
        )  # fmt: skip
    with pytest.raises(ValueError, match="executor is fused there and plain here"):
        evaluate(objective, plane, points=5, out=tmp_path / "s.nc", executor="plain")
    surface = evaluate(objective, plane, points=5, out=tmp_path / "s.nc")
    assert surface.attrs["executor"] == "fused"
    tried = evaluate(objective, plane, points=5)
    trial = json.loads(tried.attrs["executor_trial"])
    assert tried.attrs["executor"] == trial["executor"]
    assert {"plain", "fused"} <= set(trial["seconds_per_point"])
    assert trial["differences"]["fused"] < 1e-10
    np.testing.assert_allclose(tried["loss"], surface["loss"], rtol=1e-10)


def test_the_health_record_says_what_moved():
    objective = conv_objective()
    surface = evaluate(objective, random_plane(objective), points=3)
    record = json.loads(surface.attrs["health"])
    weights = {k: v for k, v in objective.space.unflatten(objective.theta).items() if v.dim() > 1}
    moved = torch.cat([w.reshape(-1) for w in weights.values()]).norm() / objective.theta.norm()
    assert record["moved_share"] == pytest.approx(float(moved))
    assert (record["ignored"], record["tensors"], record["norm"]) == (4, 6, "eval")
    assert (record["points"], record["not_finite"]) == (9, 0)
    assert abs(record["centre_difference"]) < 1e-12
    assert "4 of 6 tensors stay fixed" in health_text(surface)
    even = evaluate(objective, random_plane(objective), points=2)
    assert json.loads(even.attrs["health"])["centre_difference"] is None


def test_a_centre_that_is_not_the_objectives_value_is_refused():
    objective = conv_objective()
    surface = evaluate(objective, random_plane(objective), points=3)
    assert not refusals(surface)
    surface["loss"].values[1, 1] += 0.01
    assert "must be equal" in refusals(surface)[0]


def test_statistics_move_along_an_interpolation():
    """Halfway between two networks the statistics are the mean of theirs, as in a hand-made network."""
    a, b = conv_net(), conv_net()
    with torch.no_grad():
        for tensor in (*b.parameters(), *b.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.3).add_(0.2)
    objective = DataObjective(a, images(), norm="interpolated")
    theta_b = objective.space.flatten(dict(b.named_parameters()))
    states = (a.state_dict(), b.state_dict())
    line = interpolation(objective, objective.theta, theta_b, buffers=states)
    found = evaluate(objective, line, span=(0, 1), points=5)
    for i, share in enumerate((0, 0.25, 0.5, 0.75, 1.0)):
        middle = conv_net()
        mixed = {
            k: (1 - share) * v + share * states[1][k] if v.is_floating_point() else v
            for k, v in states[0].items()
        }
        middle.load_state_dict(mixed)
        own = DataObjective(middle, images())
        assert found["loss"].values[i] == pytest.approx(float(own.value(own.theta)), rel=1e-10)
    fixed = evaluate(DataObjective(a, images()), line, span=(0, 1), points=5)
    assert abs(fixed["loss"].values[4] - found["loss"].values[4]) > 1e-3
    with pytest.raises(ValueError, match="needs a plane that carries statistics"):
        evaluate(objective, random_plane(objective), points=3)
    with pytest.raises(ValueError, match="missing or of another shape in the second network"):
        interpolation(objective, objective.theta, theta_b, buffers=(states[0], {}))


def test_a_live_page_fills_in(tmp_path):
    objective = steep()
    plane = random_plane(objective, "none")
    page = tmp_path / "live.html"
    partial = None

    def observer(surface):
        nonlocal partial
        partial = surface.copy(deep=True)
        LivePage(page)(surface)

    with pytest.raises(KeyboardInterrupt):
        evaluate(objective, plane, points=9, observer=observer, progress=stop_after(20))
    text = page.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in text and "Preview: 20 of 81 points" in text
    shown = preview(partial)
    assert np.isfinite(shown["loss"].values).all() and np.isnan(partial["loss"].values).any()
    done = partial["evaluated"].values == 1
    np.testing.assert_array_equal(shown["loss"].values[done], partial["loss"].values[done])
    evaluate(objective, plane, points=9, observer=LivePage(page))
    assert 'http-equiv="refresh"' not in page.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["live.html"]


def test_points_that_are_not_finite_stay_so_under_a_tolerance():
    edge = FunctionObjective(
        lambda t: (t * t).sum() + torch.sqrt(t[0] + 1.2), torch.zeros(2, dtype=torch.float64)
    )
    plane = random_plane(edge, "none", seed=1)
    whole = evaluate(edge, plane, points=21, span=2.0)["loss"].values
    found = evaluate(edge, plane, points=21, span=2.0, tolerance=0.02)
    evaluated = found["evaluated"].values == 1
    assert np.isnan(whole).any()
    np.testing.assert_array_equal(found["loss"].values[evaluated], whole[evaluated])
    certain = np.isfinite(found["loss_error"].values)
    assert (np.isnan(found["loss"].values) >= (~certain & ~evaluated)).all()


def test_a_network_in_double_and_one_on_bfloat16_differ_as_they_should():
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).float()
    x, y = normal(40, 8, seed=1).float(), torch.arange(40) % 3
    full = DataObjective(net, (x, y))
    half = DataObjective(net, (x, y), precision="bfloat16")
    plane = random_plane(full)
    a, b = (evaluate(o, plane, points=3)["loss"].values for o in (full, half))
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, rtol=0.03)
    assert half.settings["precision"] == "bfloat16" and half.theta.dtype == torch.float32
