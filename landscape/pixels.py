"""Arrays of stored examples -> what a network takes: scale, layout and standardization of images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.wording import printable

Numbers = tuple[tuple[float, ...], tuple[float, ...]]

PRESETS: dict[str, Numbers] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "li2018": (
        (125.3 / 255, 123.0 / 255, 113.9 / 255),
        (63.0 / 255, 62.1 / 255, 66.7 / 255),
    ),
    "none": ((0.0,), (1.0,)),
}
"""Means and standard deviations of channels in [0, 1], by name.

``cifar10`` are those of its training images, ``imagenet`` those of torchvision's networks (also common
for CIFAR-10), ``li2018`` those of the networks of Li et al. 2018.
"""

_CHANNELS = (1, 3, 4)


def scaled(x: NDArray[Any], images: bool) -> tuple[Tensor, dict[str, Any]]:
    """Stored inputs as a tensor that a network takes, and what was done to them.

    Images of uint8 (arrays of 3 or more dimensions, or any when ``images`` says so) are divided by 255
    and brought to ``(n, channels, height, width)``: ``(n, height, width)`` gets a channel, and channels
    at the end go first. Other integers (tokens) become int64; floating-point arrays stay as they are.

    >>> scaled(np.full((1, 2, 2, 3), 255, np.uint8), False)[0].shape
    torch.Size([1, 3, 2, 2])
    """
    tensor = torch.from_numpy(np.array(x))
    if tensor.is_floating_point():
        return tensor, {}
    if tensor.dtype != torch.uint8 or not (images or tensor.dim() > 2):
        return tensor.long(), {}
    notes: dict[str, Any] = {"scaled": "uint8 / 255"}
    if tensor.dim() == 3:
        tensor, notes["layout"] = tensor.unsqueeze(1), "channel added"
    elif tensor.dim() == 4 and tensor.shape[1] not in _CHANNELS and tensor.shape[3] in _CHANNELS:
        tensor, notes["layout"] = tensor.permute(0, 3, 1, 2).contiguous(), "channels moved first"
    return tensor.float() / 255, notes


def standardized(x: Tensor, numbers: str) -> tuple[Tensor, str]:
    """``(x - mean) / std`` by channel, and the numbers as text.

    Args:
        x: ``(n, channels, ...)`` in [0, 1].
        numbers: a name in :data:`PRESETS`, or the means and then the standard deviations, one of each
            a channel, separated by commas, spaces or a slash.

    Raises:
        ValueError: an unknown name, numbers that are none, or not as many as channels.

    >>> standardized(torch.ones(1, 1, 2), "0.5 0.25")[0].tolist()
    [[[2.0, 2.0]]]
    """
    mean, std = _parsed(numbers)
    if numbers == "none":
        return x, "none"
    if not x.is_floating_point() or x.dim() < 2 or x.shape[1] != len(mean):
        raise ValueError(
            f"--standardize {printable(numbers)} is for {len(mean)} channels: the data are "
            f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
        )
    shape = (-1, *(1 for _ in x.shape[2:]))
    centre, width = (torch.tensor(v, dtype=x.dtype).reshape(shape) for v in (mean, std))
    return (x - centre) / width, f"{_text(mean)} / {_text(std)}"


def _parsed(numbers: str) -> Numbers:
    if numbers in PRESETS:
        return PRESETS[numbers]
    try:
        values = [float(word) for word in re.split(r"[\s,/]+", numbers.strip("()[] ")) if word]
    except ValueError:
        values = []
    half = len(values) // 2
    mean, std = tuple(values[:half]), tuple(values[half:])
    fits = len(mean) == len(std) and len(mean) in _CHANNELS and all(s > 0 for s in std)
    if not fits or not all(abs(v) <= 1 for v in values):
        raise ValueError(
            f"--standardize is '{printable(numbers)}': expected {', '.join(PRESETS)}, or the means of the channels and "
            "then their standard deviations, for images in [0, 1], such as 0.5,0.5,0.5,0.25,0.25,0.25 "
            "(divide numbers for 0 to 255 by 255)"
        )
    return mean, std


def _text(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
