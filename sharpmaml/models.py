"""Networks that few-shot learners train, with a batch normalization that has correct third derivatives.

The Hessian of a meta objective differentiates three times, and torch's own BatchNorm (with batch
statistics), InstanceNorm and LayerNorm return silently wrong numbers there. `BatchStatNorm` is written
from elementary operations instead; ``tests/sharpmaml/test_models.py`` holds both facts. Networks of other
making go through `with_primitive_norms`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape.norms import native_norms, with_primitive_norms
from landscape.wording import one_line, printable

__all__ = [
    "FACTORIES",
    "BatchStatNorm",
    "ConvBlock",
    "SpatialMean",
    "build",
    "conv4",
    "mlp",
    "native_norms",
    "with_primitive_norms",
]


class BatchStatNorm(nn.Module):
    """Batch normalization over ``(batch, height, width)`` with the statistics of the batch itself.

    Always transductive: support and query are normalized each as one batch, at training and at test,
    as in Finn et al. 2017's code. No running statistics are kept. Equal to ``nn.BatchNorm2d`` in
    training mode (Ioffe & Szegedy 2015), but every derivative of it is right.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` -> the same shape."""
        # Sums scaled on the small side, and a product instead of a square: the same numbers as mean()
        # and square(), and about a seventh less time in the second-order backward pass.
        dims = (0, 2, 3)
        share = x.shape[1] / x.numel()
        centred = x + x.sum(dims, keepdim=True) * -share
        variance = (centred * centred).sum(dims, keepdim=True) * share
        scale = torch.rsqrt(variance + self.eps) * self.weight.view(1, -1, 1, 1)
        return centred * scale + self.bias.view(1, -1, 1, 1)


class ConvBlock(nn.Module):
    """3×3 convolution without bias (the norm removes it), norm, ReLU; halves the image.

    ``downsample="max"`` is a 2×2 max-pool after the norm (before the ReLU: the same values and
    derivatives, on a quarter of the entries); ``"stride"`` is a convolution of stride 2.
    """

    def __init__(self, in_channels: int, channels: int, downsample: str) -> None:
        super().__init__()
        self.pool = downsample == "max"
        stride = 1 if self.pool else 2
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = BatchStatNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, h, w)`` -> ``(batch, channels, ~h / 2, ~w / 2)``."""
        x = self.norm(self.conv(x))
        return F.relu(F.max_pool2d(x, 2) if self.pool else x)


class SpatialMean(nn.Module):
    """``(batch, channels, h, w)`` -> ``(batch, channels)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over height and width."""
        return x.mean((2, 3))


def conv4(
    ways: int,
    channels: int = 32,
    in_channels: int = 1,
    image_size: int = 28,
    downsample: str = "max",
) -> nn.Module:
    """Four convolution blocks and a linear head.

    ``downsample="max"`` is the network of Vinyals et al. 2016 and of Sharp-MAML, the features flattened;
    ``"stride"`` is what Finn et al. 2017 use on Omniglot, the features averaged over the image: less
    than half the cost on a CPU (``benchmarks/costs.py``).

    Input ``(batch, in_channels, image_size, image_size)``, output logits ``(batch, ways)``.
    """
    if downsample not in ("max", "stride"):
        raise ValueError(f"downsample is {downsample!r}: expected 'max' or 'stride'")
    if image_size < 16:
        raise ValueError(
            f"image_size is {image_size}: conv4 halves it four times and needs 16 or more"
        )
    blocks = [
        ConvBlock(in_channels if i == 0 else channels, channels, downsample) for i in range(4)
    ]
    pooled = downsample == "max"
    features = channels * (image_size // 16) ** 2 if pooled else channels
    gather: nn.Module = nn.Flatten() if pooled else SpatialMean()
    return nn.Sequential(*blocks, gather, nn.Linear(features, ways))


def mlp(inputs: int = 1, hidden: int = 40, layers: int = 2, outputs: int = 1) -> nn.Module:
    """Fully connected ReLU network; the defaults are Finn et al. 2017's for sinusoids.

    Input ``(batch, ...)``, flattened to ``(batch, inputs)``; output ``(batch, outputs)``.
    """
    if not 0 <= layers <= 1000:
        raise ValueError(f"layers is {layers}: expected at most 1000")
    sizes = [inputs] + [hidden] * layers
    body: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        body += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(sizes[-1], outputs))


FACTORIES: dict[str, Callable[..., nn.Module]] = {"conv4": conv4, "mlp": mlp}
"""Networks that a checkpoint may name; nothing else is ever built from a checkpoint's words."""


def build(name: str, arguments: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """Make a network with weights drawn from ``seed``, leaving the global random state as it was.

    Raises:
        ValueError: a name that is not in ``FACTORIES``, or arguments that the factory does not take.
    """
    if not isinstance(name, str) or name not in FACTORIES:
        raise ValueError(
            f"unknown model {printable(repr(name))}: expected one of {', '.join(FACTORIES)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if any(isinstance(n, int) and n < 1 and k != "layers" for k, n in arguments.items()):
                raise TypeError("expected numbers of at least 1")
            return FACTORIES[name](**arguments)
        except TypeError as error:
            told = printable(repr(arguments), 300)
            raise ValueError(f"model {name!r} cannot take {told}: {one_line(error)}") from None
