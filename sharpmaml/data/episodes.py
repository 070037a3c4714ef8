"""What a task draw is, and the random bits that it is made of.

An episode is a pure function of a recipe and an index. Nothing is consumed and nothing is
remembered, so a resumed run, another process, or another device sees the same episodes without
any generator state being stored.

Source of the protocol: Vinyals et al. 2016, "Matching Networks for One Shot Learning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """Data that cannot be used: one line with what was wrong, where, and what to do next."""


@dataclass(frozen=True, eq=False)
class Episode:
    """One task draw.

    Attributes:
        support_x: `(ways*shots, channels, height, width)` float32, in [0, 1] unless the set is
            normalized; drawings are `(ways*shots, 1, 28, 28)` with ink = 1; sinusoid `(shots, 1)`.
        support_y: `(ways*shots,)` int64 in blocks 0..ways-1; sinusoid `(shots, 1)` float32.
        query_x: as `support_x`, with `queries` in place of `shots`.
        query_y: as `support_y`, with `queries` in place of `shots`.

    Several episodes in one have the tasks as one more axis in front of every tensor.
    """

    support_x: torch.Tensor
    support_y: torch.Tensor
    query_x: torch.Tensor
    query_y: torch.Tensor

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Episode:
        """Return the episode on `device`, its floating tensors in `dtype` (labels stay int64)."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

        return Episode(
            move(self.support_x), move(self.support_y), move(self.query_x), move(self.query_y)
        )


class TaskSource(Protocol):
    """An endless, numbered supply of tasks.

    Attributes:
        recipe: JSON-able arguments; `make_source(**recipe)` rebuilds the source anywhere.
        kind: `"classification"` or `"regression"`.
    """

    recipe: dict[str, Any]
    kind: str

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the inputs; `None` where they are no images."""
        ...

    def episode(self, index: int) -> Episode:
        """Return task number `index`, the same CPU tensors at every call."""
        ...

    def batch(self, first: int, count: int) -> Episode:
        """Return tasks `first` to `first + count - 1`, the same numbers with a tasks axis in front."""
        ...


def raw_bits(seed: int, split: str, index: int) -> np.random.Philox:
    """Return the bit stream of one episode.

    Only raw bits are drawn from it: numpy promises those across its versions, and makes no such
    promise for `choice`, `permutation` or `normal`.

    Raises:
        DataError: if `index` is negative.
    """
    if index < 0:
        raise DataError(f"episode index {index} is negative: episodes are numbered 0, 1, 2, ...")
    return np.random.Philox(np.random.SeedSequence([seed, SPLITS.index(split), index]))


def check_counts(split: str, seed: int, **counts: int) -> None:
    """Raise `DataError` for an unknown split, a negative seed, or a count below one."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if seed < 0:
        raise DataError(f"seed {seed} is negative: choose 0 or more")
    for what, count in counts.items():
        if count < 1:
            raise DataError(f"{what} is {count}: choose 1 or more")
