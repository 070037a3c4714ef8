"""The grid of a surface: where its points are, which come first, and the labelled Dataset they fill."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.clock import created_at
from landscape.device import one_thread
from landscape.directions import Plane
from landscape.objective import Objective, digest
from landscape.store import SCHEMA, encoded, json_text

Array = np.ndarray[Any, np.dtype[Any]]
Index = tuple[int, ...]
Span = float | tuple[float, float] | None

# Settings of a plane that figures and reports show; what is computed does not depend on them.
_AS_THEY_ARE = ("axis_titles", "directions")
_SHOWN = (*_AS_THEY_ARE, "marks", "path", "cautions", "refusals")
_BEYOND = 0.2  # how far a plane through points reaches beyond them, as a share of their extent
_COARSEST = 5  # points a side of the coarsest lattice, at least


def axis(plane: Plane, span: Span, points: int) -> tuple[Array, tuple[float, float]]:
    """Coordinates ``(points,)`` of each axis, and their ends.

    Raises:
        ValueError: fewer than two points, or a span that is no interval.
    """
    if points < 2:
        raise ValueError(f"points is {points}: expected at least 2 on each axis")
    if span is None and plane.settings.get("kind") == "interpolation":
        beyond = (points - 1) // 4
        grid = (np.arange(points) - beyond) / (points - 1 - 2 * beyond)
        return grid, (float(grid[0]), float(grid[-1]))
    if span is None and plane.settings.get("kind") == "through":
        return _covering(plane.settings["marks"], points)
    if span is None:
        span = 1.0
    low, high = span if isinstance(span, tuple | list) else (-span, span)
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"span is {span}: expected a positive number, or (low, high) in order")
    grid = np.linspace(low, high, points)
    if low == -high:
        grid = (grid - grid[::-1]) / 2  # symmetric to the last bit, and exactly 0 in the middle
    return grid, (float(low), float(high))


def _covering(marks: list[dict[str, Any]], points: int) -> tuple[Array, tuple[float, float]]:
    """Coordinates that reach all points named and some way beyond, with 0 and 1 among them if they can be."""
    reached = [float(mark[name]) for mark in marks for name in ("alpha", "beta")]
    low, high = min(reached), max(reached)
    margin = _BEYOND * (high - low)
    low, high = low - margin, high + margin
    steps = int((points - 1) / (high - low))  # between 0 and 1
    while steps > 0:
        below = math.ceil(-low * steps - 1e-9)
        if points - 1 - below >= high * steps - 1e-9:
            spare = points - 1 - below - math.ceil(high * steps - 1e-9)
            grid = (np.arange(points) - below - spare // 2) / steps
            return grid, (float(grid[0]), float(grid[-1]))
        steps -= 1
    return np.linspace(low, high, points), (low, high)


@one_thread()
def blank(
    objective: Objective, plane: Plane, grid: Array, span: tuple[float, float], label: str
) -> xr.Dataset:
    """A surface with no point evaluated yet; its attributes say all there is to say beforehand."""
    dims = ("beta", "alpha")[-plane.axes :]
    shape = (len(grid),) * plane.axes
    low, high = span
    hashes = {"origin_sha256": digest([plane.origin]), "basis_sha256": digest([plane.basis])}
    if plane.buffers:
        hashes["buffers_sha256"] = digest(plane.buffers[name] for name in sorted(plane.buffers))
    shown = {name: plane.settings[name] for name in _SHOWN if name in plane.settings}
    own = {name: value for name, value in plane.settings.items() if name not in shown}
    settings = {"objective": json_text(objective.settings), "plane": json_text(own)}
    attrs: dict[str, Any] = {
        "schema": SCHEMA,
        "label": label,
        "span": high if low == -high else [low, high],
        "points": len(grid),
        "axes": plane.axes,
        "normalize": str(plane.settings.get("normalize", "none")),
        "ignore": list(plane.settings.get("ignore", [])),
        "seed": encoded(plane.settings.get("seed")),
        "direction_norms": list(plane.norms),
        "direction_cosine": plane.cosine,
        "origin_norm": float(plane.origin.double().norm()),
        **{n: v if n in _AS_THEY_ARE else json_text(v) for n, v in shown.items() if v},
        **hashes,
        **settings,
        "fingerprint": hashlib.sha256(json_text([hashes, settings]).encode()).hexdigest(),
        "created_at": created_at(),
        "landscape_version": _version(),
        "torch_version": str(torch.__version__),
        "device": str(plane.origin.device),
        "dtype": str(plane.origin.dtype).removeprefix("torch."),
    }
    return xr.Dataset(
        {
            "loss": (dims, np.full(shape, np.nan)),
            "loss_stderr": (dims, np.full(shape, np.nan)),
            "evaluated": (dims, np.zeros(shape, dtype=np.int8)),
        },
        coords=dict.fromkeys(dims, grid),
        attrs=attrs,
    )


def order(shape: tuple[int, ...]) -> list[Index]:
    """All indices, coarse to fine: the centre, a coarse lattice around it, then lattices twice as fine.

    >>> [index for (index,) in order((9,))]
    [4, 2, 6, 0, 8, 3, 5, 1, 7]
    """
    centres = [(n - 1) // 2 for n in shape]
    levels = max(0, int(np.log2((max(shape) - 1) / (_COARSEST - 1)))) if max(shape) > 1 else 0

    def rank(index: Index) -> tuple[int, float, Index]:
        offsets = [i - c for i, c in zip(index, centres, strict=True)]
        level = min((o & -o).bit_length() - 1 if o else levels for o in offsets)
        middles = [i - (n - 1) / 2 for i, n in zip(index, shape, strict=True)]
        return -min(level, levels), sum(m * m for m in middles), index

    return sorted(itertools.product(*map(range, shape)), key=rank)


def place(surface: xr.Dataset, indices: list[Index]) -> Array:
    """Coordinates ``(points, axes)`` of grid indices, alpha first."""
    values = surface["alpha"].values
    # An index is (beta, alpha); both axes have the same coordinates.
    return np.array([[values[i] for i in reversed(index)] for index in indices], np.float64)


def store(surface: xr.Dataset, index: Index, row: Mapping[str, Any]) -> None:
    """Write the numbers of one point; ``terms`` becomes a variable with a last dimension ``term``."""
    for name, value in row.items():
        if name not in surface:
            size = np.shape(value)
            dims = (*surface["loss"].dims, *(("term",) if size else ()))
            surface[name] = (dims, np.full((*surface["loss"].shape, *size), np.nan))
        surface[name].values[index] = value
    surface["evaluated"].values[index] = 1  # last: an interrupt before it repeats the point


def _version() -> str:
    try:
        return metadata.version("sharp-landscape")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
