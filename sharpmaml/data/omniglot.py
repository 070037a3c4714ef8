"""Omniglot from the layouts in which people have it.

Source of the data: Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through
probabilistic program induction", Science 350. 1623 characters of 50 alphabets, each drawn by 20
people; official class numbers 0001-0964 are the background set, 0965-1623 the evaluation set.

Two splits are offered:

`"lake"`: test is the evaluation set, train and val are background alphabets. Val holds the
smallest sixth of them, which of the full 30 are Blackfoot, Ojibwe and Inuktitut (all Canadian
Aboriginal Syllabics), Tagalog, and Alphabet of the Magi: 883 / 81 / 659 classes, as in
Triantafillou et al. 2020, "Meta-Dataset".

`"vinyals"`: 1028 / 172 / 423 characters, mixing the alphabets (Vinyals et al. 2016), the split of
most published numbers.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landscape.npz import Npz
from landscape.pictures import converted, opened
from landscape.wording import one_line, printable
from sharpmaml.data.archives import content
from sharpmaml.data.cache import cache_dir, cached
from sharpmaml.data.download import OMNIGLOT, fetch, sha256_of
from sharpmaml.data.episodes import SPLITS, DataError
from sharpmaml.data.images import ImageSet, image_set, split_by_alphabet

VERSION = 1  # of the preprocessing: raise it when a pixel changes, so that old caches are passed by
CLASSES = 1623
BACKGROUND = 964  # class numbers up to this one are the background set
DRAWERS = 20
SIZE = 28
SIDE = 105
SPLIT_NAMES = ("lake", "vinyals")
PACKED = "omniglot.npz"
PARTS = ("images_background", "images_evaluation")
SMALL = ("images_background_small1", "images_background_small2")
NESTED = (".", "omniglot-py", "omniglot")  # where torchvision and torchmeta put the archives

MEMBER = re.compile(r"(?:^|/)([^/]+)/(character\d\d)/(\d{4})_(\d\d)\.png$")
BROKEN = (OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error,
          NotImplementedError, RuntimeError, OverflowError)  # fmt: skip
ADVICE = "pass --data-root DIR with a good copy, or --download"


@dataclass(frozen=True)
class _Drawings:
    """What a layout yields: class numbers in order, their names, and 28x28 drawings."""

    numbers: NDArray[np.int64]  # (classes,), ascending, 1-based
    alphabets: list[str]  # (classes,)
    characters: list[str]  # (classes,), "character01"
    images: NDArray[np.uint8]  # (classes, 20, 28, 28), ink = 255


def load_omniglot(
    root: str | Path | None = None,
    *,
    download: bool = False,
    split: str = "lake",
    small: bool = False,
) -> ImageSet:
    """Return Omniglot as 28x28 drawings, ink = 255, classes in the order of their numbers.

    Args:
        root: `omniglot.npz`, or a folder that holds (itself, or in `omniglot-py/` or `omniglot/`)
            `omniglot.npz`, or `images_background` and `images_evaluation`, each as a folder or
            as the official zip. By default the place where `download` puts the archives.
        download: fetch the official zips into `root` unless they are there.
        split: `"lake"` or `"vinyals"`, see above.
        small: accept one part alone, or the zips `images_background_small1` and `_small2`. Where
            `"lake"` then has no evaluation set, the alphabets are split 60/20/20. For trying
            things out; such numbers compare to none, and the set's name says so.

    Raises:
        DataError: if a file is missing, damaged or incomplete, or an option is unknown.
    """
    if split not in SPLIT_NAMES:
        raise DataError(f"unknown Omniglot split {split!r}: choose {' or '.join(SPLIT_NAMES)}")
    place = cache_dir() / "omniglot" if root is None else Path(root)
    if download and not _npz_or_folders(place):
        if place.is_file():
            raise DataError(f"{place} is a file, nothing can be downloaded into it: name a folder")
        fetch(OMNIGLOT, place)
    sources = _locate(place, root is None, small)
    if any(source.is_dir() for source in sources):
        return _build(sources, split, small)  # checksums of 32,460 files cost what reading costs
    key = {
        "version": VERSION,
        "split": split,
        "small": small,
        "files": [_checksum(source) for source in sources],
    }
    return cached("omniglot", key, lambda: _build(sources, split, small))


def _npz_or_folders(place: Path) -> bool:
    homes = [place / nested for nested in NESTED]
    return place.suffix == ".npz" or any(
        (home / PACKED).is_file() or all((home / part).is_dir() for part in PARTS) for home in homes
    )


def _locate(place: Path, default: bool, small: bool) -> list[Path]:
    """Return the npz, or the folders and zips to read."""
    if place.is_file():
        if place.suffix == ".npz":
            return [place]
        raise DataError(f"{place} is not an .npz file or a folder: {ADVICE}")
    if not place.is_dir():
        if default:
            raise DataError(f"no Omniglot files were named, and none are in {place}: {ADVICE}")
        raise DataError(f"{place} does not exist: {ADVICE}")
    missing: list[str] = []
    for home in (place / nested for nested in NESTED):
        if (home / PACKED).is_file():
            return [home / PACKED]
        wanted = (*PARTS, *SMALL) if small else PARTS
        found = [path for part in wanted for path in _part(home, part)]
        if len(found) >= (1 if small else len(PARTS)):
            return found
        if found:
            missing = [part for part in PARTS if not _part(home, part)]
    if missing:
        raise DataError(f"{place} lacks {missing[0]} (folder or .zip): {ADVICE}")
    hint = ""
    if any(_part(place / nested, part) for nested in NESTED for part in SMALL):
        hint = " (it has the small zips, which need the option small=True)"
    raise DataError(
        f"{place} has neither {PACKED} nor {' and '.join(PARTS)} as folders or zips{hint}: {ADVICE}"
    )


def _part(home: Path, part: str) -> list[Path]:
    if (home / part).is_dir():
        return [home / part]
    # The second name keeps two data sets apart that share one folder.
    names = (f"{part}.zip", f"omniglot_{part}.zip")
    return [home / name for name in names if (home / name).is_file()][:1]


def _checksum(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: BaseException | str) -> DataError:
    reason = one_line(error) if isinstance(error, BaseException) else printable(error, 300)
    return DataError(f"{printable(path, 400)} cannot be used ({reason}): {ADVICE}")


def _build(sources: list[Path], split: str, small: bool) -> ImageSet:
    packed = sources[0].suffix == ".npz"
    drawings = _read_packed(sources[0]) if packed else _read_pictures(sources)
    names = list(dict.fromkeys(drawings.alphabets))
    position = {name: i for i, name in enumerate(names)}
    alphabet = np.array([position[name] for name in drawings.alphabets], dtype=np.int64)
    if split == "vinyals":
        splits = _vinyals(drawings.numbers)
    elif small and not (drawings.numbers[0] <= BACKGROUND < drawings.numbers[-1]):
        test = max(1, round(0.2 * len(names)))
        splits = split_by_alphabet(alphabet, (len(names) - 2 * test, test, test))
    else:
        splits = _lake(drawings.numbers, alphabet)
    empty = [name for name in SPLITS if not len(splits[name])]
    if empty:
        raise _unusable(
            sources[0],
            f"{len(names)} alphabets leave split {empty[0]} of {split!r} without classes",
        )
    count = len(drawings.numbers)
    return image_set(
        "omniglot" if count == CLASSES else f"omniglot ({count} of {CLASSES} classes)",
        drawings.images,
        alphabet,
        tuple(names),
        tuple(map("/".join, zip(drawings.alphabets, drawings.characters, strict=True))),
        splits,
    )


def _lake(numbers: NDArray[np.int64], alphabet: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    background = numbers <= BACKGROUND
    sizes = np.bincount(alphabet[background])
    present = np.flatnonzero(sizes)
    smallest = present[np.argsort(sizes[present], kind="stable")][: max(1, len(present) // 6)]
    held = background & np.isin(alphabet, smallest)
    masks = (background & ~held, held, ~background)
    return {name: np.flatnonzero(mask) for name, mask in zip(SPLITS, masks, strict=True)}


def _vinyals(numbers: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    text = resources.files("sharpmaml.data").joinpath("vinyals_split.txt").read_text("utf-8")
    digits = "".join(line for line in text.splitlines() if not line.startswith("#"))
    side = np.array([int(digit) for digit in digits])[numbers - 1]
    return {name: np.flatnonzero(side == i) for i, name in enumerate(SPLITS)}


def _shrink(ink: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(ink.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _read_packed(path: Path) -> _Drawings:
    """Read `omniglot.npz`: packed bits with ink = 1, rows in the order of the class numbers."""
    try:
        with Npz(path) as stored:
            bits, names = stored.array("images"), stored.texts("alphabet_names")
            places, numbers = stored.array("alphabet"), stored.array("character")
        if any(found.ndim != 1 or found.dtype.kind not in "iu" for found in (places, numbers)):
            raise ValueError("alphabet and character are no lists of numbers")
        if len(places) and not 0 <= places.min() <= places.max() < len(names):
            raise ValueError("alphabet names alphabets that alphabet_names does not have")
        alphabets = [names[i] for i in places]
        characters = [f"character{int(number):02d}" for number in numbers]
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    shape = (CLASSES, DRAWERS, (SIDE * SIDE + 7) // 8)
    if bits.shape != shape or bits.dtype != np.uint8:
        raise _unusable(path, f"images are {bits.dtype} {bits.shape}, expected uint8 {shape}")
    if not len(alphabets) == len(characters) == CLASSES:
        raise _unusable(path, f"it does not name all {CLASSES} classes")
    images = np.empty((CLASSES, DRAWERS, SIZE, SIZE), dtype=np.uint8)
    for row in range(CLASSES):
        drawings = np.unpackbits(bits[row], axis=-1, count=SIDE * SIDE) * np.uint8(255)
        for drawer, ink in enumerate(drawings.reshape(DRAWERS, SIDE, SIDE)):
            images[row, drawer] = _shrink(Image.fromarray(ink))
    return _Drawings(np.arange(1, CLASSES + 1), alphabets, characters, images)


def _wanted(name: str) -> bool:
    """Whether a path is a drawing, and not a shadow that macOS adds to archives."""
    return MEMBER.search(name) is not None and "__MACOSX" not in name.split("/")


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every drawing in a folder or a zip; anything else is passed by."""
    if source.is_dir():
        for path in sorted(source.rglob("*.png")):
            name = path.relative_to(source).as_posix()
            if _wanted(name):
                yield name, path.read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if _wanted(name):
                yield name, content(archive, name)


