"""Under which conditions checkpoints are tested, and one checkpoint under them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from sharpmaml.checkpoint import Checkpoint
from sharpmaml.data import Episode
from sharpmaml.evaluating.norms import NORMS
from sharpmaml.evaluating.scorer import Scorer, accuracies, losses
from sharpmaml.evaluating.scores import Evaluation
from sharpmaml.inner import InnerLoop
from sharpmaml.tasks import CheckpointTasks

_AT_ONCE = 50  # episodes held in memory

NORM_WORDS = {
    "query": "batch statistics, support and query apart (transductive)",
    "support": "batch statistics of the support set for the queries (inductive)",
    "one-by-one": "batch statistics of the support set and one query at a time (inductive)",
}


class Asked(TypedDict, total=False):
    """Keywords of `Conditions`, any of them."""

    episodes: int
    split: str
    seed: int
    steps: int | None
    data: str | None
    data_root: str | Path | None
    device: str
    norm: str
    shots: int | None
    queries: int | None
    shift: str
    label_noise: float
    dtype: str | None


@dataclass(frozen=True)
class Conditions:
    """What decides a test, apart from the checkpoint.

    Attributes:
        episodes: number of tasks; 600 and more for figures that are reported.
        split: ``"train"``, ``"val"`` or ``"test"`` classes.
        seed: of the episodes: the same seed gives every checkpoint the same tasks.
        steps: adaptation steps; the run's ``test_steps`` when left out.
        data: another data set than the one trained on.
        data_root: where the data set lies, when it has moved since training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        norm: whose statistics normalize the queries, one of `sharpmaml.evaluating.norms.NORMS`.
        shots: support examples a class; the run's own when left out.
        queries: query examples a class; the run's own when left out.
        shift: change of the data's domain, as `sharpmaml.data.make_source` knows them.
        label_noise: share of support labels that are wrong.
        dtype: ``"float32"`` or ``"float64"``; the checkpoint's own when left out.

    Raises:
        ValueError: fewer than two episodes (there would be no interval), or an unknown norm.
    """

    episodes: int = 600
    split: str = "test"
    seed: int = 0
    steps: int | None = None
    data: str | None = None
    data_root: str | Path | None = None
    device: str = "auto"
    norm: str = "query"
    shots: int | None = None
    queries: int | None = None
    shift: str = "none"
    label_noise: float = 0.0
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.episodes < 2:
            raise ValueError(
                f"episodes is {self.episodes}: an interval needs at least 2, a report 600"
            )
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}: expected one of {', '.join(NORMS)}")

    @property
    def recipe(self) -> dict[str, Any]:
        """Arguments of `sharpmaml.data.make_source` that differ from the run's own."""
        left_out = {"shots": None, "queries": None, "shift": "none", "label_noise": 0.0}
        return {k: getattr(self, k) for k, v in left_out.items() if getattr(self, k) != v}


class Trial:
    """One checkpoint under test conditions; nothing of it is changed.

    Args:
        checkpoint: one already read.
        conditions: of the test.

    Raises:
        DataError: the data set cannot be read.
        ValueError: an unknown dtype or device.
    """

    def __init__(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        self.checkpoint, self.conditions = checkpoint, conditions
        c = conditions
        self._make = CheckpointTasks(
            checkpoint, split=c.split, seed=c.seed, dtype=c.dtype, device=c.device, data=c.data,
            data_root=c.data_root, recipe=c.recipe,
        )  # fmt: skip
        self.source = self._make.source
        self.inner: InnerLoop = checkpoint.inner(c.steps).to(self._make.theta)

    @property
    def classifies(self) -> bool:
        """Whether there are classes."""
        return self.source.kind == "classification"

    @property
    def metric(self) -> str:
        """``"accuracy"`` or ``"mse"``."""
        return "accuracy" if self.classifies else "mse"

    @cached_property
    def scorer(self) -> Scorer:
        """What adapts and answers."""
        network = self._make.first(0)
        return Scorer(network.model, network.space, network.kind, self._make.theta, self.inner)

    def stacks(self, most: int = _AT_ONCE) -> Iterator[Episode]:
        """The episodes, at most so many at a time, the tasks as the first axis."""
        total = self.conditions.episodes
        for first in range(0, total, most):
            whole = self.source.batch(first, min(most, total - first))
            yield whole.to(self._make.device, self._make.dtype)

    def settings(self, norm: str | None = None) -> dict[str, Any]:
        """What to record beside a number."""
        given, c = self.checkpoint, self.conditions
        config = given.config
        harder = {k: v for k, v in c.recipe.items() if k in ("shift", "label_noise")}
        return {
            "checkpoint": given.fingerprint,
            "method": config.method,
            "step": given.step,
            "data": c.data or config.data,
            "split": c.split,
            "ways": config.ways,
            "shots": config.shots if c.shots is None else c.shots,
            "queries": config.queries if c.queries is None else c.queries,
            "episodes": c.episodes,
            "episode_seed": c.seed,
            "inner_steps": self.inner.steps,
            "inner_rate": self.inner.shown_rate,
            "norm": NORM_WORDS[norm or c.norm],
            **harder,
        }

    def score(self, *norms: str) -> dict[str, Evaluation]:
        """Scores with the queries normalized in each way that is asked for, from one adaptation."""
        asked = norms or (self.conditions.norm,)
        parts: dict[str, list[Any]] = {norm: [] for norm in asked}
        for whole in self.stacks():
            for norm, outputs in self.scorer.answers(whole, asked).items():
                right = (
                    accuracies(outputs, whole.query_y)
                    if self.classifies
                    else losses(outputs, whole.query_y, self.source.kind)
                )
                parts[norm].append(right[0].cpu().numpy())
        return {
            norm: Evaluation(self.metric, np.concatenate(found), self.settings(norm))
            for norm, found in parts.items()
        }

    def classes(self, what: str) -> int:
        """Number of classes.

        Args:
            what: is asked for, for the message.

        Raises:
            ValueError: a regression.
        """
        if not self.classifies:
            raise ValueError(
                f"{what} needs classes, but {self.settings()['data']} is a regression: leave it out"
            )
        return self.checkpoint.config.ways
