"""Tasks as the parts of a meta objective: one at a time, or some at once through ``vmap``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap

from landscape import device as devices
from landscape.parts import Part, Tensors
from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_loss
from sharpmaml.tasks import NetworkTasks

_SHARE = 0.5  # of the free memory of a GPU that the graphs of some tasks may fill
_PARTS = 8  # at least, where there are as many tasks
_ENTRIES = 4_000_000  # of the weights of all tasks that go together on a CPU


def check(tasks_at_once: int | str) -> None:
    """Refuse what is neither ``"auto"`` nor a number of tasks.

    Raises:
        ValueError: so it is.
    """
    if tasks_at_once != "auto" and not (isinstance(tasks_at_once, int) and tasks_at_once > 0):
        raise ValueError(
            f"tasks_at_once is {tasks_at_once!r}: expected 'auto' or a number of at least 1"
        )


def parts(
    tasks: Sequence[Task],
    network: NetworkTasks | None,
    space: ParameterSpace,
    inner: InnerLoop,
    theta: Tensor,
    tasks_at_once: int | str,
) -> list[Part]:
    """The parts of a meta objective.

    Args:
        tasks: all tasks.
        network: the network and the episodes behind them, where known.
        space: the parameters.
        inner: the adaptation.
        theta: where memory is measured for ``"auto"``, ``(params,)``.
        tasks_at_once: a number, or ``"auto"``.

    Raises:
        ValueError: more than one task at once, and the network is unknown or the tasks differ in size.
    """
    check(tasks_at_once)
    if tasks_at_once == "auto":
        alike = network is not None and len({_sizes(e) for e in network.episodes}) == 1
        tasks_at_once = fitting(network, space, inner, theta) if network and alike else 1
    if tasks_at_once == 1:
        return [single(task, space, inner) for task in tasks]
    if network is None:
        raise ValueError(
            f"tasks_at_once is {tasks_at_once}, but the network behind these tasks is unknown: "
            "leave it out, or give network=NetworkTasks(...)"
        )
    return several(network, space, inner, int(tasks_at_once))


def single(task: Task, space: ParameterSpace, inner: InnerLoop) -> Part:
    """One task as a part: its graph can be kept between products."""
    return Part(1, lambda tensors: meta_loss(task, space.join(tensors), inner)[0])


def several(
    network: NetworkTasks, space: ParameterSpace, inner: InnerLoop, at_once: int
) -> list[Part]:
    """The tasks of a network in parts of ``at_once``, the last perhaps smaller.

    A product is ``Σ_m ∂(∇h_m · v)``, every gradient taken inside the ``vmap`` over tasks: differentiated
    from outside, native norm layers give second derivatives that are wrong without any error
    (pytorch/functorch #534). Such parts keep no graph: three meta-gradients a product, the first of
    them shared by all vectors that come together.

    Raises:
        ValueError: the tasks differ in their numbers of examples.
    """
    episodes = network.stacked()
    columns = (episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y)
    count = len(network.episodes)
    return [
        _part(network, space, inner, [column[i : i + at_once] for column in columns])
        for i in range(0, count, at_once)
    ]


def fitting(network: NetworkTasks, space: ParameterSpace, inner: InnerLoop, theta: Tensor) -> int:
    """How many tasks to take at once, an eighth of them at most: the spread of parts is the data noise.

    On a GPU as many as half of the free memory holds, by what one is seen to take. On a CPU a loop with
    kept graphs is as fast for convolutions, and the cost of single calls is what counts without them.
    """
    count = math.ceil(len(network.episodes) / _PARTS)
    if not theta.is_cuda:
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in network.model.modules())
        return 1 if convolves else min(count, max(1, _ENTRIES // theta.numel()))
    one = NetworkTasks(network.model, network.space, network.episodes[:1], network.kind)
    (part,) = several(one, space, inner, 1)
    assert part.products is not None
    tensors = space.unflatten(theta.detach())
    before = torch.cuda.memory_allocated(theta.device)
    torch.cuda.reset_peak_memory_stats(theta.device)
    with devices.exact_kernels():
        part.products(tensors, {name: tensor[None] for name, tensor in tensors.items()})
    taken = torch.cuda.max_memory_allocated(theta.device) - before
    room = _SHARE * devices.free_memory(theta.device)
    return max(1, min(count, math.floor(room / max(taken, 1))))


def _sizes(episode: Episode) -> tuple[torch.Size, torch.Size]:
    return (episode.support_x.shape, episode.query_x.shape)


def _part(
    network: NetworkTasks, space: ParameterSpace, inner: InnerLoop, columns: Sequence[Tensor]
) -> Part:
    def loss(theta: Tensor, xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor) -> Tensor:
        task = Task(
            lambda t: network.support(t, xs, ys), lambda t: (network.query(t, xq, yq)[0], {})
        )
        return meta_loss(task, theta, inner)[0]

    def losses(tensors: Tensors) -> Tensor:
        theta = space.join(tensors)
        # No vmap: this one may be differentiated from outside.
        return torch.stack([loss(theta, *episode) for episode in zip(*columns, strict=True)])

    def products(tensors: Tensors, directions: Tensors) -> Tensors:
        theta, count = space.join(tensors), len(next(iter(directions.values())))
        still = {n: t.new_zeros(1).expand(count, *t.shape) for n, t in tensors.items()}
        pieces = {**still, **directions}
        rows = torch.cat([pieces[name].reshape(count, -1) for name in space.names], 1)

        def of_one(*episode: Tensor) -> Tensor:
            made: Any = vjp(lambda t: grad(loss)(t, *episode), theta)
            return torch.stack([made[1](row)[0] for row in rows])

        images = vmap(of_one)(*columns).sum(0)
        pieces_of = torch.split(images, list(space.sizes), 1)
        return {
            name: piece.reshape(count, *shape)
            for name, piece, shape in zip(space.names, pieces_of, space.shapes, strict=True)
            if name in directions
        }

    return Part(len(columns[0]), losses, products=products)
