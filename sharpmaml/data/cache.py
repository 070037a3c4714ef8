"""Keep finished image sets on disk, so that the seconds of making one are spent once.

The cache is a convenience and never a source of errors: a file that cannot be read or does not
match its own fingerprint is made again, and a folder that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from sharpmaml.data.episodes import SPLITS
from sharpmaml.data.images import ImageSet, image_set

ENVIRONMENT = "SHARP_LANDSCAPE_CACHE"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


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
    # Opened here: numpy leaves the file open when what it finds is no archive.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        found = image_set(
            str(stored["name"]),
            stored["images"],
            stored["alphabet"],
            tuple(stored["alphabet_names"].tolist()),
            tuple(stored["class_names"].tolist()),
            {split: stored[f"split_{split}"] for split in SPLITS},
            json.loads(str(stored["notes"])) if "notes" in stored else None,
        )
        if found.fingerprint != str(stored["fingerprint"]):
            raise ValueError(f"{path} does not match its fingerprint")
    return found


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
    # Under a temporary name until complete: a reader in another process never sees half a file.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            save = np.savez_compressed if compress else np.savez
            save(stream, allow_pickle=False, **arrays)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
