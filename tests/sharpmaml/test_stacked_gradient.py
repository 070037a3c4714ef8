"""The stacked executor gives the numbers of the reference executor, whatever the plan and the network."""

import dataclasses
import itertools

import pytest
import torch

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.adaptable import adapted_mask
from sharpmaml.data import Episode
from sharpmaml.execution.loop import Loop
from sharpmaml.execution.stacked import Stacked, StackedRows
from sharpmaml.inner import InnerLoop
from sharpmaml.plan import PlainTasks, Plan
from sharpmaml.stacked import StackedNetwork
from sharpmaml.tasks import NetworkTasks

F64 = torch.float64
NETWORKS = {
    "mlp": ("mlp", {"hidden": 6}, 1),
    "mlp on images": ("mlp", {"inputs": 48, "hidden": 5, "layers": 1, "outputs": 3}, 4),
    "linear": ("mlp", {"inputs": 16, "layers": 0, "outputs": 3}, 4),
    "max": ("conv4", {"ways": 3, "channels": 4, "image_size": 28}, 28),
    "max, odd, colour": (
        "conv4", {"ways": 3, "channels": 3, "image_size": 42, "in_channels": 3}, 42,
    ),
    "stride, colour": (
        "conv4",
        {"ways": 3, "channels": 3, "image_size": 20, "in_channels": 3, "downsample": "stride"},
        20,
    ),
    "stride, odd": ("conv4", {"ways": 3, "channels": 4, "image_size": 25, "downsample": "stride"}, 25),
}  # fmt: skip


def drawn(generator, *shape):
    return torch.randn(*shape, dtype=F64, generator=generator)


