"""Networks and episodes -> tasks of the meta objective."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from landscape import device as devices
from landscape.space import ParameterSpace
from sharpmaml.checkpoint import Checkpoint
from sharpmaml.data import Episode, make_source
from sharpmaml.meta import Aux, Task


def network_task(model: nn.Module, space: ParameterSpace, episode: Episode, kind: str) -> Task:
    """The support and query losses of ``episode`` as functions of the flat parameters.

    Cross-entropy and ``accuracy`` for ``kind="classification"``, mean squared error for
    ``"regression"``. The model itself is never changed: it is called functionally.
    """

    def output(theta: Tensor, x: Tensor) -> Tensor:
        result: Tensor = functional_call(model, space.unflatten(theta), (x,))
        return result

    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        if kind == "classification":
            return F.cross_entropy(prediction, y)
        # Not F.mse_loss: forward mode through its double backward raises in torch 2.13.
        return (prediction - y).square().mean()

    def support(theta: Tensor) -> Tensor:
        return loss(output(theta, episode.support_x), episode.support_y)

    def query(theta: Tensor) -> tuple[Tensor, Aux]:
        prediction = output(theta, episode.query_x)
        aux: Aux = {}
        if kind == "classification":
            hits = prediction.detach().argmax(1) == episode.query_y
            aux = {"accuracy": hits.to(prediction.dtype).mean()}
        return loss(prediction, episode.query_y), aux

    return Task(support, query)


class CheckpointTasks:
    """The seeded tasks of a checkpoint's own recipe, made one at a time by their number.

    Args:
        checkpoint: whose network and data recipe.
        split: classes that the episodes are drawn from: ``"train"``, ``"val"`` or ``"test"``.
        seed: of the episodes; a stream of its own, which never meets that of training.
        dtype: ``"float32"`` or ``"float64"``; the checkpoint's own when left out.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        data: another data set than the one trained on.
        data_root: where the data set lies, when it has moved since training.

    Raises:
        DataError: the data set cannot be read.
        ValueError: an unknown dtype or device.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        split: str = "test",
        seed: int = 0,
        dtype: str | None = None,
        device: str = "auto",
        data: str | None = None,
        data_root: str | Path | None = None,
    ) -> None:
        config = checkpoint.config
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype is {dtype!r}: expected float32 or float64")
        self.dtype: torch.dtype = getattr(torch, dtype or config.dtype)
        self.device = devices.resolve(device)
        elsewhere = data is not None and data != config.data
        self.source = make_source(
            data or config.data,
            split=split,
            ways=config.ways,
            shots=config.shots,
            queries=config.queries,
            seed=analysis_seed(seed),
            root=data_root or (None if elsewhere else config.data_root),
            options=None if elsewhere else config.data_options,
        )
        self.space = checkpoint.space
        self.theta = checkpoint.theta.to(device=self.device, dtype=self.dtype)
        self._model = copy.deepcopy(checkpoint.model).to(device=self.device, dtype=self.dtype)

    def __call__(self, index: int) -> Task:
        """Task number ``index``."""
        episode = self.source.episode(index).to(self.device, self.dtype)
        return network_task(self._model, self.space, episode, self.source.kind)


def analysis_seed(seed: int) -> int:
    """Seed of episodes for evaluation and analysis, apart from the seeds people give to training."""
    return seed + 1_000_003
