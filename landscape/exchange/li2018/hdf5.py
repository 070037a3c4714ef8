"""Reading HDF5 that strangers wrote: numbers of the file itself, of a size that was checked, or one ValueError."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape.exchange.files import Array
from landscape.hdf5_apart import vet
from landscape.wording import one_line

_LONGEST = 65536  # bytes of a name of a file


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The file, open for reading.

    Raises:
        ValueError: no such file, not HDF5, cut short, or whatever goes wrong in the block.
    """
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"{source}: no such file")
    try:
        vet(source)
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise ValueError(f"{source}: not an HDF5 file, or cut short ({reason})") from None
    try:
        with h5py.File(source, "r", locking="best-effort") as file:
            yield file
    except (
        OSError, RuntimeError, LookupError, TypeError, AttributeError, OverflowError, MemoryError, struct.error,
    ) as error:  # fmt: skip
        reason = one_line(error)
        raise ValueError(f"{source}: not an HDF5 file, or cut short ({reason})") from error
    except ValueError as error:
        raise ValueError(f"{source}: {one_line(error)}") from error


def member(group: Any, name: str) -> Any:
    """What ``group`` holds under ``name``, in this very file; None where there is nothing.

    Raises:
        ValueError: a link: it could lead into any other file.
    """
    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name!r} is a link to elsewhere: expected numbers")
    return group[name]


def dataset(group: Any, name: str) -> Any:
    """The numbers under ``name``, not read yet.

    Raises:
        ValueError: missing, not numbers, or kept outside the file.
    """
    found = member(group, name)
    if found is None:
        raise ValueError(f"{name!r} is missing")
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
        raise ValueError(f"{name!r} holds no numbers")
    if found.is_virtual or found.external:
        raise ValueError(f"{name!r} is kept in another file: expected numbers in this one")
    return found


def numbers(group: Any, name: str, limit: int) -> Array:
    """The numbers under ``name`` as float64, at most ``limit`` of them."""
    found = dataset(group, name)
    if found.shape is None or not 0 < found.size <= limit:
        raise ValueError(f"{name!r} has {found.size} entries: expected 1 to {limit}")
    with np.errstate(
        over="ignore"
    ):  # of wider floats: infinite then, which is told as that of any loss
        return np.asarray(found[()], np.float64)


def words(file: Any, name: str) -> str:
    """The text under ``name``; empty where there is none that can be read."""
    found = member(file, name)
    if not isinstance(found, h5py.Dataset) or found.shape != ():
        return ""
    kind = h5py.check_string_dtype(found.dtype)
    if kind is None or found.is_virtual or found.external or (kind.length or 0) > _LONGEST:
        return ""
    if kind.length is not None:
        return bytes(found[()]).rstrip(b"\0").decode(errors="replace")
    place = found.id.get_offset()
    return "" if place is None else _from_heap(Path(file.filename).read_bytes(), place)


def _from_heap(data: bytes, place: int) -> str:
    """The string of any length whose reference lies at ``place``.

    HDF5 itself never comes back from some damaged heaps, so the heap is read here (HDF5 file format 3.0,
    section III.E: objects with a head of 16 bytes, padded to 8).
    """
    length, start, wanted = struct.unpack_from("<IQI", data, place)
    size = int.from_bytes(data[start + 8 : start + 16], "little")
    if data[start : start + 4] != b"GCOL" or length > _LONGEST:
        return ""
    at, end = start + 16, min(start + size, len(data))
    while at + 16 <= end:
        number, count = struct.unpack_from("<H6xQ", data, at)
        if number == wanted:
            return data[at + 16 : at + 16 + min(length, count)].decode(errors="replace")
        at += 16 + -(-count // 8) * 8
    return ""
