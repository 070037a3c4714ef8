"""Surface files of tomgoldstein/loss-landscape.

``xcoordinates``, ``ycoordinates`` (planes only), ``train_loss`` and ``train_acc`` in percent, ``test_loss`` and
``test_acc`` where somebody computed them, ``dir_file``, the name of the file of directions. An entry of
-1 is not computed yet. The arrays have the shape ``(nx, ny)``, but are filled in the order of an ``(ny, nx)``
mesh, x fastest: for ``nx != ny`` the entry at ``[i, j]`` is not the loss at ``x[i], y[j]``. Read in that order they
are right for every shape.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape.clock import created_at
from landscape.exchange.files import Array, plain, replaced_hdf5, settings, values
from landscape.exchange.li2018.hdf5 import member, numbers, opened, words
from landscape.store import SCHEMA, json_text

PARTS = ("train", "test")
UNFILLED = -1.0
_MOST = 10**7  # points: a grid of 3162 x 3162


def read_surface(
    path: str | os.PathLike[str], part: str | None = None, label: str | None = None
) -> xr.Dataset:
    """A surface file of the reference as one of ours.

    Rows are y (``beta``) and columns x (``alpha``) whatever the shape of the grid. Entries of -1 are points not
    evaluated; accuracies become shares. Standard errors are not known and NaN.

    Args:
        path: the file.
        part: ``"train"`` or ``"test"``: whose losses; those that are there when left out, train first.
        label: name of the subject; from the file name when left out.

    Returns:
        Dataset as in ``docs/schema.md``. ``normalize`` and ``ignore`` are what the name of the directions'
        file says (it is made of the settings), or empty. ``span`` and ``points`` are left out where the two
        axes differ.

    Raises:
        ValueError: not such a file, cut short, no losses of this part, or shapes that do not fit.
    """
    if part is not None and part not in PARTS:
        raise ValueError(f"part is {part!r}: expected train or test")
    with opened(path) as file:
        axes = [numbers(file, "xcoordinates", _MOST)]
        if member(file, "ycoordinates") is not None:
            axes.append(numbers(file, "ycoordinates", _MOST))
        for name, axis in zip("xy", axes, strict=False):
            if axis.ndim != 1 or len(axis) < 2 or not np.isfinite(axis).all():
                raise ValueError(f"{name}coordinates is no axis: expected two numbers or more")
            if len(set(axis.tolist())) < len(axis):
                raise ValueError(f"{name}coordinates has the same position twice")
        there = [name for name in PARTS if member(file, f"{name}_loss") is not None]
        if not there or (part is not None and part not in there):
            wanted = " or ".join(f"'{name}_loss'" for name in ([part] if part else PARTS))
            raise ValueError(f"{wanted} is missing")
        part = part or there[0]
        loss = _on_grid(file, f"{part}_loss", axes)
        accuracy = None
        if member(file, f"{part}_acc") is not None:
            accuracy = _on_grid(file, f"{part}_acc", axes)
        directions = words(file, "dir_file")
    return _dataset(Path(path), part, label, axes, loss, accuracy, directions)


def _on_grid(file: Any, name: str, axes: list[Array]) -> Array:
    """Values with rows y and columns x, both ascending."""
    counts = tuple(len(axis) for axis in axes)
    found = numbers(file, name, _MOST)
    if found.shape not in (counts, counts[::-1]):
        raise ValueError(f"{name!r} has shape {found.shape}: expected {counts}")
    grid: Array = found.reshape(counts[::-1])
    for dimension, axis in enumerate(reversed(axes)):
        grid = np.take(grid, np.argsort(axis), axis=dimension)
    return grid


def _dataset(
    path: Path,
    part: str,
    label: str | None,
    axes: list[Array],
    loss: Array,
    accuracy: Array | None,
    directions: str,
) -> xr.Dataset:
    dims = ("beta", "alpha")[-len(axes) :]
    done = loss != UNFILLED
    variables: dict[str, Any] = {
        "loss": (dims, np.where(done, loss, np.nan)),
        "loss_stderr": (dims, np.full(loss.shape, np.nan)),
        "evaluated": (dims, done.astype(np.int8)),
    }
    if accuracy is not None:
        known = done & (accuracy != UNFILLED)
        variables["accuracy"] = (dims, np.where(known, accuracy / 100.0, np.nan))
    coords = dict(zip(("alpha", "beta"), map(np.sort, axes), strict=False))
    attrs: dict[str, Any] = {
        "schema": SCHEMA,
        "label": re.split(r"_(?:weights|states)", path.name)[0] if label is None else label,
        "axes": len(axes),
        **_grid(axes),
        **_rule(directions),
        "group": f"{part} data",
        "objective": json_text({"objective": "imported", "part": part}),
        "plane": json_text({"kind": "imported", "directions": directions}),
        "imported": json_text(
            {"format": "tomgoldstein/loss-landscape", "file": path.name, "directions": directions}
        ),
        "created_at": created_at(),
    }
    centre = [np.flatnonzero(coords[name] == 0) for name in dims]
    if all(map(len, centre)):
        own = variables["loss"][1][tuple(int(where[0]) for where in centre)]
        if np.isfinite(own):
            attrs["centre_loss"] = float(own)
    return xr.Dataset(variables, coords, attrs)


def _grid(axes: list[Array]) -> dict[str, Any]:
    ends = {(float(axis.min()), float(axis.max()), len(axis)) for axis in axes}
    if len(ends) > 1:
        return {}
    low, high, points = ends.pop()
    return {"span": high if low == -high else [low, high], "points": points}


def _rule(directions: str) -> dict[str, Any]:
    """What the name of the directions' file says; the reference makes it of its settings."""
    rules = set(re.findall(r"_[xy]norm=([a-z]+)", directions))
    known: dict[str, Any] = {"normalize": rules.pop() if len(rules) == 1 else "", "ignore": []}
    return known | ({"ignore": ["bias", "norm"]} if "ignore=biasbn" in directions else {})


