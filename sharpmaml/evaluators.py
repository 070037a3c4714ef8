"""Evaluators of the meta objective: many points of a plane, adapted and scored without a graph.

All give the same numbers to rounding, each the same bits whatever other points are asked for; they
differ in what they share between tasks.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from landscape import device as devices
from landscape.directions import Plane
from landscape.evaluator import Columns, Evaluator, summary
from sharpmaml.adapt import adapt
from sharpmaml.data import Episode
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Aux, Task, meta_loss
from sharpmaml.perturb import RULES, Perturbation
from sharpmaml.stacked import StackedNetwork
from sharpmaml.tasks import NetworkTasks

Terms = tuple[Tensor, Aux]
"""Query losses of the tasks ``(tasks,)`` at one point, and their by-products such as ``accuracy``."""

_Batch = tuple[slice, Callable[[], Any], Tensor]

_ACTIVATIONS = 4_000_000  # entries of the widest layer computed at a time on a CPU
_ACTIVATIONS_GPU = 200_000_000
_HELD_BYTES = 2**28  # prepared inputs beyond this are made again at every call


def candidates(
    tasks: Sequence[Task], network: NetworkTasks | None, inner: InnerLoop, plane: Plane
) -> dict[str, Callable[[], Evaluator]]:
    """Evaluators of the mean meta loss over ``plane``, by name; each is built when it is called.

    ``plain`` differentiates as training does, one task at a time, and ``loop`` without any graph;
    ``vmap`` and ``stacked`` take all tasks at once and need to know the network: ``stacked``, with
    derivatives written out, knows `conv4` and `mlp` only.
    """
    found: dict[str, Callable[[], Evaluator]] = {
        "plain": lambda: Plain(tasks, inner, plane),
        "loop": lambda: Loop(tasks, inner, plane),
    }
    if network is None:
        return found
    try:
        episodes = network.stacked()
    except ValueError:  # tasks of several sizes cannot be stacked
        return found
    found["vmap"] = lambda: Vectorized(network, episodes, inner, plane)
    try:
        stack = StackedNetwork(network.model, network.space, network.kind)
    except ValueError:
        return found
    found["stacked"] = lambda: Stacked(stack, network, episodes, inner, plane)
    return found


class MetaEvaluator(ABC):
    """What all evaluators of the meta objective share; see ``landscape.evaluator.Evaluator``.

    Attributes:
        name: how it is listed.
        setup_seconds: spent on preparations, the losses at the origin among them.
    """

    name: str
    setup_seconds: float

    def __init__(self, plane: Plane) -> None:
        began = time.perf_counter()
        self._plane = plane
        with torch.no_grad(), devices.exact_kernels():
            ((self._centre, _),) = self._points([plane.origin])
        self.setup_seconds = time.perf_counter() - began

    def __call__(self, coordinates: np.ndarray[Any, np.dtype[Any]], terms: bool = False) -> Columns:
        """Numbers at ``coordinates (points, axes)``, with ``terms`` the loss of each task too."""
        thetas = [self._plane.point(*(float(c) for c in place)) for place in coordinates]
        with torch.no_grad(), devices.exact_kernels():
            found = list(self._points(thetas))
        losses = torch.stack([loss for loss, _ in found])
        columns = summary(losses, self._centre)
        for name in found[0][1]:
            columns[name] = torch.stack([aux[name] for _, aux in found]).double().mean(1)
        if terms:
            columns["terms"] = losses.double()
        return {name: column.cpu().numpy() for name, column in columns.items()}

    @abstractmethod
    def _points(self, thetas: Sequence[Tensor]) -> Sequence[Terms]:
        """Losses and by-products of all tasks at each of ``thetas``; no graph is wanted."""


class Plain(MetaEvaluator):
    """The differentiable code of training, one task and point at a time."""

    name = "plain"

    def __init__(self, tasks: Sequence[Task], inner: InnerLoop, plane: Plane) -> None:
        self._tasks, self._inner = tasks, inner
        super().__init__(plane)

    def _points(self, thetas: Sequence[Tensor]) -> Sequence[Terms]:
        return [
            _joined([self._one(task, theta) for task in self._tasks], torch.stack)
            for theta in thetas
        ]

    def _one(self, task: Task, theta: Tensor) -> Terms:
        return meta_loss(task, theta, self._inner)


class Loop(Plain):
    """One task and point at a time; every inner gradient's graph is dropped as soon as it is used."""

    name = "loop"

    def _one(self, task: Task, theta: Tensor) -> Terms:
        inner = self._inner

        def gradients(point: Tensor) -> Tensor:
            leaf = point.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(task.support(leaf), leaf)
            return gradient

        return task.query(_adapted(gradients, theta, inner, RULES[inner.perturbation]))


