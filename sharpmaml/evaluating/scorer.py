"""One initialization adapted to stacks of episodes and asked about their queries, without any graph."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from landscape import device as devices
from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.evaluating.norms import NORMS, batch_norms, leading
from sharpmaml.evaluators import walked
from sharpmaml.inner import InnerLoop
from sharpmaml.perturb import RULES
from sharpmaml.stacked import StackedNetwork
from sharpmaml.tasks import NetworkTasks

_ACTIVATIONS = 4_000_000  # entries of the widest layer computed at a time on a CPU
_ACTIVATIONS_GPU = 200_000_000


class Scorer:
    """Answers of an initialization to episodes.

    Args:
        model: the network; it is never changed.
        space: its parameters.
        kind: ``"classification"`` or ``"regression"``.
        theta: the initialization, ``(params,)``.
        inner: the adaptation.
        stacked: take the derivatives written out in `sharpmaml.stacked` where the network has them;
            ``False``: autograd, one task at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        space: ParameterSpace,
        kind: str,
        theta: Tensor,
        inner: InnerLoop,
        *,
        stacked: bool = True,
    ) -> None:
        self.kind = kind
        self._model, self._space = model, space
        self._theta, self._inner = theta.detach(), inner
        self._mixes = bool(batch_norms(model))
        self._net: StackedNetwork | _OneByOne = _OneByOne(NetworkTasks(model, space, (), kind))
        if stacked:
            with contextlib.suppress(ValueError):  # a network of other layers
                self._net = StackedNetwork(model, space, kind)

    def answers(
        self, whole: Episode, norms: Sequence[str] = ("query",), every: bool = False
    ) -> dict[str, Tensor]:
        """Logits or predictions for the queries.

        Args:
            whole: episodes, the tasks as the first axis of every tensor.
            norms: whose statistics normalize the queries, some of `sharpmaml.evaluating.norms.NORMS`;
                without batch statistics all are the same.
            every: after every step, the initialization first, and not only after the last.

        Returns:
            By norm ``(points, tasks, queries, outputs)``; ``points`` is ``steps + 1`` or 1.

        Raises:
            ValueError: an unknown norm.
        """
        for norm in norms:
            if norm not in NORMS:
                raise ValueError(f"norm is {norm!r}: expected one of {', '.join(NORMS)}")
        # Without batch statistics nothing ties examples together: one answer stands for all.
        asked = norms if self._mixes else ("query",)
        size = self._together(max(whole.support_x, whole.query_x, key=lambda x: x.shape[1]))
        with torch.no_grad(), devices.exact_kernels():
            parts = [self._part(part, asked, every) for part in _cut(whole, size)]
        joined = {norm: torch.cat([part[norm] for part in parts], 1) for norm in asked}
        return {norm: joined[norm if self._mixes else "query"] for norm in norms}

    def _part(self, part: Episode, norms: Sequence[str], every: bool) -> dict[str, Tensor]:
        inputs = self._net.prepare(part.support_x)
        rule = vmap(RULES[self._inner.perturbation], in_dims=(0, 0, None))
        gradients = partial(self._net.gradients, inputs=inputs, y=part.support_y)
        start = self._theta.expand(len(part.support_y), -1)
        asks = {norm: self._asking(part, norm) for norm in norms}
        found: dict[str, list[Tensor]] = {norm: [] for norm in norms}
        for step, thetas in enumerate(walked(gradients, start, self._inner, rule)):
            if every or step == self._inner.steps:
                for norm, ask in asks.items():
                    found[norm].append(ask(thetas))
        return {norm: torch.stack(outputs) for norm, outputs in found.items()}

    def _asking(self, part: Episode, norm: str) -> Callable[[Tensor], Tensor]:
        if norm == "support":
            return partial(self._by_support, part)
        if norm == "one-by-one":
            return partial(self._alone, part)
        return partial(self._net.outputs, inputs=self._net.prepare(part.query_x))

    def _by_support(self, part: Episode, thetas: Tensor) -> Tensor:
        count = part.support_x.shape[1]
        model = leading(self._model, count)
        both = torch.cat([part.support_x, part.query_x], 1)
        rows = [
            functional_call(model, self._space.unflatten(theta), (x,))[count:]
            for theta, x in zip(thetas, both, strict=True)
        ]
        return torch.stack(rows)

    def _alone(self, part: Episode, thetas: Tensor) -> Tensor:
        tasks, queries = part.query_x.shape[:2]
        size = self._together(torch.cat([part.support_x[:1], part.query_x[:1, :1]], 1))
        rows = []
        for first in range(0, tasks * queries, size):
            pair = torch.arange(first, min(first + size, tasks * queries), device=thetas.device)
            task, query = pair // queries, pair % queries
            x = torch.cat([part.support_x[task], part.query_x[task, query][:, None]], 1)
            rows.append(self._net.outputs(thetas[task], self._net.prepare(x))[:, -1])
        answers = torch.cat(rows)
        return answers.view(tasks, queries, *answers.shape[1:])

    def _together(self, x: Tensor) -> int:
        limit = _ACTIVATIONS if x.device.type == "cpu" else _ACTIVATIONS_GPU
        return max(1, limit // self._net.activations(x[0]))


class _OneByOne:
    """The interface of `StackedNetwork` for any network, one task after the other by autograd."""

    def __init__(self, network: NetworkTasks) -> None:
        self._network = network

    def prepare(self, x: Tensor) -> Tensor:
        return x

    def activations(self, x: Tensor) -> int:
        return x.numel() * 32  # a first layer of 32 channels

    def outputs(self, thetas: Tensor, inputs: Tensor) -> Tensor:
        return torch.stack(
            [self._network.output(t, x) for t, x in zip(thetas, inputs, strict=True)]
        )

    def gradients(self, thetas: Tensor, inputs: Any, y: Tensor) -> Tensor:
        return torch.stack([self._one(*task) for task in zip(thetas, inputs, y, strict=True)])

    def _one(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._network.support(leaf, x, y), leaf)
        return gradient


def losses(outputs: Tensor, y: Tensor, kind: str) -> Tensor:
    """Mean loss of the queries of each task.

    Args:
        outputs: ``(points, tasks, queries, outputs)``.
        y: ``(tasks, queries)`` labels, or ``(tasks, queries, outputs)`` values.
        kind: ``"classification"``: cross-entropy; ``"regression"``: mean squared error.

    Returns:
        ``(points, tasks)``, float64.
    """
    if kind == "regression":
        return (outputs - y).double().square().flatten(2).mean(2)
    classes = outputs.movedim(-1, 1).double()  # (points, classes, tasks, queries)
    targets = y.expand(len(outputs), *y.shape)
    return F.cross_entropy(classes, targets, reduction="none").mean(-1)


def accuracies(outputs: Tensor, y: Tensor) -> Tensor:
    """Share of queries answered right: ``(points, tasks, queries, classes)`` -> ``(points, tasks)``.

    NaN where an answer is NaN: an adaptation that diverged; taken for an answer it would score as a guess does.
    """
    right = (outputs.argmax(-1) == y).double().mean(-1)
    return right.masked_fill(outputs.isnan().flatten(2).any(-1), math.nan)


def _cut(whole: Episode, size: int) -> Iterator[Episode]:
    columns = [getattr(whole, field.name) for field in dataclasses.fields(whole)]
    for first in range(0, len(whole.support_x), size):
        yield Episode(*(column[first : first + size] for column in columns))
