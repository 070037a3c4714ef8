"""3×3 convolutions of several tasks, each with a kernel of its own, and their two transposes.

Maps are ``(tasks, images, height, width, channels)``, kernels ``(tasks, out, in, 3, 3)``, padding 1. Small maps
are unfolded into rows of windows, so that a convolution and both transposes are one batched matrix product
each: it starts faster than a library's convolution, and windows that appear in several products are
unfolded once. Large ones, whose windows would not stay in the cache, go through the library task by task:
a grouped convolution is slower than its groups on CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_ENTRIES = 700_000  # of the windows of one task; measured on a core with 512 KiB of cache
_ENTRIES_GPU = 2**26


class Maps(NamedTuple):
    """Maps, and their windows where they are small.

    Attributes:
        maps: ``(tasks, images, height, width, channels)``, contiguous.
        windows: ``(tasks, images · h · w, 9 · channels)`` in the order of kernel row, column, channel.
        stride: of the windows.
    """

    maps: Tensor
    windows: Tensor | None
    stride: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``(tasks, images, h, w)`` of the places of the windows."""
        tasks, images, height, width, _ = self.maps.shape
        return (tasks, images, (height - 1) // self.stride + 1, (width - 1) // self.stride + 1)


def unfolded(maps: Tensor, stride: int = 1) -> Maps:
    """Maps with their windows, unless there are too many."""
    maps = maps.contiguous()
    found = Maps(maps, None, stride)
    tasks, images, height, width = found.shape
    channels = maps.shape[4]
    limit = _ENTRIES if maps.device.type == "cpu" else _ENTRIES_GPU
    if images * height * width * 9 * channels > limit:
        return found
    padded = F.pad(maps, (0, 0, 1, 1, 1, 1))
    task, image, row, column, _ = padded.stride()
    # The three places of a kernel row lie side by side: they are copied as one run.
    view = padded.as_strided(
        (tasks, images, height, width, 3, 3 * channels),
        (task, image, stride * row, stride * column, row, 1),
    )
    windows = view.reshape(tasks, images * height * width, 9 * channels)
    return Maps(maps, windows, stride)


def convolved(pairs: Sequence[tuple[Maps, Tensor]]) -> Tensor:
    """Sum of the convolutions of some maps with their kernels, ``(tasks, images, h, w, out)``."""
    if pairs[0][0].windows is None:
        return _total([_large(x, kernel) for x, kernel in pairs])
    products = [(x.windows, _matrix(kernel)) for x, kernel in pairs]
    return _sum(products).view(*pairs[0][0].shape, -1)


def correlated(pairs: Sequence[tuple[Maps, Tensor]]) -> Tensor:
    """Derivative for the kernel, summed over pairs of maps and derivatives for the output."""
    x, upstream = pairs[0]
    out, inputs = upstream.shape[4], x.maps.shape[4]
    if x.windows is None:
        kernel = x.maps.new_empty(len(x.maps), out, inputs, 3, 3)
        return _total([_backward(x, kernel, delta, False) for x, delta in pairs])
    products = [(delta.flatten(1, 3).mT, x.windows) for x, delta in pairs]
    return _sum(products).view(-1, out, 3, 3, inputs).permute(0, 1, 4, 2, 3)


def spread(pairs: Sequence[tuple[Maps, Tensor]], like: Maps) -> Tensor:
    """Derivative for the maps ``like``, summed over pairs of derivatives for the output and kernels.

    The former are unfolded with stride 1.
    """
    if pairs[0][0].windows is None:
        return _total([_backward(like, kernel, delta.maps, True) for delta, kernel in pairs])
    if like.stride == 1:
        return convolved([(delta, kernel.flip(3, 4).transpose(1, 2)) for delta, kernel in pairs])
    products = [(delta.maps.flatten(1, 3), _matrix(kernel).mT) for delta, kernel in pairs]
    tasks, images, height, width = like.shape
    step, channels = like.stride, like.maps.shape[4]
    windows = _sum(products).view(tasks, images, height, width, 3, 3, channels)
    rows, columns = like.maps.shape[2:4]
    padded = windows.new_zeros(tasks, images, rows + 2, columns + 2, channels)
    for row in range(3):
        for column in range(3):
            places = padded[:, :, row : row + step * height : step]
            places[:, :, :, column : column + step * width : step] += windows[
                :, :, :, :, row, column
            ]
    return padded[:, :, 1 : rows + 1, 1 : columns + 1]


def _matrix(kernel: Tensor) -> Tensor:
    """``(tasks, 9 · in, out)``, its rows in the order of the windows."""
    return kernel.permute(0, 3, 4, 2, 1).flatten(1, 3)


def _sum(products: Sequence[tuple[Tensor | None, Tensor | None]]) -> Tensor:
    (one, other), *rest = products
    assert one is not None and other is not None
    total = torch.bmm(one, other)
    for left, right in rest:
        assert left is not None and right is not None
        total.baddbmm_(left, right)
    return total


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _large(x: Maps, kernel: Tensor) -> Tensor:
    parts = []
    for images, weight in zip(x.maps, kernel, strict=True):
        weight = weight.contiguous(memory_format=torch.channels_last)
        output = F.conv2d(images.permute(0, 3, 1, 2), weight, stride=x.stride, padding=1)
        parts.append(output.permute(0, 2, 3, 1).contiguous())
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def _backward(x: Maps, kernel: Tensor, upstream: Tensor, for_maps: bool) -> Tensor:
    parts = []
    for images, weight, delta in zip(x.maps, kernel, upstream, strict=True):
        weight = weight.contiguous(memory_format=torch.channels_last)
        found = torch.ops.aten.convolution_backward(
            delta.permute(0, 3, 1, 2), images.permute(0, 3, 1, 2), weight, None,
            [x.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1, [for_maps, not for_maps, False],
        )  # fmt: skip
        parts.append(found[0].permute(0, 2, 3, 1) if for_maps else found[1])
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)