class Vectorized(MetaEvaluator):
    """All tasks at once by ``torch.func.vmap``, the inner gradients inside it: any network."""

    name = "vmap"

    def __init__(
        self, network: NetworkTasks, episodes: Episode, inner: InnerLoop, plane: Plane
    ) -> None:
        def one(theta: Tensor, xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor) -> Terms:
            return network.query(adapt(lambda t: network.support(t, xs, ys), theta, inner), xq, yq)

        self._all = vmap(one, in_dims=(None, 0, 0, 0, 0))
        self._episodes = episodes
        super().__init__(plane)

    def _points(self, thetas: Sequence[Tensor]) -> Sequence[Terms]:
        e = self._episodes
        return [
            self._all(theta, e.support_x, e.support_y, e.query_x, e.query_y) for theta in thetas
        ]


class Stacked(MetaEvaluator):
    """Some tasks at a time as one network of all their channels, without autograd."""

    name = "stacked"

    def __init__(
        self,
        stack: StackedNetwork,
        network: NetworkTasks,
        episodes: Episode,
        inner: InnerLoop,
        plane: Plane,
    ) -> None:
        began = time.perf_counter()
        self._stack, self._network, self._inner = stack, network, inner
        self._tasks = len(episodes.support_x)
        self._support = self._batches(episodes.support_x, episodes.support_y, hold=True)
        # Ten numbers for each pixel of a first convolution, see `sharpmaml.blocks.Patches`.
        hold = 10 * episodes.query_x.nbytes <= _HELD_BYTES
        self._query = self._batches(episodes.query_x, episodes.query_y, hold)
        prepared = time.perf_counter() - began
        super().__init__(plane)
        self.setup_seconds += prepared

    def _points(self, thetas: Sequence[Tensor]) -> Sequence[Terms]:
        return [self._point(theta) for theta in thetas]

    def _point(self, theta: Tensor) -> Terms:
        adapted = theta.new_empty(self._tasks, theta.numel())
        rule = vmap(RULES[self._inner.perturbation], in_dims=(0, 0, None))
        for members, inputs, y in self._support:
            gradients = partial(self._stack.gradients, inputs=inputs(), y=y)
            adapted[members] = _adapted(gradients, theta.expand(len(y), -1), self._inner, rule)
        parts = []
        for members, inputs, y in self._query:
            outputs = self._stack.outputs(adapted[members], inputs())
            parts.append((self._stack.losses(outputs, y), self._network.scores(outputs, y)))
        return _joined(parts, torch.cat)

    def _batches(self, x: Tensor, y: Tensor, hold: bool) -> list[_Batch]:
        """Tasks cut into groups of one size, the last perhaps smaller: the same cut for every point."""
        limit = _ACTIVATIONS if x.device.type == "cpu" else _ACTIVATIONS_GPU
        size = max(1, limit // self._stack.activations(x[0]))
        batches: list[_Batch] = []
        for start in range(0, x.shape[0], size):
            members = slice(start, start + size)
            batches.append((members, self._inputs(x[members], hold), y[members]))
        return batches

    def _inputs(self, x: Tensor, hold: bool) -> Callable[[], Any]:
        if not hold:
            return lambda: self._stack.prepare(x)
        prepared = self._stack.prepare(x)
        return lambda: prepared


def _adapted(
    gradients: Callable[[Tensor], Tensor], theta: Tensor, inner: InnerLoop, rule: Perturbation
) -> Tensor:
    for point in walked(gradients, theta, inner, rule):  # noqa: B007 - the last one is wanted
        pass
    return point


def walked(
    gradients: Callable[[Tensor], Tensor], theta: Tensor, inner: InnerLoop, rule: Perturbation
) -> Iterator[Tensor]:
    """The points of `sharpmaml.adapt.path`, for one task or a stack of them, its graph left out.

    Args:
        gradients: of the support loss, at ``(params,)`` or ``(tasks, params)``.
        theta: the initialization, of the same shape.
        inner: the adaptation.
        rule: of the ascent, on that shape.

    Yields:
        ``inner.steps + 1`` points, the initialization first.
    """
    start = theta
    yield theta
    for step in range(inner.steps):
        point = theta
        if inner.lower > 0:
            point = theta + rule(inner.masked(gradients(theta)), theta, inner.lower)
        descent = inner.masked(gradients(point))
        if inner.proximal:
            descent = descent + inner.masked(inner.proximal * (theta - start))
        theta = theta - inner.rate_at(step) * descent
        yield theta


def _joined(parts: Sequence[Terms], join: Callable[[list[Tensor]], Tensor]) -> Terms:
    """Terms of several tasks or groups of them, in one."""
    names = parts[0][1]
    return join([loss for loss, _ in parts]), {n: join([aux[n] for _, aux in parts]) for n in names}
