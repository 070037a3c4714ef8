"""Sets of images in classes, the material of classification episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpmaml.data.episodes import SPLITS


@dataclass(frozen=True, eq=False)
class Normalization:
    """What is subtracted from pixels in [0, 1] and what the difference is divided by.

    Attributes:
        mean: of each channel.
        std: standard deviation of each channel, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images grouped in classes and alphabets. Build one with `image_set`.

    Attributes:
        name: what to call the set in tables and captions.
        images: uint8 `(classes, instances, height, width)` of drawings, ink = 255, or
            `(classes, instances, channels, height, width)`; read-only.
        alphabet: int `(classes,)`, index into `alphabet_names`.
        alphabet_names: one name per alphabet; sets without alphabets have one.
        class_names: one name per class.
        splits: `"train"`, `"val"`, `"test"` -> class indices, disjoint.
        fingerprint: first 16 hex digits of the sha256 over the images and the splits.
        notes: JSON-able facts of how the images were made, which go into recipes: source, resize.
        normalization: applied to the pixels in [0, 1] when episodes are made; none by default.
    """

    name: str
    images: NDArray[np.uint8]
    alphabet: NDArray[np.int64]
    alphabet_names: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]
    fingerprint: str
    notes: Mapping[str, Any] = field(default_factory=dict)
    normalization: Normalization | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = (1, *self.images.shape[2:])[-3:]
        return channels, height, width


def image_set(
    name: str,
    images: NDArray[np.uint8],
    alphabet: NDArray[np.int64],
    alphabet_names: tuple[str, ...],
    class_names: tuple[str, ...],
    splits: Mapping[str, NDArray[np.int64]],
    notes: Mapping[str, Any] | None = None,
) -> ImageSet:
    """Return an `ImageSet` with its fingerprint computed and its arrays made read-only.

    The arrays are shared by every source of the process, hence the protection.
    """
    digest = hashlib.sha256(repr(images.shape).encode())
    for one in images:
        digest.update(np.ascontiguousarray(one).data)
    for split in SPLITS:
        digest.update(np.asarray(splits[split], dtype="<i8").tobytes())
        digest.update(b"|")
    images.setflags(write=False)
    for indices in (alphabet, *splits.values()):
        indices.setflags(write=False)
    return ImageSet(
        name,
        images,
        alphabet,
        alphabet_names,
        class_names,
        dict(splits),
        digest.hexdigest()[:16],
        dict(notes or {}),
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
