"""Every way of evaluating gives what the objective itself gives at the points of the plane."""

import copy
import operator
import random
import shutil
import weakref
from collections import Counter, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, POOL, Net, conv, first, images, norm, stack, tied, vectors
from problems import conv_objective, normal, seeded
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import landscape.executors as subject
from landscape.batches import tensors_in
from landscape.data_objective import DataObjective
from landscape.directions import Plane, interpolation
from landscape.executors import Unsupported, candidates, steps
from landscape.executors.fused import FusedProgram
from landscape.surface import evaluate

PLACES = np.array([[0.0, 0.0], [0.7, -0.4], [-1.1, 0.3], [0.0, 1.0]])
WAYS = ("plain", "chunked", "fused", "vmap")
COLUMNS = ("loss", "loss_stderr", "rise", "rise_stderr", "accuracy")


CHUNK = subject._chunk


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Batches of the tests are cut too."""
    monkeypatch.setattr(subject, "_chunk", lambda objective: CHUNK(objective) and 4)
    monkeypatch.setattr(steps, "_ROWS", 7)


def problem(name, dtype=torch.float64, axes=2):
    make, data, *_ = NETWORKS[name]
    net, (x, y) = seeded(make).to(dtype), data()
    objective = DataObjective(net, [(x[:5], y[:5]), (x[5:], y[5:])])
    return objective, moved(objective, axes)


def moved(objective, axes=2, size=0.2):
    """A plane along which every tensor of the network moves."""
    basis = size * normal(axes, objective.space.size, seed=7).to(objective.theta)
    return Plane(objective.theta.clone(), basis)


def reference(objective, plane, places):
    """The columns of a surface by the objective alone, point by point."""
    centre = objective.losses(plane.origin).double()
    columns = {}
    for place in places.tolist():
        theta = plane.point(*place)
        row, rises = objective.metrics(theta), objective.losses(theta).double() - centre
        row["rise"] = float(rises.mean())
        row["rise_stderr"] = float(rises.std()) / len(rises) ** 0.5
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return columns


def close(found, expected, tolerance):
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_way_gives_the_numbers_of_the_objective(name):
    objective, plane = problem(name)
    expected = reference(objective, plane, PLACES)
    assert set(expected) == set(COLUMNS) and len(set(expected["loss"])) == 4
    plain = candidates(objective, plane)["plain"]()(PLACES)
    close(plain, expected, 1e-13)
    for way in ("fused", "vmap"):
        close(candidates(objective, plane)[way]()(PLACES), expected, 1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_single_precision_and_on_a_line_too(name):
    objective, plane = problem(name, torch.float32, axes=1)
    exact, line = problem(name, torch.float64, axes=1)
    line = Plane(plane.origin.double(), plane.basis.double())
    places = PLACES[1:3, :1]
    expected = reference(exact, line, places)
    for way in ("plain", "fused", "vmap"):
        close(candidates(objective, plane)[way]()(places), expected, 3e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_rewritten_where_it_can_be(name):
    objective, plane = problem(name)
    *_, wanted, unwanted = NETWORKS[name]
    found = [type(step).__name__ for step in FusedProgram(objective, plane)._steps]
    assert wanted is None or wanted in found
    assert len(found) == unwanted if isinstance(unwanted, int) else unwanted not in found


def evaluators(objective, plane, ways=WAYS):
    return [candidates(objective, plane)[way]() for way in ways]


def agree(objective, plane, ways=WAYS, tolerance=1e-10):
    """The ways agree with the objective; what plain found."""
    expected = reference(objective, plane, PLACES[:, : plane.axes])
    for evaluator in evaluators(objective, plane, ways):
        close(evaluator(PLACES[:, : plane.axes]), expected, tolerance)
    return expected


# Bits of a point


POINTS = np.random.default_rng(0).uniform(-1, 1, (13, 2))
BUILT: dict[str, tuple] = {}


def built(name, way):
    """An evaluator in float32 whose blocks are small, and what it says of all points at once."""
    if (name, way) not in BUILT:
        objective, plane = problem(name, torch.float32)
        (evaluator,) = evaluators(objective, plane, (way,))
        BUILT[name, way] = evaluator, evaluator(POINTS, terms=True)
    return BUILT[name, way]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "pool before relu", "shortcut last"])
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(13)), cuts=st.sets(st.integers(1, 12)), block=st.integers(1, 5))
def test_the_bits_of_a_point_do_not_depend_on_its_company(name, way, order, cuts, block):
    evaluator, whole = built(name, way)
    evaluator._block = block * evaluator._program.group
    for part in np.split(np.array(order), sorted(cuts)):
        found = evaluator(POINTS[part], terms=True)
        for key, values in found.items():
            np.testing.assert_array_equal(values, whole[key][part], err_msg=key)


@pytest.mark.parametrize("way", WAYS)
def test_terms_are_those_of_the_objective_and_their_mean_is_the_loss(way):
    objective, plane = problem("mlp")
    (evaluator,) = evaluators(objective, plane, (way,))
    found = evaluator(PLACES, terms=True)
    assert found["terms"].shape == (4, 9) and "terms" not in evaluator(PLACES)
    np.testing.assert_allclose(found["terms"].mean(1), found["loss"], rtol=1e-14)
    for place, terms in zip(PLACES, found["terms"], strict=True):
        expected = objective.losses(plane.point(*place))
        np.testing.assert_allclose(terms, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_blocks_are_whole_groups_and_small_networks_get_large_ones(way):
    objective, plane = problem("mlp")
    (evaluator,) = evaluators(objective, plane, (way,))
    assert evaluator._block == 256
    big = DataObjective(
        nn.Sequential(nn.Linear(1000, 300)), (torch.zeros(2, 1000), torch.zeros(2, 300)), "l1_loss"
    )
    (evaluator,) = evaluators(big, moved(big), (way,))
    assert evaluator._block in {"plain": {55}, "chunked": {55}, "fused": {256}, "vmap": {48}}[way]


@pytest.mark.parametrize(("kilobytes", "examples"), [(1, 16), (80, 20), (400, 100), (10**6, 512)])
def test_the_largest_activation_of_a_chunk_is_bounded(monkeypatch, kilobytes, examples):
    net = nn.Sequential(nn.Linear(5, 500), nn.ReLU(), nn.Linear(500, 3)).double()
    objective = DataObjective(net, [(X[:4], Y[:4]), (X[4:], Y[4:])])
    monkeypatch.setitem(subject._ACTIVATION_BYTES, "cpu", kilobytes * 1000)
    assert CHUNK(objective) == examples
    assert not any(module._forward_hooks for module in objective.module.modules())


# Forms of networks and data


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(2, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x, extra=None, *, double=False):
        hidden = self.a(x)
        if extra is not None:
            hidden = hidden + self.b(extra)
        return self.out(hidden * 2 if double else torch.tanh(hidden))


X, E, Y = normal(9, 5, seed=1), normal(9, 2, seed=2), images()[1]
FORMS = {
    "two inputs": [(X[:4], E[:4], Y[:4]), (X[4:], E[4:], Y[4:])],
    "a tuple of inputs": [((X[:4], E[:4]), Y[:4]), ((X[4:], E[4:]), Y[4:])],
    "an argument left out": (X, Y),
    "an option": {"x": X, "double": True, "labels": Y},
    "keywords": [({"extra": E[:4], "x": X[:4]}, Y[:4]), ({"extra": E[4:], "x": X[4:]}, Y[4:])],
    "a mapping": {"x": X, "extra": E, "labels": Y},
    "mappings": [
        {"x": X[:4], "extra": None, "labels": Y[:4]},
        {"x": X[4:], "extra": None, "labels": Y[4:]},
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form):
    net = seeded(Keywords).double()
    objective = DataObjective(net, FORMS[form])
    plane = moved(objective)
    agree(objective, plane)
    extra = None if form in ("an argument left out", "an option", "mappings") else E
    output = net(X, extra, double=form == "an option").detach()
    assert float(objective.value(objective.theta)) == pytest.approx(
        float(F.cross_entropy(output, Y)), rel=1e-12
    )


def test_batches_of_different_forms_are_not_traced():
    data = [(X[:4], E[:4], Y[:4]), (X[4:], Y[4:])]
    objective = DataObjective(seeded(Keywords).double(), data)
    agree(objective, moved(objective), ("plain", "vmap"))
    with pytest.raises(Unsupported, match="same inputs"):
        candidates(objective, moved(objective))["fused"]()


def test_outputs_with_logits():
    Output = namedtuple("Output", ["logits", "hidden"])
    net = Net(
        lambda m, x: (h := m.a(x), Output(logits=m.b(h), hidden=h))[1],
        a=nn.Linear(70, 5),
        b=nn.Linear(5, 3),
    )
    objective = DataObjective(net.double(), vectors(70)())
    agree(objective, moved(objective))


@pytest.mark.parametrize("form", [0, 1, 2, 3, "pre-hook", "old weight norm", "hook of the network"])
def test_hooks_are_not_skipped(form):
    parts = stack(lambda: conv(1, 4), lambda: norm(4), nn.ReLU, POOL)
    net = nn.Sequential(seeded(parts), nn.Flatten(), seeded(lambda: nn.Linear(36, 3)))
    if isinstance(form, int):
        net[0][form].register_forward_hook(lambda m, args, out: out * 1.5 - 0.1)
    elif form == "pre-hook":
        net[0][0].register_forward_pre_hook(lambda m, args: (args[0] * 1.5,))
    elif form == "old weight norm":
        net[0][0] = nn.utils.weight_norm(net[0][0])
        with torch.no_grad():
            net(images()[0].float())  # before a first call torch cannot copy it
    else:
        net.register_forward_hook(lambda m, args, out: out * 1.5)
    objective = DataObjective(net.double(), images())
    ways = ("plain",) if form == "hook of the network" else ("plain", "fused")
    agree(objective, moved(objective), ways)
    if form == "hook of the network":
        with pytest.raises(Unsupported, match="hooks"):
            candidates(objective, moved(objective))["fused"]()


def branching(m, x):
    return m.out(x) if x.isfinite().all() else m.out(-x)


def test_a_network_that_branches_on_its_data_is_left_to_the_plain_way():
    objective = DataObjective(Net(branching, out=nn.Linear(5, 3)).double(), (X, Y))
    agree(objective, moved(objective), ("plain", "vmap"))
    with pytest.raises(Unsupported, match="not traceable: symbolically traced"):
        candidates(objective, moved(objective))["fused"]()


def test_a_network_that_branches_on_its_weights_cannot_be_stacked():
    net = Net(lambda m, x: m.out(x) * (2 if m.out.bias.sum() > 0 else 1), out=nn.Linear(5, 3))
    objective = DataObjective(net.double(), (X, Y))
    agree(objective, moved(objective), ("plain",))
    with pytest.raises(Unsupported, match="^vmap: "):
        candidates(objective, moved(objective))["vmap"]()


def test_recurrent():
    net = Net(
        lambda m, x: m.out(m.cell(x.unflatten(1, (5, 1)))[0][:, -1]),
        cell=nn.LSTM(1, 4, batch_first=True),
        out=nn.Linear(4, 3),
    )
    objective = DataObjective(seeded(lambda: net).double(), (X, Y))
    agree(objective, moved(objective), ("plain", "fused"))


# Changes in place


def test_a_network_that_writes_into_its_input_does_not_change_the_data():
    x, y = vectors(70)()
    kept = x.clone()
    net = Net(lambda m, x: m.out(x.mul_(2)), out=nn.Linear(70, 3)).double()
    objective = DataObjective(net, (x, y))
    expected = F.cross_entropy(F.linear(2 * kept, net.out.weight, net.out.bias), y).item()
    for _ in range(3):
        assert float(objective.value(objective.theta)) == pytest.approx(expected, rel=1e-12)
    assert objective.changes_inputs
    agree(objective, moved(objective), ("plain", "vmap"))
    with pytest.raises(Unsupported, match="changes its inputs"):
        candidates(objective, moved(objective))["fused"]()
    assert torch.equal(x, kept) and torch.equal(objective.batches[0].args[0], kept)


@pytest.mark.parametrize("mode", ["eval", "batch"])
def test_other_networks_are_not_given_copies(mode):
    objective = conv_objective(norm=mode)
    candidates(objective, moved(objective))
    assert objective._changes_inputs is False  # known before anything is compiled
    assert not objective.changes_inputs
    seen = []
    objective.module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    objective.value(objective.theta)
    assert seen == [objective.batches[0].args[0]]


IN_PLACE = {
    "an earlier value": lambda m, x: (h := m.a(x), s := h.mul_(0.5), m.b(h) + m.b(s))[2],
    "through a view": lambda m, x: (h := m.a(x), h.view(-1).mul_(0.5), m.b(h))[2],
    "a constant": lambda m, x: (h := x * 2, k := m.a(h), h.relu_(), m.b(k) + m.b(m.a(x)))[3],
    "shared by all points": lambda m, x: (h := x * 2, h.mul_(m.scale), m.b(m.a(h)))[2],
    "the only reader, of a constant": lambda m, x: m.b(m.a((x * 2).mul_(m.scale))),
    "augmented": lambda m, x: (h := x * 2, m.b(m.a(operator.iadd(h, m.scale))))[1],
    "module": lambda m, x: (h := m.a(x), m.act(h), m.b(h))[2],
    "keyword": lambda m, x: (h := m.a(x), F.elu(h, inplace=True), m.b(h))[2],
}


@pytest.mark.parametrize("form", IN_PLACE)
def test_values_changed_in_place_and_read_elsewhere_are_not_reordered(form):
    net = Net(
        IN_PLACE[form],
        a=nn.Linear(70, 5),
        b=nn.Linear(5, 3),
        act=nn.ELU(inplace=True),
        scale=nn.Parameter(torch.tensor(0.7)),
    )
    objective = DataObjective(seeded(lambda: net).double(), vectors(70)())
    agree(objective, moved(objective), ("plain",))
    with pytest.raises(Unsupported, match="in place"):
        candidates(objective, moved(objective))["fused"]()


def test_a_first_layer_that_does_not_move_is_not_changed_in_place():
    net = stack(lambda: nn.Linear(70, 5), lambda: nn.ELU(inplace=True), lambda: nn.Linear(5, 3))
    objective = DataObjective(seeded(net).double(), vectors(70)())
    plane = moved(objective)
    plane.basis[:, : 70 * 5 + 5] = 0
    agree(objective, plane, ("plain", "fused"))


# Norm modes


def test_batches_stay_whole_where_statistics_are_those_of_the_batch(monkeypatch):
    net, (x, y) = seeded(NETWORKS["norm used twice"][0]).double(), images()
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    objective = DataObjective(net, data, norm="batch")
    plane = moved(objective)
    agree(objective, plane, ("plain", "vmap"))
    with pytest.raises(Unsupported, match="recomputes statistics"):
        candidates(objective, plane)["fused"]()
    (evaluator,) = evaluators(objective, plane, ("vmap",))
    net.train()
    place = plane.point(*PLACES[1])
    net.load_state_dict({**net.state_dict(), **objective.space.unflatten(place)})
    terms = torch.cat([F.cross_entropy(net(x), y, reduction="none") for x, y in data]).detach()
    np.testing.assert_allclose(evaluator(PLACES[1:2], terms=True)["terms"][0], terms, rtol=1e-10)


def test_recalibrated_statistics_are_those_of_update_bn_at_each_point():
    net, (x, y) = seeded(NETWORKS["norm used twice"][0]).double(), images()
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    objective = DataObjective(net, data, norm="recalibrate")
    plane = moved(objective)
    losses = []
    for place in PLACES:
        theta = objective.space.unflatten(plane.point(*place))
        net.load_state_dict({**net.state_dict(), **theta})
        torch.optim.swa_utils.update_bn([x for x, _ in data], net)
        losses.append(F.cross_entropy(net.eval()(x), y).item())
    for evaluator in evaluators(objective, plane, ("plain", "vmap")):
        np.testing.assert_allclose(evaluator(PLACES)["loss"], losses, rtol=1e-10)


class HandMade(nn.Module):
    """Batch norm from primitives: arithmetic on its buffers alone."""

    def __init__(self):
        super().__init__()
        self.norm = norm(5)

    def forward(self, x):
        scale = torch.rsqrt(self.norm.running_var + self.norm.eps)
        return (x - self.norm.running_mean[:, None, None]) * scale[:, None, None]


@pytest.mark.parametrize("make", [lambda: norm(5), HandMade], ids=["folded", "hand-made"])
def test_interpolated_statistics(make):
    a = seeded(first(make, nn.ReLU, lambda: conv(5, 5), lambda: norm(5))).double()
    b = copy.deepcopy(a)
    draw = torch.Generator().manual_seed(1)
    for tensor in b.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + torch.rand(tensor.shape, generator=draw, dtype=tensor.dtype))
    x, y = images()
    objective = DataObjective(a, (x, y), norm="interpolated")
    theta = objective.space.flatten(dict(b.named_parameters()))
    line = interpolation(objective, objective.theta, theta, (a.state_dict(), b.state_dict()))
    places = np.array([[0.0], [0.3], [1.0], [1.2]])
    losses = []
    for (t,) in places:
        one, two, mixed = a.state_dict(), b.state_dict(), copy.deepcopy(a).eval()
        mixed.load_state_dict(
            {k: torch.lerp(v.double(), two[k].double(), t) for k, v in one.items()}
        )
        losses.append(F.cross_entropy(mixed(x), y).item())
    for evaluator in evaluators(objective, line):
        np.testing.assert_allclose(evaluator(places)["loss"], losses, rtol=1e-10)
    stored = evaluators(DataObjective(a, (x, y)), line)
    assert all(abs(e(places)["loss"][2] - losses[2]) > 1e-3 for e in stored)  # the mode matters
    with pytest.raises(ValueError, match="needs a plane that carries statistics"):
        evaluate(objective, interpolation(objective, objective.theta, theta), points=3)


def test_interpolated_statistics_with_tied_weights():
    a = tied().double()
    b = copy.deepcopy(a)
    b.one.weight.data.mul_(1.3)
    objective = DataObjective(a, vectors(64)(), norm="interpolated")
    theta = objective.space.flatten(dict(b.named_parameters()))
    line = interpolation(objective, objective.theta, theta, (a.state_dict(), b.state_dict()))
    plain = DataObjective(a, vectors(64)())
    expected = [float(plain.value(line.point(t))) for t in (0.0, 0.5)]
    for evaluator in evaluators(objective, line):
        np.testing.assert_allclose(evaluator(np.array([[0.0], [0.5]]))["loss"], expected)


def test_bfloat16_moves_the_weights_before_they_are_rounded():
    net = seeded(NETWORKS["mlp"][0])
    x, y = vectors(70)()
    half = DataObjective(net, (x, y), precision="bfloat16")
    full = DataObjective(net, (x, y))
    assert half.settings["precision"] == "bfloat16" and half.settings["dtype"] == "float32"
    plane = moved(full)
    expected = reference(full, plane, PLACES)
    for evaluator in evaluators(half, plane, ("plain", "vmap")):
        found = evaluator(PLACES)["loss"]
        np.testing.assert_allclose(found, expected["loss"], rtol=0.03)
        assert not np.array_equal(found, np.array(expected["loss"]))
        assert evaluator._objective.theta.dtype == torch.float32
    with pytest.raises(Unsupported, match="autocast"):
        candidates(half, plane)["fused"]()
    # Weights of 1 + 2^-9 lie between two bfloat16 numbers: in steps of 2^-8, half their spacing.
    wide = nn.Linear(300, 1, bias=False)
    nn.init.constant_(wide.weight, 1 + 2**-9)
    step = DataObjective(
        wide, (torch.ones(2, 300), torch.zeros(2, 1)), "l1_loss", precision="bfloat16"
    )
    line = Plane(step.theta, torch.full((1, 300), 2**-8))
    (plain,) = evaluators(step, line, ("plain",))
    near, far = plain(np.array([[0.25], [1.0]]))["loss"]
    assert line.point(0.25)[0] > 1 + 2**-9  # moved in float32 ...
    assert far > near  # ... and rounded once, where it is


def test_bfloat16_losses_of_outputs_with_logits_are_not_rounded():
    class Model(nn.Linear):
        def forward(self, x):
            return SimpleNamespace(logits=super().forward(x))

    objective = DataObjective(Model(70, 3), vectors(70)(), precision="bfloat16")
    terms = objective.losses(objective.theta)
    assert terms.dtype == torch.float32
    assert not torch.equal(terms, terms.bfloat16().float())


# Losses


def test_a_scalar_loss_weighs_batches_by_their_size_and_has_no_error():
    objective = DataObjective(
        seeded(NETWORKS["mlp"][0]).double(),
        [(x, y) for x, y in zip(vectors(70)()[0].split(5), Y.split(5), strict=True)],
        loss=lambda output, y: F.cross_entropy(output, y),
    )
    plane = moved(objective)
    each = DataObjective(seeded(NETWORKS["mlp"][0]).double(), (vectors(70)()[0], Y))
    expected = reference(each, plane, PLACES)
    for evaluator in evaluators(objective, plane):
        found = evaluator(PLACES)
        assert np.isnan(found["loss_stderr"]).all() and np.isnan(found["rise_stderr"]).all()
        for key in ("loss", "rise", "accuracy"):
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-10, atol=1e-12)


def test_a_scalar_loss_sees_the_batches_that_the_caller_made():
    def root(output, y):
        return F.mse_loss(output[:, 0], y.double()).sqrt()

    x, net = vectors(70)()[0], seeded(NETWORKS["mlp"][0]).double()
    data = list(zip(x.split(5), Y.split(5), strict=True))
    objective = DataObjective(net, data, loss=root)
    expected = sum(float(root(net(x), y).detach()) * len(x) for x, y in data) / 9
    for evaluator in evaluators(objective, moved(objective)):
        assert evaluator(PLACES[:1])["loss"][0] == pytest.approx(expected, rel=1e-12)


def test_token_losses_are_averaged_over_the_tokens_of_an_example():
    tokens = torch.from_numpy(np.random.default_rng(4).integers(0, 5, (9, 6)))
    net = Net(
        lambda m, x: m.out(m.embed(x)).transpose(1, 2),
        embed=nn.Embedding(5, 8),
        out=nn.Linear(8, 5),
    )
    objective = DataObjective(seeded(lambda: net).double(), [(tokens, tokens.roll(1, 1))])
    plane = moved(objective)
    agree(objective, plane)
    (evaluator,) = evaluators(objective, plane, ("plain",))
    logits = net(tokens).detach()
    losses = F.cross_entropy(logits, tokens.roll(1, 1), reduction="none").mean(1)
    hits = (logits.argmax(1) == tokens.roll(1, 1)).double()
    found = evaluator(np.zeros((1, 2)))
    assert found["loss"][0] == pytest.approx(float(losses.mean()), rel=1e-12)
    assert found["loss_stderr"][0] == pytest.approx(float(losses.std()) / 3, rel=1e-12)
    assert found["accuracy"][0] == pytest.approx(float(hits.mean()), rel=1e-12)


def test_a_loss_of_its_own_with_targets_by_name():
    def detection(output, target):
        return F.mse_loss(output, target["boxes"], reduction="none").sum(1) * target["weight"]

    def largest(output, target):
        return output.abs().amax(1)

    target = {"boxes": normal(9, 3, seed=8), "weight": torch.linspace(0, 1, 9)}
    net = seeded(NETWORKS["mlp"][0]).double()
    data = [(vectors(70)()[0], target)]
    objective = DataObjective(net, data, detection, metrics=("accuracy", largest))
    found = agree(objective, moved(objective))
    assert objective.settings["loss"].endswith("detection")
    assert set(found) == {"loss", "loss_stderr", "rise", "rise_stderr", "largest"}
    output = net(vectors(70)()[0]).detach()
    assert found["loss"][0] == pytest.approx(float(detection(output, target).mean()), rel=1e-6)
    assert found["largest"][0] == pytest.approx(float(output.abs().amax(1).mean()), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_losses_that_are_not_finite_are_kept(way):
    x = torch.ones(3, 70)
    net = nn.Linear(70, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    objective = DataObjective(net, (x, torch.zeros(3, 1)), loss="mse_loss")
    plane = Plane(objective.theta, torch.full((1, 70), 1e30))
    (evaluator,) = evaluators(objective, plane, (way,))
    found = evaluator(np.array([[0.0], [1.0], [np.nan], [0.0]]))["loss"]
    assert found[0] == found[3] == 4900 and found[1] == np.inf and np.isnan(found[2])


# Memory, and what is left alone


class Peak(TorchDispatchMode):
    """The most bytes of results that were alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self.views = 0, 0, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            where, size = storage.data_ptr(), storage.nbytes()
            if not self.views[where]:
                self.alive += size
            self.views[where] += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(tensor, self.release, where, size)
        return result

    def release(self, where, size):
        self.views[where] -= 1
        if not self.views[where]:
            self.alive -= size