def write_surface(
    surface: xr.Dataset, path: str | os.PathLike[str], *, part: str = "train"
) -> tuple[str, ...]:
    """A surface as the reference's plotting scripts and its resumed runs read it.

    Accuracies are in percent; points without a number are -1. Of the rest only the settings are kept, as the
    JSON text ``settings``, which the reference ignores.

    Args:
        surface: over a plane or a line.
        path: file to write or to replace.
        part: ``"train"`` or ``"test"``: the name that the losses get.

    Returns:
        What the format cannot tell.

    Raises:
        ValueError: another part, or the file cannot be written there.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}: expected train or test")
    axes = [name for name in ("alpha", "beta") if name in surface["loss"].dims]
    loss = values(surface, "loss").astype(np.float64)
    done = np.isfinite(loss)
    known: Array = values(surface, "evaluated") != 0 if "evaluated" in surface else done
    estimated = done & ~known
    arrays = {"loss": np.where(known | estimated, loss, UNFILLED)}
    notes = []
    if "accuracy" in surface:
        share = values(surface, "accuracy").astype(np.float64)
        arrays["acc"] = np.where(np.isfinite(share), 100.0 * share, UNFILLED)
    elif len(axes) == 1:
        notes.append("there is no accuracy, which the reference's figure of a line asks for")
    if estimated.any():
        notes.append(
            f"{int(estimated.sum())} interpolated losses cannot be told from computed ones"
        )
    if (loss[known] <= 0).any():
        count = int((loss[known] <= 0).sum())
        notes.append(f"{count} losses are not positive: the reference takes them for missing")
    imported = settings(surface).get("imported")
    directions = imported.get("directions", "") if isinstance(imported, dict) else ""
    with replaced_hdf5(path) as file:
        file["dir_file"] = directions
        for letter, axis in zip("xy", axes, strict=False):
            file[f"{letter}coordinates"] = surface[axis].values.astype(np.float64)
        for name, grid in arrays.items():
            file[f"{part}_{name}"] = grid.reshape(grid.shape[::-1])
        file["settings"] = json.dumps(plain(settings(surface)))
    return tuple(notes)
