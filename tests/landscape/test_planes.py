"""Planes along eigenvectors and through points."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_problems import tanh_meta
from problems import conv_objective, full_hessian, normal, quadratic, seeded, symmetric
from torch import nn

import landscape
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.grid import axis
from landscape.objective import FunctionObjective
from landscape.planes import eigen_plane, plane_through
from landscape.soundness import refusals, troubles
from landscape.spectra.eigenpairs import eigenpairs

VALUES = [40.0, 6.0, 0.5, -3.0]


def saddle(values=VALUES):
    return quadratic(symmetric(values))


@pytest.mark.parametrize("which", ["top", "extremes", (2, 0), (1,)])
def test_a_step_in_curvature_units_is_a_rise(which):
    objective = saddle()
    plane = eigen_plane(objective, which=which, rise=0.3)
    indices = {"top": [0, 1], "extremes": [0, 3]}.get(which, which)
    values = [VALUES[i] for i in indices]
    np.testing.assert_allclose(plane.settings["eigenvalues"], values, rtol=1e-8)
    here = float(objective.value(plane.origin))
    for k, value in enumerate(values):
        for sign in (1, -1):
            at = [0.0] * plane.axes
            at[k] = sign
            change = float(objective.value(plane.point(*at))) - here
            assert change == pytest.approx(math.copysign(0.3, value), rel=1e-6)


def test_directions_stay_eigenvectors_and_a_bowl_is_round():
    objective = saddle([50.0, 2.0, 1.0])
    plane = eigen_plane(objective)
    hessian = full_hessian(objective)
    for row, value in zip(plane.basis, plane.settings["eigenvalues"], strict=True):
        torch.testing.assert_close(hessian @ row, value * row, rtol=1e-6, atol=1e-8)
    here = float(objective.value(plane.origin))
    rises = [float(objective.value(plane.point(math.cos(a), math.sin(a)))) - here for a in range(7)]
    np.testing.assert_allclose(rises, 0.1, rtol=1e-6)


def test_unit_length_and_signs():
    objective = saddle()
    plane = eigen_plane(objective, units="norm", seed=1)
    np.testing.assert_allclose(plane.norms, 1, rtol=1e-12)
    assert "rise" not in plane.settings
    pairs = eigenpairs(objective, k=2)
    flipped = type(pairs)(**{**vars(pairs), "vectors": -pairs.vectors})
    for row in plane.basis:
        assert row[row.abs().argmax()] > 0
    for given_pairs in (pairs, flipped):
        again = eigen_plane(objective, given_pairs, units="norm")
        torch.testing.assert_close(again.basis, plane.basis, atol=1e-6, rtol=0)


def test_words_of_an_eigen_plane_reach_the_surface():
    plane = eigen_plane(saddle(), which="extremes")
    surface = landscape.evaluate(saddle(), plane, points=5)
    assert surface.attrs["axis_titles"] == [
        "α along vmax (λmax = 40; 1 = rise of 0.1)",
        "β along vmin (λmin = -3; 1 = fall of 0.1)",
    ]
    assert surface.attrs["directions"] == (
        "Hessian eigenvectors of the largest and the smallest eigenvalue, in curvature units"
    )
    said = json.loads(surface.attrs["plane"])
    assert (said["kind"], said["units"], said["rise"], said["converged"]) == (
        "eigen", "curvature", 0.1, True,
    )  # fmt: skip
    assert len(said["residuals"]) == 2
    top = eigen_plane(saddle(), which=(0, 2), units="norm")
    assert top.settings["axis_titles"][1] == "β along v₃ (λ₃ = 0.5; 1 = distance 1)"
    assert top.settings["directions"] == "Hessian eigenvectors 1 and 3, in unit length"
    assert troubles(surface) == []


def test_titles_survive_the_file(tmp_path):
    for axes, which in ((1, (0,)), (2, "top")):
        plane = eigen_plane(saddle(), which=which)
        surface = landscape.evaluate(saddle(), plane, points=3, out=tmp_path / f"{axes}.nc")
        found = landscape.load(tmp_path / f"{axes}.nc")
        assert found.attrs["axis_titles"] == plane.settings["axis_titles"]
        assert found.attrs["fingerprint"] == surface.attrs["fingerprint"]
        assert "cautions" not in found.attrs


def test_pairs_of_another_matrix_are_named():
    model = nn.Sequential(nn.Linear(3, 2)).double()
    objective = DataObjective(model, (normal(8, 3), torch.arange(8) % 2))
    pairs = eigenpairs(objective, k=2, kind="ggn")
    plane = eigen_plane(objective, pairs)
    assert plane.settings["directions"].startswith("Gauss-Newton eigenvectors 1 and 2")
    assert plane.settings["operator"] == "ggn"


def test_what_is_not_converged_is_refused_to_be_vouched_for():
    objective = quadratic(symmetric([float(v) for v in range(1, 31)]))
    with pytest.warns(landscape.ConvergenceWarning):
        plane = eigen_plane(objective, max_products=5)
    assert not plane.settings["converged"]
    surface = landscape.evaluate(objective, plane, points=3)
    assert any("not converged" in said for said in refusals(surface))


def test_eigenvalues_that_are_one_are_told():
    objective = quadratic(symmetric([5.0, 5.0, 1.0]))
    plane = eigen_plane(objective)
    surface = landscape.evaluate(objective, plane, points=3)
    (said,) = troubles(surface)
    assert "not told apart" in said
    assert refusals(surface) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"units": "metres"}, "units="),
        ({"which": "bottom"}, "which="),
        ({"which": (0, 0)}, "different indices"),
        ({"which": (-1,)}, "indices"),
        ({"which": (0, 1, 2)}, "one or two"),
        ({"rise": 0.0}, "rise is 0"),
        ({"theta": torch.zeros(2)}, "theta has shape"),
    ],
)
def test_bad_eigen_planes(options, match):
    with pytest.raises(ValueError, match=match):
        eigen_plane(saddle(), **options)


def test_eigen_planes_refuse_what_has_no_unit_or_is_not_there():
    flat = FunctionObjective(lambda t: t[0] ** 2 + 0 * t.sum(), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="not told from 0"):
        eigen_plane(flat)
    assert eigen_plane(flat, units="norm").axes == 2
    one = eigenpairs(saddle(), k=1)
    with pytest.raises(ValueError, match="one eigenpair"):
        eigen_plane(saddle(), one)
    with pytest.raises(ValueError, match="below 1"):
        eigen_plane(saddle(), one, which=(1,))
    with pytest.raises(ValueError, match="4 parameters"):
        eigen_plane(saddle([1.0, 2.0]), eigenpairs(saddle(), k=2))


def test_given_pairs_are_taken_by_value():
    pairs = eigenpairs(saddle(), k=3, which="BE")
    assert eigen_plane(saddle(), pairs, which="extremes").settings["eigenvalues"] == pytest.approx(
        [40, -3]
    )
    assert eigen_plane(saddle(), pairs).settings["eigenvalues"] == pytest.approx([40, 6])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 20))
def test_the_three_points_lie_where_their_marks_are(seed, params):
    a, b, c = torch.randn(3, params, dtype=torch.float64, generator=seeded_generator(seed))
    bowl = FunctionObjective(lambda t: (t * t).sum(), a)
    plane = plane_through(bowl, a, b, c)
    for theta, mark in zip((a, b, c), plane.settings["marks"], strict=True):
        torch.testing.assert_close(plane.point(mark["alpha"], mark["beta"]), theta)
        assert mark["residual"] < 1e-12
    assert plane.norms[0] == pytest.approx(plane.norms[1])
    assert plane.norms[0] == pytest.approx(float((b - a).norm()))
    assert abs(plane.cosine) < 1e-12
    assert plane.settings["marks"][2]["beta"] > 0


def seeded_generator(seed):
    return torch.Generator().manual_seed(seed)


def test_a_plane_through_points_covers_them_with_two_on_the_grid():
    objective = conv_objective()
    a, b, c = (objective.theta + s * normal(objective.theta.numel(), seed=i) for i, s in
               enumerate((0.0, 0.1, 0.4)))  # fmt: skip
    surface = landscape.evaluate(objective, plane_through(objective, a, b, c), points=11)
    marks = json.loads(surface.attrs["marks"])
    assert [m["label"] for m in marks] == ["A", "B", "C"]
    low, high = surface["alpha"].values[[0, -1]]
    for mark in marks:
        assert low < min(mark["alpha"], mark["beta"]) and high > max(mark["alpha"], mark["beta"])
    at = {"alpha": 1.0, "beta": 0.0}
    assert surface["loss"].sel(at, method="nearest", tolerance=1e-12).item() == pytest.approx(
        float(objective.value(b))
    )
    assert surface["loss"].sel(alpha=0.0, beta=0.0).item() == pytest.approx(
        float(objective.value(a))
    )


@settings(max_examples=60, deadline=None)
@given(st.floats(-20, 20), st.floats(0.01, 20), st.integers(2, 40))
def test_the_default_window_reaches_every_point(alpha, beta, points):
    marks = [{"alpha": 0.0, "beta": 0.0}, {"alpha": 1.0, "beta": 0.0}]
    marks.append({"alpha": alpha, "beta": beta})
    plane = Plane(torch.zeros(2), torch.eye(2), {"kind": "through", "marks": marks})
    grid, ends = axis(plane, None, points)
    assert len(grid) == points and (np.diff(grid) > 0).all() and ends == (grid[0], grid[-1])
    reached = [m[k] for m in marks for k in ("alpha", "beta")]
    assert grid[0] <= min(reached) and grid[-1] >= max(reached)
    extent = max(reached) - min(reached)
    if points > 1 + 4 * extent:
        assert 0.0 in grid and np.isclose(grid, 1, atol=1e-12, rtol=0).any()


def test_statistics_are_those_of_the_three_networks():
    def network():
        return nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)
        ).double()

    nets = [seeded(network) for _ in range(3)]
    for i, net in enumerate(nets):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.3 * normal(*p.shape, seed=i))
            net[1].running_mean.copy_(normal(5, seed=10 + i))
            net[1].running_var.copy_(0.5 + normal(5, seed=20 + i).square())
    data = (normal(12, 4), torch.arange(12) % 3)
    moving = DataObjective(nets[0], data, norm="interpolated")
    thetas = [DataObjective(net, data).theta for net in nets]
    plane = plane_through(moving, *thetas, buffers=tuple(net.state_dict() for net in nets))
    for net, mark in zip(nets, plane.settings["marks"], strict=True):
        own = float(DataObjective(net, data).value(DataObjective(net, data).theta))
        found = plane.statistics(mark["alpha"], mark["beta"])
        torch.testing.assert_close(found["1.running_var"], net[1].running_var)
        shown = landscape.evaluate(
            moving,
            Plane(plane.point(mark["alpha"], mark["beta"]), plane.basis, {}, {
                n: torch.stack([found[n], *v[1:]]) for n, v in plane.buffers.items()
            }),
            points=3, span=1e-3, executor="plain",
        )  # fmt: skip
        assert shown["loss"].values[1, 1] == pytest.approx(own)
    assert plane.settings["refusals"] == []
    for executor in ("fused", "vmap"):
        options = {"points": 5, "span": (0.0, 0.2)}
        pair = [
            landscape.evaluate(moving, plane, executor=e, **options) for e in ("plain", executor)
        ]
        np.testing.assert_allclose(pair[1]["loss"], pair[0]["loss"], rtol=1e-9)
    stale = DataObjective(nets[0], data)
    assert "recalibrate" in plane_through(stale, *thetas).settings["refusals"][0]
    fresh = DataObjective(nets[0], data, norm="recalibrate")
    assert plane_through(fresh, *thetas).settings["refusals"] == []
    with pytest.raises(ValueError, match="third network"):
        plane_through(moving, *thetas, buffers=(nets[0].state_dict(), nets[1].state_dict(), {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_on_one_line_are_refused(dtype):
    a, b = normal(50, seed=1).to(dtype), normal(50, seed=2).to(dtype)
    bowl = FunctionObjective(lambda t: (t * t).sum(), a)
    for share in (0.5, -3.0, 1 / 3):
        with pytest.raises(ValueError, match="on one line"):
            plane_through(bowl, a, b, a + share * (b - a))
    for points in ((a, a, b), (a, b, a), (a, b, b)):
        with pytest.raises(ValueError, match="equal"):
            plane_through(bowl, *points)
    with pytest.raises(ValueError, match="theta_c has shape"):
        plane_through(bowl, a, b, b[:3])


def test_a_meta_objective_has_eigen_planes_too():
    objective = tanh_meta()
    plane = eigen_plane(objective, rise=0.01)
    surface = landscape.evaluate(objective, plane, points=3, span=1e-2)
    alpha = surface["alpha"].values
    rise = surface["loss"].sel(beta=0.0).values
    second = (rise[0] - 2 * rise[1] + rise[2]) / alpha[2] ** 2
    assert second == pytest.approx(0.02, rel=1e-3)