def _read_pictures(sources: list[Path]) -> _Drawings:
    """Read official PNGs, whose paper is 1 and whose ink is 0."""
    drawn: dict[int, dict[int, NDArray[np.uint8]]] = {}
    names: dict[int, tuple[str, str]] = {}
    for source in sources:
        name = ""
        try:
            for name, data in _members(source):
                match = MEMBER.search(name)
                if match is None:
                    continue
                number, drawer = int(match[3]), int(match[4])
                if names.setdefault(number, (match[1], match[2])) != (match[1], match[2]):
                    raise ValueError(f"class {number:04d} also is {'/'.join(names[number])}")
                if drawer not in drawn.setdefault(number, {}):
                    paper = np.asarray(converted(opened(data), "L"))
                    drawn[number][drawer] = _shrink(Image.fromarray(255 - paper))
        except BROKEN as error:
            text = one_line(error)
            raise _unusable(source, f"{printable(name)}: {text}" if name else error) from error
    place = sources[0].parent
    if not drawn:
        raise _unusable(place, "no <alphabet>/character01/0001_01.png in it")
    numbers = sorted(drawn)
    if not 1 <= numbers[0] <= numbers[-1] <= CLASSES:
        raise _unusable(place, f"class numbers {numbers[0]} to {numbers[-1]} leave 1 to {CLASSES}")
    for number in numbers:
        if sorted(drawn[number]) != list(range(1, DRAWERS + 1)):
            raise _unusable(
                place,
                f"class {number:04d} ({'/'.join(names[number])}) has {len(drawn[number])} of "
                f"{DRAWERS} drawings",
            )
    return _Drawings(
        np.array(numbers, dtype=np.int64),
        [names[number][0] for number in numbers],
        [names[number][1] for number in numbers],
        np.stack([np.stack([drawn[n][d + 1] for d in range(DRAWERS)]) for n in numbers]),
    )
