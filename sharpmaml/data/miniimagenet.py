"""mini-ImageNet from the layouts in which people have it.

Source of the data: Vinyals et al. 2016, "Matching Networks for One Shot Learning"; classes and images
as listed by Ravi & Larochelle 2017, "Optimization as a Model for Few-Shot Learning": 64 / 16 / 20
classes with 600 photographs of 84x84 pixels each. There is no official download.

A copy with another number of images a class is named after that number, "mini-ImageNet-50", so that its
accuracies are not taken for those of the whole.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape import json_text
from landscape.hdf5_apart import vet
from landscape.wording import one_line, printable
from sharpmaml.data.archives import content
from sharpmaml.data.array_pickle import read_array_pickle
from sharpmaml.data.episodes import SPLITS, DataError
from sharpmaml.data.images import ImageSet
from sharpmaml.data.photographs import (
    BROKEN,
    Layout,
    PhotoClass,
    Pixels,
    Published,
    array_class,
    check_options,
    decoded,
    file_class,
    listing,
    photo_set,
    unusable,
)

SIZE = 84
PUBLISHED = Published("mini-ImageNet", 100, 600)
NESTED = (".", "miniimagenet", "mini-imagenet", "mini_imagenet", "miniImagenet", "miniImageNet")
VAL = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
EXPECTED = (
    "train.csv, val.csv, test.csv with images/ (as files or in zips), "
    "mini-imagenet-cache-{train,val,test}.pkl, or {train,val,test}_data.hdf5"
)
ADVICE = "pass --data-root DIR with a copy"


def load_miniimagenet(
    root: str | Path | None = None, *, image_size: int = SIZE, normalize: str = "none"
) -> ImageSet:
    """Return mini-ImageNet as uint8 images `(classes, instances, 3, image_size, image_size)`.

    Args:
        root: a folder that holds (itself, or in `miniimagenet/` and the like) the csv lists with
            `images/` or `<split>/<class>/` beside them, zips of these, the pickles
            `mini-imagenet-cache-*.pkl`, or torchmeta's `*_data.hdf5`; or one such zip. Pickles
            are read without running what they name.
        image_size: 84 as published; 42 is a quarter of the work. Resized by Pillow's bilinear
            filter, which averages when it shrinks.
        normalize: `"none"`: pixels in [0, 1], as in MAML; `"mean-std"`: each channel by mean and
            standard deviation of the training split.

    Raises:
        DataError: if files are missing or damaged (they are named), or an option is unknown.
    """
    check_options("miniimagenet", image_size, normalize)
    if root is None:
        raise DataError(f"miniimagenet has no official download: {ADVICE}")
    layout = replace(_locate(Path(root), image_size), place=Path(root))
    return photo_set(PUBLISHED, layout, image_size, normalize)


Finder = Callable[[Path, int], "Layout | list[str]"]


def _locate(place: Path, size: int) -> Layout:
    if place.is_file() and zipfile.is_zipfile(place):
        found = _zips([place], size)
        if isinstance(found, Layout):
            return found
        raise DataError(f"{place} lacks {', '.join(found)}: {ADVICE}")
    if not place.is_dir():
        what = "is no folder or zip" if place.exists() else "does not exist"
        raise DataError(f"{place} {what}: {ADVICE}")
    partial_layouts: list[str] = []
    finders: tuple[Finder, ...] = (
        _hdf5,
        _pickles,
        _lists,
        lambda home, s: _zips(_zip_files(home), s),
    )
    for home in (place / nested for nested in NESTED):
        for finder in finders if home.is_dir() else ():
            found = finder(home, size)
            if isinstance(found, Layout):
                return found
            if 0 < len(found) < len(SPLITS):
                partial_layouts.append(", ".join(found))
    if partial_layouts:
        raise DataError(f"{place} lacks {partial_layouts[0]}: {ADVICE}")
    raise DataError(f"{place} has no mini-ImageNet ({EXPECTED}): {ADVICE}")


def _one_of(home: Path, pattern: str) -> dict[str, Path]:
    """Return the file of each split that is there, under `pattern` with its name filled in."""
    paths = {split: [home / pattern.format(n) for n in VAL[split]] for split in SPLITS}
    there = {split: [p for p in candidates if p.is_file()] for split, candidates in paths.items()}
    return {split: found[0] for split, found in there.items() if found}


def _missing(found: Mapping[str, Any], pattern: str) -> list[str]:
    return [pattern.format(split) for split in SPLITS if split not in found]


def _hdf5(home: Path, size: int) -> Layout | list[str]:
    files = _one_of(home, "{}_data.hdf5")
    if len(files) < len(SPLITS):
        return _missing(files, "{}_data.hdf5")
    classes: list[PhotoClass] = []
    for split, path in files.items():
        try:
            vet(path)
            with h5py.File(path) as stored:
                group = stored["datasets"]
                shapes = {name: (group[name].shape, group[name].dtype) for name in group}
            labels = home / f"{split}_labels.json"
            names = json_text.read(labels) if labels.is_file() else sorted(shapes)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{labels.name} is no list of names")
            absent = [name for name in names if name not in shapes]
        except (*BROKEN, AttributeError, TypeError) as error:
            raise unusable(path, error) from error
        if absent:
            raise unusable(path, f"class {printable(absent[0])} of {labels.name} is not in it")
        for name in names:
            shape, dtype = shapes[name]
            _check_pixels(path, f"class {name}", shape, dtype)
            rows = partial(_hdf5_rows, path, name)
            classes.append(array_class(name, split, shape[0], rows, size))
    return Layout(lambda: classes, "hdf5", _key(list(files.values()), size))


def _hdf5_rows(path: Path, name: str, count: int) -> Pixels:
    try:
        with h5py.File(path) as stored:
            return np.asarray(stored["datasets"][name][:count])
    except (*BROKEN, AttributeError, TypeError) as error:
        raise unusable(path, f"class {printable(name)}: {one_line(error)}") from error


def _pickles(home: Path, size: int) -> Layout | list[str]:
    pattern = "mini-imagenet-cache-{}.pkl"
    files = _one_of(home, pattern)
    if len(files) < len(SPLITS):
        return _missing(files, pattern)
    return Layout(
        lambda: [one for split, path in files.items() for one in _pickled(path, split, size)],
        "pickle",
        _key(list(files.values()), size),
    )


def _pickled(path: Path, split: str, size: int) -> list[PhotoClass]:
    stored = read_array_pickle(path)
    images, index = _entry(path, stored, "image_data"), _entry(path, stored, "class_dict")
    if not isinstance(images, np.ndarray) or not isinstance(index, dict):
        raise unusable(path, "image_data is no array, or class_dict no dictionary")
    _check_pixels(path, "image_data", images.shape, images.dtype)
    classes = []
    for name, members in index.items():
        try:
            rows = np.asarray(members, dtype=np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise unusable(path, f"class {name}: {error}") from error
        if rows.ndim != 1 or (len(rows) and not 0 <= rows.min() <= rows.max() < len(images)):
            raise unusable(path, f"class {name} names rows that image_data does not have")
        take = partial(_rows, images, rows)
        classes.append(array_class(str(name), split, len(rows), take, size))
    return classes


def _rows(images: NDArray[np.uint8], rows: NDArray[np.int64], count: int) -> Pixels:
    return images[rows[:count]]


def _entry(path: Path, stored: Any, name: str) -> Any:
    if not isinstance(stored, dict) or name not in stored:
        raise unusable(path, f"it has no {name}")
    return stored[name]


def _check_pixels(path: Path, what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != np.uint8:
        raise unusable(path, f"{what} is {dtype} {tuple(shape)}, expected uint8 (n, 84, 84, 3)")


def _key(files: list[Path], size: int) -> Any:
    """Return a cache key for arrays, which are worth caching only when they are resized."""
    return None if size == SIZE else listing(files)


def _read_list(path: Path | str, text: str) -> dict[str, list[str]]:
    """Return the file names of each class in a csv with the columns `filename` and `label`."""
    rows = csv.DictReader(io.StringIO(text))
    found: dict[str, list[str]] = {}
    try:
        if rows.fieldnames is None or not {"filename", "label"} <= set(rows.fieldnames):
            raise unusable(path, f"its first line is {rows.fieldnames}, expected filename,label")
        for row in rows:
            if not row["filename"] or not row["label"]:
                raise unusable(path, f"line {rows.line_num} lacks a filename or a label")
            if _leaves(row["filename"]) or _leaves(row["label"]):
                raise unusable(path, f"line {rows.line_num} names a file elsewhere")
            found.setdefault(row["label"], []).append(row["filename"])
    except csv.Error as error:
        raise unusable(path, f"line {rows.line_num}: {error}") from error
    return found


def _leaves(name: str) -> bool:
    """Return whether a name leads out of the folder that it is looked for in."""
    return (
        len(name) > 200 or not name.isprintable() or bool({"/", "\\"} & set(name)) or name == ".."
    )


def _lists(home: Path, size: int) -> Layout | list[str]:
    files = _one_of(home, "{}.csv")
    if len(files) < len(SPLITS):
        return _missing(files, "{}.csv")
    there = {path.name for path in (home / "images").glob("*")}
    classes: list[PhotoClass] = []
    listed: list[Path] = []
    for split, path in files.items():
        try:
            wanted = _read_list(path, path.read_text("utf-8"))
        except BROKEN as error:
            raise error if isinstance(error, DataError) else unusable(path, error) from error
        absent: list[str] = []
        for label, names in wanted.items():
            found = [
                home / "images" / name if name in there else home / path.stem / label / name
                for name in names
            ]
            pairs = zip(found, names, strict=True)
            absent += [name for p, name in pairs if name not in there and not p.is_file()]
            listed += found
            classes.append(file_class(label, split, found, size))
        _check_complete(home, path.name, absent, sum(map(len, wanted.values())))
    return Layout(lambda: classes, "csv and images", listing([*files.values(), *listed]))


def _check_complete(home: Path, name: str, absent: list[str], total: int) -> None:
    if absent:
        raise DataError(
            f"{home} has {total - len(absent)} of the {total} images that {name} lists; the first "
            f"missing one is images/{printable(absent[0])}: {ADVICE}"
        )


def _zip_files(home: Path) -> list[Path]:
    return sorted(home.glob("*.zip"))


def _zips(archives: list[Path], size: int) -> Layout | list[str]:
    """Find the lists in zips, each with `images/` beside it."""
    classes: dict[str, list[PhotoClass]] = {}
    used: list[Path] = []
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = set(opened.namelist())
                lists = {
                    split: [m for m in sorted(members) if PurePosixPath(m).name == f"{split}.csv"]
                    for split in SPLITS
                    if split not in classes
                }
                lists = {split: found for split, found in lists.items() if found}
                texts = {s: content(opened, found[0]).decode("utf-8") for s, found in lists.items()}
        except BROKEN as error:
            raise unusable(archive, error) from error
        for split, text in texts.items():
            member = lists[split][0]
            wanted = _read_list(f"{archive} ({member})", text)
            folder = PurePosixPath(member).parent / "images"
            paths = {label: [str(folder / n) for n in names] for label, names in wanted.items()}
            absent = [
                PurePosixPath(p).name for ps in paths.values() for p in ps if p not in members
            ]
            _check_complete(archive, member, absent, sum(map(len, paths.values())))
            classes[split] = [
                PhotoClass(label, split, len(ps), partial(_zip_rows, archive, ps, size))
                for label, ps in paths.items()
            ]
            used.append(archive)
    if len(classes) < len(SPLITS):
        return _missing(classes, "{}.csv")
    whole = [one for split in SPLITS for one in classes[split]]
    return Layout(lambda: whole, "csv and images in zips", listing(sorted(set(used))))


def _zip_rows(archive: Path, members: list[str], size: int, count: int) -> Pixels:
    found = []
    member = ""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in members[:count]:
                found.append(decoded(content(opened, member), size))
    except BROKEN as error:
        raise unusable(archive, f"{member}: {error}") from error
    return np.stack(found)
