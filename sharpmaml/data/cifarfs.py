"""CIFAR-FS from the layouts in which people have it.

Source of the data: Bertinetto et al. 2019, "Meta-learning with differentiable closed-form solvers": the 100
classes of CIFAR-100 (Krizhevsky 2009), 600 images of 32x32 pixels each, split 64 / 16 / 20. Which class
is in which split is read from the copy, never assumed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.wording import printable
from sharpmaml.data.array_pickle import read_array_pickle
from sharpmaml.data.episodes import SPLITS, DataError
from sharpmaml.data.folder import class_folders
from sharpmaml.data.images import ImageSet
from sharpmaml.data.photographs import (
    BROKEN,
    Layout,
    PhotoClass,
    Pixels,
    Published,
    array_class,
    check_options,
    file_class,
    listing,
    photo_set,
    unusable,
)

SIZE = 32
PUBLISHED = Published("CIFAR-FS", 100, 600)
NESTED = (".", "cifar100", "cifar-fs", "cifarfs", "CIFAR-FS", "CIFAR_FS")
OFFICIAL = "cifar-100-python"
LISTS = "splits/bertinetto/{}.txt"
ADVICE = "pass --data-root DIR with a copy"
EXPECTED = (
    "data/<class>/*.png with splits/bertinetto/{train,val,test}.txt, "
    "{meta-train,meta-val,meta-test}/<class>/*.png, or CIFAR_FS_{train,val,test}.pickle"
)


def load_cifarfs(
    root: str | Path | None = None, *, image_size: int = SIZE, normalize: str = "none"
) -> ImageSet:
    """Return CIFAR-FS as uint8 images `(classes, instances, 3, image_size, image_size)`.

    Args:
        root: a folder that holds (itself, or in `cifar100/` and the like) `data/<class>/*.png`, or
            the official `cifar-100-python/`, with `splits/bertinetto/*.txt`; or a folder a split,
            `train` or `meta-train` and so on, with a folder a class; or `CIFAR_FS_*.pickle`. Pickles
            are read without running what they name.
        image_size: 32 as published. Resized by Pillow's bilinear filter.
        normalize: `"none"`: pixels in [0, 1]; `"mean-std"`: each channel by mean and standard
            deviation of the training split.

    Raises:
        DataError: if files are missing or damaged (they are named), or an option is unknown.
    """
    check_options("cifarfs", image_size, normalize)
    if root is None:
        raise DataError(f"cifarfs is not downloaded: {ADVICE}")
    layout = replace(_locate(Path(root), image_size), place=Path(root))
    return photo_set(PUBLISHED, layout, image_size, normalize)


def _locate(place: Path, size: int) -> Layout:
    if not place.is_dir():
        what = "is no folder" if place.exists() else "does not exist"
        raise DataError(f"{place} {what}: {ADVICE}")
    for home in (place / nested for nested in NESTED):
        for finder in (_listed, _pickles, _split_folders) if home.is_dir() else ():
            found = finder(home, size)
            if found is not None:
                return found
    raise DataError(f"{place} has no CIFAR-FS ({EXPECTED}): {ADVICE}")


def _complete(home: Path, found: dict[str, Path], pattern: str) -> bool:
    """Return whether all splits are there; some of them only is an error."""
    missing = [pattern.format(split) for split in SPLITS if split not in found]
    if found and missing:
        raise DataError(f"{home} lacks {missing[0]}: {ADVICE}")
    return not missing


def _listed(home: Path, size: int) -> Layout | None:
    """Find the classes of the split lists, as folders of pictures or in the official pickles."""
    images, official = home / "data", home / OFFICIAL
    if not images.is_dir() and not official.is_dir():
        return None
    lists = {s: home / LISTS.format(s) for s in SPLITS if (home / LISTS.format(s)).is_file()}
    if not lists:
        raise DataError(
            f"{home} has the images but not {LISTS.format('train')}, which says what classes are in "
            f"which split: {ADVICE}"
        )
    _complete(home, lists, LISTS)
    try:
        names = {split: path.read_text("utf-8").split() for split, path in lists.items()}
    except BROKEN as error:
        raise unusable(home / "splits", error) from error
    where = {name: split for split in SPLITS for name in names[split]}
    if len(where) < sum(map(len, names.values())):
        raise unusable(home / "splits", "a class is listed twice")
    if not images.is_dir():
        files = [official / part for part in ("meta", "train", "test")]
        absent = [path.name for path in files if not path.is_file()]
        if absent:
            raise DataError(f"{official} lacks {absent[0]}: {ADVICE}")
        key = [*listing([*files, *lists.values()]), where] if size != SIZE else None
        return Layout(lambda: _official(files, where, size), OFFICIAL, key)
    folders = dict(class_folders(images))
    missing = [name for name in where if name not in folders]
    if missing:
        raise DataError(
            f"{images} has {len(where) - len(missing)} of the {len(where)} classes that the lists name; "
            f"the first missing one is {printable(missing[0])}: {ADVICE}"
        )
    classes = [file_class(name, split, folders[name], size) for name, split in where.items()]
    listed = [path for name in where for path in folders[name]]
    return Layout(lambda: classes, "data and splits", [*listing(listed), where])


def _split_folders(home: Path, size: int) -> Layout | None:
    there = {
        split: home / name
        for split in SPLITS
        for name in (split, f"meta-{split}")
        if (home / name).is_dir()
    }
    if not _complete(home, there, "meta-{}"):
        return None
    found = [(split, *one) for split, path in there.items() for one in class_folders(path)]
    if not found:
        raise DataError(f"{there['train']} and the others have no folders with images: {ADVICE}")
    classes = [file_class(name, split, files, size) for split, name, files in found]
    key = listing([path for one in found for path in one[2]])
    return Layout(lambda: classes, "split folders", key)


def _pickles(home: Path, size: int) -> Layout | None:
    pattern = "CIFAR_FS_{}.pickle"
    files = {s: home / pattern.format(s) for s in SPLITS if (home / pattern.format(s)).is_file()}
    if not _complete(home, files, pattern):
        return None

    def classes() -> list[PhotoClass]:
        return [one for split, path in files.items() for one in _pickled(path, split, size)]

    key = None if size == SIZE else listing(list(files.values()))
    return Layout(classes, "pickle", key)


def _pickled(path: Path, split: str, size: int) -> list[PhotoClass]:
    stored = _dictionary(path)
    images, labels = _images(path, stored.get("data"), stored.get("labels"))
    return [
        _labelled(f"{split} {label:03d}", split, images, labels == label, size)
        for label in np.unique(labels)
    ]


def _official(files: list[Path], where: dict[str, str], size: int) -> list[PhotoClass]:
    meta, *parts = (_dictionary(path) for path in files)
    found = meta.get("fine_label_names", ())
    if not isinstance(found, list | tuple) or not all(isinstance(n, str | bytes) for n in found):
        raise unusable(files[0], "its fine_label_names are no list of texts")
    names = [_text(name) for name in found]
    missing = [name for name in where if name not in names]
    if missing:
        raise unusable(files[0], f"it has no class {missing[0]}, which the lists name")
    both = [
        _images(path, part.get("data"), part.get("fine_labels"))
        for path, part in zip(files[1:], parts, strict=True)
    ]
    images = np.concatenate([image for image, _ in both])
    labels = np.concatenate([label for _, label in both])
    return [
        _labelled(name, split, images, labels == names.index(name), size)
        for name, split in where.items()
    ]


def _dictionary(path: Path) -> dict[str, Any]:
    stored = read_array_pickle(path)
    if not isinstance(stored, dict):
        raise unusable(path, "it holds no dictionary")
    return {_text(key): value for key, value in stored.items()}


def _text(word: Any) -> str:
    return word.decode("latin-1") if isinstance(word, bytes) else str(word)


def _images(path: Path, data: Any, labels: Any) -> tuple[Pixels, NDArray[np.int64]]:
    """Return images `(n, 32, 32, 3)` and labels `(n,)`, checked."""
    if isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == 3 * SIZE * SIZE:
        data = data.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)  # official: planes in a row
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 4
        or data.shape[3] != 3
    ):
        raise unusable(path, "data is no uint8 array (n, 32, 32, 3)")
    try:
        numbers = np.asarray(labels, dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise unusable(path, f"labels: {error}") from error
    if numbers.shape != data.shape[:1]:
        raise unusable(path, f"labels {numbers.shape} do not number the {len(data)} images")
    return data, numbers


def _labelled(
    name: str, split: str, images: Pixels, members: NDArray[np.bool_], size: int
) -> PhotoClass:
    rows = np.flatnonzero(members)
    return array_class(name, split, len(rows), partial(_rows, images, rows), size)


def _rows(images: Pixels, rows: NDArray[np.int64], count: int) -> Pixels:
    return images[rows[:count]]
