"""Sinusoid regression: the smallest few-shot problem there is.

Source: Finn, Abbeel & Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks", section 5.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharpmaml.data.bits import bulk_bits
from sharpmaml.data.episodes import DataError, Episode, check_counts

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, float(np.pi))
X = (-5.0, 5.0)
# Beyond what training sees, as wide as that or half as wide.
SHIFTED_AMPLITUDE = (5.0, 10.0)
SHIFTED_PHASE = (float(np.pi), 2 * float(np.pi))
SHIFTED_FREQUENCY = (1.5, 2.0)
SHIFTS = ("none", "amplitude", "phase", "frequency")

Floats = NDArray[np.floating[Any]]


class Sinusoids:
    """Tasks `y = a sin(x - phase)` with a in [0.1, 5], phase in [0, pi], x in [-5, 5], uniform.

    The three splits are separate streams of one distribution. A shift replaces one range:
    `"amplitude"` a in [5, 10], `"phase"` phase in [pi, 2 pi], `"frequency"` y = a sin(w x - phase)
    with w in [1.5, 2] instead of 1. The rest of a task, its x too, is that of the task without shift.

    >>> episode = Sinusoids(shots=10, queries=5).episode(0)
    >>> tuple(episode.support_x.shape), tuple(episode.query_y.shape)
    ((10, 1), (5, 1))

    Args:
        split: `"train"`, `"val"` or `"test"`.
        shots: support points.
        queries: query points.
        seed: chooses the tasks.
        shift: another domain: one of `SHIFTS`.

    Raises:
        DataError: for an unknown split or shift, a negative seed, or a count below one.
    """

    kind: str = "regression"
    image_shape: None = None

    def __init__(
        self,
        split: str = "train",
        shots: int = 10,
        queries: int = 15,
        seed: int = 0,
        *,
        shift: str = "none",
    ) -> None:
        check_counts(split, seed, shots=shots, queries=queries)
        if shift not in SHIFTS:
            raise DataError(f"unknown shift {shift!r}: sinusoid has {', '.join(SHIFTS)}")
        self.recipe: dict[str, Any] = {
            "data": "sinusoid",
            "split": split,
            "shots": shots,
            "queries": queries,
            "seed": seed,
        }
        if shift != "none":
            self.recipe["shift"] = shift
        self._split, self._shots, self._queries, self._seed = split, shots, queries, seed
        self._shift = shift

    def episode(self, index: int) -> Episode:
        """Return task number `index`: float32 tensors `(shots, 1)` and `(queries, 1)`."""
        one = self.batch(index, 1)
        return Episode(one.support_x[0], one.support_y[0], one.query_x[0], one.query_y[0])

    def batch(self, first: int, count: int) -> Episode:
        """Return tasks `first` to `first + count - 1`: `(count, shots, 1)` and `(count, queries, 1)`.

        Raises:
            DataError: if `first` is negative.
        """
        drawn = 2 + self._shots + self._queries
        values = drawn + (self._shift == "frequency")
        raw = bulk_bits(self._seed, self._split, first, count, values)
        uniform = (raw >> np.uint64(11)) * 2.0**-53  # the 53 bits of a double in [0, 1)
        amplitude = _between(
            SHIFTED_AMPLITUDE if self._shift == "amplitude" else AMPLITUDE, uniform[:, 0:1]
        )
        phase = _between(SHIFTED_PHASE if self._shift == "phase" else PHASE, uniform[:, 1:2])
        points = _between(X, uniform[:, 2:drawn])
        angle = points
        if self._shift == "frequency":
            angle = _between(SHIFTED_FREQUENCY, uniform[:, drawn:]) * points
        x = torch.from_numpy(points.astype(np.float32)[..., None])
        y = torch.from_numpy((amplitude * np.sin(angle - phase)).astype(np.float32)[..., None])
        k = self._shots
        return Episode(*(part.contiguous() for part in (x[:, :k], y[:, :k], x[:, k:], y[:, k:])))


def _between(bounds: tuple[float, float], uniform: Floats) -> Floats:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform
