"""Convolution blocks of several tasks at once, derivatives written out: losses without a graph.

Every task has weights of its own. Activations are ``(images, height, width, tasks, channels)``, so that
the blocks of all tasks are one grouped convolution, and batch statistics, which are sums over the first
three axes, stay those of each task. The formulas are those of :class:`sharpmaml.models.ConvBlock`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Derivatives = tuple[Tensor | None, tuple[Tensor, ...]]

_CHUNK = 200_000  # entries of a first layer computed at a time: what stays in the processor's cache


class Layer(ABC):
    """One layer of all tasks: its value, and its derivatives written out.

    Attributes:
        tensors: how many parameters it takes, each ``(tasks, *shape)``.
    """

    tensors = 0

    @abstractmethod
    def record(self, x: Any, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
        """The output, and the trace that `backward` needs."""

    @abstractmethod
    def backward(self, trace: Any, weights: Sequence[Tensor], upstream: Tensor) -> Derivatives:
        """Derivatives for the input (``None`` where nobody asks) and for each of the weights."""

    def apply(self, x: Any, weights: Sequence[Tensor]) -> Tensor:
        """The output alone."""
        return self.record(x, weights)[0]


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
    """What the backward pass of a first block needs."""

    patches: Patches
    parts: tuple[Tensor, ...]
    top: Tensor
    weight: Tensor
    product: Tensor
    mean: Tensor
    inverse: Tensor


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
        flat = every.reshape(*every.shape[:2], -1).double()
        mean = flat.mean(2)
        centred = flat - mean[:, :, None]
        covariance = centred @ centred.mT / flat.shape[2]
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)] if self.pool else [(0, 0)]
        windows = []
        height, width = (size // (2 if self.pool else 1) for size in every.shape[3:])
        for row, column in corners:
            corner = (row * self.stride, column * self.stride)
            places = _patches(padded, corner, self.stride * (2 if self.pool else 1))
            places = places[..., :height, :width].flatten(2)
            windows.append(torch.cat([places, torch.ones_like(places[:, :1])], 1))
        return Patches(tuple(windows), mean, covariance, (images.shape[1], height, width))

    def apply(self, x: Patches, weights: Sequence[Tensor]) -> Tensor:
        """``(images, h, w, tasks, channels)``."""
        patches = x
        folded, _ = self._folded(patches, weights)
        tasks, _, channels = folded.shape
        count = patches.windows[0].shape[2]
        rows = max(1, _CHUNK // (tasks * channels))
        result = folded.new_empty(count, tasks, channels)
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            top, *others = (window[:, :, start:stop].mT for window in patches.windows)
            best = torch.bmm(top, folded)
            for other in others:
                torch.maximum(best, torch.bmm(other, folded), out=best)
            torch.clamp_min(best.transpose(0, 1), 0, out=result[start:stop])
        return result.view(*patches.shape, tasks, channels)

    def record(self, x: Patches, weights: Sequence[Tensor]) -> tuple[Tensor, FirstTrace]:
        """The output, and what `backward` needs."""
        folded, (weight, product, mean, inverse) = self._folded(x, weights)
        parts = tuple(torch.bmm(window.mT, folded) for window in x.windows)
        top = _highest(parts)
        output = top.transpose(0, 1).clamp_min(0).contiguous()
        output = output.view(*x.shape, *output.shape[1:])
        return output, FirstTrace(x, parts, top, weight, product, mean, inverse)

    def backward(
        self, trace: FirstTrace, weights: Sequence[Tensor], upstream: Tensor
    ) -> Derivatives:
        """Derivatives for the weights, from ``upstream (images, h, w, tasks, channels)``."""
        patches = trace.patches
        tasks, count, channels = trace.top.shape
        arriving = upstream.reshape(count, tasks, channels).transpose(0, 1).contiguous()
        shares = _routed(trace.parts, trace.top, _rectified(arriving, trace.top))
        # Σ upstream · patch over all places; its last column, from the row of ones, is Σ upstream.
        pairs = zip(patches.windows, shares, strict=True)
        sums = torch.stack([torch.bmm(window, share) for window, share in pairs]).sum(0)
        total, bias = sums[:, :-1].mT.double(), sums[:, -1].double()
        scale = trace.inverse * ((trace.weight * total).sum(2) - trace.mean * bias)
        gamma = weights[1].double()
        inner = total - bias[..., None] * patches.mean[:, None]
        inner = inner - (scale * trace.inverse)[..., None] * trace.product
        weight = (gamma * trace.inverse)[..., None] * inner
        return None, (weight.view_as(weights[0]), scale, bias)

    def _folded(
        self, patches: Patches, weights: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Convolution, normalization, scale and shift as one matrix ``(tasks, inputs + 1, channels)``."""
        weight, gamma, beta = (tensor.double() for tensor in weights)
        weight = weight.flatten(2)
        product = weight @ patches.covariance
        mean = (weight @ patches.mean[:, :, None])[..., 0]
        # Rounding can leave a variance of zero a little below it.
        inverse = ((product * weight).sum(2).clamp_min(0) + self.eps).rsqrt()
        scale = gamma * inverse
        folded = torch.cat([weight * scale[..., None], (beta - scale * mean)[..., None]], 2)
        return folded.mT.to(weights[0].dtype).contiguous(), (weight, product, mean, inverse)


