"""Keep finished image sets on disk, so that the seconds of making one are spent once.

The cache is a convenience and never a source of errors: a file that cannot be read or does not
match its own fingerprint is made again, and a folder that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from landscape import json_text
from landscape.npz import Npz
from landscape.writing import replacing
from sharpmaml.data.episodes import SPLITS
from sharpmaml.data.images import ImageSet, image_set

ENVIRONMENT = "SHARP_LANDSCAPE_CACHE"
UNREADABLE = (OSError, ValueError)


def cache_dir() -> Path:
    """Return the cache folder: `$SHARP_LANDSCAPE_CACHE`, else the user's own cache folder."""
    chosen = os.environ.get(ENVIRONMENT)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("sharp-landscape"))


def cache_path(name: str, key: Mapping[str, Any]) -> Path:
    """Return where the set `name` made with the JSON-able settings `key` is kept."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
    return cache_dir() / f"{name}-{digest}.npz"


def cached(
    name: str, key: Mapping[str, Any], build: Callable[[], ImageSet], *, compress: bool = True
) -> ImageSet:
    """Return the cached set, or build it and keep it.

    Args:
        name: start of the file name.
        key: everything that decides the result: options, input checksums, generator version.
        build: makes the set when no usable file is there.
        compress: whether the file is worth compressing.
    """
    path = cache_path(name, key)
    with contextlib.suppress(*UNREADABLE):
        return _read(path)
    made = build()
    with contextlib.suppress(OSError):
        _write(path, made, compress)
    return made


def _read(path: Path) -> ImageSet:
    with Npz(path) as stored:
        images, alphabet = stored.array("images"), stored.array("alphabet")
        splits = {split: stored.array(f"split_{split}") for split in SPLITS}
        names, classes = stored.texts("alphabet_names"), stored.texts("class_names")
        notes = json_text.parsed(_text(stored, "notes")) if "notes" in stored.names else None
        indices = [alphabet, *splits.values()]
        if images.dtype != np.uint8 or any(i.ndim != 1 or i.dtype != np.int64 for i in indices):
            raise ValueError(f"{path} holds arrays of other kinds")
        if not len(images) == len(alphabet) == len(classes) or not isinstance(notes, dict | None):
            raise ValueError(f"{path} does not fit together")
        found = image_set(
            _text(stored, "name"), images, alphabet, tuple(names), tuple(classes), splits, notes
        )
        if found.fingerprint != _text(stored, "fingerprint"):
            raise ValueError(f"{path} does not match its fingerprint")
    return found


def _text(stored: Npz, name: str) -> str:
    found = stored.texts(name)
    if len(found) != 1:
        raise ValueError(f"{name} is no text")
    return found[0]


def _write(path: Path, made: ImageSet, compress: bool) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "name": np.array(made.name),
        "images": made.images,
        "alphabet": made.alphabet,
        "alphabet_names": np.array(made.alphabet_names),
        "class_names": np.array(made.class_names),
        "fingerprint": np.array(made.fingerprint),
        "notes": np.array(json.dumps(made.notes)),
        **{f"split_{split}": made.splits[split] for split in SPLITS},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save = np.savez_compressed if compress else np.savez
    with replacing(path) as temporary, temporary.open("wb") as stream:
        save(stream, allow_pickle=False, **arrays)