def batch_of(network, tasks=3, ways=3):
    """Tasks with images half blank, so that pooling windows hold ties, and scales of both signs."""
    name, arguments, size = NETWORKS[network]
    model = models.build(name, arguments).double()
    space = ParameterSpace.from_module(model)
    g = torch.Generator().manual_seed(5)
    theta = space.flatten(dict(model.named_parameters())).detach()
    for piece, role in zip(space.unflatten(theta).values(), space.roles, strict=True):
        if role == "norm":
            piece += drawn(g, *piece.shape)
    kind = "regression" if network == "mlp" else "classification"
    channels = arguments.get("in_channels", arguments.get("inputs", 1) // 16 or 1)

    def images(count):
        if kind == "regression":
            return drawn(g, count, 1), drawn(g, count, 1)
        x = drawn(g, count, channels, size, size)
        x[..., : size // 2] = 0
        return x, torch.arange(count) % ways

    episodes = tuple(Episode(*images(3), *images(5)) for _ in range(tasks))
    return NetworkTasks(model, space, episodes, kind), theta


def assert_same(found, expected, rtol=1e-9):
    """Every part of two passes, within ``rtol`` of its largest entry."""
    pairs = [(found.gradient, expected.gradient), (found.losses, expected.losses)]
    assert found.aux.keys() == expected.aux.keys()
    pairs += [(found.aux[name], expected.aux[name]) for name in expected.aux]
    for name in ("rates", "ascents"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None), name
        if theirs is not None:
            pairs.append((ours, theirs))
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape and not ours.requires_grad
        scale = float(theirs.abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=rtol * max(scale, 1e-300))


LOWERS = {
    "maml": {},
    "low detached": {"lower": 0.05},
    "low through": {"lower": 0.05, "eps_grad": "through"},
    "asam": {"lower": 0.2, "perturbation": "asam"},
    "asam through": {"lower": 0.2, "perturbation": "asam", "eps_grad": "through"},
    "first order": {"first_order": True},
    "first order, low": {"first_order": True, "lower": 0.05, "eps_grad": "through"},
}


@pytest.mark.parametrize("lower", LOWERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_and_ascent(network, lower):
    batch, theta = batch_of(network)
    if network == "mlp":
        batch = dataclasses.replace(batch)
    plan = Plan(InnerLoop(steps=2, rate=0.1, **LOWERS[lower]), keeps_ascents=True)
    expected = Loop()(batch, theta, plan)
    assert_same(Stacked()(batch, theta, plan), expected)


OPTIONS = list(
    itertools.product(
        [None, (0.2, 0.0, 0.8)],  # multi-step weights
        [0.0, 0.7],  # proximal weight
        ["all", "head", "body without norms"],
        ["fixed", "parameter", "step"],
        ["maml", "low through", "first order"],
    )
)


@pytest.mark.parametrize("network", ["mlp", "max"])
@pytest.mark.parametrize("part", range(3))
def test_every_option_of_the_plan(network, part):
    batch, theta = batch_of(network, tasks=2)
    if network == "max":  # smaller images: the product is large
        small = lambda x: x[..., :16, 6:22]  # noqa: E731
        episodes = tuple(
            Episode(small(e.support_x), e.support_y, small(e.query_x), e.query_y)
            for e in batch.episodes
        )
        batch = dataclasses.replace(batch, episodes=episodes)
    g = torch.Generator().manual_seed(1)
    step = 1 if network == "mlp" else 7
    for weights, proximal, adapted, rates, lower in OPTIONS[part :: 3 * step]:
        mask = None
        if adapted != "all":
            mask = adapted_mask(batch.space, adapted.split()[0], "without" not in adapted)
        shape = {"fixed": (), "parameter": (theta.numel(),), "step": (3, theta.numel())}[rates]
        rate = 0.1 if rates == "fixed" else torch.rand(shape, dtype=F64, generator=g) / 5
        inner = InnerLoop(3, rate, adapted=mask, proximal=proximal, **LOWERS[lower])
        plan = Plan(inner, weights, learns_rates=rates != "fixed", keeps_ascents=True)
        assert_same(Stacked()(batch, theta, plan), Loop()(batch, theta, plan))


@pytest.mark.parametrize("network", ["mlp", "stride, odd"])
def test_given_ascents_are_constants(network):
    batch, theta = batch_of(network)
    plan = Plan(InnerLoop(2, 0.1, lower=0.1, eps_grad="through"), keeps_ascents=True)
    ascents = Stacked()(batch, theta, plan).ascents
    moved = theta + 0.01
    expected = Loop()(batch, moved, plan, ascents)
    assert_same(Stacked()(batch, moved, plan, ascents), expected)
    assert_same(Stacked(tasks_at_once=2)(batch, moved, plan, ascents), expected)


@pytest.mark.parametrize("estimator", ["reptile", "implicit"])
@pytest.mark.parametrize("network", ["mlp", "max"])
def test_other_estimators(network, estimator):
    batch, theta = batch_of(network)
    inner = InnerLoop(2, 0.1, proximal=3.0, lower=0.05)
    plan = Plan(inner, estimator=estimator, solver_steps=4)
    assert_same(Stacked()(batch, theta, plan), Loop()(batch, theta, plan))


@pytest.mark.parametrize("network", ["mlp", "max"])
def test_chunks_and_memory_do_not_matter(network):
    batch, theta = batch_of(network, tasks=3)
    plan = Plan(InnerLoop(2, 0.1, lower=0.05, eps_grad="through"))
    expected = Stacked()(batch, theta, plan)
    for executor in (Stacked(1), Stacked(2), Stacked(held_bytes=0), Stacked(held_bytes=10**5)):
        assert_same(executor(batch, theta, plan), expected, 1e-11)


def test_no_steps_and_one_task():
    batch, theta = batch_of("mlp", tasks=1)
    for steps in (0, 1):
        plan = Plan(InnerLoop(steps, 0.1), learns_rates=steps > 0)
        assert_same(Stacked()(batch, theta, plan), Loop()(batch, theta, plan))


def test_what_is_not_known_is_refused():
    batch, theta = batch_of("mlp")
    plan = Plan(InnerLoop(1, 0.1))
    assert Stacked.supports(batch, plan)
    other = torch.nn.Sequential(
        torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    ).double()
    foreign = dataclasses.replace(batch, model=other, space=ParameterSpace.from_module(other))
    assert not Stacked.supports(foreign, plan)
    with pytest.raises(ValueError, match="no stacked form of Tanh"):
        Stacked()(foreign, theta, plan)
    first, *others = batch.episodes
    uneven = (
        Episode(first.support_x[:2], first.support_y[:2], first.query_x, first.query_y),
        *others,
    )
    uneven = dataclasses.replace(batch, episodes=uneven)
    assert not Stacked.supports(uneven, plan)
    with pytest.raises(ValueError, match="differ in their numbers"):
        Stacked()(uneven, theta, plan)
    with pytest.raises(ValueError, match="executor 'loop'"):
        Stacked()(PlainTasks(tuple(batch.tasks())), theta, plan)
    with pytest.raises(ValueError, match="tasks_at_once is -1"):
        Stacked(-1)


def test_nothing_is_touched():
    batch, theta = batch_of("mlp")
    kept = [p.detach().clone() for p in batch.model.parameters()]
    start, state = theta.clone(), torch.get_rng_state()
    result = Stacked()(batch, theta.requires_grad_(), Plan(InnerLoop(2, 0.1, lower=0.1)))
    assert result.gradient.grad_fn is None and theta.grad is None
    assert torch.equal(theta, start) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(batch.model.parameters(), kept, strict=True))
    assert torch.is_grad_enabled()


def test_inputs_are_prepared_again_when_they_are_others(monkeypatch):
    known, theta = batch_of("max")
    whole = known.stacked()
    batch = NetworkTasks.of_stack(known.model, known.space, whole, known.kind)
    prepared = []
    plain = StackedNetwork.prepare
    monkeypatch.setattr(
        StackedNetwork, "prepare", lambda self, x: (prepared.append(x), plain(self, x))[1]
    )
    plan, executor = Plan(InnerLoop(1, 0.1)), Stacked()
    executor(batch, theta, plan)
    assert_same(executor(batch, theta + 0.1, plan), Loop()(batch, theta + 0.1, plan))
    assert len(prepared) == 2  # support and query, once for the two passes of an upper ascent
    whole.query_x.copy_(whole.query_x.flip(-2))  # the same tensor holds other images
    assert_same(executor(batch, theta, plan), Loop()(batch, theta, plan))
    assert len(prepared) == 4
    other, _ = batch_of("max", tasks=2)
    assert_same(executor(other, theta, plan), Loop()(other, theta, plan))
    with torch.inference_mode():  # where torch does not count changes, nothing is kept
        uncounted = dataclasses.replace(whole, query_x=whole.query_x.clone())
        batch = NetworkTasks.of_stack(known.model, known.space, uncounted, known.kind)
        before = executor(batch, theta, plan).losses
        uncounted.query_x.copy_(uncounted.query_x.flip(-2))
        assert not torch.allclose(executor(batch, theta, plan).losses, before)


def test_only_ascents_through_which_is_differentiated_are_kept():
    batch, theta = batch_of("mlp")
    for eps_grad, passes in (("detach", 2), ("through", 4)):
        inner = InnerLoop(2, 0.1, lower=0.05, eps_grad=eps_grad)
        executor, kept = Stacked(), []

        class Watched(StackedRows):
            def _tape(self, points, kept=kept):
                tape = super()._tape(points)
                kept.append(len(self._tapes))
                return tape

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sharpmaml.execution.stacked.StackedRows", Watched)
            assert_same(executor(batch, theta, Plan(inner)), Loop()(batch, theta, Plan(inner)))
        assert max(kept) == passes
