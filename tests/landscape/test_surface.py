import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net, conv_objective, images, normal, quadratic, symmetric

import landscape.surface as subject
from landscape.data_objective import DataObjective
from landscape.directions import Plane, interpolation, random_plane
from landscape.objective import FunctionObjective
from landscape.store import load, save
from landscape.surface import evaluate


def stop_after(count):
    def progress(done, total):
        if done == count:
            raise KeyboardInterrupt

    return progress


def same(one, two):
    """Equal in every bit and attribute, the date of creation aside."""
    attrs = [{k: v for k, v in s.attrs.items() if k != "created_at"} for s in (one, two)]
    return one.drop_attrs().identical(two.drop_attrs()) and repr(attrs[0]) == repr(attrs[1])


def bowl():
    matrix = symmetric([3.0, 1.0, 0.5, -0.2])
    return quadratic(matrix, normal(4, seed=8)), matrix


def test_the_surface_of_a_quadratic_is_the_quadratic():
    objective, matrix = bowl()
    plane = random_plane(objective, "none")
    surface = evaluate(objective, plane, span=0.7, points=7)
    assert surface["loss"].dims == ("beta", "alpha")
    w, (x, y) = objective.theta, plane.basis
    for alpha in surface["alpha"].values:
        for beta in surface["beta"].values:
            point = w + alpha * x + beta * y
            expected = float(0.5 * point @ matrix @ point)
            found = surface["loss"].sel(alpha=alpha, beta=beta).item()
            assert found == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(surface["alpha"], np.linspace(-0.7, 0.7, 7), atol=1e-15)
    assert surface["alpha"].values[3] == 0
    assert surface.attrs["centre_loss"] == surface["loss"].sel(alpha=0, beta=0)
    assert surface["evaluated"].values.all()


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 3), st.integers(2, 8), st.integers(0, 100))
def test_the_surface_of_an_even_function_is_symmetric(span, points, seed):
    even = FunctionObjective(lambda t: (t**2).sum().sqrt() + torch.cos(t).sum(), torch.zeros(3))
    plane = random_plane(even, "none", seed=seed)
    loss = evaluate(even, plane, span=span, points=points)["loss"].values
    np.testing.assert_array_equal(loss, loss[::-1, ::-1])


def test_a_line_between_two_points_has_both_on_its_grid():
    objective = conv_objective()
    a, b = objective.theta, objective.theta.flip(0)
    surface = evaluate(objective, interpolation(objective, a, b), points=9)
    assert surface["loss"].dims == ("alpha",)
    assert surface["alpha"].values.min() < 0 and surface["alpha"].values.max() > 1
    assert surface["loss"].sel(alpha=0.0).item() == pytest.approx(float(objective.value(a)))
    assert surface["loss"].sel(alpha=1.0).item() == pytest.approx(float(objective.value(b)))
    default = evaluate(quadratic(symmetric([1.0, 2])), Plane(a[:2], b[:1, None] * a[None, :2]))
    assert (default["alpha"].values[[0, -1]] == [-1, 1]).all() and default.sizes["alpha"] == 51
    chosen = evaluate(objective, interpolation(objective, a, b), span=(0, 1), points=3)
    assert chosen["alpha"].values.tolist() == [0, 0.5, 1]
    assert chosen.attrs["span"] == [0.0, 1.0]


def test_metrics_become_variables_and_settings_attributes(tmp_path):
    objective = conv_objective()
    plane = random_plane(objective, seed=4)
    surface = evaluate(objective, plane, points=3, label="net")
    centre = objective.metrics(objective.theta)
    for name in ("loss", "loss_stderr", "accuracy"):
        assert surface[name].values[1, 1] == centre[name]
    attrs = surface.attrs
    assert attrs["label"] == "net" and attrs["schema"] == "landscape.surface/1"
    assert (attrs["normalize"], attrs["ignore"], attrs["seed"]) == ("filter", ["bias", "norm"], 4)
    assert json.loads(attrs["objective"]) == objective.settings
    assert json.loads(attrs["plane"]) == dict(plane.settings)
    assert attrs["direction_norms"] == list(plane.norms)
    assert attrs["dtype"] == "float64"


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("ignore", [(), ("bias",), ("bias", "norm")])
def test_save_and_load_give_the_same_surface_back(tmp_path, axes, ignore):
    objective = conv_objective(torch.float32)
    plane = random_plane(objective, ignore=ignore, axes=axes)
    surface = evaluate(objective, plane, points=3)
    surface["loss"].values[0] = np.inf
    save(surface, tmp_path / "s.nc")
    again = load(tmp_path / "s.nc")
    assert again.identical(surface)
    assert {k: type(v) for k, v in again.attrs.items()} == {
        k: type(v) for k, v in surface.attrs.items()
    }
    save(again, tmp_path / "t.nc")
    assert load(tmp_path / "t.nc").identical(surface)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.nc", "t.nc"]


