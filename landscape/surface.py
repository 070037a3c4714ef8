"""Evaluate an objective over a plane: a labelled Dataset with a written schema, resumable, saved atomically."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from landscape.directions import Plane
from landscape.objective import Objective, digest
from landscape.store import SCHEMA, encoded, json_text, load, save, writable

_SAVE_EVERY = 10.0  # seconds between two saves of an unfinished surface
_Array = np.ndarray[Any, np.dtype[Any]]


def evaluate(
    objective: Objective,
    plane: Plane,
    span: float | tuple[float, float] | None = None,
    points: int = 51,
    out: str | os.PathLike[str] | None = None,
    label: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Loss and metrics of ``objective`` on a regular grid over ``plane``.

    Points are evaluated from the centre outwards. The objective and its model are never changed.
    Losses that are NaN or infinite are kept as they are; ``evaluated`` tells them from points that
    are still to come.

    Args:
        objective: the function; its ``metrics(theta)`` become the variables.
        plane: one or two directions; two give a square grid.
        span: half-width of each axis in units of its direction, or a pair ``(low, high)``. Left out,
            it is 1; on an interpolation about a quarter of the points lie beyond either end, and both
            ends are on the grid.
        points: number of points on each axis, at least 2; an odd number puts one on the centre.
        out: file that makes the run resumable: saved about every ten seconds, at the end, and when
            the run is interrupted. A file of the same run is continued, a complete one returned.
        label: name of the subject, shown on figures.
        progress: called as ``progress(done, total)`` after each point.

    Returns:
        Dataset with dims ``(beta, alpha)``, or ``(alpha,)`` for a line; see ``docs/schema.md``.

    Raises:
        ValueError: a bad grid, a folder that does not exist, a file in ``out`` that is no surface, or
            one of another run (the first setting that differs is named).

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2))
    >>> surface = evaluate(bowl, Plane(torch.zeros(2), torch.eye(2)), points=3)
    >>> surface["loss"].values.tolist()
    [[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]
    """
    grid, low_high = _grid(plane, span, points)
    surface = _blank(objective, plane, grid, low_high, label)
    path = None if out is None else writable(out)
    if path is not None and path.exists():
        surface = _continued(path, surface)
    order = _order(surface)
    total = surface["evaluated"].size
    if not order:
        return surface
    _set_centre(surface, float(objective.value(plane.origin)), path)
    saved = time.monotonic()
    try:
        for done, index in enumerate(order, start=total - len(order) + 1):
            place = [float(grid[i]) for i in reversed(index)]  # the index is (beta, alpha)
            _store(surface, index, objective.metrics(plane.point(*place)))
            if path is not None and time.monotonic() - saved > _SAVE_EVERY:
                save(surface, path)
                saved = time.monotonic()
            if progress is not None:
                progress(done, total)
    finally:
        # Whatever ends the run, an interrupt or an error at one point, the work done is kept.
        if path is not None:
            save(surface, path)
    return surface


def _grid(
    plane: Plane, span: float | tuple[float, float] | None, points: int
) -> tuple[_Array, tuple[float, float]]:
    if points < 2:
        raise ValueError(f"points is {points}: expected at least 2 on each axis")
    if span is None and plane.settings.get("kind") == "interpolation":
        beyond = (points - 1) // 4
        grid = (np.arange(points) - beyond) / (points - 1 - 2 * beyond)
        return grid, (float(grid[0]), float(grid[-1]))
    if span is None:
        span = 1.0
    low, high = span if isinstance(span, tuple | list) else (-span, span)
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"span is {span}: expected a positive number, or (low, high) in order")
    grid = np.linspace(low, high, points)
    if low == -high:
        grid = (grid - grid[::-1]) / 2  # symmetric to the last bit, and exactly 0 in the middle
    return grid, (float(low), float(high))


def _blank(
    objective: Objective, plane: Plane, grid: _Array, span: tuple[float, float], label: str
) -> xr.Dataset:
    dims = ("beta", "alpha")[-plane.axes :]
    shape = (len(grid),) * plane.axes
    low, high = span
    hashes = {"origin_sha256": digest([plane.origin]), "basis_sha256": digest([plane.basis])}
    settings = {"objective": json_text(objective.settings), "plane": json_text(plane.settings)}
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
        **hashes,
        **settings,
        "fingerprint": hashlib.sha256(json_text([hashes, settings]).encode()).hexdigest(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
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


def _order(surface: xr.Dataset) -> list[tuple[int, ...]]:
    """Indices still to evaluate, from the middle of the grid outwards."""
    evaluated = surface["evaluated"].values
    steps = np.indices(evaluated.shape) * 2 - (evaluated.shape[0] - 1)
    distance = (steps**2).sum(axis=0).reshape(-1)
    ranked = np.argsort(distance, kind="stable")
    flat = evaluated.reshape(-1)
    return [
        tuple(int(i) for i in np.unravel_index(position, evaluated.shape))
        for position in ranked
        if not flat[position]
    ]


def _store(surface: xr.Dataset, index: tuple[int, ...], metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if name not in surface:
            surface[name] = (surface["loss"].dims, np.full(surface["loss"].shape, np.nan))
        surface[name].values[index] = float(value)
    surface["evaluated"].values[index] = 1  # last: an interrupt before it repeats the point


def _continued(path: Path, fresh: xr.Dataset) -> xr.Dataset:
    """The surface in ``path`` if it is the same run as ``fresh``, else an error naming the difference."""
    found = load(path)
    for name, ours, theirs in _compared(fresh, found):
        if ours != theirs:
            raise ValueError(
                f"{path} holds another surface: {name} is {theirs} there and {ours} here; "
                "give another out=, or delete the file"
            )
    if fresh.attrs["label"]:
        found.attrs["label"] = fresh.attrs["label"]
    return found


def _compared(ours: xr.Dataset, theirs: xr.Dataset) -> list[tuple[str, Any, Any]]:
    names: tuple[str, ...] = ("axes", "points", "span", "dtype")
    rows = [(name, ours.attrs[name], theirs.attrs.get(name)) for name in names]
    for group in ("plane", "objective"):
        left, right = (json.loads(s.attrs.get(group, "{}")) for s in (ours, theirs))
        rows += [
            (f"{group}.{k}", left.get(k), right.get(k))
            for k in sorted({*left, *right}, key=_readable)
        ]
    names = ("origin_sha256", "basis_sha256", "fingerprint")
    return rows + [(name, ours.attrs[name], theirs.attrs.get(name)) for name in names]


def _readable(name: str) -> tuple[bool, str]:
    return name.endswith("sha256"), name  # a hash names the difference only if nothing else does


def _set_centre(surface: xr.Dataset, loss: float, path: Path | None) -> None:
    # Settings cannot tell two Python functions apart; the value at the centre can.
    earlier = surface.attrs.get("centre_loss", loss)
    if not np.isclose(earlier, loss, rtol=1e-4, atol=1e-12, equal_nan=True):
        raise ValueError(
            f"{path} holds another surface: centre_loss is {earlier} there and {loss} here; "
            "give another out=, or delete the file"
        )
    surface.attrs.setdefault("centre_loss", loss)


def _version() -> str:
    try:
        return metadata.version("sharp-landscape")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
