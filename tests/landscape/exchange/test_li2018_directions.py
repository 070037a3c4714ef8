"""Directions of loss-landscape: its rules written out a second time, its files made here by h5py."""

import h5py
import numpy as np
import pytest
import torch
from problems import conv_net, images
from torch import nn
from torch.nn import functional as F

import landscape
from landscape.exchange.li2018 import (
    ReferencePlane,
    draw_directions,
    read_directions,
    write_directions,
)


def cut(size=8):
    x, y = images(30)
    return list(zip(x.float().split(size), y.split(size), strict=True))


def objective(norm="eval", model=None):
    return landscape.DataObjective(model or conv_net(torch.float32), cut(), norm=norm)


def naive(tensors, generator, norm, ignore):
    """One list of directions by the reference's rules, tensor by tensor and slice by slice."""
    drawn = [torch.randn(w.size(), generator=generator) for w in tensors]
    for d, w in zip(drawn, tensors, strict=True):
        if d.dim() <= 1:
            d.copy_(w * 0 if ignore == "biasbn" else w)
            continue
        for i in range(len(d)):
            if norm == "filter":
                d[i] *= float(w[i].norm()) / (float(d[i].norm()) + 1e-10)
            elif norm == "dfilter":
                d[i] /= d[i].norm() + 1e-10
        if norm == "layer":
            d *= w.norm() / d.norm()
        elif norm == "weight":
            d *= w
        elif norm == "dlayer":
            d /= d.norm()
    return [d.numpy() for d in drawn]


def listed(model, mode):
    if mode == "weights":
        return [p.detach() for p in model.parameters()]
    return [t.float() for t in model.state_dict().values()]


def write(path, *rows, names=("xdirection", "ydirection")):
    with h5py.File(path, "w") as file:
        for name, row in zip(names, rows, strict=False):
            for i, tensor in enumerate(row):
                file.require_group(name).create_dataset(str(i), data=tensor)
    return path


def reference_losses(model, rows, places, mode):
    """The reference's points and its loss, the tensors moved in place."""
    moved = listed(model, mode) if mode == "weights" else list(model.state_dict().values())
    start = [t.clone() for t in moved]
    found = []
    for place in places:
        for k, (t, s) in enumerate(zip(moved, start, strict=True)):
            change = sum(row[k] * np.float64(c) for row, c in zip(rows, place, strict=True))
            t.copy_(s + torch.from_numpy(np.asarray(change, np.float32)).to(s.dtype))
        total = 0.0
        with torch.no_grad():
            for x, y in cut():
                total += F.cross_entropy(model(x), y).item() * len(x)
        found.append(total / 30)
    for t, s in zip(moved, start, strict=True):
        t.copy_(s)
    return np.array(found)


RULES = ("filter", "layer", "weight", "dfilter", "dlayer", "")


