"""Small meta objectives, smooth, so that all derivatives exist."""

from __future__ import annotations

import torch
from problems import normal
from torch import Tensor
from torch.func import functional_call

from landscape.space import ParameterSpace
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task
from sharpmaml.objective import MetaObjective


def tanh_tasks(count: int = 3) -> tuple[list[Task], Tensor, ParameterSpace]:
    """Regression with a network of 13 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
        ).double()
    space = ParameterSpace.from_module(net)

    def loss(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (functional_call(net, space.unflatten(t), (x,)) - y).square().mean()

    def task(i: int) -> Task:
        x, y = normal(6, 2, seed=i), normal(6, 1, seed=50 + i)
        xq, yq = normal(5, 2, seed=100 + i), normal(5, 1, seed=150 + i)
        return Task(lambda t: loss(t, x, y), lambda t: (loss(t, xq, yq), {}))

    theta = space.flatten(dict(net.named_parameters())).detach()
    return [task(i) for i in range(count)], theta, space


def tanh_meta(count: int = 3) -> MetaObjective:
    """Those tasks, adapted in one step."""
    return MetaObjective(*tanh_tasks(count), InnerLoop(1, 0.1))
