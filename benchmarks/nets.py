"""The networks that costs are measured on: torch only, so that every tool's own interpreter can build them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# By its place, not by its package: the interpreters of other tools lack what the package imports.
_PLACE = Path(__file__).parents[1] / "landscape" / "networks_cifar.py"
_SPEC = importlib.util.spec_from_file_location("networks_cifar", _PLACE)
assert _SPEC is not None and _SPEC.loader is not None
_CIFAR = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CIFAR)
ResNet = _CIFAR.ResNet

Case = tuple[nn.Module, Tensor, Tensor]
"""A network in eval mode, its inputs and its labels; the loss is the cross entropy."""


def build(name: str) -> Case:
    """A network of :data:`NETS` with random weights and data, the same ones every time.

    Raises:
        ValueError: an unknown name.
    """
    if name not in NETS:
        raise ValueError(f"unknown net {name!r}: expected one of {', '.join(NETS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x, y = NETS[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # No zeros: some tools divide by each bias, and fresh statistics would fold away.
                nn.init.uniform_(module.bias, 0.05, 0.2)
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.eval(), x, y


def mlp() -> Case:
    """784-256-256-10 and 10,000 examples."""
    layers = [nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    return model, torch.randn(10_000, 784), torch.randint(10, (10_000,))


def conv4() -> Case:
    """Conv4-32 for 5 classes: four blocks of convolution, batch norm, ReLU and 2x2 max-pooling; 512 drawings."""
    layers: list[nn.Module] = []
    for channels in (1, 32, 32, 32):
        layers += [nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 5))
    return model, torch.randn(512, 1, 28, 28), torch.randint(5, (512,))


def resnet(blocks: int, images: int, convolve: bool) -> Case:
    """A CIFAR ResNet and so many random images."""
    return ResNet(blocks, convolve), torch.randn(images, 3, 32, 32), torch.randint(10, (images,))


class Layer(nn.Module):
    """Causal self-attention of 4 heads and a feed-forward part, each after a layer norm, width 64."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)
        self.feed = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, positions, 64)`` in and out."""
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm2(x))


class Transformer(nn.Module):
    """Two layers over a vocabulary of 64 and 32 positions, for the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(64, 64)
        self.places = nn.Parameter(0.02 * torch.randn(32, 64))
        self.layers = nn.Sequential(Layer(), Layer())
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(batch, positions)`` -> logits ``(batch, vocabulary, positions)``."""
        hidden = self.layers(self.tokens(x) + self.places)
        return self.head(self.norm(hidden)).transpose(1, 2)


def transformer() -> Case:
    """A :class:`Transformer` and 256 sequences of 32 tokens."""
    sequences = torch.randint(64, (256, 33))
    model = Transformer()
    with torch.no_grad():
        for parameter in model.parameters():  # no bias that is zero, as above
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model, sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()


NETS: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "conv4": conv4,
    "resnet20": lambda: resnet(3, 128, convolve=False),
    "resnet56": lambda: resnet(9, 64, convolve=True),
    "transformer": transformer,
}
