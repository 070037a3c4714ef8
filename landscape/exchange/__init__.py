"""Surfaces in the files of other programs: meshes and tables out, loss-landscape's HDF5 files in and out.

What each format holds, how to open it and what it loses: ``docs/exchange.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from landscape.exchange import gltf, li2018, stl, tables, vtk
from landscape.exchange.li2018.surfaces import write_surface

__all__ = ["FORMATS", "export", "li2018"]

Writer = Callable[..., tuple[str, ...]]

_SHAPE = ("size", "height", "log", "clip")

FORMATS: dict[str, tuple[Writer, tuple[str, ...]]] = {
    ".csv": (tables.write_csv, ()),
    ".json": (tables.write_json, ()),
    ".vts": (vtk.write_vts, _SHAPE),
    ".stl": (stl.write_stl, (*_SHAPE, "base")),
    ".glb": (gltf.write_gltf, _SHAPE),
    ".gltf": (gltf.write_gltf, _SHAPE),
    ".h5": (write_surface, ("part",)),
}
"""Suffix of a file -> the function that writes it and the options that it takes."""


def export(surface: xr.Dataset, path: str | os.PathLike[str], **options: Any) -> tuple[str, ...]:
    """Write a surface for another program; the suffix of the file says which.

    ========================  ============================================================================
    ``.csv``, ``.json``       a long table with the settings as comments; all numbers and settings
    ``.vts``                  VTK structured grid, for ParaView
    ``.stl``                  watertight solid in millimetres, for 3-D printing
    ``.glb``, ``.gltf``       coloured glTF 2.0 mesh, for slides and web pages
    ``.h5``                   surface file of tomgoldstein/loss-landscape
    ========================  ============================================================================

    The file appears whole or not at all.

    Args:
        surface: what :func:`landscape.evaluate` or :func:`landscape.load` returned.
        path: file to write or to replace.
        options: for meshes ``size`` (longest side, 100 mm), ``height`` (of the relief, 40 mm), ``log``
            (heights are log10 of the loss) and ``clip`` (losses above it, and those that are not finite,
            are drawn at it); for ``.stl`` also ``base`` (thickness of the plate under it, 2 mm); for
            ``.h5`` ``part`` (``"train"`` or ``"test"``, the name the losses get).

    Returns:
        What was changed on the way, in sentences; empty where nothing was.

    Raises:
        ValueError: an unknown suffix, an option that the format does not take, a folder that does not
            exist, or a surface that the format cannot hold.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: expected a name ending in {', '.join(FORMATS)}")
    write, known = FORMATS[suffix]
    for name in options:
        if name not in known:
            takers = [s for s, (_, names) in FORMATS.items() if name in names]
            raise ValueError(
                f"{name} says nothing about a {suffix} file"
                + (f": it is for {', '.join(takers)}" if takers else "")
            )
    return write(surface, path, **options)