def peak(evaluator, points):
    with Peak() as memory:
        evaluator(np.random.default_rng(0).uniform(-1, 1, (points, 2)))
    return memory.most


@pytest.mark.parametrize("way", WAYS)
def test_memory_does_not_grow_with_the_number_of_points(way):
    net = seeded(stack(lambda: conv(1, 5), lambda: norm(5), nn.ReLU, lambda: conv(5, 3)))
    x, _ = images(n=8, size=24)  # a class for every pixel: the outputs are large too
    objective = DataObjective(net.double(), (x, (x[:, 0] > 0).long()))
    (evaluator,) = evaluators(objective, moved(objective), (way,))
    evaluator._block = 16
    one = peak(evaluator, 1)
    assert one > 4 * 5 * 24 * 24 * 8  # activations of a chunk of four
    block = peak(evaluator, 16)
    assert block < 1.5 * one
    assert peak(evaluator, 40) < 1.02 * block


@pytest.mark.parametrize("way", ["plain", "fused", "vmap"])
@pytest.mark.parametrize("mode", ["eval", "batch", "recalibrate"])
def test_nothing_of_the_caller_is_touched(way, mode):
    if way == "fused" and mode != "eval":
        pytest.skip("has no such mode")
    objective, leave = problem_of_a_caller(mode)
    plane = moved(objective)
    (evaluator,) = evaluators(objective, plane, (way,))
    origin, basis = plane.origin.clone(), plane.basis.clone()
    held = copy.deepcopy(objective.module.state_dict())
    evaluator(PLACES, terms=True)
    leave()
    assert torch.equal(plane.origin, origin) and torch.equal(plane.basis, basis)
    assert all(torch.equal(held[k], v) for k, v in objective.module.state_dict().items())


def problem_of_a_caller(mode="eval"):
    """An objective, and a check that nothing its caller has was changed since."""
    net = seeded(NETWORKS["pool before relu"][0]).double().train()
    net.append(nn.Dropout(0.5))
    data = images()
    before = copy.deepcopy((net.state_dict(), data))
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002

    def leave():
        assert net.training and all(m.training for m in net.modules())
        assert all(torch.equal(before[0][k], v) for k, v in net.state_dict().items())
        assert all(map(torch.equal, before[1], data))
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1] == random.getstate()
        assert states[2] == str(np.random.get_state())  # noqa: NPY002

    return DataObjective(net, data, norm=mode), leave


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled():
    net, (x, y) = seeded(NETWORKS["mlp, narrow"][0]).double(), vectors(5)()
    objective = DataObjective(net, (x, y))
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    agree(objective, moved(objective), ("compile",))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == str(np.random.get_state())  # noqa: NPY002


def test_what_cannot_be_compiled_is_unsupported(monkeypatch):
    def broken(function, **options):
        def call(*args):
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nat all")

        return call

    objective, plane = problem("mlp, narrow")
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(Unsupported, match=r"^torch.compile: no compiler$"):
        candidates(objective, plane)["compile"]()
