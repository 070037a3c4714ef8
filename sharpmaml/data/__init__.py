"""Few-shot tasks: where the drawings come from, and how episodes are drawn from them.

>>> source = make_source("sinusoid", shots=5, queries=10, seed=1)
>>> source.kind, tuple(source.episode(7).support_x.shape)
('regression', (5, 1))

`strokes` (procedural, the default) and `glyphs` (letters of matplotlib's fonts) need no file;
`omniglot` (Lake et al. 2015) reads the user's copy or fetches the official one; `sinusoid` (Finn et
al. 2017) is a regression problem. `miniimagenet`, `cifarfs` and `folder` (any folder of images) read the
user's copy of photographs. `Feed` keeps a set on the training device.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sharpmaml.data.cifarfs import load_cifarfs
from sharpmaml.data.episodes import DataError, Episode, TaskSource
from sharpmaml.data.feed import Feed
from sharpmaml.data.folder import load_folder
from sharpmaml.data.glyphs import load_glyphs
from sharpmaml.data.image_episodes import ImageEpisodes
from sharpmaml.data.images import ImageSet, image_set
from sharpmaml.data.miniimagenet import load_miniimagenet
from sharpmaml.data.omniglot import load_omniglot
from sharpmaml.data.sinusoid import Sinusoids
from sharpmaml.data.strokes import load_strokes

__all__ = [
    "NAMES",
    "DataError",
    "Episode",
    "Feed",
    "ImageEpisodes",
    "ImageSet",
    "Sinusoids",
    "TaskSource",
    "image_set",
    "load_cifarfs",
    "load_folder",
    "load_glyphs",
    "load_images",
    "load_miniimagenet",
    "load_omniglot",
    "load_strokes",
    "make_source",
]

NAMES = ("strokes", "glyphs", "omniglot", "sinusoid", "miniimagenet", "cifarfs", "folder")

_LOADERS: dict[str, Callable[..., ImageSet]] = {
    "strokes": load_strokes,
    "glyphs": load_glyphs,
    "omniglot": load_omniglot,
    "miniimagenet": load_miniimagenet,
    "cifarfs": load_cifarfs,
    "folder": load_folder,
}
_READ = ("omniglot", "miniimagenet", "cifarfs", "folder")  # from files in `root`


def load_images(
    name: str, root: str | Path | None = None, *, download: bool = False, **options: Any
) -> ImageSet:
    """Return an image set, made or read once per process.

    Args:
        name: one of `NAMES` but `"sinusoid"`.
        root: where the files are; `strokes` and `glyphs` need none.
        download: fetch the official files of `omniglot` into `root` unless they are there.
        **options: strokes: `alphabets`, `seed`, `difficulty`; omniglot: `split`, `small`;
            miniimagenet and cifarfs: `image_size`, `normalize`; folder: these, `channels`,
            `min_images`.

    Raises:
        DataError: for an unknown name or option, or files that are missing or damaged.
    """
    if name not in NAMES:
        raise DataError(f"unknown data {name!r}: choose one of {', '.join(NAMES)}")
    if name not in _LOADERS:
        raise DataError(f"{name} has no images: choose one of {', '.join(_LOADERS)}")
    complete = _complete(name, _LOADERS[name], options)
    if name in _READ:
        # Absolute: the same relative path means another folder after a change of directory.
        complete["root"] = None if root is None else str(Path(root).expanduser().absolute())
    if name == "omniglot":
        complete["download"] = download
    elif download and name in _READ:
        raise DataError(f"{name} has no download: pass --data-root DIR with your copy")
    return _load_once(name, tuple(sorted(complete.items())))


@functools.cache
def _load_once(name: str, arguments: tuple[tuple[str, Any], ...]) -> ImageSet:
    return _LOADERS[name](**dict(arguments))


def _complete(
    name: str, loader: Callable[..., object], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `options` with the defaults of `loader` filled in.

    Raises:
        DataError: for an option that `loader` does not have, or of another type.
    """
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(loader).parameters.items()
        if option not in ("root", "download")
    }
    for option, value in options.items():
        if option not in known:
            raise DataError(
                f"{name} has no option {option!r}: it has {', '.join(known) or 'none at all'}"
            )
        default = known[option]
        wanted: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
            raise DataError(
                f"option {option} of {name} is {value!r}: "
                f"expected {type(default).__name__}, such as {default!r}"
            )
    return {**known, **options}


def make_source(
    data: str,
    *,
    split: str = "train",
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    seed: int = 0,
    root: str | Path | None = None,
    rotations: bool | None = None,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    shift: str = "none",
    label_noise: float = 0.0,
    record: Mapping[str, Any] | None = None,
) -> TaskSource:
    """Return a numbered supply of tasks.

    Args:
        data: one of `NAMES`.
        split: `"train"`, `"val"` or `"test"`.
        ways: classes in an episode (not used by `sinusoid`).
        shots: support examples of each class.
        queries: query examples of each class.
        seed: chooses the episodes.
        root: where the files of the set are.
        rotations: training classes also rotated by 90, 180 and 270 degrees, as classes of their
            own; by default for `omniglot` only. Val and test classes are never rotated.
        download: fetch the official files of `omniglot` into `root` unless they are there.
        options: options of the set, see `load_images`.
        shift: another domain than training's: `"rotate90"`, `"rotate180"`, `"rotate270"`, `"invert"`
            of images, see `ImageEpisodes`; `"amplitude"`, `"phase"`, `"frequency"` of `sinusoid`.
        label_noise: share of wrong support labels in each episode, see `ImageEpisodes`.
        record: what a recipe says of how its images were made; noted anew, never read.

    Raises:
        DataError: for an unknown name, split, shift or option, for more classes or drawings than there
            are, and for files that are missing or damaged.
    """
    if data == "sinusoid":
        _complete(data, lambda: None, options or {})
        if rotations:
            raise DataError("rotations turn images, sinusoid has none: leave rotations out")
        if label_noise:
            raise DataError(
                f"label_noise is {label_noise} but sinusoid has no classes to exchange: choose a "
                "set of images, or a shift"
            )
        return Sinusoids(split, shots, queries, seed, shift=shift)
    images = load_images(data, root, download=download, **(options or {}))
    turned = data == "omniglot" if rotations is None else rotations
    return ImageEpisodes(
        images, split, ways, shots, queries, seed, turned, data=data, root=root, options=options,
        shift=shift, label_noise=label_noise,
    )  # fmt: skip
