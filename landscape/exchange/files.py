"""Files that appear whole or not at all, and what every format needs of a surface."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from landscape.store import writable
from landscape.writing import replacing

Array = np.ndarray[Any, np.dtype[Any]]


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name beside ``path`` to write to; it replaces ``path`` where the block ends without an error.

    Raises:
        ValueError: the folder does not exist, or ``path`` is a folder.
        WriteError: the disk refuses; ``path`` is as it was.
    """
    with replacing(writable(path)) as temporary:
        yield temporary


@contextmanager
def replaced_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """An HDF5 file to fill, in memory; it replaces ``path`` where the block ends without an error.

    HDF5 that meets a full disk half-way cannot close its file, or end its process, in peace.

    Raises:
        ValueError: the folder does not exist, or ``path`` is a folder.
        WriteError: the disk refuses; ``path`` is as it was.
    """
    target, contents = writable(path), io.BytesIO()
    with h5py.File(contents, "w") as file:
        yield file
    with replacing(target) as temporary:
        temporary.write_bytes(contents.getvalue())


def values(surface: xr.Dataset, name: str) -> Array:
    """A variable as an array, rows ``beta`` and columns ``alpha``; a line has columns only."""
    dims = [dim for dim in ("beta", "alpha") if dim in surface["loss"].dims]
    return np.asarray(surface[name].transpose(*dims).values)


def pointwise(surface: xr.Dataset) -> list[str]:
    """Names of the variables with one number a point, the loss first."""
    dims = set(surface["loss"].dims)
    names = [str(name) for name in surface.data_vars if set(surface[name].dims) == dims]
    return ["loss", *(name for name in names if name != "loss")]


def settings(surface: xr.Dataset) -> dict[str, Any]:
    """The attributes as JSON can hold them; those that are JSON text are taken apart."""
    return {str(name): plain(_taken_apart(value)) for name, value in surface.attrs.items()}


def plain(value: Any) -> Any:
    """Python's own values; what is not finite is the text ``NaN``, ``Infinity`` or ``-Infinity``.

    >>> plain({"a": np.array([1.0, np.inf])})
    {'a': [1.0, 'Infinity']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _taken_apart(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return None if value == "null" else value  # how a file holds None
