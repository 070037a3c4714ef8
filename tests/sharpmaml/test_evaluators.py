"""Every evaluator of the meta objective gives the numbers of the differentiable code, point by point."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sharpmaml
from landscape.directions import random_plane
from landscape.evaluator import PointByPoint
from landscape.space import ParameterSpace
from sharpmaml import blocks, evaluators, models, pooling
from sharpmaml.data import Episode, make_source
from sharpmaml.inner import InnerLoop
from sharpmaml.objective import MetaObjective
from sharpmaml.stacked import Gather, StackedNetwork
from sharpmaml.tasks import NetworkTasks

F64 = torch.float64
PLACES = np.array([[0.0, 0.0], [0.3, -0.2], [1.0, 1.0]])
NETWORKS = {
    "max": ("conv4", {"ways": 3, "channels": 3, "image_size": 16}),
    "stride": ("conv4", {"ways": 3, "channels": 3, "image_size": 16, "downsample": "stride"}),
    "mlp on images": ("mlp", {"inputs": 256, "hidden": 5, "outputs": 3}),
    "mlp": ("mlp", {"hidden": 6}),
}
INNERS = {
    "none": InnerLoop(steps=0),
    "two steps": InnerLoop(steps=2, rate=0.1),
    "sam": InnerLoop(steps=1, rate=0.1, lower=0.05, eps_grad="through"),
    "asam": InnerLoop(steps=2, rate=0.1, lower=0.05, perturbation="asam", first_order=True),
}


def drawn(shape, generator):
    return torch.randn(shape, dtype=F64, generator=generator)


def image_episode(generator, queries=4, size=16):
    # Half of each image is blank, as drawings are: whole pooling windows are ties.
    images = drawn((3 + queries, 1, size, size), generator)
    images[..., : size // 2] = 0
    y = torch.arange(3)
    return Episode(images[:3], y, images[3:], torch.arange(queries) % 3)


def objective_of(network, inner, tasks=2, dtype=F64):
    name, arguments = NETWORKS[network]
    model = models.build(name, arguments).to(dtype)
    space = ParameterSpace.from_module(model)
    g = torch.Generator().manual_seed(0)
    # Scales of both signs and shifts that are not zero, as a trained network has them.
    theta = space.flatten(dict(model.named_parameters()))
    for piece, role in zip(space.unflatten(theta).values(), space.roles, strict=True):
        if role == "norm":
            piece += torch.randn(piece.shape, dtype=F64, generator=g)
    if network == "mlp":
        source = make_source("sinusoid", shots=5, queries=4)
        episodes = tuple(source.episode(i) for i in range(tasks))
    else:
        episodes = tuple(image_episode(g) for _ in range(tasks))
    episodes = tuple(e.to(dtype=dtype) for e in episodes)
    kind = "regression" if network == "mlp" else "classification"
    known = NetworkTasks(model, space, episodes, kind)
    return MetaObjective(known.tasks(), theta, space, inner, {}, known)


def built(objective, name):
    return objective.evaluators(random_plane(objective, seed=1))[name]()


@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_all_evaluators_give_the_numbers_of_the_objective_itself(network, inner):
    objective = objective_of(network, INNERS[inner])
    plane = random_plane(objective, seed=1, ignore=())
    expected = PointByPoint(objective, plane)(PLACES[1:], terms=True)
    assert ("accuracy" in expected) == (network != "mlp")
    candidates = objective.evaluators(plane)
    assert list(candidates) == ["plain", "loop", "vmap", "stacked"]
    for name, build in candidates.items():
        evaluator = build()
        assert evaluator.name == name and evaluator.setup_seconds > 0
        found = evaluator(PLACES[1:], terms=True)
        assert found.keys() == expected.keys()
        for column, values in expected.items():
            assert found[column].dtype == np.float64
            np.testing.assert_allclose(
                found[column], values, rtol=1e-10, atol=1e-12, err_msg=f"{name} {column}"
            )
        assert "terms" not in evaluator(PLACES[:1])


@pytest.mark.parametrize("network", ["max", "stride"])
def test_single_precision_is_near(network):
    exact = built(objective_of(network, INNERS["two steps"]), "stacked")(PLACES)
    single = built(objective_of(network, INNERS["two steps"], dtype=torch.float32), "stacked")
    np.testing.assert_allclose(single(PLACES)["loss"], exact["loss"], rtol=1e-4)


@pytest.mark.parametrize("name", ["plain", "loop", "vmap", "stacked"])
@pytest.mark.parametrize("network", ["max", "mlp"])
def test_a_point_has_the_same_bits_whatever_is_asked_with_it(network, name):
    objective = objective_of(network, INNERS["sam"], dtype=torch.float32)
    evaluator = built(objective, name)
    together = evaluator(PLACES, terms=True)
    for i in (2, 0, 1):
        alone = evaluator(PLACES[i : i + 1], terms=True)
        for column, values in alone.items():
            np.testing.assert_array_equal(values[0], together[column][i])
    assert together["rise"][0] == 0 and together["rise_stderr"][0] == 0


def test_group_sizes_and_what_is_held_do_not_matter(monkeypatch):
    objective = objective_of("max", INNERS["two steps"], tasks=5)
    whole = built(objective, "stacked")(PLACES, terms=True)
    # Two tasks at a time (5 = 2 + 2 + 1) for the support, one for the query, nothing kept.
    monkeypatch.setattr(evaluators, "_ACTIVATIONS", 2 * 3 * 16 * 16 * 3)
    monkeypatch.setattr(evaluators, "_HELD_BYTES", 0)
    monkeypatch.setattr(blocks, "_CHUNK", 70)
    parts = built(objective, "stacked")
    assert [len(y) for _, _, y in parts._support] == [2, 2, 1]
    assert [len(y) for _, _, y in parts._query] == [1] * 5
    for column, values in parts(PLACES, terms=True).items():
        np.testing.assert_allclose(values, whole[column], rtol=1e-10, atol=1e-13)


def test_only_what_works_is_listed():
    objective = objective_of("max", INNERS["none"])
    plane = random_plane(objective, seed=0)
    unknown = MetaObjective(objective.tasks, objective.theta, objective.space, objective.inner)
    assert list(unknown.evaluators(plane)) == ["plain", "loop"]

    uneven = [image_episode(torch.Generator().manual_seed(3), queries=n) for n in (2, 4)]
    network = dataclasses.replace(objective.network, episodes=tuple(uneven))
    other = MetaObjective(
        network.tasks(), objective.theta, objective.space, objective.inner, {}, network
    )
    assert list(other.evaluators(plane)) == ["plain", "loop"]

    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3), nn.Tanh()).double()
    space = ParameterSpace.from_module(model)
    network = NetworkTasks(model, space, objective.network.episodes, "classification")
    theta = space.flatten(dict(model.named_parameters()))
    foreign = MetaObjective(network.tasks(), theta, space, objective.inner, {}, network)
    assert list(foreign.evaluators(random_plane(foreign))) == ["plain", "loop", "vmap"]


def test_a_frozen_parameter_has_no_stacked_form():
    model = models.mlp()
    model[1].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        StackedNetwork(model, ParameterSpace.from_module(model), "regression")


def test_nothing_is_touched():
    objective = objective_of("max", INNERS["sam"])
    network = objective.network
    kept = [t.clone() for e in network.episodes for t in dataclasses.astuple(e)]
    weights = [p.detach().clone() for p in network.model.parameters()]
    theta, state = objective.theta.clone(), torch.get_rng_state()
    for build in objective.evaluators(random_plane(objective, seed=1)).values():
        build()(PLACES)
    now = [t for e in network.episodes for t in dataclasses.astuple(e)]
    assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(network.model.parameters(), weights, strict=True))
    assert all(p.grad is None for p in network.model.parameters())
    assert torch.equal(objective.theta, theta) and torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


shapes = st.tuples(
    st.integers(1, 3),  # tasks
    st.integers(1, 3),  # images
    st.integers(1, 3),  # channels in
    st.integers(1, 3),  # channels out
    st.integers(2, 7),  # height
    st.integers(2, 7),  # width
    st.booleans(),  # pooling, or stride 2
)


@pytest.mark.parametrize("mean", [False, True])
def test_maps_of_several_places_are_gathered_in_the_order_of_the_network(mean):
    g = torch.Generator().manual_seed(0)
    x = drawn((2, 3, 4, 2, 3), g).requires_grad_()  # tasks, images, channels, height, width
    module = models.SpatialMean() if mean else nn.Flatten()
    expected = torch.stack([module(images) for images in x])
    upstream = drawn(expected.shape, g)
    (derivative,) = torch.autograd.grad(expected, x, upstream)
    layer = Gather(mean)
    output, trace = layer.record(x.detach().permute(1, 3, 4, 0, 2).contiguous(), [])
    torch.testing.assert_close(output, expected.detach(), rtol=1e-12, atol=0)
    inner, nothing = layer.backward(trace, [], upstream)
    assert nothing == ()
    torch.testing.assert_close(inner.permute(3, 0, 4, 1, 2), derivative, rtol=1e-12, atol=0)


@given(shapes, st.integers(0, 1000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_blocks_are_those_of_autograd(shape, seed, first):
    tasks, images, inputs, channels, height, width, pool = shape
    g = torch.Generator().manual_seed(seed)
    x = drawn((tasks, images, inputs, height, width), g)
    x[..., : width // 2] = 0
    weights = [
        drawn((tasks, channels, *tail), g).requires_grad_() for tail in ((inputs, 3, 3), (), ())
    ]
    x.requires_grad_()
    module = models.ConvBlock(inputs, channels, "max" if pool else "stride").double()
    names = ("conv.weight", "norm.weight", "norm.bias")
    expected = torch.stack(
        [
            torch.func.functional_call(module, dict(zip(names, w, strict=True)), (image,))
            for image, *w in zip(x, *weights, strict=True)
        ]
    )
    upstream = drawn(expected.shape, g)
    with torch.no_grad():
        kind = blocks.FirstBlock if first else blocks.Block
        block = kind(1 if pool else 2, pool, module.norm.eps)
        entry = block.prepare(x) if first else x.permute(1, 3, 4, 0, 2).contiguous()
        output, trace = block.record(entry, weights)
        arriving = upstream.permute(1, 3, 4, 0, 2).contiguous()
        inner, found = block.backward(trace, weights, arriving)
        torch.testing.assert_close(block.apply(entry, weights), output, rtol=1e-10, atol=1e-12)
    close = {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(output.permute(3, 0, 4, 1, 2), expected, **close)
    derivatives = torch.autograd.grad(expected, [*weights, x], upstream)
    for ours, theirs in zip(found, derivatives, strict=False):
        torch.testing.assert_close(ours, theirs, **close)
    if first:
        assert inner is None
    else:
        torch.testing.assert_close(inner.permute(3, 0, 4, 1, 2), derivatives[-1], **close)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_pooling_and_its_derivative_are_torchs(images, height, width, levels, ties):
    height, width = height + 1, width + 1
    g = torch.Generator().manual_seed(height * width)
    z = drawn((images, height, width, 2), g)
    z = (z * levels).round() if ties else z  # equal values within a window
    z.requires_grad_()
    expected = F.max_pool2d(z.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    upstream = drawn(expected.shape, g)
    (derivative,) = torch.autograd.grad(expected, z, upstream)
    parts = pooling.corners(z.detach())
    top = pooling.highest(parts)
    assert torch.equal(top, expected)
    spread = torch.zeros_like(z)
    shares = [upstream * mask for mask in pooling.winners(parts, top)]
    for corner, share in zip(pooling.corners(spread.detach()), shares, strict=True):
        corner.copy_(share)
    assert torch.equal(spread.detach(), derivative)


def test_before_adaptation_the_same_tasks_are_scored_as_they_are(images_run):
    objective = sharpmaml.meta_objective(images_run, episodes=3, dtype="float64")
    before = objective.before()
    assert before.inner == dataclasses.replace(objective.inner, steps=0)
    changed = {k for k in objective.settings if before.settings[k] != objective.settings[k]}
    assert changed == {"inner_steps"} and before.settings["inner_steps"] == 0
    zero = sharpmaml.meta_objective(images_run, episodes=3, dtype="float64", steps=0)
    assert torch.equal(before.losses(objective.theta), zero.losses(objective.theta))
    plane = random_plane(objective, seed=2)
    for which in (before, objective):
        column = which.evaluators(plane)["stacked"]()(PLACES[:2])
        expected = [which.metrics(plane.point(*place)) for place in PLACES[:2]]
        for name in ("loss", "loss_stderr", "accuracy"):
            np.testing.assert_allclose(column[name], [e[name] for e in expected], rtol=1e-9)
