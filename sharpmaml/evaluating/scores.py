"""Scores over episodes, one a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpmaml.evaluating.intervals import half_width

_EPISODES = (
    "data", "split", "episode_seed", "ways", "shots", "queries", "episodes", "shift", "label_noise"
)  # fmt: skip


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
        return float(half_width(self.scores))

    def difference(self, other: Evaluation) -> tuple[float, float]:
        """Mean of ``self − other`` and its 95 % half width, paired episode by episode.

        Raises:
            ValueError: the two were not scored on the same episodes.
        """
        for name in _EPISODES:
            ours, theirs = self.settings.get(name), other.settings.get(name)
            if ours != theirs:
                raise ValueError(
                    f"not the same episodes: {name} is {ours!r} and {theirs!r}; "
                    "evaluate both with the same settings"
                )
        paired = Evaluation(self.metric, self.scores - other.scores, {})
        return paired.mean, paired.ci95

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single episodes."""
        return {"metric": self.metric, "mean": self.mean, "ci95": self.ci95, **self.settings}


def protocol(result: Evaluation) -> str:
    """The episodes of a score in words, with everything that makes them harder than those of training."""
    s = result.settings
    if result.metric == "accuracy":
        parts = [f"{s['data']} {s['split']} classes, {s['ways']}-way {s['shots']}-shot, "]
        parts += [f"{s['queries']} queries a class"]
    else:  # no classes, and no norm layers in the networks of regressions
        parts = [f"{s['data']} {s['split']} tasks, {s['shots']}-shot, {s['queries']} queries"]
    ends = [f", {s['episodes']} episodes of seed {s['episode_seed']}"]
    ends += [f"; {s['norm']}"] if result.metric == "accuracy" else []
    ends += [f"; {k.replace('_', ' ')} {s[k]}" for k in ("shift", "label_noise") if k in s]
    return "".join([*parts, *ends])


def shown(value: float, half: float, metric: str) -> str:
    """A mean and its half width for people: accuracies in percent.

    >>> shown(0.953, 0.0042, "accuracy"), shown(0.25, 0.013, "mse")
    ('95.30 ± 0.42 %', '0.2500 ± 0.0130')
    """
    if metric == "accuracy":
        return f"{100 * value:.2f} ± {100 * half:.2f} %"
    return f"{value:.4f} ± {half:.4f}"
