"""Continuing a surface: the same run goes on, another one is refused with the difference named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape.health import recounted
from landscape.store import json_text, load, save, writable

_EXTENT = ("axes", "points", "span", "dtype")
_OPTIONS = ("tolerance", "basin_tolerance", "keep_terms", "slopes")  # absent where they are off
_HASHES = ("origin_sha256", "basis_sha256", "buffers_sha256", "fingerprint")


def continued(path: Path, fresh: xr.Dataset) -> xr.Dataset:
    """The surface in ``path`` if it is the same run as ``fresh``.

    Raises:
        ValueError: it is another one; the message names the first setting that differs.
    """
    found = load(path)
    difference = first_difference(fresh, found, (*_EXTENT, "shard"))
    if difference is not None:
        name, ours, theirs = difference
        raise ValueError(
            f"{path} holds another surface: {name} is {theirs} there and {ours} here; "
            "give another out=, or delete the file"
        )
    if fresh.attrs["label"]:
        found.attrs["label"] = fresh.attrs["label"]
    return found


def check_centre(surface: xr.Dataset, loss: float, path: Path | None) -> None:
    """Record the objective's own value at the origin, or compare it with the one recorded.

    Settings cannot tell two Python functions apart; the value at the centre can.

    Raises:
        ValueError: another value than the one in the file.
    """
    earlier = surface.attrs.get("centre_loss", loss)
    if not np.isclose(earlier, loss, rtol=1e-4, atol=1e-12, equal_nan=True):
        raise ValueError(
            f"{path} holds another surface: centre_loss is {earlier} there and {loss} here; "
            "give another out=, or delete the file"
        )
    surface.attrs.setdefault("centre_loss", loss)


def merge(paths: Sequence[Path | str], out: Path | str) -> xr.Dataset:
    """Put the shards of one surface together and save it.

    Args:
        paths: files written with ``shard=(i, n)``, in any order.
        out: file to write.

    Returns:
        The whole surface; points that no shard has stay NaN, with ``evaluated`` 0.

    Raises:
        ValueError: no files, a file that is no surface, or shards of different surfaces.
    """
    if not paths:
        raise ValueError("no shards given: expected the files of one surface")
    target = writable(out)
    shards = [load(path) for path in paths]
    whole = shards[0].copy(deep=True)
    whole.attrs.pop("shard", None)
    for path, shard in zip(paths[1:], shards[1:], strict=True):
        difference = first_difference(whole, shard, (*_EXTENT, "executor"))
        if difference is not None:
            name, ours, theirs = difference
            raise ValueError(
                f"{path} is a shard of another surface: {name} is {theirs} there and {ours} in {paths[0]}"
            )
        done = shard["evaluated"].values == 1
        for name in map(str, shard.data_vars):
            if name not in whole:
                whole[name] = (shard[name].dims, np.full(shard[name].shape, np.nan))
            whole[name].values[done] = shard[name].values[done]
    if "health" in whole.attrs and whole["evaluated"].values.all():
        whole.attrs["health"] = json_text(recounted(whole))
    else:
        whole.attrs.pop("health", None)  # the mark of a complete surface
    save(whole, target)
    return whole


def first_difference(
    ours: xr.Dataset, theirs: xr.Dataset, names: Iterable[str]
) -> tuple[str, Any, Any] | None:
    """Name and both values of the first setting in which two surfaces differ, hashes last."""
    for name, left, right in _compared(ours, theirs, names):
        if left != right:
            return name, left, right
    return None


def _compared(
    ours: xr.Dataset, theirs: xr.Dataset, names: Iterable[str]
) -> list[tuple[str, Any, Any]]:
    rows = [(n, ours.attrs.get(n), theirs.attrs.get(n)) for n in (*names, *_OPTIONS)]
    for group in ("plane", "objective"):
        left, right = (json.loads(s.attrs.get(group, "{}")) for s in (ours, theirs))
        rows += [
            (f"{group}.{k}", left.get(k), right.get(k))
            for k in sorted({*left, *right}, key=_readable)
        ]
    return rows + [(name, ours.attrs.get(name), theirs.attrs.get(name)) for name in _HASHES]


def _readable(name: str) -> tuple[bool, str]:
    return name.endswith("sha256"), name  # a hash names the difference only if nothing else does
