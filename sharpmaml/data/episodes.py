"""What a task draw is, and how one is drawn from a set of images.

An episode is a pure function of a recipe and an index. Nothing is consumed and nothing is
remembered, so a resumed run, another process, or another device sees the same episodes without
any generator state being stored.

Source of the protocol: Vinyals et al. 2016, "Matching Networks for One Shot Learning".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
ROTATIONS = 4


class DataError(ValueError):
    """Data that cannot be used: one line with what was wrong, where, and what to do next."""


@dataclass(frozen=True, eq=False)
class Episode:
    """One task draw.

    Attributes:
        support_x: `(ways*shots, 1, 28, 28)` float32 in [0, 1], ink = 1; sinusoid `(shots, 1)`.
        support_y: `(ways*shots,)` int64 in blocks 0..ways-1; sinusoid `(shots, 1)` float32.
        query_x: as `support_x`, with `queries` in place of `shots`.
        query_y: as `support_y`, with `queries` in place of `shots`.
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

    def episode(self, index: int) -> Episode:
        """Return task number `index`, the same CPU tensors at every call."""
        ...


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Drawings of characters, grouped in classes and alphabets. Build one with `image_set`.

    Attributes:
        name: what to call the set in tables and captions.
        images: uint8 `(classes, instances, 28, 28)`, ink = 255, read-only; 20 instances a class.
        alphabet: int `(classes,)`, index into `alphabet_names`.
        alphabet_names: one name per alphabet.
        class_names: one name per class.
        splits: `"train"`, `"val"`, `"test"` -> class indices, disjoint.
        fingerprint: first 16 hex digits of the sha256 over the images and the splits.
    """

    name: str
    images: NDArray[np.uint8]
    alphabet: NDArray[np.int64]
    alphabet_names: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]
    fingerprint: str


def image_set(
    name: str,
    images: NDArray[np.uint8],
    alphabet: NDArray[np.int64],
    alphabet_names: tuple[str, ...],
    class_names: tuple[str, ...],
    splits: Mapping[str, NDArray[np.int64]],
) -> ImageSet:
    """Return an `ImageSet` with its fingerprint computed and its arrays made read-only.

    The arrays are shared by every source of the process, hence the protection.
    """
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    for split in SPLITS:
        digest.update(np.asarray(splits[split], dtype="<i8").tobytes())
        digest.update(b"|")
    images.setflags(write=False)
    for indices in (alphabet, *splits.values()):
        indices.setflags(write=False)
    return ImageSet(
        name, images, alphabet, alphabet_names, class_names, dict(splits), digest.hexdigest()[:16]
    )


def split_by_alphabet(
    alphabet: NDArray[np.int64], counts: tuple[int, int, int]
) -> dict[str, NDArray[np.int64]]:
    """Give the first `counts[0]` alphabets to train, the next to val, the next to test."""
    edges = np.cumsum((0, *counts))
    return {
        split: np.flatnonzero((alphabet >= edges[i]) & (alphabet < edges[i + 1])).astype(np.int64)
        for i, split in enumerate(SPLITS)
    }


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


class ImageEpisodes:
    """N-way K-shot tasks from an `ImageSet`.

    A class rotated by 90, 180 or 270 degrees is a class of its own (Vinyals et al. 2016), in the
    training split only; one episode may then hold two rotations of one character, as it does in
    the standard protocol. Validation and test classes are never rotated, whatever `rotations`
    says, so a recipe stays right when only its split is exchanged.

    Args:
        image_set: where the drawings come from.
        split: `"train"`, `"val"` or `"test"`.
        ways: classes in an episode.
        shots: support drawings of each class.
        queries: query drawings of each class, never one of its support drawings.
        seed: chooses the episodes; together with `split` and the index it fixes them.
        rotations: whether training classes come in four rotations.
        data: name under which `make_source` finds the set again; the set's own name by default.
        root: folder or file of the set, recorded in the recipe.
        options: options of the set, recorded in the recipe.

    Raises:
        DataError: for an unknown split, more ways than classes, or more drawings than there are.
    """

    kind: str = "classification"

    def __init__(
        self,
        image_set: ImageSet,
        split: str = "train",
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        seed: int = 0,
        rotations: bool = False,
        *,
        data: str | None = None,
        root: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_counts(split, seed, ways=ways, shots=shots, queries=queries)
        base = image_set.splits[split]
        turns = ROTATIONS if rotations and split == "train" else 1
        if ways > len(base) * turns:
            raise DataError(
                f"ways is {ways} but split {split!r} of {image_set.name} has only "
                f"{len(base) * turns} classes: choose fewer ways"
            )
        instances = image_set.images.shape[1]
        if shots + queries > instances:
            raise DataError(
                f"shots + queries is {shots} + {queries} = {shots + queries} but {image_set.name} "
                f"has {instances} drawings a class: choose fewer"
            )
        self.image_set = image_set
        self.classes = len(base) * turns
        self.recipe: dict[str, Any] = {
            "data": image_set.name if data is None else data,
            "split": split,
            "ways": ways,
            "shots": shots,
            "queries": queries,
            "seed": seed,
            "root": None if root is None else str(root),
            "rotations": bool(rotations),
            "options": dict(options or {}),
        }
        self._base, self._turns = base, turns
        self._split, self._ways, self._shots, self._queries = split, ways, shots, queries
        self._seed, self._instances = seed, instances

    def draw(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return what episode `index` consists of, without touching the images.

        Returns:
            Row of each class in `image_set.images` `(ways,)`, its quarter turns `(ways,)`, and
            its drawings `(ways, shots + queries)`, support first.
        """
        bits = raw_bits(self._seed, self._split, index)
        # Sorting random keys draws without replacement and needs nothing but raw bits.
        chosen = np.argsort(bits.random_raw(self.classes), kind="stable")[: self._ways]
        keys = bits.random_raw(self._ways * self._instances).reshape(self._ways, self._instances)
        drawings = np.argsort(keys, axis=1, kind="stable")[:, : self._shots + self._queries]
        return self._base[chosen // self._turns], chosen % self._turns, drawings

    def episode(self, index: int) -> Episode:
        """Return episode number `index`; the shapes are those of `Episode`."""
        rows, turns, drawings = self.draw(index)
        pictures = self.image_set.images[rows[:, None], drawings]
        for turn in range(1, self._turns):
            pictures[turns == turn] = np.rot90(pictures[turns == turn], turn, axes=(2, 3))
        x = torch.from_numpy(pictures).to(torch.float32).div_(255).unsqueeze(2)
        labels = torch.arange(self._ways)
        return Episode(
            x[:, : self._shots].reshape(-1, *x.shape[2:]),
            labels.repeat_interleave(self._shots),
            x[:, self._shots :].reshape(-1, *x.shape[2:]),
            labels.repeat_interleave(self._queries),
        )
