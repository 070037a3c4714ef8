"""Convolution blocks of several tasks at once, derivatives written out: losses without a graph.

Every task has weights of its own. Activations are ``(images, height, width, tasks, channels)``, with the
tasks outermost in memory: batch statistics, which are sums over the first three axes, stay those of each
task. The formulas are those of :class:`sharpmaml.models.ConvBlock`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpmaml import folding
from sharpmaml.folding import Folded
from sharpmaml.later_block import Block
from sharpmaml.layers import Derivatives, Layer, rectified, tasks_first, tasks_last
from sharpmaml.pooling import highest, picked, winners

__all__ = ["Block", "FirstBlock", "Patches"]

_CHUNK = 200_000  # entries of a first layer computed at a time: what stays in the processor's cache


class Patches(NamedTuple):
    """What the first block needs of its images, which never change: computed once.

    Attributes:
        windows: the 3×3 patches and a row of ones, ``(tasks, inputs + 1, images · h · w)``, one tensor
            for each place in a pooling window (one in all without pooling).
        mean: of the patches over all places, ``(tasks, inputs)``, float64.
        covariance: of the patches over all places, ``(tasks, inputs, inputs)``, float64.
        shape: ``(images, h, w)`` after the block.
    """

    windows: tuple[Tensor, ...]
    mean: Tensor
    covariance: Tensor
    shape: tuple[int, int, int]


class FirstTrace(NamedTuple):
    """What the other passes of a first block need.

    Attributes:
        patches: of the images.
        folded: the weights.
        masks: 1 where a part is the first to hold the maximum, ``(tasks, places, channels)`` each.
        top: the maximum, before the ReLU.
    """

    patches: Patches
    folded: Folded
    masks: list[Tensor]
    top: Tensor


class FirstBlock(Layer):
    """The block that sees the images: its inputs are known in advance, and it needs no gradient for them.

    The output of the convolution is linear in the patches, so its mean is ``w · mean`` and its variance
    ``w · covariance · w``: normalization is folded into the weights before anything is convolved.
    """

    tensors = 3

    def __init__(self, stride: int, pool: bool, eps: float) -> None:
        self.stride, self.pool, self.eps = stride, pool, eps

    def prepare(self, images: Tensor) -> Patches:
        """``images (tasks, images, channels, height, width)`` -> their patches."""
        padded = F.pad(images, (1, 1, 1, 1))
        every = _patches(padded, (0, 0), self.stride)
        inputs, places = math.prod(every.shape[1:4]), math.prod(every.shape[4:])
        flat = torch.empty(len(images), inputs, places, dtype=torch.float64, device=images.device)
        flat.view(every.shape).copy_(every)
        mean = flat.mean(2)
        flat -= mean[:, :, None]
        covariance = flat @ flat.mT / places
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)] if self.pool else [(0, 0)]
        by = 2 if self.pool else 1
        shape = (images.shape[1], every.shape[5] // by, every.shape[6] // by)
        windows = []
        for row, column in corners:
            corner = (row * self.stride, column * self.stride)
            part = _patches(padded, corner, self.stride * by)
            part = part[..., : shape[1], : shape[2]]
            window = images.new_ones(len(images), inputs + 1, math.prod(shape))
            window[:, :-1].view(part.shape).copy_(part)
            windows.append(window)
        return Patches(tuple(windows), mean, covariance, shape)

    def apply(self, x: Patches, weights: Sequence[Tensor]) -> Tensor:
        """``(images, h, w, tasks, channels)``."""
        matrix = folding.folded(x.mean, x.covariance, self.eps, weights).matrix
        tasks, _, channels = matrix.shape
        count = x.windows[0].shape[2]
        rows = max(1, _CHUNK // (tasks * channels))
        result = matrix.new_empty(tasks, count, channels)
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            top, *others = (window[:, :, start:stop].mT for window in x.windows)
            best = torch.bmm(top, matrix)
            for other in others:
                torch.maximum(best, torch.bmm(other, matrix), out=best)
            torch.clamp_min(best, 0, out=result[:, start:stop])
        return tasks_last(result.view(tasks, *x.shape, channels))

    def record(self, x: Patches, weights: Sequence[Tensor]) -> tuple[Tensor, FirstTrace]:
        """The output, and what the other passes need."""
        folded = folding.folded(x.mean, x.covariance, self.eps, weights)
        parts = [torch.bmm(window.mT, folded.matrix) for window in x.windows]
        top = highest(parts)
        output = top.clamp_min(0).view(len(top), *x.shape, -1)
        return tasks_last(output), FirstTrace(x, folded, winners(parts, top), top)

    def reverse(
        self, trace: FirstTrace, weights: Sequence[Tensor], upstream: Tensor
    ) -> tuple[None, tuple[Tensor, ...], folding.Sums]:
        """Derivatives for the weights, from ``upstream (images, h, w, tasks, channels)``."""
        (weight, gamma, beta), sums = folding.reverse(
            trace.folded, trace.patches.mean, _collected(trace, upstream)
        )
        return None, (weight.view_as(weights[0]), gamma, beta), sums

    def tangent(
        self,
        trace: FirstTrace,
        weights: Sequence[Tensor],
        directions: Sequence[Tensor],
        x: Tensor | None,
    ) -> tuple[Tensor, folding.Moving]:
        """Of the output; the images do not move."""
        patches, folded, masks, top = trace
        moving = folding.tangent(folded, patches.mean, patches.covariance, directions)
        parts = [torch.bmm(window.mT, moving.matrix) for window in patches.windows]
        output = rectified(picked(parts, masks), top)
        return tasks_last(output.view(len(top), *patches.shape, -1)), moving

    def reverse_tangent(
        self,
        trace: FirstTrace,
        weights: Sequence[Tensor],
        kept: folding.Sums,
        moving: folding.Moving,
        directions: Sequence[Tensor],
        upstream: Tensor,
    ) -> Derivatives:
        """Of the derivatives for the weights."""
        weight, gamma, beta = folding.reverse_tangent(
            trace.folded, kept, moving, trace.patches.mean, _collected(trace, upstream)
        )
        return None, (weight.view_as(weights[0]), gamma, beta)


def _collected(trace: FirstTrace, upstream: Tensor) -> Tensor:
    """Derivative for the folded matrix: the sum over places of patch times upstream."""
    arriving = rectified(tasks_first(upstream).flatten(1, 3), trace.top)
    total: Tensor | None = None
    for window, mask in zip(trace.patches.windows, trace.masks, strict=True):
        share = arriving * mask
        total = torch.bmm(window, share) if total is None else total.baddbmm_(window, share)
    assert total is not None
    return total


def _patches(padded: Tensor, corner: tuple[int, int], step: int) -> Tensor:
    """3×3 patches from ``corner`` on, every ``step``: a view ``(tasks, channels, 3, 3, images, h, w)``."""
    tasks, images, channels, height, width = padded.shape
    rows, columns = (
        (size - 3 - c) // step + 1 for size, c in zip((height, width), corner, strict=True)
    )
    one, two, three, four, five = padded.stride()
    return padded.as_strided(
        (tasks, channels, 3, 3, images, rows, columns),
        (one, three, four, five, two, step * four, step * five),
        padded.storage_offset() + corner[0] * four + corner[1] * five,
    )