def test_attributes_that_netcdf_lacks_are_written_as_json(tmp_path):
    objective, _ = bowl()
    surface = evaluate(objective, random_plane(objective), points=2)
    surface = surface.assign_attrs(none=None, yes=True, table={"a": [1, None]})
    save(surface, tmp_path / "s.nc")
    attrs = load(tmp_path / "s.nc").attrs
    assert (attrs["none"], attrs["yes"], attrs["table"]) == ("null", "true", '{"a": [1, null]}')
    assert surface.attrs["none"] is None


@pytest.mark.parametrize("count", [1, 5, 8])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, count):
    objective = conv_objective(torch.float32)
    plane = random_plane(objective)
    whole = evaluate(objective, plane, points=3, label="x")
    path = tmp_path / "s.nc"
    with pytest.raises(KeyboardInterrupt):
        evaluate(objective, plane, points=3, label="x", out=path, progress=stop_after(count))
    partial = load(path)
    assert int(partial["evaluated"].sum()) == count
    assert (np.isnan(partial["loss"].values) == (partial["evaluated"].values == 0)).all()
    calls = []
    resumed = evaluate(
        objective, plane, points=3, label="x", out=path, progress=lambda *a: calls.append(a)
    )
    assert calls == [(i, 9) for i in range(count + 1, 10)]
    assert same(resumed, whole)
    assert same(load(path), whole)


def test_an_error_at_one_point_keeps_the_work(tmp_path):
    objective, _ = bowl()
    plane = random_plane(objective, "none")
    calls = []

    def fragile(theta):
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError("out of memory")
        return theta.sum()

    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(
            FunctionObjective(fragile, objective.theta), plane, points=3, out=tmp_path / "s.nc"
        )
    assert int(load(tmp_path / "s.nc")["evaluated"].sum()) == 1


def test_a_long_run_saves_on_its_way(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "_SAVE_EVERY", -1.0)
    monkeypatch.setattr(subject, "_MAX_ROUND", 1)
    objective, _ = bowl()
    seen = []

    def observer(surface):
        seen.append(int(load(tmp_path / "s.nc")["evaluated"].sum()))

    evaluate(objective, random_plane(objective), points=2, out=tmp_path / "s.nc", observer=observer)
    assert seen == [1, 2, 3, 4, 4]


def test_a_complete_file_is_returned_without_evaluation(tmp_path):
    calls = []

    def counted(theta):
        calls.append(1)
        return (theta**2).sum()

    objective = FunctionObjective(counted, torch.ones(3))
    plane = random_plane(objective)
    first = evaluate(objective, plane, points=3, out=tmp_path / "s.nc")
    calls.clear()
    assert evaluate(objective, plane, points=3, out=tmp_path / "s.nc").identical(first)
    assert not calls


def test_points_come_coarse_to_fine(tmp_path):
    objective, _ = bowl()
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            objective,
            random_plane(objective),
            points=9,
            out=tmp_path / "s.nc",
            progress=stop_after(25),
        )
    evaluated = load(tmp_path / "s.nc")["evaluated"].values
    assert evaluated[::2, ::2].all() and evaluated.sum() == 25


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"points": 5}, "points is 3 there and 5 here"),
        ({"span": 2.0}, "span is 1.0 there and 2.0 here"),
        ({"seed": 1}, "plane.seed is 0 there and 1 here"),
        ({"normalize": "layer"}, "plane.normalize is filter there and layer here"),
        ({"norm": "batch"}, "objective.norm is eval there and batch here"),
        ({"dtype": torch.float32}, "dtype is float64 there and float32 here"),
        ({"axes": 1}, "axes is 2 there and 1 here"),
        ({"theta": 1.01}, "origin_sha256 is"),
        ({"data": 1.01}, "objective.data_sha256 is"),
    ],
)
def test_another_run_is_refused_and_the_setting_named(tmp_path, change, named):
    def run(points=3, span=1.0, norm="eval", dtype=torch.float64, theta=1.0, data=1.0, **plane):
        x, y = images()
        objective = DataObjective(conv_net(dtype), (x * data, y), norm=norm)
        made = random_plane(objective, theta=objective.theta * theta, **plane)
        return evaluate(objective, made, points=points, span=span, out=tmp_path / "s.nc")

    run()
    before = (tmp_path / "s.nc").read_bytes()
    with pytest.raises(ValueError, match=named):
        run(**change)
    assert (tmp_path / "s.nc").read_bytes() == before


