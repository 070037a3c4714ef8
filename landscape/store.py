"""Surfaces and spectra on disk: NetCDF files that appear whole or not at all. No torch: they are just numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import netcdf
from landscape.wording import one_line, printable
from landscape.writing import replacing

SCHEMA = "landscape.surface/1"
"""Name and version of the file format, written down in ``docs/schema.md``."""

CURVATURE_MAP = "landscape.curvature_map/1"
"""Schema of what :func:`landscape.spectra.plane_map.curvature_map` returns."""

ALONG_TRAINING = "landscape.along_training/1"
"""Schema of what :func:`landscape.spectra.along_training.along_training` returns."""

TRAJECTORY = "landscape.trajectory/1"
"""Schema of what :func:`landscape.trajectory.follow` returns."""

DIFFERENCE = "landscape.difference/1"
"""Schema of what :func:`landscape.contrast.surface_difference` returns."""

CURVE = "landscape.curve/1"
"""Schema of the training state that :func:`landscape.connect` keeps."""

_NEEDED = {SCHEMA: ("loss", "evaluated", "alpha")}
_LISTS = ("ignore", "direction_norms", "axis_titles")  # NetCDF gives lists of one back as scalars


def save(surface: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a surface as NetCDF-4: the file appears whole or not at all.

    Attributes that NetCDF cannot hold (None, booleans, mappings) are written as JSON text.

    Args:
        surface: what :func:`landscape.evaluate` returned.
        path: file to write or to replace.

    Raises:
        ValueError: the folder does not exist, or ``path`` is a folder.
        WriteError: the disk refuses; ``path`` is as it was, and no partial file is left behind.
    """
    target = writable(path)
    whole = surface.drop_encoding()
    whole.attrs = {name: encoded(value) for name, value in surface.attrs.items()}
    # Made in memory: HDF5 that meets a full disk half-way cannot close its file, or end its process, in peace.
    contents = whole.to_netcdf(engine="h5netcdf")
    with replacing(target) as temporary:
        temporary.write_bytes(contents)


def load(path: str | os.PathLike[str], schema: str = SCHEMA) -> xr.Dataset:
    """Read a surface into memory; the file is closed again.

    Another process does the reading (:mod:`landscape.hdf5_apart`): a damaged file may end libhdf5.

    Args:
        path: the file.
        schema: what it must hold: a surface, a :data:`CURVATURE_MAP` or an :data:`ALONG_TRAINING`.

    Raises:
        ValueError: no such file, not a NetCDF file, cut short, or of another schema.
    """
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"{source}: no such file")
    try:
        found = netcdf.read(source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source}: not a NetCDF file, or cut short ({one_line(error)})"
        ) from error
    there = found.attrs.get("schema")
    if not isinstance(there, str) or there != schema:
        kind = schema.partition(".")[2].partition("/")[0].replace("_", " ")
        raise ValueError(
            f"{source}: not a {kind} file: schema is {printable(repr(there))}, expected {schema!r}"
        )
    missing = [name for name in _NEEDED.get(schema, ()) if name not in found.variables]
    if missing:
        raise ValueError(f"{source}: not a whole surface: variable {missing[0]!r} is missing")
    found.attrs = {name: _decoded(name, value) for name, value in found.attrs.items()}
    return found


def writable(path: str | os.PathLike[str]) -> Path:
    """The path, if a file may be written there; ValueError otherwise."""
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"{target} is a folder: give the name of a file in it")
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {target}: the folder {target.parent} does not exist")
    return target


def encoded(value: Any) -> Any:
    """An attribute as NetCDF can hold it."""
    if value is None or isinstance(value, bool | np.bool_ | Mapping):
        return json_text(bool(value) if isinstance(value, np.bool_) else value)
    return value


def _decoded(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [value] if name in _LISTS and not isinstance(value, list) else value


def json_text(value: Any) -> str:
    """JSON with sorted keys: equal settings give equal text."""
    return json.dumps(value, sort_keys=True, default=str)
