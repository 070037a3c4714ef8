"""CIFAR-10 from the files in which people have it, without running anything that is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.array_pickle import read_array_pickle
from landscape.npz import Npz
from landscape.wording import one_line

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

PACKED = "cifar10.npz"
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_PIXELS = 3 * 32 * 32
_LARGEST = 1 << 26  # bytes; a batch of the official pickles is 31 MB
_STEPS = 1_000_000  # instructions; such a batch has 40,000
_LAYOUTS = f"{PACKED}, {BINARY} or {PYTHON}"


def read(root: Path, split: str) -> tuple[Pixels, Labels]:
    """The images ``(n, 3, 32, 32)`` uint8, RGB planes, and the labels ``(n,)`` of a split.

    Args:
        root: an ``.npz`` file with arrays ``train_images``, ``train_labels``, ``test_images`` and
            ``test_labels``; or a folder that is, or holds, ``cifar-10-batches-bin`` (binary version),
            ``cifar-10-batches-py`` (python version, see :mod:`landscape.array_pickle`), or
            ``cifar10.npz``.
        split: ``"train"`` or ``"test"``.

    Raises:
        ValueError: an unknown split; files that are missing or damaged.
    """
    if split not in ("train", "test"):
        raise ValueError(f"--split is {split!r}: CIFAR-10 has train and test")
    names = TRAIN if split == "train" else ("test_batch",)
    if root.is_file():
        return _packed(root, split)
    for folder in (root, root / BINARY, root / PYTHON):
        for suffix, reader in ((".bin", _binary), ("", _pickled)):
            files = [folder / f"{name}{suffix}" for name in names]
            if files[0].is_file():
                parts = [reader(file) for file in files]
                return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    if (root / PACKED).is_file():
        return _packed(root / PACKED, split)
    raise ValueError(
        f"--data-root {root} has no CIFAR-10: expected a folder with {_LAYOUTS}, or an .npz file"
    )


def _packed(path: Path, split: str) -> tuple[Pixels, Labels]:
    try:
        with Npz(path) as arrays:
            x, y = arrays.array(f"{split}_images"), arrays.array(f"{split}_labels")
    except (OSError, ValueError) as error:
        raise _damaged(
            path, f"no arrays {split}_images and {split}_labels can be read ({_said(error)})"
        ) from None
    if y.ndim != 1 or x.shape != (len(y), 3, 32, 32) or x.dtype != np.uint8:
        raise _damaged(
            path, f"images are {x.dtype} {x.shape}, expected uint8 {(*y.shape, 3, 32, 32)}"
        )
    return x, _labels(y, path)


def _binary(path: Path) -> tuple[Pixels, Labels]:
    """Records of one label and 3072 pixels each."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise _damaged(path, _said(error)) from None
    if not content.size or content.size % (1 + _PIXELS):
        raise _damaged(path, f"{content.size} bytes, expected a multiple of {1 + _PIXELS}")
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:].reshape(-1, 3, 32, 32), _labels(records[:, 0], path)


def _pickled(path: Path) -> tuple[Pixels, Labels]:
    try:
        found = read_array_pickle(path, max_bytes=_LARGEST, max_steps=_STEPS)
        if not isinstance(found, dict):
            raise ValueError("it holds no dictionary")
        entries = {str(k, "latin1") if isinstance(k, bytes) else k: v for k, v in found.items()}
        x = entries["data"]
        y = np.asarray(entries["labels"], dtype=np.int64)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise _damaged(path, _said(error).removeprefix(f"{path} ")) from None
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape != (*y.shape, _PIXELS):
        form = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else "no array"
        raise _damaged(path, f"data is {form}, expected uint8 {(*y.shape, _PIXELS)}")
    return x.reshape(-1, 3, 32, 32), _labels(y, path)


def _labels(y: NDArray[Any], path: Path) -> Labels:
    found = y.astype(np.int64) if y.dtype.kind in "bui" else np.full(1, -1)
    if found.ndim != 1 or not len(found) or found.min() < 0 or found.max() > 9:
        raise _damaged(path, "labels are not one of 0 to 9 an image")
    return found


def _said(error: BaseException) -> str:
    return one_line(error, 400)


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is not a file of CIFAR-10: {reason}")
