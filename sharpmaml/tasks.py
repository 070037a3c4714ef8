"""Networks and episodes -> tasks of the meta objective."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from landscape import device as devices
from landscape.norms import native_weight_norms
from landscape.space import ParameterSpace
from sharpmaml.checkpoint import Checkpoint
from sharpmaml.data import Episode, make_source
from sharpmaml.meta import Aux, Task


class EpisodeStack(Sequence[Episode]):
    """Episodes that lie in one, each of them cut out when it is asked for.

    Args:
        whole: all of them, the tasks as the first axis of every tensor.
    """

    def __init__(self, whole: Episode) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole.support_x)

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> EpisodeStack: ...

    def __getitem__(self, index: int | slice) -> Episode | EpisodeStack:
        part = Episode(*(column[index] for column in _columns(self.whole)))
        return EpisodeStack(part) if isinstance(index, slice) else part


@dataclass(frozen=True, eq=False)
class NetworkTasks:
    """One network and the episodes that it adapts to: tasks that can be told apart into their parts.

    The model itself is never changed: it is called functionally.

    Attributes:
        model: the network.
        space: its parameters.
        episodes: one a task.
        kind: ``"classification"``: cross-entropy and ``accuracy``; ``"regression"``: mean squared error.

    Raises:
        ValueError: a network with torch's own weight norm.
    """

    model: nn.Module
    space: ParameterSpace
    episodes: Sequence[Episode]
    kind: str

    def __post_init__(self) -> None:
        normed = native_weight_norms(self.model)
        if normed:  # a meta-gradient differentiates twice
            raise ValueError(
                f"second derivatives through torch's weight norm are silently wrong, and {normed[0]} has it: "
                "give sharpmaml.models.with_primitive_norms(model), the same function"
            )

    @classmethod
    def of_stack(
        cls, model: nn.Module, space: ParameterSpace, whole: Episode, kind: str
    ) -> NetworkTasks:
        """From all episodes in one, the tasks as the first axis of every tensor."""
        return cls(model, space, EpisodeStack(whole), kind)

    def output(self, theta: Tensor, x: Tensor) -> Tensor:
        """Predictions or logits for ``x (examples, ...)`` at ``theta (params,)``."""
        result: Tensor = functional_call(self.model, self.space.unflatten(theta), (x,))
        return result

    def loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Mean loss over examples, 0-dimensional."""
        if self.kind == "classification":
            return F.cross_entropy(prediction, y)
        # Not F.mse_loss: forward mode through its double backward raises in torch 2.13.
        return (prediction - y).square().mean()

    def support(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss that the inner loop descends, 0-dimensional."""
        return self.loss(self.output(theta, x), y)

    def query(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Aux]:
        """The loss after adaptation, and ``accuracy`` where there are classes."""
        prediction = self.output(theta, x)
        return self.loss(prediction, y), self.scores(prediction, y)

    def scores(self, prediction: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What is reported beside the loss: ``accuracy (...,)`` of logits ``(..., examples, classes)``."""
        if self.kind != "classification":
            return {}
        hits = prediction.detach().argmax(-1) == y
        return {"accuracy": hits.to(prediction.dtype).mean(-1)}

    def tasks(self) -> list[Task]:
        """The same as functions of the parameters alone."""
        return [self._task(episode) for episode in self.episodes]

    def double(self) -> NetworkTasks:
        """The same in float64."""
        model = copy.deepcopy(self.model).double()
        episodes = tuple(e.to(e.support_x.device, torch.float64) for e in self.episodes)
        return NetworkTasks(model, self.space, episodes, self.kind)

    def stacked(self) -> Episode:
        """All episodes as one, with the tasks as the first axis of every tensor.

        Raises:
            ValueError: the episodes differ in their numbers of examples.
        """
        if isinstance(self.episodes, EpisodeStack):
            return self.episodes.whole
        columns = zip(*map(_columns, self.episodes), strict=True)
        try:
            return Episode(*(torch.stack(column) for column in columns))
        except RuntimeError:
            raise ValueError("the tasks differ in their numbers of examples") from None

    def _task(self, episode: Episode) -> Task:
        return Task(
            lambda theta: self.support(theta, episode.support_x, episode.support_y),
            lambda theta: self.query(theta, episode.query_x, episode.query_y),
        )


def _columns(episode: Episode) -> list[torch.Tensor]:
    return [getattr(episode, field.name) for field in fields(episode)]


def network_task(model: nn.Module, space: ParameterSpace, episode: Episode, kind: str) -> Task:
    """The support and query losses of ``episode`` as functions of the flat parameters."""
    return NetworkTasks(model, space, (episode,), kind).tasks()[0]


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
        recipe: arguments of `sharpmaml.data.make_source` in place of the run's own.

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
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        config = checkpoint.config
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype is {dtype!r}: expected float32 or float64")
        self.dtype: torch.dtype = getattr(torch, dtype or config.dtype)
        self.device = devices.resolve(device)
        elsewhere = data is not None and data != config.data
        arguments: dict[str, Any] = {
            "split": split,
            "ways": config.ways,
            "shots": config.shots,
            "queries": config.queries,
            "seed": analysis_seed(seed),
            "root": data_root or (None if elsewhere else config.data_root),
            "options": None if elsewhere else config.data_options,
        }
        self.source = make_source(data or config.data, **{**arguments, **(recipe or {})})
        self.space = checkpoint.space
        self.theta = checkpoint.theta.to(device=self.device, dtype=self.dtype)
        self._model = copy.deepcopy(checkpoint.model).to(device=self.device, dtype=self.dtype)

    def __call__(self, index: int) -> Task:
        """Task number ``index``."""
        return self.first(1, start=index).tasks()[0]

    def first(self, count: int, start: int = 0) -> NetworkTasks:
        """``count`` tasks, from number ``start`` on."""
        episodes = (self.source.episode(i) for i in range(start, start + count))
        moved = tuple(episode.to(self.device, self.dtype) for episode in episodes)
        return NetworkTasks(self._model, self.space, moved, self.source.kind)


def analysis_seed(seed: int) -> int:
    """Seed of episodes for evaluation and analysis, apart from the seeds people give to training."""
    return seed + 1_000_003
