"""Sinusoid regression: the smallest few-shot problem there is.

Source: Finn, Abbeel & Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks", section 5.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sharpmaml.data.episodes import Episode, check_counts, raw_bits

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, float(np.pi))
X = (-5.0, 5.0)


class Sinusoids:
    """Tasks `y = a sin(x - phase)` with a in [0.1, 5], phase in [0, pi], x in [-5, 5], uniform.

    The three splits are separate streams of one distribution.

    >>> episode = Sinusoids(shots=10, queries=5).episode(0)
    >>> tuple(episode.support_x.shape), tuple(episode.query_y.shape)
    ((10, 1), (5, 1))

    Args:
        split: `"train"`, `"val"` or `"test"`.
        shots: support points.
        queries: query points.
        seed: chooses the tasks.

    Raises:
        DataError: for an unknown split, a negative seed, or a count below one.
    """

    kind: str = "regression"

    def __init__(
        self, split: str = "train", shots: int = 10, queries: int = 15, seed: int = 0
    ) -> None:
        check_counts(split, seed, shots=shots, queries=queries)
        self.recipe: dict[str, Any] = {
            "data": "sinusoid",
            "split": split,
            "shots": shots,
            "queries": queries,
            "seed": seed,
        }
        self._split, self._shots, self._queries, self._seed = split, shots, queries, seed

    def episode(self, index: int) -> Episode:
        """Return task number `index`: float32 tensors `(shots, 1)` and `(queries, 1)`."""
        raw = raw_bits(self._seed, self._split, index).random_raw(2 + self._shots + self._queries)
        uniform = (raw >> np.uint64(11)) * 2.0**-53  # the 53 bits of a double in [0, 1)
        amplitude = AMPLITUDE[0] + (AMPLITUDE[1] - AMPLITUDE[0]) * uniform[0]
        phase = PHASE[0] + (PHASE[1] - PHASE[0]) * uniform[1]
        points = X[0] + (X[1] - X[0]) * uniform[2:, None]
        x = torch.from_numpy(points.astype(np.float32))
        y = torch.from_numpy((amplitude * np.sin(points - phase)).astype(np.float32))
        return Episode(x[: self._shots], y[: self._shots], x[self._shots :], y[self._shots :])
