"""How much a score hangs on which class got which output: label permutations (Ye & Chao 2022).

An episode's classes are numbered arbitrarily, but the outputs of a MAML initialization differ from each
other, so each numbering is adapted to differently (UNICORN-MAML, arXiv 2106.16245).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharpmaml.data import Episode
from sharpmaml.evaluating.conditions import Trial
from sharpmaml.evaluating.intervals import half_width
from sharpmaml.evaluating.scorer import accuracies
from sharpmaml.evaluating.scores import shown


@dataclass(frozen=True)
class Permutations:
    """Accuracies of the same episodes under several numberings of their classes.

    Attributes:
        accuracy: ``(episodes, permutations)``.
        all: whether these are all numberings there are, so that none was drawn.
        settings: what the numbers are numbers of.
    """

    accuracy: NDArray[np.float64]
    all: bool
    settings: dict[str, Any]

    @property
    def within(self) -> NDArray[np.float64]:
        """Standard deviation over the numberings of each episode, ``(episodes,)``."""
        spread: NDArray[np.float64] = self.accuracy.std(1, ddof=0 if self.all else 1)
        return spread

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over episodes, each with its 95 % half width.

        ``within`` is the standard deviation within an episode, ``best`` and ``worst`` are of the best and
        worst numbering of each episode, which nobody knows in advance, and ``spread`` is between them.
        """
        best, worst = self.accuracy.max(1), self.accuracy.min(1)
        columns = {
            "mean": self.accuracy.mean(1),
            "within": self.within,
            "best": best,
            "worst": worst,
            "spread": best - worst,
        }
        document: dict[str, Any] = {
            "permutations": self.accuracy.shape[1], "all": self.all, "settings": self.settings
        }  # fmt: skip
        for name, values in columns.items():
            document[name] = float(values.mean())
            document[f"{name}_ci95"] = float(half_width(values))
        return document

    def table(self) -> str:
        """Aligned text."""
        d = self.to_dict()
        words = {
            "mean": "accuracy over numberings",
            "within": "standard deviation within an episode",
            "best": "best numbering of each episode",
            "worst": "worst numbering of each episode",
            "spread": "best minus worst",
        }
        which = "all" if self.all else "drawn"
        lines = [f"Label permutations ({d['permutations']}, {which}, of every episode)"]
        width = max(map(len, words.values()))
        for name, text in words.items():
            lines.append(f"{text.ljust(width)}  {shown(d[name], d[f'{name}_ci95'], 'accuracy')}")
        return "\n".join(lines)


def permutations_of(trial: Trial, count: int) -> Permutations:
    """Adapt to every episode under ``count`` numberings of its classes (all there are, if fewer).

    The numberings are the same for all episodes; the episode's own is the first.

    Raises:
        ValueError: a regression, or fewer than two permutations.
    """
    ways = trial.classes("the variance over label permutations")
    if count < 2:
        raise ValueError(f"permutations is {count}: a variance needs at least 2")
    table = torch.from_numpy(drawn(ways, count, trial.conditions.seed))
    parts = []
    for whole in trial.stacks(most=max(1, 100 // len(table))):
        each = torch.arange(len(whole.support_y)).repeat_interleave(len(table))
        numbers = table.to(whole.support_y.device).repeat(len(whole.support_y), 1)
        many = Episode(
            whole.support_x[each],
            numbers.gather(1, whole.support_y[each]),
            whole.query_x[each],
            numbers.gather(1, whole.query_y[each]),
        )
        (outputs,) = trial.scorer.answers(many, (trial.conditions.norm,)).values()
        found = accuracies(outputs, many.query_y)[0].view(-1, len(table))
        parts.append(found.cpu().numpy())
    everything = len(table) == math.factorial(ways)
    return Permutations(np.concatenate(parts), everything, trial.settings())


def drawn(ways: int, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` different permutations of ``range(ways)``, the identity first; all of them if fewer.

    >>> drawn(2, 10, 0).tolist()
    [[0, 1], [1, 0]]
    """
    if math.factorial(ways) <= count:
        return np.array(list(itertools.permutations(range(ways))))
    generator = np.random.Generator(np.random.Philox(seed))
    found = {tuple(range(ways)): None}
    while len(found) < count:
        found[tuple(generator.permutation(ways).tolist())] = None
    return np.array(list(found))
