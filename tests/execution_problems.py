"""Small meta-batches of networks in float64, and plans of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.data import Episode
from sharpmaml.inner import InnerLoop
from sharpmaml.plan import Plan
from sharpmaml.tasks import NetworkTasks

F64 = torch.float64
WAYS = 3


def normal64(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def network_of(name: str) -> nn.Module:
    if name == "mlp":
        return models.build("mlp", {"hidden": 5}).double()
    if name == "block":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            block = models.ConvBlock(1, 2, "max")
            return nn.Sequential(block, nn.Flatten(), nn.Linear(8, WAYS)).double()
    size = {"ways": WAYS, "channels": 2, "image_size": 16, "downsample": name}
    return models.build("conv4", size).double()


@cache
def network_tasks(name: str, count: int = 2) -> tuple[NetworkTasks, Tensor]:
    """Tasks of conv4 (``"max"``, ``"stride"``), of one ``"block"`` of it or of an ``"mlp"``.

    At weights where no norm is trivial.
    """
    model = network_of(name)
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))
    theta += 0.1 * normal64(len(theta), seed=7)
    return NetworkTasks(
        model, space, tuple(episode(name, i) for i in range(count)), kind(name)
    ), theta


def kind(name: str) -> str:
    return "regression" if name == "mlp" else "classification"


def episode(name: str, index: int) -> Episode:
    if name == "mlp":
        xs, xq = normal64(4, 1, seed=2 * index), normal64(6, 1, seed=2 * index + 1)
        return Episode(xs, (2 * xs + index).sin(), xq, (2 * xq + index).sin())
    shots, queries = (torch.arange(WAYS).repeat_interleave(n) for n in (1, 2))
    size = 4 if name == "block" else 16
    xs, xq = (normal64(len(y), 1, size, size, seed=100 * index + len(y)) for y in (shots, queries))
    return Episode(xs, shots, xq, queries)


def plans(params: int) -> Iterator[tuple[str, Plan]]:
    """Every value of every setting, most of them together with some of the others."""
    lowers = {
        "maml": InnerLoop(rate=0.3),
        "detach": InnerLoop(rate=0.3, lower=0.1),
        "through": InnerLoop(rate=0.3, lower=0.1, eps_grad="through"),
        "asam": InnerLoop(rate=0.3, lower=0.5, eps_grad="through", perturbation="asam"),
        "asam-detach": InnerLoop(rate=0.3, lower=0.5, perturbation="asam"),
    }
    mask = torch.arange(params) % 3 > 0
    rates = 0.2 + 0.1 * normal64(2, params, seed=5).sigmoid()
    for (name, inner), steps in itertools.product(lowers.items(), (0, 1, 3)):
        if steps == 1 or name in ("maml", "through"):
            yield f"{name}-{steps}", Plan(replace(inner, steps=steps))
    weights = (0.2, 0.0, 0.7)
    for name in ("through", "asam"):
        three = replace(lowers[name], steps=3)
        yield f"{name}-first-order", Plan(replace(three, first_order=True, proximal=0.5), weights)
        masked = replace(three, adapted=mask, proximal=0.5)
        yield f"{name}-masked", Plan(masked, weights, learns_rates=True, keeps_ascents=True)
        learned = replace(three, rate=rates)  # two rows for three steps
        yield f"{name}-rates", Plan(learned, learns_rates=True)
    fixed = replace(lowers["detach"], steps=2, rate=rates[0], adapted=mask)
    yield "detach-rate", Plan(fixed, (0.5, 0.3))
    yield "detach-first", Plan(replace(fixed, first_order=True), (0.5, 0.3), learns_rates=True)
    yield "asam-reptile", Plan(masked, estimator="reptile", keeps_ascents=True)
    yield "implicit", Plan(replace(masked, rate=0.1), estimator="implicit", solver_steps=4)
    yield "implicit-0", Plan(InnerLoop(0, proximal=1.0), estimator="implicit", solver_steps=2)
