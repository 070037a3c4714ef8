"""A watch for training that is stuck at chance: the loss near ln N that too large a radius leaves behind."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

WARMUP = 1000
WINDOW = 100


class Guard:
    """Says when a classifier has stopped learning at the level of guessing; looks once a window.

    Stuck is: after a warm-up, over the last ``window`` meta-updates, the mean loss is at least 0.98 ln N,
    it has not fallen against the window before by more than twice its standard error, and the accuracy is
    not above 1/N by more than three. The archived runs of the reference at radius 0.05 on mini-ImageNet
    end so, within 1,000 meta-updates. A slow start is none: there the loss still falls, or the accuracy
    has left chance.

    Args:
        ways: classes N.
        tasks: tasks of a meta-update.
        warmup: meta-updates before the first look.
        window: meta-updates that are averaged.

    >>> guard = Guard(ways=5, tasks=4, warmup=4, window=2)
    >>> [guard.stuck(1.61, 0.2) for _ in range(5)]
    [False, False, False, True, False]
    """

    def __init__(self, ways: int, tasks: int, warmup: int = WARMUP, window: int = WINDOW) -> None:
        self._chance, self._tasks = 1 / ways, tasks
        self._limit = 0.98 * math.log(ways)
        self.warmup, self.window = max(warmup, 2 * window), window
        self.seen = 0
        self._losses: deque[float] = deque(maxlen=2 * window)
        self._scores: deque[float] = deque(maxlen=window)

    def stuck(self, loss: float, accuracy: float) -> bool:
        """Take note of a meta-update; whether training is stuck after it."""
        self._losses.append(loss)
        self._scores.append(accuracy)
        self.seen += 1
        if self.seen < self.warmup or self.seen % self.window:
            return False
        before, now = self._halves()
        if self.loss < self._limit:
            return False
        # Labels of one task are guessed together: a class counts as one trial, not each of its queries.
        trials = self.window * self._tasks / self._chance
        if self.accuracy > self._chance + 3 * math.sqrt(self._chance * (1 - self._chance) / trials):
            return False
        fallen = float(before.mean() - now.mean())
        error = math.sqrt(float(before.var() + now.var()) / self.window)
        return fallen <= 2 * error

    @property
    def loss(self) -> float:
        """Mean over the last window."""
        return float(self._halves()[1].mean())

    @property
    def accuracy(self) -> float:
        """Mean over the last window."""
        return math.fsum(self._scores) / len(self._scores)

    def _halves(self) -> tuple[Tensor, Tensor]:
        losses = torch.tensor(list(self._losses), dtype=torch.float64)
        return losses[: self.window], losses[self.window :]

    def state_dict(self) -> dict[str, Tensor]:
        """What has to be kept for the same decision after a resumption."""
        made = {"losses": [*self._losses], "scores": [*self._scores], "seen": [self.seen]}
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in made.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a kept state."""
        self._losses.extend(state["losses"].tolist())
        self._scores.extend(state["scores"].tolist())
        self.seen = int(state["seen"])
