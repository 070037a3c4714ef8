"""The score of what is learned over the fixed tasks of validation."""

from __future__ import annotations

from typing import Any

import torch

from sharpmaml.config import TrainConfig
from sharpmaml.evaluating.scorer import Scorer, accuracies, losses
from sharpmaml.trainer.learner import Learner
from sharpmaml.trainer.ranks import Ranks
from sharpmaml.trainer.stream import TaskStream

_TOGETHER = 32  # tasks whose images are in memory at a time


def validate(
    stream: TaskStream, learner: Learner, config: TrainConfig, ranks: Ranks
) -> dict[str, Any]:
    """Mean accuracy, or mean squared error, over the first ``config.validation_episodes`` tasks.

    Statistics of norm layers are those of the queries, as in training.

    Args:
        stream: the tasks.
        learner: the initialization, and the adaptation of validation.
        config: the run.
        ranks: they share the tasks; all get the same mean.

    Returns:
        ``metric`` (``"accuracy"`` or ``"mse"``), ``mean`` and ``episodes``.
    """
    episodes, kind = config.validation_episodes, stream.kind
    scorer = Scorer(stream.model, stream.space, kind, learner.theta, learner.inner())
    first, count = ranks.share(episodes)
    scores = torch.zeros(episodes, dtype=torch.float64)
    for start in range(first, first + count, _TOGETHER):
        size = min(_TOGETHER, first + count - start)
        whole = stream("val", start, size).stacked()
        outputs = scorer.answers(whole)["query"]
        scores[start : start + size] = (
            accuracies(outputs, whole.query_y)
            if kind == "classification"
            else losses(outputs, whole.query_y, kind)
        )[-1]
    metric = "accuracy" if kind == "classification" else "mse"
    return {"metric": metric, "mean": float(ranks.sum(scores).numpy().mean()), "episodes": episodes}
