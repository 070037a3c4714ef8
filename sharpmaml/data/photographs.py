"""Classes of photographs, wherever their pixels lie, made into one set.

A layout says which classes there are and how each is read; here the pictures are resized, put into
one array, counted for the set's name, and summarized for normalization.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landscape.pictures import converted, opened
from landscape.wording import one_line, printable
from sharpmaml.data.cache import cached
from sharpmaml.data.episodes import SPLITS, DataError
from sharpmaml.data.images import ImageSet, Normalization, image_set

VERSION = 1  # of the preprocessing: raise it when a pixel changes, so that old caches are passed by
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FILTER = Image.Resampling.BILINEAR  # Pillow widens it when it shrinks: every pixel is averaged in
RESIZE = "Pillow bilinear, antialiased"
NORMALIZE = ("none", "mean-std")
MODES = {1: "L", 3: "RGB"}
MAX_BYTES = 1 << 26  # of one picture file
BROKEN = (
    OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error,
    NotImplementedError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PhotoClass:
    """One class of one split.

    Attributes:
        name: of the class.
        split: `"train"`, `"val"` or `"test"`.
        count: images that there are.
        read: first `n` of them, resized, uint8 `(n, channels, size, size)`.
    """

    name: str
    split: str
    count: int
    read: Callable[[int], Pixels]


@dataclass(frozen=True)
class Layout:
    """Where a set was found.

    Attributes:
        classes: of all splits, read when they are needed.
        source: the layout in words, for the notes.
        key: JSON-able, changes when a file changes; `None` where caching saves nothing.
        facts: further notes.
        place: the folder or file that was given, for errors.
    """

    classes: Callable[[], Sequence[PhotoClass]]
    source: str
    key: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    place: Path | None = None


@dataclass(frozen=True)
class Published:
    """A set as published, to tell a part of it from the whole: `name`, and its numbers."""

    name: str
    classes: int
    images: int  # of a class


def unusable(path: Path | str, error: BaseException | str) -> DataError:
    """Return the error for a file or folder that cannot be used, with the reason on one line."""
    reason = one_line(error) if isinstance(error, BaseException) else printable(error, 300)
    place = printable(path, 400)
    return DataError(f"{place} cannot be used ({reason}): pass --data-root DIR with a good copy")


def check_options(name: str, image_size: int, normalize: str, channels: int = 3) -> None:
    """Raise `DataError` for an option outside of its range."""
    if not 8 <= image_size <= 1024:
        raise DataError(f"image_size of {name} is {image_size}: choose 8 to 1024 pixels")
    if normalize not in NORMALIZE:
        raise DataError(f"normalize of {name} is {normalize!r}: choose {' or '.join(NORMALIZE)}")
    if channels not in MODES:
        raise DataError(f"channels of {name} is {channels}: choose 1 or 3")


def resized(picture: Image.Image, size: int, channels: int = 3) -> Pixels:
    """Return uint8 `(channels, size, size)`; a picture that is no square is stretched to one."""
    plain = converted(picture, MODES[channels])
    if plain.size != (size, size):
        plain = plain.resize((size, size), FILTER)
    pixels = np.asarray(plain)
    return pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)


def decoded(content: bytes, size: int, channels: int = 3) -> Pixels:
    """Return a picture file as uint8 `(channels, size, size)`; damage raises one of `BROKEN`."""
    return resized(opened(content), size, channels)


def file_class(
    name: str, split: str, files: Sequence[Path], size: int, channels: int = 3
) -> PhotoClass:
    """Return a class of picture files; a damaged one is named when it is read."""

    def read(count: int) -> Pixels:
        found = []
        for path in files[:count]:
            try:
                if path.stat().st_size > MAX_BYTES:
                    raise ValueError(f"a picture of more than {MAX_BYTES} bytes")
                found.append(decoded(path.read_bytes(), size, channels))
            except BROKEN as error:
                raise unusable(path, error) from error
        return np.stack(found)

    return PhotoClass(name, split, len(files), read)


def array_class(
    name: str, split: str, count: int, rows: Callable[[int], Pixels], size: int
) -> PhotoClass:
    """Return a class of `(n, height, width, 3)` uint8 rows, resized where their size differs."""

    def read(wanted: int) -> Pixels:
        pixels = rows(wanted)
        if pixels.shape[1:3] == (size, size):
            return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
        return np.stack([resized(Image.fromarray(one), size) for one in pixels])

    return PhotoClass(name, split, count, read)


def listing(files: Sequence[Path]) -> list[list[Any]]:
    """Return path, size and time of change of every file, the key of a cache."""
    found = []
    for path in files:
        status = path.stat()
        found.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
    return found


def photo_set(
    published: Published | str, layout: Layout, size: int, normalize: str, channels: int = 3
) -> ImageSet:
    """Return the set of a layout, from the cache when it has been made before.

    Every class gets as many images as the smallest has, the first ones; the number is in the
    notes, and in the name where the published set has more.

    Raises:
        DataError: if a split has no classes, or a picture is damaged.
    """
    name = published if isinstance(published, str) else published.name
    made: ImageSet
    if layout.key is None:
        made = _build(published, layout, size, channels)
    else:
        key = {"version": VERSION, "size": size, "channels": channels, "files": layout.key}
        made = cached(
            "folder" if isinstance(published, str) else name.lower(),
            key,
            lambda: _build(published, layout, size, channels),
            compress=False,  # photographs hardly shrink, and take a minute to try
        )
    notes = {**made.notes, "normalize": normalize}
    if normalize == "none":
        return dataclasses.replace(made, notes=notes)
    mean, std = (tuple(made.notes[f"channel_{which}"]) for which in ("mean", "std"))
    if min(std) <= 0:
        raise DataError(f"a channel of {name} is constant: normalize cannot be {normalize!r}")
    return dataclasses.replace(made, notes=notes, normalization=Normalization(mean, std))


def _build(published: Published | str, layout: Layout, size: int, channels: int) -> ImageSet:
    classes = sorted(layout.classes(), key=lambda c: (SPLITS.index(c.split), c.name))
    splits = {
        split: np.array([i for i, c in enumerate(classes) if c.split == split], dtype=np.int64)
        for split in SPLITS
    }
    name = published if isinstance(published, str) else published.name
    empty = [split for split in SPLITS if not len(splits[split])]
    if empty:
        raise DataError(
            f"{name}: split {empty[0]!r} has no classes in {layout.source} of {layout.place}"
        )
    count = min(c.count for c in classes)
    if not count:
        bare = next(c.name for c in classes if not c.count)
        raise DataError(
            f"{name}: class {printable(bare)!r} has no images in {layout.source} of {layout.place}"
        )
    images = np.empty((len(classes), count, channels, size, size), dtype=np.uint8)
    for row, one in zip(images, classes, strict=True):
        row[:] = one.read(count)
    mean, std = channel_statistics(images[: len(splits["train"])])
    return image_set(
        name if isinstance(published, str) else _name(published, len(classes), count),
        images,
        np.zeros(len(classes), dtype=np.int64),
        (name,),
        tuple(one.name for one in classes),
        splits,
        {
            "source": layout.source,
            "images_per_class": count,
            "images_left_out": sum(c.count for c in classes) - count * len(classes),
            "image_size": size,
            "resize": RESIZE,
            "channel_mean": mean,
            "channel_std": std,
            **layout.facts,
        },
    )


def _name(published: Published, classes: int, images: int) -> str:
    part = "" if classes == published.classes else f" ({classes} of {published.classes} classes)"
    return published.name + ("" if images == published.images else f"-{images}") + part


def channel_statistics(images: Pixels) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of pixels in [0, 1], over all images.

    Args:
        images: uint8 `(classes, instances, channels, height, width)`.

    >>> pixels = np.array([0, 255], dtype=np.uint8).reshape(1, 2, 1, 1, 1)
    >>> channel_statistics(pixels)
    ([0.5], [0.5])
    """
    channels = images.shape[2]
    counts = np.zeros((channels, 256))
    for one in images:
        for channel in range(channels):
            counts[channel] += np.bincount(one[:, channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    level = np.arange(256) / 255
    mean = share @ level
    spread = np.sqrt((share * (level - mean[:, None]) ** 2).sum(axis=1))
    return [float(m) for m in mean], [float(s) for s in spread]
