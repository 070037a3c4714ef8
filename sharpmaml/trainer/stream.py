"""The network of a run, and the tasks that it meets by their numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from landscape.space import ParameterSpace
from sharpmaml.config import TrainConfig
from sharpmaml.data import TaskSource, make_source
from sharpmaml.data.feed import Feed
from sharpmaml.tasks import NetworkTasks

SPLITS = ("train", "val")
_DRAWING = (1, 28, 28)  # what conv4 reads unless told otherwise


def sources(config: TrainConfig) -> dict[str, TaskSource]:
    """Where the tasks of training and validation come from; only training labels are noisy.

    Raises:
        DataError: the data set cannot be read, or has too few classes or examples.
    """
    made = {}
    for split in SPLITS:
        noise = (
            {"label_noise": config.label_noise} if split == "train" and config.label_noise else {}
        )
        arguments: dict[str, Any] = {
            "split": split, "ways": config.ways, "shots": config.shots, "queries": config.queries,
            "seed": config.seed, "root": config.data_root, "options": config.data_options, **noise,
        }  # fmt: skip
        made[split] = make_source(config.data, **arguments)
    return made


def architecture(config: TrainConfig, source: TaskSource) -> tuple[str, dict[str, Any]]:
    """Factory and arguments of the network, for `sharpmaml.models.build`.

    Raises:
        ValueError: a network for images and a data set without, or images that are not square.
    """
    classifies = source.kind == "classification"
    shape = getattr(source, "image_shape", None) or _DRAWING
    name = config.model if config.model != "auto" else ("conv4" if classifies else "mlp")
    if name == "mlp":
        hidden = config.channels or 40
        inputs, outputs = (math.prod(shape), config.ways) if classifies else (1, 1)
        return name, {"inputs": inputs, "hidden": hidden, "layers": 2, "outputs": outputs}
    if not classifies:
        raise ValueError(f"model {name!r} reads images, but {config.data} is a regression: use mlp")
    arguments: dict[str, Any] = {
        "ways": config.ways, "channels": config.channels or 32, "downsample": config.downsample,
    }  # fmt: skip
    if tuple(shape) != _DRAWING:
        channels, height, width = shape
        if height != width:
            raise ValueError(
                f"{config.data} has images of {height} x {width}: conv4 reads square ones; "
                'set image_size in data_options, or use model "mlp"'
            )
        arguments.update(in_channels=channels, image_size=height)
    return name, arguments


class TaskStream:
    """Meta-batches by the number of their first task.

    Args:
        model: the network, where it computes.
        space: its parameters.
        sources: by split.
        device: where the tasks go.
        dtype: of their inputs.

    Attributes:
        kind: ``"classification"`` or ``"regression"``.
        model: the network.
        space: its parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        space: ParameterSpace,
        sources: dict[str, TaskSource],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.kind = sources["train"].kind
        self.model, self.space = model, space
        self._feeds = {name: Feed(source, device, dtype) for name, source in sources.items()}

    def __call__(self, split: str, first: int, count: int) -> NetworkTasks:
        """Tasks ``first`` to ``first + count - 1`` of a split."""
        whole = self._feeds[split].batch(first, count)
        return NetworkTasks.of_stack(self.model, self.space, whole, self.kind)
