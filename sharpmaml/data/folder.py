"""Any folder of images, one subfolder a class.

With `train`, `val` and `test` in it, these are the splits. Without, the classes in the order of
their names are split 60/20/20: a split of ours, which no published number uses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sharpmaml.data.episodes import SPLITS, DataError
from sharpmaml.data.images import ImageSet
from sharpmaml.data.photographs import (
    SUFFIXES,
    Layout,
    PhotoClass,
    check_options,
    file_class,
    listing,
    photo_set,
)

SIZE = 84
EXPECTED = "train/<class>/*.png, val/..., test/..., or <class>/*.png (or .jpg, ...)"


def load_folder(
    root: str | Path | None = None,
    *,
    image_size: int = SIZE,
    channels: int = 3,
    min_images: int = 20,
    normalize: str = "none",
) -> ImageSet:
    """Return the images of a folder as uint8 `(classes, instances, channels, size, size)`.

    All classes get as many images as the smallest that is kept, the first in the order of their names.

    Args:
        root: `root/train|val|test/<class>/*.png`, or `root/<class>/*.png`; formats by their suffix.
        image_size: pictures are stretched to squares of this side by Pillow's bilinear filter.
        channels: 1 for grey, 3 for colour.
        min_images: classes with fewer are left out, and counted in the notes.
        normalize: `"none"`: pixels in [0, 1]; `"mean-std"`: each channel by mean and standard
            deviation of the training split.

    Raises:
        DataError: if the folder is missing or has no such classes, or a picture is damaged.
    """
    check_options("folder", image_size, normalize, channels)
    if min_images < 2:
        raise DataError(f"min_images is {min_images}: an episode needs 2 images a class or more")
    if root is None:
        raise DataError("data folder needs a folder: pass --data-root DIR")
    place = Path(root)
    if not place.is_dir():
        raise DataError(f"{place} is no folder: expected {EXPECTED}")
    splits = [split for split in SPLITS if (place / split).is_dir()]
    if splits and len(splits) < len(SPLITS):
        missing = [split for split in SPLITS if split not in splits]
        raise DataError(f"{place} has {splits[0]} but lacks {missing[0]}: expected {EXPECTED}")
    found = (
        [(split, *one) for split in SPLITS for one in class_folders(place / split)]
        if splits
        else _shares(class_folders(place))
    )
    kept = [one for one in found if len(one[2]) >= min_images]
    if not found:
        raise DataError(f"{place} has no folders with images: expected {EXPECTED}")
    if not kept:
        most = max(len(one[2]) for one in found)
        raise DataError(
            f"no class of {place} has min_images = {min_images} images, the largest has {most}: "
            "lower min_images"
        )
    for split in SPLITS:
        if not any(one[0] == split for one in kept):
            raise DataError(
                f"split {split!r} of {place} has no class with {min_images} images or more: "
                f"expected {EXPECTED}"
            )
    classes: list[PhotoClass] = [
        file_class(name, split, files, image_size, channels) for split, name, files in kept
    ]
    layout = Layout(
        lambda: classes,
        "split folders" if splits else "classes by name, 60/20/20",
        [*listing([path for one in kept for path in one[2]]), min_images, len(found)],
        {"classes_left_out": len(found) - len(kept)},
        place,
    )
    return photo_set(place.absolute().name or "folder", layout, image_size, normalize, channels)


def class_folders(place: Path) -> list[tuple[str, list[Path]]]:
    """Return name and picture files of every folder in `place`, both in the order of names."""
    found = []
    with os.scandir(place) as entries:
        folders = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    for name in folders:
        with os.scandir(place / name) as entries:
            files = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(SUFFIXES)
                and not entry.name.startswith(".")
                and entry.is_file()
            )
        if files:
            found.append((name, [place / name / file for file in files]))
    return found


def _shares(classes: Sequence[tuple[str, list[Path]]]) -> list[tuple[str, str, list[Path]]]:
    """Give the first 60 % of the classes to train, the next 20 % to val, the rest to test."""
    held = max(1, round(0.2 * len(classes)))
    first = len(classes) - 2 * held
    return [
        ("train" if i < first else "val" if i < first + held else "test", *one)
        for i, one in enumerate(classes)
    ]