@pytest.mark.parametrize("mode", ["weights", "states"])
@pytest.mark.parametrize("ignore", ["biasbn", ""])
@pytest.mark.parametrize("norm", RULES)
def test_files_of_every_rule_give_the_surface_of_the_reference(tmp_path, norm, ignore, mode):
    model = conv_net(torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    rows = [naive(listed(model, mode), generator, norm, ignore) for _ in "xy"]
    path = write(tmp_path / "d.h5", *rows)
    moving = mode == "states" and not ignore
    ours = objective("interpolated" if moving else "eval", model)
    plane = read_directions(path, ours)
    assert plane.settings["mode"] == mode
    assert plane.settings["normalize"] == (norm if norm not in ("weight", "") else "")
    assert plane.settings["ignore"] == (["bias", "norm"] if ignore else [])
    assert set(plane.buffers) == ({"norm.running_mean", "norm.running_var"} if moving else set())
    surface = landscape.evaluate(ours, plane, span=0.5, points=3, executor="plain")
    places = [(a, b) for b in (-0.5, 0, 0.5) for a in (-0.5, 0, 0.5)]
    theirs = reference_losses(model, rows, places, mode)
    np.testing.assert_allclose(surface["loss"].values.ravel(), theirs, rtol=1e-6, atol=1e-6)
    assert np.ptp(theirs) > 0.01
    drawn = draw_directions(ours, torch.Generator().manual_seed(1), norm, ignore, mode=mode)
    torch.testing.assert_close(drawn.basis, plane.basis, rtol=1e-6, atol=1e-7)
    for name, steps in plane.buffers.items():
        torch.testing.assert_close(drawn.buffers[name], steps)


def test_points_round_once(tmp_path):
    """float64 for the step, one rounding of it, one addition in float32."""
    ours = objective()
    x, y = (torch.randn(2, ours.space.size, generator=torch.Generator().manual_seed(0))).numpy()
    plane = ReferencePlane(ours.theta, torch.from_numpy(np.stack([x, y])))
    a, b = 0.3, -0.7
    step = x.astype(np.float64) * a + y.astype(np.float64) * b
    expected = ours.theta.numpy() + step.astype(np.float32)
    np.testing.assert_array_equal(plane.point(a, b).numpy(), expected)
    ordinary = landscape.Plane(ours.theta, plane.basis).point(a, b).numpy()
    assert (ordinary != expected).any()  # what the class is for
    line = ReferencePlane(ours.theta, plane.basis[:1])
    expected = ours.theta.numpy() + (x.astype(np.float64) * a).astype(np.float32)
    np.testing.assert_array_equal(line.point(a).numpy(), expected)
    with pytest.raises(ValueError, match="this plane is a line"):
        line.point(a, b)


def test_the_draws_go_on_where_the_initializers_stopped():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        expected = [torch.randn(p.shape) for p in model.parameters() for _ in (0,)]
        second = [torch.randn(p.shape) for p in model.parameters()]
    x, y = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
    before = torch.get_rng_state()
    ours = landscape.DataObjective(model, (x, y))
    plane = draw_directions(ours, generator, "", "biasbn")
    assert torch.equal(torch.get_rng_state(), before)
    for row, drawn in zip(plane.basis, (expected, second), strict=True):
        pieces = ours.space.unflatten(row)
        assert torch.equal(pieces["0.weight"], drawn[0]) and torch.equal(
            pieces["2.weight"], drawn[2]
        )
        assert not pieces["0.bias"].any()


def test_our_planes_are_written_as_their_files(tmp_path):
    ours = objective()
    plane = landscape.random_plane(ours, seed=4)
    assert write_directions(plane, ours, tmp_path / "d.h5") == ()
    with h5py.File(tmp_path / "d.h5") as file:
        for name, row in zip(("xdirection", "ydirection"), plane.basis, strict=True):
            pieces = list(ours.space.unflatten(row).values())
            assert set(file[name]) == {str(i) for i in range(len(pieces))}
            for i, piece in enumerate(pieces):
                assert file[name][str(i)].dtype == np.float32
                np.testing.assert_array_equal(file[name][str(i)][()], piece.numpy())
    back = read_directions(tmp_path / "d.h5", ours)
    assert torch.equal(back.basis, plane.basis) and torch.equal(back.origin, plane.origin)
    assert back.settings["normalize"] == "filter"
    surface = landscape.evaluate(ours, back, points=2)
    assert surface.attrs["directions"] == "filter-normalized directions of d.h5"


def test_a_line_between_two_networks_goes_through_states_and_back(tmp_path):
    one, other = conv_net(torch.float32), conv_net(torch.float32)
    with torch.no_grad():
        other.conv.weight.mul_(1.5)
        other.norm.running_mean.add_(0.4)
    ours = objective("interpolated", one)
    end = ours.space.flatten(dict(other.named_parameters()))
    line = landscape.interpolation(ours, ours.theta, end, (one.state_dict(), other.state_dict()))
    notes = write_directions(line, ours, tmp_path / "d.h5")
    assert notes == ("states: run the reference with --dir_type states",)
    with h5py.File(tmp_path / "d.h5") as file:
        assert set(file) == {"xdirection"}
        for i, (a, b) in enumerate(
            zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        ):
            np.testing.assert_array_equal(file["xdirection"][str(i)][()], (b - a).numpy())
    back = read_directions(tmp_path / "d.h5", ours)
    assert torch.equal(back.basis, line.basis)
    # what does not move (the variance) is left to the network
    assert torch.equal(back.buffers["norm.running_mean"], line.buffers["norm.running_mean"])
    assert set(back.buffers) == {"norm.running_mean"}
    with pytest.raises(ValueError, match="move 'norm.running_mean': .*norm='interpolated'"):
        read_directions(tmp_path / "d.h5", objective("eval", one))
    moved = landscape.Plane(ours.theta + 1, line.basis)
    assert (
        "the origin is not the objective's point"
        in write_directions(moved, ours, tmp_path / "m.h5")[0]
    )


def test_objectives_without_a_network_have_weights(tmp_path):
    bowl = landscape.FunctionObjective(lambda t: (t * t).sum(), torch.arange(3.0))
    path = write(tmp_path / "d.h5", [np.array([1.0, 2.0, 3.0], np.float32)])
    plane = read_directions(path, bowl)
    assert plane.settings["directions"] == "directions of d.h5"
    assert plane.basis.tolist() == [[1, 2, 3]] and plane.settings["axis_titles"] == [
        "α (xdirection)"
    ]
    with pytest.raises(ValueError, match="expected a DataObjective"):
        draw_directions(bowl, torch.Generator(), mode="states")


def test_frozen_tensors_are_in_the_file_and_must_not_move(tmp_path):
    model = conv_net(torch.float32)
    model.head.weight.requires_grad_(False)
    rows = naive(listed(model, "weights"), torch.Generator(), "filter", "biasbn")
    ours = objective(model=model)
    with pytest.raises(ValueError, match=r"'head\.weight' moves, but it is frozen"):
        read_directions(write(tmp_path / "d.h5", rows), ours)
    rows[4] *= 0
    plane = read_directions(write(tmp_path / "d.h5", rows), ours)
    assert plane.basis.shape == (1, ours.space.size)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


def test_tied_tensors_count_once_in_weights_and_have_no_states(tmp_path):
    ours = landscape.DataObjective(Tied(), (torch.ones(4, 3), torch.zeros(4, dtype=torch.long)))
    plane = draw_directions(ours, torch.Generator().manual_seed(0))
    write_directions(plane, ours, tmp_path / "d.h5")
    assert torch.equal(read_directions(tmp_path / "d.h5", ours).basis, plane.basis)
    with pytest.raises(ValueError, match="tied tensors"):
        draw_directions(ours, torch.Generator(), mode="states")


def good_rows():
    model = conv_net(torch.float32)
    generator = torch.Generator().manual_seed(2)
    return [naive(listed(model, "weights"), generator, "filter", "biasbn") for _ in "xy"]


def few(rows):
    return [rows[0][:-1], rows[1][:-1]]


def one_short(rows):
    return [rows[0], rows[1][:-1]]


def transposed(rows):
    rows[1][4] = rows[1][4].T
    return rows


def nan(rows):
    rows[1][0][0, 0, 0, 0] = np.nan
    return rows


def zero(rows):
    return [rows[0], [0 * d for d in rows[1]]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (few, r"another network: 5 tensors, expected 6 \(weights\) or 9 \(states\)"),
        (one_short, "different numbers of tensors"),
        (transposed, r"'head\.weight' has shape \(3, 12\), the file \(12, 3\)"),
        (nan, r"ydirection has numbers that are not finite in 'conv\.weight'"),
        (zero, "ydirection is zero"),
    ],
)
def test_bad_directions_give_one_line(tmp_path, spoil, message):
    path = write(tmp_path / "d.h5", *spoil(good_rows()))
    with pytest.raises(ValueError, match=message) as caught:
        read_directions(path, objective())
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_bad_files_of_directions_give_one_line(tmp_path):
    path = write(tmp_path / "d.h5", *good_rows(), names=("ydirection", "zdirection"))
    with pytest.raises(ValueError, match="'xdirection' is missing"):
        read_directions(path, objective())
    with h5py.File(path, "w") as file:
        file["xdirection"] = np.ones(3)
    with pytest.raises(ValueError, match="must be groups"):
        read_directions(path, objective())
    with h5py.File(path, "w") as file:
        file.create_group("xdirection")["weights"] = np.ones(3)
    with pytest.raises(ValueError, match="'0' is missing"):
        read_directions(path, objective())
    write(path, *good_rows())
    for length in range(0, path.stat().st_size - 1, 1777):
        (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match="cut.h5: "):
            read_directions(tmp_path / "cut.h5", objective())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "filters"}, "unknown rule normalize='filters'.*'' \\(as drawn\\)"),
        ({"ignore": "bias"}, "ignore is 'bias'"),
        ({"axes": 3}, "axes is 3"),
        ({"mode": "both"}, "mode is 'both'"),
        ({"ignore": "", "mode": "states"}, "norm='interpolated'"),
    ],
)
def test_bad_draws_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_directions(objective(), torch.Generator(), **options)
