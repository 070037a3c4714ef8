"""Layers of several tasks at once, each task with weights of its own: derivatives written out, no graph.

Four passes make a gradient and a Hessian-vector product. `record` goes forward and `reverse` backward;
`tangent` and `reverse_tangent` are their directional derivatives along a direction of the weights (the
R-operator of Pearlmutter 1994). Together the last two give the Hessian times the direction for about
twice the cost of the first two, which need not be repeated for another direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Derivatives = tuple[Tensor | None, tuple[Tensor, ...]]


class Layer(ABC):
    """One layer of all tasks.

    Attributes:
        tensors: how many parameters it takes, each ``(tasks, *shape)``.
    """

    tensors = 0

    @abstractmethod
    def record(self, x: Any, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
        """The output, and the trace that the other passes need."""

    @abstractmethod
    def reverse(
        self, trace: Any, weights: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Tensor | None, tuple[Tensor, ...], Any]:
        """Derivatives for the input (``None`` where nobody asks) and for each of the weights.

        The third is what `reverse_tangent` needs of this pass.
        """

    @abstractmethod
    def tangent(
        self, trace: Any, weights: Sequence[Tensor], directions: Sequence[Tensor], x: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Derivative of the output along ``directions`` of the weights and ``x`` of the input.

        ``x`` is ``None`` where the input does not move. The second is the trace of this pass.
        """

    @abstractmethod
    def reverse_tangent(
        self,
        trace: Any,
        weights: Sequence[Tensor],
        kept: Any,
        moving: Any,
        directions: Sequence[Tensor],
        upstream: Tensor,
    ) -> Derivatives:
        """Derivatives of what `reverse` returned, along the directions.

        Args:
            trace: of `record`.
            weights: as there.
            kept: what `reverse` kept.
            moving: the trace of `tangent`.
            directions: as there.
            upstream: derivative of the upstream of `reverse`.
        """

    def backward(self, trace: Any, weights: Sequence[Tensor], upstream: Tensor) -> Derivatives:
        """What `reverse` returns, where no tangent follows."""
        x, derivatives, _ = self.reverse(trace, weights, upstream)
        return x, derivatives

    def apply(self, x: Any, weights: Sequence[Tensor]) -> Tensor:
        """The output alone."""
        return self.record(x, weights)[0]


class Linear(Layer):
    """``(tasks, examples, in)`` -> ``(tasks, examples, out)``.

    Args:
        first: whether its inputs are the data, whose derivative nobody asks for.
    """

    tensors = 2

    def __init__(self, first: bool = False) -> None:
        self.first = first

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The output; the input is what the other passes need."""
        weight, bias = weights
        return _affine(bias, x, weight), x

    def reverse(
        self, trace: Tensor, weights: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Tensor | None, tuple[Tensor, ...], Tensor]:
        """Derivatives for the input, the weight and the bias."""
        x = None if self.first else torch.bmm(upstream, weights[0])
        return x, (_outer(upstream, trace), upstream.sum(1)), upstream

    def tangent(
        self,
        trace: Tensor,
        weights: Sequence[Tensor],
        directions: Sequence[Tensor],
        x: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """``ẋ Wᵀ + x Ẇᵀ + ḃ``."""
        weight, bias = directions
        output = _affine(bias, trace, weight)
        return output if x is None else output.baddbmm_(x, weights[0].transpose(1, 2)), x

    def reverse_tangent(
        self,
        trace: Tensor,
        weights: Sequence[Tensor],
        kept: Tensor,
        moving: Tensor | None,
        directions: Sequence[Tensor],
        upstream: Tensor,
    ) -> Derivatives:
        """The product rule on each derivative of `reverse`."""
        weight = _outer(upstream, trace)
        if moving is not None:
            weight.baddbmm_(kept.transpose(1, 2), moving)
        x = None
        if not self.first:
            x = torch.bmm(upstream, weights[0]).baddbmm_(kept, directions[0])
        return x, (weight, upstream.sum(1))


def _affine(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    bias, weight = bias.unsqueeze(1), weight.transpose(1, 2)
    if x.shape[2] == 1:  # a product of matrices costs three times as much there
        return torch.addcmul(bias, x, weight)
    return torch.baddbmm(bias, x, weight)


def _outer(upstream: Tensor, x: Tensor) -> Tensor:
    """Sum over examples of the outer products, ``(tasks, out, in)``."""
    if x.shape[2] == 1:
        return (upstream * x).sum(1).unsqueeze(2)
    return torch.bmm(upstream.transpose(1, 2), x)


class ReLU(Layer):
    """Any shape; its derivative at 0 is 0, as in torch."""

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The output, which also tells where the input was positive."""
        output = x.clamp_min(0)
        return output, output

    def reverse(
        self, trace: Tensor, weights: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], None]:
        """The derivative for the input."""
        return rectified(upstream, trace), (), None

    def tangent(
        self, trace: Tensor, weights: Sequence[Tensor], directions: Sequence[Tensor], x: Any
    ) -> tuple[Tensor, None]:
        """``ẋ`` where the input was positive."""
        return rectified(x, trace), None

    def reverse_tangent(
        self,
        trace: Tensor,
        weights: Sequence[Tensor],
        kept: None,
        moving: None,
        directions: Sequence[Tensor],
        upstream: Tensor,
    ) -> Derivatives:
        """The same as `reverse`: its second derivative is 0."""
        return rectified(upstream, trace), ()


class Gather(Layer):
    """``(images, h, w, tasks, channels)`` -> ``(tasks, images, features)``: flattened, or averaged."""

    def __init__(self, mean: bool) -> None:
        self.mean = mean

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, torch.Size]:
        """The output; the shape of the input is what the other passes need."""
        maps = x.permute(3, 0, 4, 1, 2)
        return maps.mean((3, 4)) if self.mean else maps.flatten(2), maps.shape

    def reverse(
        self, trace: torch.Size, weights: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], None]:
        """The derivative for the input."""
        if self.mean:
            maps = (upstream / (trace[3] * trace[4]))[..., None, None].expand(trace)
        else:
            maps = upstream.reshape(trace)
        return maps.permute(1, 3, 4, 0, 2), (), None

    def tangent(
        self, trace: torch.Size, weights: Sequence[Tensor], directions: Sequence[Tensor], x: Any
    ) -> tuple[Tensor, None]:
        """The same as `record`: it is linear."""
        return self.record(x, weights)[0], None

    def reverse_tangent(
        self,
        trace: torch.Size,
        weights: Sequence[Tensor],
        kept: None,
        moving: None,
        directions: Sequence[Tensor],
        upstream: Tensor,
    ) -> Derivatives:
        """The same as `reverse`: it is linear."""
        return self.reverse(trace, weights, upstream)[0], ()


def rectified(upstream: Tensor, before: Tensor) -> Tensor:
    """Backward pass of the ReLU: ``upstream`` where ``before``, its input or output, is positive."""
    return torch.ops.aten.threshold_backward(upstream, before, 0)  # type: ignore[no-any-return]


def tasks_first(x: Tensor) -> Tensor:
    """``(images, h, w, tasks, channels)`` -> ``(tasks, images, h, w, channels)``, as it lies in memory."""
    return x.permute(3, 0, 1, 2, 4).contiguous()


def tasks_last(x: Tensor) -> Tensor:
    """The way back, a view."""
    return x.permute(1, 2, 3, 0, 4)
