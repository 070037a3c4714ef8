"""The network and data of ``sharpness.py``, and what counts passes: torch and NumPy only, for any interpreter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

Batches = list[tuple[Tensor, Tensor]]

BATCH = 128
RADII = {
    "average": (0.05, 0.1, 0.2, 0.4),
    "average_adaptive": (0.05, 0.1, 0.2, 0.4),
    "worst_l2": (0.25, 0.5, 1.0, 2.0),
    "worst_l2_adaptive": (0.25, 0.5, 1.0, 2.0),
    "worst_linf_adaptive": (1e-3, 2e-3, 4e-3, 8e-3),
}
"""Radii for ResNets as the published scripts set them, by our name of the measure."""


@dataclass
class Passes:
    """Examples that went through a network, counted by :class:`Watched`."""

    forward: int = 0
    backward: int = 0

    def __deepcopy__(self, memo: Any) -> Passes:
        """A copy of a network counts in the same place."""
        return self

    def fb(self, examples: int) -> float:
        """In forward and backward passes over so many examples: a third for the forward pass."""
        return (self.forward + 2 * self.backward) / 3 / examples


class Watched(nn.Module):
    """A network that counts the examples that go through it, and those whose derivatives come back."""

    def __init__(self, model: nn.Module, passes: Passes) -> None:
        super().__init__()
        self.model, self.passes = model, passes

    def forward(self, x: Tensor) -> Tensor:
        """As the network."""
        out: Tensor = self.model(x)
        self.passes.forward += len(x)
        if out.requires_grad:
            out.register_hook(lambda _: self._back(len(x)))
        return out

    def _back(self, examples: int) -> None:
        self.passes.backward += examples


def load(folder: str | Path, examples: int, size: int = BATCH) -> tuple[nn.Module, Batches]:
    """ResNet-20 in eval mode and the first training images of CIFAR-10, normalized, in batches.

    Args:
        folder: holds ``cifar10.npz`` and ``checkpoints/resnet20-12fca82f.th``.
        examples: how many, a multiple of ``size`` (the published code averages over batches).
        size: of a batch.
    """
    if examples < 1 or examples % size:
        raise SystemExit(f"{examples} examples: expected a multiple of {size}")
    path = Path(folder) / "checkpoints" / "resnet20-12fca82f.th"
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = nets.ResNet(3, convolve=False).eval()
    model.load_state_dict({name.removeprefix("module."): t for name, t in saved.items()})
    stored = np.load(Path(folder) / "cifar10.npz")
    images = torch.from_numpy(stored["train_images"][:examples]).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    labels = torch.from_numpy(stored["train_labels"][:examples].astype(np.int64))
    x = (images - mean) / std
    return model, list(zip(x.split(size), labels.split(size), strict=True))


def gradient_flops(model: nn.Module, batches: Batches) -> int:
    """Operations of one gradient over all batches, which have one size: one FB."""
    x, y = batches[0]
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
    return int(counter.get_total_flops()) * len(batches)


@contextmanager
def counted(passes: Passes, examples: int, unit: int) -> Iterator[dict[str, float]]:
    """Fills in, at the end of the block, what was done inside.

    ``passes``: FB by the examples that went forward and back; ``flops``: FB by operations, ``unit`` of them;
    ``seconds``: processor time, with the counters at work.
    """
    found: dict[str, float] = {}
    before, start = passes.fb(examples), time.process_time()
    with FlopCounterMode(display=False) as counter:
        yield found
    found["seconds"] = time.process_time() - start
    found["passes"] = passes.fb(examples) - before
    found["flops"] = counter.get_total_flops() / unit
