"""A surface as a long table (CSV) and as one JSON document."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import xarray as xr

from landscape.exchange.files import plain, pointwise, replaced, settings, values


def write_csv(surface: xr.Dataset, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """One row a point: the coordinates, then every variable with one number a point.

    The settings come first, a line ``# name: JSON`` each. Floating-point numbers are written so that they
    come back exactly; NaN and infinities are ``nan``, ``inf`` and ``-inf``. Read it with
    ``pandas.read_csv(path, comment="#")``.

    Returns:
        What does not fit into the table.

    Raises:
        ValueError: the file cannot be written there.
    """
    names = pointwise(surface)
    axes = [axis for axis in ("alpha", "beta") if axis in surface["loss"].dims]
    grid = np.meshgrid(*(surface[axis].values for axis in axes))
    columns = [array.ravel().tolist() for array in (*grid, *(values(surface, n) for n in names))]
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for name, value in settings(surface).items():
            file.write(f"# {name}: {json.dumps(value, ensure_ascii=True)}\n")
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*axes, *names])
        rows.writerows(zip(*columns, strict=True))  # it writes floats by repr: exactly
    left = sorted({str(name) for name in surface.data_vars} - set(names))
    return tuple(f"{name} has several numbers a point and is left out" for name in left)


def write_json(surface: xr.Dataset, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Every number and setting: ``{"settings": ..., "coords": ..., "variables": ...}``.

    Each of ``coords`` and ``variables`` is ``{"dims": [...], "values": [...]}``, nested lists in the order
    of the dimensions. Numbers that JSON lacks are the texts ``NaN``, ``Infinity`` and ``-Infinity``.

    Returns:
        Nothing is lost: an empty tuple.

    Raises:
        ValueError: the file cannot be written there.
    """
    parts = {
        group: {
            str(name): {"dims": list(array.dims), "values": plain(array.values)}
            for name, array in arrays.items()
        }
        for group, arrays in (("coords", surface.coords), ("variables", surface.data_vars))
    }
    document = {"settings": settings(surface), **parts}
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    return ()
