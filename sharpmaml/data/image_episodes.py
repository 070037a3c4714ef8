"""N-way K-shot tasks drawn from a set of images.

Source of the protocol: Vinyals et al. 2016, "Matching Networks for One Shot Learning".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharpmaml.data.bits import Words, bulk_bits
from sharpmaml.data.episodes import DataError, Episode, check_counts
from sharpmaml.data.images import ImageSet

ROTATIONS = 4
SHIFTS = ("none", "rotate90", "rotate180", "rotate270", "invert")


@dataclass(frozen=True, eq=False)
class Draws:
    """What episodes consist of, without their images.

    Attributes:
        chosen: `(episodes, ways)`: number of each class among those of the split, times its
            rotations, plus its quarter turns.
        drawings: `(episodes, ways, shots + queries)`, support first.
        labels: `(episodes, ways*shots)` of the support, some of them wrong where that was asked for.
    """

    chosen: NDArray[np.int64]
    drawings: NDArray[np.int64]
    labels: NDArray[np.int64]


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
        shift: another domain: every image turned by a quarter, half or three quarters
            (counterclockwise, on top of `rotations`), or `"invert"`: 255 minus every pixel.
        label_noise: share of the support labels of each episode that are exchanged for another
            class of the episode, `round(label_noise*ways*shots)` of them exactly. Which ones and
            for what is fixed by the index, the rest of the episode is the one without noise,
            and query labels are always right.

    Attributes:
        wrong_labels: how many support labels of each episode are wrong.

    Raises:
        DataError: for an unknown split or shift, more ways than classes, more drawings than there
            are, or label noise that cannot be had.
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
        shift: str = "none",
        label_noise: float = 0.0,
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
        _check_shift(shift, turns, image_set)
        self.image_set = image_set
        self.split, self.ways, self.shots, self.queries = split, ways, shots, queries
        self.classes = len(base) * turns
        self.turns = turns
        self.shift = shift
        self.wrong_labels = _wrong_labels(label_noise, ways, shots)
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
        # Only what was asked for: recipes of sources without these stay what they always were.
        if shift != "none":
            self.recipe["shift"] = shift
        if label_noise:
            self.recipe["label_noise"] = float(label_noise)
        if image_set.notes:
            self.recipe["record"] = dict(image_set.notes)
        self._base, self._seed, self._instances = base, seed, instances

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.image_set.image_shape

    def draws(self, first: int, count: int) -> Draws:
        """Return what episodes `first` to `first + count - 1` consist of.

        Raises:
            DataError: if `first` is negative.
        """
        sizes = (self.classes, self.ways * self._instances)
        noise = 2 * self.ways * self.shots if self.wrong_labels else 0
        raw = bulk_bits(self._seed, self.split, first, count, sum(sizes) + noise)
        classes, keys, noise_bits = np.split(raw, np.cumsum(sizes), axis=1)
        # Sorting random keys draws without replacement and needs nothing but raw bits.
        chosen = _smallest(classes, self.ways)
        keys = np.ascontiguousarray(keys).reshape(count * self.ways, self._instances)
        drawings = _smallest(keys, self.shots + self.queries).reshape(count, self.ways, -1)
        labels = np.tile(np.repeat(np.arange(self.ways), self.shots), (count, 1))
        if self.wrong_labels:
            self._confuse(labels, noise_bits)
        return Draws(chosen, drawings, labels)

    def draw(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return what episode `index` consists of, without touching the images.

        Returns:
            Row of each class in `image_set.images` `(ways,)`, its quarter turns `(ways,)`, and
            its drawings `(ways, shots + queries)`, support first.
        """
        draws = self.draws(index, 1)
        chosen = draws.chosen[0]
        return self._base[chosen // self.turns], chosen % self.turns, draws.drawings[0]

    def episode(self, index: int) -> Episode:
        """Return episode number `index`; the shapes are those of `Episode`."""
        one = self.batch(index, 1)
        return Episode(one.support_x[0], one.support_y[0], one.query_x[0], one.query_y[0])

    def batch(self, first: int, count: int) -> Episode:
        """Return `count` episodes from number `first` on, with a tasks axis in front."""
        draws = self.draws(first, count)
        rows = self._base[draws.chosen // self.turns]
        pictures = self.image_set.images[rows[..., None], draws.drawings]
        turns = (draws.chosen % self.turns + shift_turns(self.shift)) % ROTATIONS
        for turn in np.unique(turns[turns > 0]):
            pictures[turns == turn] = np.rot90(pictures[turns == turn], turn, axes=(-2, -1))
        if self.shift == "invert":
            pictures = 255 - pictures
        pixels = torch.from_numpy(pictures).to(torch.float32).div_(255)
        x = pixels.reshape(*pictures.shape[:3], *self.image_shape)
        x = normalized(x, channel_tensors(self.image_set, x.device))
        return Episode(
            x[:, :, : self.shots].flatten(1, 2).contiguous(),
            torch.from_numpy(draws.labels),
            x[:, :, self.shots :].flatten(1, 2).contiguous(),
            torch.arange(self.ways).repeat_interleave(self.queries).repeat(count, 1),
        )

    def _confuse(self, labels: NDArray[np.int64], raw: Words) -> None:
        """Make `wrong_labels` of each row of `labels` wrong; `raw` has two values a label."""
        keys, offsets = np.split(raw, 2, axis=1)
        where = _smallest(np.ascontiguousarray(keys), self.wrong_labels)
        uniform = (np.take_along_axis(offsets, where, 1) >> np.uint64(11)) * 2.0**-53
        away = 1 + (uniform * (self.ways - 1)).astype(np.int64)
        right = np.take_along_axis(labels, where, 1)
        np.put_along_axis(labels, where, (right + away) % self.ways, 1)


def shift_turns(shift: str) -> int:
    """Return the quarter turns of a shift."""
    return int(shift.removeprefix("rotate")) // 90 if shift.startswith("rotate") else 0


def channel_tensors(
    image_set: ImageSet, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return mean and standard deviation `(channels, 1, 1)` float32; `None` without normalization."""
    known = image_set.normalization
    if known is None:
        return None
    return (
        torch.tensor(known.mean, dtype=torch.float32, device=device)[:, None, None],
        torch.tensor(known.std, dtype=torch.float32, device=device)[:, None, None],
    )


def normalized(x: torch.Tensor, by: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """Return `(x - mean) / std` of float32 images `(..., channels, height, width)`, in place."""
    return x if by is None else x.sub_(by[0]).div_(by[1])


def _smallest(keys: Words, count: int) -> NDArray[np.int64]:
    """Return what `argsort(keys, axis=1, kind="stable")[:, :count]` returns, without the rest."""
    if 4 * count > keys.shape[1]:
        return np.argsort(keys, axis=1, kind="stable")[:, :count]
    last = np.partition(keys, count - 1, axis=1)[:, count - 1 : count]
    places = np.flatnonzero(keys <= last)
    if len(places) != count * len(keys):  # two keys are equal, once in 2**64
        return np.argsort(keys, axis=1, kind="stable")[:, :count]
    places = places.reshape(len(keys), count) % keys.shape[1]
    order = np.argsort(np.take_along_axis(keys, places, 1), axis=1)
    return np.take_along_axis(places, order, 1)


def _check_shift(shift: str, turns: int, image_set: ImageSet) -> None:
    if shift not in SHIFTS:
        raise DataError(f"unknown shift {shift!r}: images have {', '.join(SHIFTS)}")
    _, height, width = image_set.image_shape
    if height != width and (turns > 1 or shift in ("rotate90", "rotate270")):
        raise DataError(
            f"images of {image_set.name} are {height}x{width}: quarter turns need square ones, "
            "choose image_size, or leave rotations and the shift out"
        )


def _wrong_labels(share: float, ways: int, shots: int) -> int:
    if not 0 <= share <= 1:
        raise DataError(f"label_noise is {share}: choose a share from 0 to 1")
    count = round(share * ways * shots)
    if share and ways == 1:
        raise DataError(f"label_noise is {share} but ways is 1: there is no wrong class")
    if share and not count:
        raise DataError(
            f"label_noise {share} of {ways * shots} support labels rounds to none: choose "
            f"at least {1 / (ways * shots):.3g}, or more shots"
        )
    return count