def test_another_function_is_noticed_at_the_centre(tmp_path):
    one, _ = bowl()
    two = FunctionObjective(lambda t: (t**2).sum(), one.theta)
    plane = random_plane(one, "none")
    with pytest.raises(KeyboardInterrupt):
        evaluate(one, plane, points=3, out=tmp_path / "s.nc", progress=stop_after(2))
    with pytest.raises(ValueError, match="centre_loss"):
        evaluate(two, plane, points=3, out=tmp_path / "s.nc")


def test_losses_that_are_not_finite_are_kept(tmp_path):
    edge = FunctionObjective(lambda t: torch.log(t[0]) / t[1], torch.tensor([1.0, 1.0]))
    plane = Plane(edge.theta, torch.eye(2))
    surface = evaluate(edge, plane, points=3, out=tmp_path / "s.nc")
    assert np.isnan(surface["loss"].values[0, 1])  # log 1 / 0
    assert surface["loss"].values[1, 0] == -np.inf  # log 0
    assert surface["evaluated"].values.all()
    assert load(tmp_path / "s.nc").identical(surface)


def test_bad_grids_and_bad_places(tmp_path):
    objective, _ = bowl()
    plane = random_plane(objective)
    for options in ({"points": 1}, {"span": 0.0}, {"span": -1.0}, {"span": (1, 0)}):
        with pytest.raises(ValueError, match=r"points is|span is"):
            evaluate(objective, plane, **options)
    never = FunctionObjective(lambda t: pytest.fail("evaluated"), objective.theta)
    with pytest.raises(ValueError, match="does not exist"):
        evaluate(never, plane, out=tmp_path / "missing" / "s.nc")
    with pytest.raises(ValueError, match="is a folder"):
        evaluate(never, plane, out=tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        save(evaluate(objective, plane, points=2), tmp_path / "missing" / "s.nc")


def test_files_that_are_no_surfaces(tmp_path):
    objective, _ = bowl()
    save(evaluate(objective, random_plane(objective), points=2), tmp_path / "good.nc")
    content = (tmp_path / "good.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.nc").write_text("alpha,loss\n0,1\n")
    (tmp_path / "empty.nc").write_bytes(b"")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    cases = {
        "none.nc": "no such file",
        "cut.nc": "not a NetCDF file, or cut short",
        "text.nc": "not a NetCDF file",
        "empty.nc": "not a NetCDF file",
        "other.nc": "schema is None, expected 'landscape.surface/1'",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            load(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    load(tmp_path / "good.nc").drop_vars("evaluated").to_netcdf(
        tmp_path / "part.nc", engine="h5netcdf"
    )
    with pytest.raises(ValueError, match="variable 'evaluated' is missing"):
        load(tmp_path / "part.nc")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    objective, _ = bowl()
    surface = evaluate(objective, random_plane(objective), points=2)
    save(surface, tmp_path / "s.nc")

    def full(self, contents):
        with self.open("wb") as file:
            file.write(bytes(contents)[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            OSError, match=r"cannot write .*s\.nc: no space left on device; make room"
        ):
            save(surface, tmp_path / "s.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["s.nc"]
    assert load(tmp_path / "s.nc").identical(surface)


@pytest.mark.parametrize("norm", ["eval", "batch", "recalibrate"])
def test_nothing_of_the_caller_is_touched(norm):
    net = conv_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    objective = DataObjective(net, images(), norm=norm)
    plane = random_plane(objective)
    origin, basis, theta = plane.origin.clone(), plane.basis.clone(), objective.theta.clone()
    evaluate(objective, plane, points=3)
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(origin, plane.origin) and torch.equal(basis, plane.basis)
    assert torch.equal(theta, objective.theta)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002
