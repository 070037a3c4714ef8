"""A convolution block after the first one, of several tasks at once: see :mod:`sharpmaml.blocks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sharpmaml.convolution import Maps, convolved, correlated, spread, unfolded
from sharpmaml.layers import Derivatives, Layer, rectified, tasks_first, tasks_last
from sharpmaml.pooling import corners, highest, picked, winners


class Trace(NamedTuple):
    """What the other passes of a later block need; ``n`` places a task, maps with the tasks first.

    Attributes:
        x: the input.
        kernel: the weights, with the sign of the scale.
        sign: of the scale, ``(tasks, channels)``.
        size: the scale without it.
        centred: the convolution less its mean.
        inverse: of the standard deviation, ``(tasks, channels)``.
        factor: ``size · inverse``.
        masks: 1 where a place of a pooling window is the first to hold the maximum; empty without pooling.
        top: the maxima of ``centred``.
        normal: these times ``factor``, and shifted: what the ReLU gets.
    """

    x: Maps
    kernel: Tensor
    sign: Tensor
    size: Tensor
    centred: Tensor
    inverse: Tensor
    factor: Tensor
    masks: list[Tensor]
    top: Tensor
    normal: Tensor


class Kept(NamedTuple):
    """What the reverse pass of a later block leaves for its tangent.

    Attributes:
        arriving: derivative for ``normal``.
        outer: derivative for the convolution, to be multiplied with ``factor``, which waits for the kernel.
        moment: derivative for the kernel without the factor.
        level: ``Σ arriving · top``, ``(tasks, channels)``.
        gamma: derivative for ``size``.
    """

    arriving: Tensor
    outer: Maps
    moment: Tensor
    level: Tensor
    gamma: Tensor


class Movement(NamedTuple):
    """Tangents of a later block.

    Attributes:
        x: of the input.
        kernel: of the kernel.
        output: of the convolution, its mean left in.
        mean: that mean, ``(tasks, channels)``.
        inverse: of the inverse of the standard deviation.
        factor: of ``factor``.
        top: of the maxima.
    """

    x: Maps
    kernel: Tensor
    output: Tensor
    mean: Tensor
    inverse: Tensor
    factor: Tensor
    top: Tensor


class Block(Layer):
    """A later block: 3×3 convolution, batch statistics, scale and shift, 2×2 maximum or stride 2, ReLU.

    The maximum is taken before scale and shift, on a quarter of the entries: an increasing function
    commutes with it, so the sign of a negative scale is moved into the convolution.
    """

    tensors = 3

    def __init__(self, stride: int, pool: bool, eps: float) -> None:
        self.stride, self.pool, self.eps = stride, pool, eps

    def apply(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The output alone."""
        return tasks_last(self._forward(x, weights, traced=False).normal.clamp_min_(0))

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Trace]:
        """``(images, height, width, tasks, channels)`` -> the output, and what the other passes need."""
        trace = self._forward(x, weights, traced=True)
        return tasks_last(trace.normal.clamp_min(0)), trace

    def _forward(self, x: Tensor, weights: Sequence[Tensor], traced: bool) -> Trace:
        weight, gamma, beta = weights
        sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma)
        kernel, maps = weight * sign[..., None, None, None], unfolded(tasks_first(x), self.stride)
        centred = convolved([(maps, kernel)])
        rows = centred.flatten(1, 3)
        rows -= rows.mean(1, keepdim=True)
        inverse = ((rows * rows).mean(1) + self.eps).rsqrt()
        size = gamma.abs()
        factor = inverse * size
        masks, top = [], centred
        if self.pool:
            parts = corners(centred)
            top = highest(parts)
            masks = winners(parts, top) if traced else []
        normal = torch.addcmul(_wide(beta), top, _wide(factor))
        return Trace(maps, kernel, sign, size, centred, inverse, factor, masks, top, normal)

    def reverse(
        self, trace: Trace, weights: Sequence[Tensor], upstream: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """Derivatives for the input and for the weights."""
        arriving = rectified(tasks_first(upstream), trace.normal)
        beta = arriving.sum((1, 2, 3))
        level = (arriving * trace.top).sum((1, 2, 3))
        gamma = trace.inverse * level
        places = trace.centred[0, ..., 0].numel()
        pull = trace.inverse * gamma / -places
        outer = torch.addcmul(_wide(beta / -places), trace.centred, _wide(pull))
        self._unpool(outer, arriving, trace.masks)
        moment = correlated([(trace.x, outer)])
        kept = Kept(arriving, unfolded(outer), moment, level, gamma)
        x = spread([(kept.outer, _scaled(trace.kernel, trace.factor))], trace.x)
        weight = _scaled(moment, trace.factor * trace.sign)
        return tasks_last(x), (weight, gamma * trace.sign, beta), kept

    def tangent(
        self,
        trace: Trace,
        weights: Sequence[Tensor],
        directions: Sequence[Tensor],
        x: Tensor | None,
    ) -> tuple[Tensor, Movement]:
        """Of the output."""
        assert x is not None  # a later block has one before it
        kernel, maps = _scaled(directions[0], trace.sign), unfolded(tasks_first(x), self.stride)
        output = convolved([(trace.x, kernel), (maps, trace.kernel)])
        mean = output.mean((1, 2, 3))
        # The centred values sum to 0: the mean need not be taken off.
        covariance = (trace.centred * output).mean((1, 2, 3))
        inverse = trace.inverse.pow(3) * -covariance
        factor = inverse * trace.size + trace.inverse * trace.sign * directions[1]
        top = picked(corners(output), trace.masks) if self.pool else output
        top = top - _wide(mean)
        normal = torch.addcmul(_wide(directions[2]), top, _wide(trace.factor))
        normal.addcmul_(trace.top, _wide(factor))
        moving = Movement(maps, kernel, output, mean, inverse, factor, top)
        return tasks_last(rectified(normal, trace.normal)), moving

    def reverse_tangent(
        self,
        trace: Trace,
        weights: Sequence[Tensor],
        kept: Kept,
        moving: Movement,
        directions: Sequence[Tensor],
        upstream: Tensor,
    ) -> Derivatives:
        """Of the derivatives for the input and for the weights."""
        arriving = rectified(tasks_first(upstream), trace.normal)
        beta = arriving.sum((1, 2, 3))
        level = (arriving * trace.top).addcmul_(kept.arriving, moving.top).sum((1, 2, 3))
        gamma = moving.inverse * kept.level + trace.inverse * level
        places = trace.centred[0, ..., 0].numel()
        pull = trace.inverse * kept.gamma / -places
        pulling = (moving.inverse * kept.gamma + trace.inverse * gamma) / -places
        level = beta / -places - moving.mean * pull
        outer = torch.addcmul(_wide(level), moving.output, _wide(pull))
        outer.addcmul_(trace.centred, _wide(pulling))
        self._unpool(outer, arriving, trace.masks)
        moment = correlated([(trace.x, outer), (moving.x, kept.outer.maps)])
        weight = _scaled(kept.moment, moving.factor * trace.sign)
        weight = weight + _scaled(moment, trace.factor * trace.sign)
        kernel = _scaled(trace.kernel, moving.factor) + _scaled(moving.kernel, trace.factor)
        x = spread(
            [(unfolded(outer), _scaled(trace.kernel, trace.factor)), (kept.outer, kernel)], trace.x
        )
        return tasks_last(x), (weight, gamma * trace.sign, beta)

    def _unpool(self, outer: Tensor, arriving: Tensor, masks: list[Tensor]) -> None:
        """Add ``arriving`` where the maxima were."""
        if not self.pool:
            outer += arriving
        for corner, mask in zip(corners(outer), masks, strict=False):
            corner.addcmul_(arriving, mask)


def _wide(values: Tensor) -> Tensor:
    """``(tasks, channels)`` to be combined with maps."""
    return values[:, None, None, None]


def _scaled(kernel: Tensor, factor: Tensor) -> Tensor:
    """Kernels times ``factor (tasks, out)``."""
    return kernel * factor[..., None, None, None]
