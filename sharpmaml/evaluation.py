"""Score of a checkpoint over seeded episodes, with its 95 % confidence interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landscape import device as devices
from sharpmaml.checkpoint import Checkpoint, read
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_loss
from sharpmaml.tasks import CheckpointTasks

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Evaluation:
    """Score over episodes.

    Attributes:
        metric: ``"accuracy"`` (higher is better) or ``"mse"``.
        scores: one an episode, ``(episodes,)``.
        settings: checkpoint, data, split, seed, adaptation: what the number is a number of.
    """

    metric: str
    scores: NDArray[np.float64]
    settings: dict[str, Any]

    @property
    def mean(self) -> float:
        """Mean over episodes."""
        return float(self.scores.mean())

    @property
    def ci95(self) -> float:
        """Half width of the 95 % interval of the mean, ``1.96 s / √episodes`` (as Finn et al. 2017)."""
        n = len(self.scores)
        return Z95 * float(self.scores.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan

    def difference(self, other: Evaluation) -> tuple[float, float]:
        """Mean of ``self − other`` and its 95 % half width, paired episode by episode.

        Raises:
            ValueError: the two were not scored on the same episodes.
        """
        for name in ("data", "split", "episode_seed", "ways", "shots", "queries", "episodes"):
            if self.settings[name] != other.settings[name]:
                raise ValueError(
                    f"not the same episodes: {name} is {self.settings[name]!r} and "
                    f"{other.settings[name]!r}; evaluate both with the same settings"
                )
        paired = Evaluation(self.metric, self.scores - other.scores, {})
        return paired.mean, paired.ci95

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single episodes."""
        return {"metric": self.metric, "mean": self.mean, "ci95": self.ci95, **self.settings}


def score(
    task: Callable[[int], Task], theta: Tensor, inner: InnerLoop, episodes: int
) -> tuple[str, NDArray[np.float64]]:
    """Accuracy (or query loss, where there are no classes) of ``theta`` on tasks 0, 1, ..., one each.

    No second-order graph is built: ``theta`` asks for no gradient.
    """
    scores, metric = np.empty(episodes), "mse"
    with devices.exact_kernels():
        for index in range(episodes):
            loss, aux = meta_loss(task(index), theta.detach(), inner)
            metric = "accuracy" if "accuracy" in aux else "mse"
            scores[index] = float(aux.get("accuracy", loss))
    return metric, scores


def evaluate(
    checkpoint: str | Path | Checkpoint,
    *,
    episodes: int = 600,
    split: str = "test",
    seed: int = 0,
    steps: int | None = None,
    data: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
) -> Evaluation:
    """Adapt to each of ``episodes`` seeded tasks by plain gradient steps and score the queries.

    Statistics of the norm layers are those of the batch: support and query are each one batch
    (transductive, as in Finn et al. 2017).

    Args:
        checkpoint: folder of a checkpoint or of a run, or one already read.
        episodes: number of tasks; 600 and more for figures that are reported.
        split: ``"train"``, ``"val"`` or ``"test"`` classes.
        seed: of the episodes: the same seed gives every checkpoint the same tasks.
        steps: adaptation steps; the run's ``test_steps`` when left out.
        data: another data set than the one trained on.
        data_root: where the data set lies, when it has moved since training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        DataError: the data set cannot be read.
        ValueError: fewer than two episodes: there would be no interval.
    """
    if episodes < 2:
        raise ValueError(f"episodes is {episodes}: an interval needs at least 2, a report 600")
    given = checkpoint if isinstance(checkpoint, Checkpoint) else read(checkpoint)
    config = given.config
    make = CheckpointTasks(
        given, split=split, seed=seed, device=device, data=data, data_root=data_root
    )
    inner = given.inner(steps).to(make.theta)
    metric, scores = score(make, make.theta, inner, episodes)
    settings = {
        "checkpoint": given.fingerprint,
        "method": config.method,
        "step": given.step,
        "data": data or config.data,
        "split": split,
        "ways": config.ways,
        "shots": config.shots,
        "queries": config.queries,
        "episodes": episodes,
        "episode_seed": seed,
        "inner_steps": inner.steps,
        "inner_rate": inner.shown_rate,
        "norm": "batch statistics, support and query apart (transductive)",
    }
    return Evaluation(metric, scores, settings)