class Trace(NamedTuple):
    """What the backward pass of a later block needs."""

    x: Tensor
    kernel: Tensor
    sign: Tensor
    centred: Tensor
    factor: Tensor
    inverse: Tensor
    highest: Tensor
    normal: Tensor


class Block(Layer):
    """A later block: 3×3 convolution, batch statistics, scale and shift, 2×2 maximum or stride 2, ReLU.

    The maximum is taken before scale and shift, on a quarter of the entries: an increasing function
    commutes with it, so the sign of a negative scale is moved into the convolution.
    """

    tensors = 3

    def __init__(self, stride: int, pool: bool, eps: float) -> None:
        self.stride, self.pool, self.eps = stride, pool, eps

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Trace]:
        """``(images, height, width, tasks, channels)`` -> the output, and what `backward` needs."""
        weight, gamma, beta = weights
        sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma)
        kernel = (weight * sign[..., None, None, None]).flatten(0, 1)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        images = x.flatten(3).permute(0, 3, 1, 2)  # NHWC in memory, which is the faster layout
        output = F.conv2d(images, kernel, stride=self.stride, padding=1, groups=len(gamma))
        output = output.permute(0, 2, 3, 1).contiguous()
        rows = output.flatten(0, 2)
        rows -= rows.mean(0)
        inverse = ((rows * rows).mean(0) + self.eps).rsqrt()
        factor = inverse * gamma.abs().flatten()
        highest = _highest(_corners(output)) if self.pool else output
        normal = torch.addcmul(beta.flatten(), highest, factor)
        result = torch.unflatten(normal.clamp_min(0), 3, gamma.shape)
        return result, Trace(images, kernel, sign, output, factor, inverse, highest, normal)

    def backward(self, trace: Trace, weights: Sequence[Tensor], upstream: Tensor) -> Derivatives:
        """Derivatives for the input and for the weights."""
        shape = trace.sign.shape
        arriving = _rectified(upstream.flatten(3), trace.normal)
        beta = arriving.flatten(0, 2).sum(0)
        if self.pool:
            spread = torch.zeros_like(trace.centred)
            shares = _routed(_corners(trace.centred), trace.highest, arriving)
            for corner, share in zip(_corners(spread), shares, strict=True):
                corner.copy_(share)
        else:
            spread = arriving
        gamma = trace.inverse * (spread * trace.centred).flatten(0, 2).sum(0)
        count = trace.centred[..., 0].numel()
        outer = torch.addcmul(spread - beta / count, trace.centred, trace.inverse * gamma / -count)
        outer *= trace.factor
        steps, one = [self.stride] * 2, [1, 1]
        x, weight, _ = torch.ops.aten.convolution_backward(
            outer.permute(0, 3, 1, 2), trace.x, trace.kernel, None,
            steps, one, one, False, [0, 0], len(trace.sign), [True, True, False],
        )  # fmt: skip
        x = torch.unflatten(x.permute(0, 2, 3, 1), 3, (len(trace.sign), -1))
        weight = torch.unflatten(weight, 0, shape) * trace.sign[..., None, None, None]
        return x, (weight, gamma.view(shape) * trace.sign, beta.view(shape))


def _patches(padded: Tensor, corner: tuple[int, int], step: int) -> Tensor:
    """3×3 patches from ``corner`` on, every ``step``: ``(tasks, channels · 9, images, h, w)``, a copy."""
    tasks, images, channels, height, width = padded.shape
    rows, columns = (
        (size - 3 - c) // step + 1 for size, c in zip((height, width), corner, strict=True)
    )
    one, two, three, four, five = padded.stride()
    view = padded.as_strided(
        (tasks, channels, 3, 3, images, rows, columns),
        (one, three, four, five, two, step * four, step * five),
        padded.storage_offset() + corner[0] * four + corner[1] * five,
    )
    return view.reshape(tasks, channels * 9, images, rows, columns)


def _corners(z: Tensor) -> tuple[Tensor, ...]:
    """Views of the four places of each 2×2 window of ``(images, height, width, channels)``, in order."""
    height, width = (size // 2 * 2 for size in z.shape[1:3])
    return tuple(z[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1))


def _highest(parts: Sequence[Tensor]) -> Tensor:
    top = parts[0]
    for part in parts[1:]:
        top = torch.maximum(top, part)
    return top


def _routed(parts: Sequence[Tensor], top: Tensor, upstream: Tensor) -> list[Tensor]:
    """What each part gets of ``upstream``: all of it where it is the first to hold the maximum."""
    if len(parts) == 1:
        return [upstream]
    shares = []
    for part in parts:
        share = torch.where(part == top, upstream, 0.0)
        upstream = upstream - share
        shares.append(share)
    return shares


def _rectified(upstream: Tensor, before: Tensor) -> Tensor:
    """Backward pass of the ReLU: ``upstream`` where its input was positive."""
    return torch.ops.aten.threshold_backward(upstream, before, 0)  # type: ignore[no-any-return]
