"""Files of directions of tomgoldstein/loss-landscape: groups ``xdirection`` and ``ydirection`` of numbered tensors."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from landscape.directions import Plane
from landscape.exchange.files import replaced_hdf5
from landscape.exchange.li2018.entries import MODES, Entries, combined, entries
from landscape.exchange.li2018.hdf5 import dataset, member, opened
from landscape.exchange.li2018.plane import ReferencePlane
from landscape.objective import Objective

_NAMES = ("xdirection", "ydirection")
_CLOSE = 1e-3  # relative: norms of float32 tensors that were scaled in float32


def read_directions(path: str | os.PathLike[str], objective: Objective) -> ReferencePlane:
    """The plane through ``objective.theta`` along the directions of a file.

    The file names no tensors. Whether it lists parameters or whole states is told by the shapes.

    Args:
        path: the file.
        objective: the network that the directions are of. States with statistics that move need
            ``norm="interpolated"``.

    Returns:
        A plane, or a line where there is one direction. Its setting ``normalize`` is the rule that its norms
        obey (``filter``, ``layer``, ``dfilter`` or ``dlayer``), or empty; ``ignore`` names bias and norm where
        no tensor of one dimension moves.

    Raises:
        ValueError: not such a file, cut short, tensors of another network, numbers that are not finite, a
            direction that is zero, or a frozen tensor that would move.
    """
    with opened(path) as file:
        names = [name for name in _NAMES if member(file, name) is not None]
        if not names or names[0] != _NAMES[0]:
            raise ValueError("'xdirection' is missing: not a file of directions")
        groups = [member(file, name) for name in names]
        if not all(isinstance(group, h5py.Group) for group in groups):
            raise ValueError("'xdirection' and 'ydirection' must be groups of numbered tensors")
        found = _matching(objective, [_shapes(group) for group in groups])
        rows = [_row(name, group, found) for name, group in zip(names, groups, strict=True)]
    basis, buffers = combined(objective, found, rows)
    for name, row in zip(names, basis, strict=True):
        if not row.any():
            raise ValueError(f"{path}: {name} is zero: no trainable tensor moves")
    fixed = all(not row[k].any() for row in rows for k, t in found.tensors.items() if t.dim() <= 1)
    rule = _rule(found, rows)
    settings: dict[str, Any] = {
        "kind": "directions file",
        "conventions": "li2018",
        "file": Path(path).name,
        "normalize": rule,
        "ignore": ["bias", "norm"] if fixed else [],
        "axes": len(rows),
        "mode": found.mode,
        "directions": f"{rule and rule + '-normalized '}directions of {Path(path).name}",
    }
    if not rule:
        settings["axis_titles"] = [
            f"{letter} ({name})" for letter, name in zip("αβ", names, strict=False)
        ]
    return ReferencePlane(objective.theta.detach().clone(), basis, settings, buffers)


def write_directions(
    plane: Plane, objective: Objective, path: str | os.PathLike[str]
) -> tuple[str, ...]:
    """The directions of a plane as the reference's ``--dir_file`` reads them.

    States where the plane carries statistics that move, else weights. The origin is not in the file: it is
    the checkpoint that the reference is run with.

    Args:
        plane: a plane or a line.
        objective: whose plane it is.
        path: file to write or to replace.

    Returns:
        What to know when it is used, in sentences.

    Raises:
        ValueError: a plane of another objective, or the file cannot be written there.
    """
    if plane.origin.numel() != objective.space.size:
        raise ValueError(
            f"the plane has {plane.origin.numel()} parameters, the objective {objective.space.size}"
        )
    mode = "states" if plane.buffers else "weights"
    tensors = entries(objective, mode).tensors
    with replaced_hdf5(path) as file:
        for axis, (name, row) in enumerate(zip(_NAMES, plane.basis, strict=False)):
            pieces = objective.space.unflatten(row)
            group = file.create_group(name)
            for i, (key, tensor) in enumerate(tensors.items()):
                step = pieces.get(key)
                if step is None and key in plane.buffers:
                    step = plane.buffers[key][1 + axis]
                kept = torch.zeros_like(tensor) if step is None else step
                group.create_dataset(str(i), data=kept.detach().cpu().numpy())
    notes = [] if mode == "weights" else ["states: run the reference with --dir_type states"]
    if not torch.equal(plane.origin, objective.theta):
        notes.append("the origin is not the objective's point, and the file does not hold it")
    return tuple(notes)


def _shapes(group: Any) -> list[tuple[int, ...]]:
    return [tuple(dataset(group, str(i)).shape or ()) for i in range(len(group))]


def _matching(objective: Objective, shapes: list[list[tuple[int, ...]]]) -> Entries:
    """The list whose shapes are those of the file."""
    offered = [entries(objective, MODES[0])]
    with suppress(ValueError):  # there are no states, or they mean something else
        offered.append(entries(objective, MODES[1]))
    for found in offered:
        if all(shape == found.shapes for shape in shapes):
            return found
    weights, here = offered[0], shapes[0]
    counts = " or ".join(f"{len(found.tensors)} ({found.mode})" for found in offered)
    if len(here) != len(weights.tensors):
        raise ValueError(f"directions of another network: {len(here)} tensors, expected {counts}")
    for axis in shapes:
        for name, shape, expected in zip(weights.tensors, axis, weights.shapes, strict=False):
            if shape != expected:
                raise ValueError(
                    f"directions of another network: {name!r} has shape {expected}, the file {shape}"
                )
    raise ValueError("xdirection and ydirection have different numbers of tensors")


def _row(name: str, group: Any, found: Entries) -> dict[str, Tensor]:
    """One direction, by the names of its tensors, on the CPU."""
    row = {}
    for i, key in enumerate(found.tensors):
        tensor = torch.from_numpy(np.array(dataset(group, str(i))[()], ndmin=0))
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has numbers that are not finite in {key!r}")
        row[key] = tensor
    return row


def _rule(found: Entries, rows: list[dict[str, Tensor]]) -> str:
    """The normalization that the norms obey in every tensor; empty where none does."""
    names = [name for name, tensor in found.tensors.items() if tensor.dim() > 1]

    def holds(rule: str) -> bool:
        return all(
            _obeys(row[name].double(), found.tensors[name].double().cpu(), rule)
            for row in rows
            for name in names
        )

    rules = ("filter", "layer", "dfilter", "dlayer")
    return next((rule for rule in rules if names and holds(rule)), "")


def _obeys(d: Tensor, w: Tensor, rule: str) -> bool:
    if rule.endswith("filter"):
        d, w = d.flatten(1), w.flatten(1)
        norms, wanted = d.norm(dim=1), w.norm(dim=1)
    else:
        norms, wanted = d.norm(), w.norm()
    wanted = torch.ones_like(wanted) if rule.startswith("d") else wanted
    return bool(torch.isclose(norms, wanted, rtol=_CLOSE, atol=1e-12).all())
