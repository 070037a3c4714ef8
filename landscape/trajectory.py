"""A path of training over a plane: where its checkpoints lie, how far off, and how sharp they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from landscape.clock import created_at
from landscape.directions import Plane
from landscape.holding import held
from landscape.objective import Objective, digest
from landscape.projection import project
from landscape.sharpness import sharpness
from landscape.sharpness.registry import available, unknown_measure
from landscape.store import TRAJECTORY, encoded, json_text, load, save, writable

Row = dict[str, Any]

_SAME = ("seed", "measure_settings", "axes", "origin_sha256", "basis_sha256", "objective")
_PENDING = -1  # `NAME_converged` of a measure that is still to come


def follow(
    objective: Objective,
    points: Iterable[tuple[int, Objective | Tensor]],
    plane: Plane,
    measures: Sequence[str] = (),
    *,
    seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    label: str = "",
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """A path of checkpoints over a plane, with its true losses and its sharpness.

    The losses are those of the checkpoints themselves, wherever they lie; ``surface_loss`` is the loss at their
    feet in the plane, computed there and not read off a grid. The difference is what the plane hides.

    Args:
        objective: the function that the surface shows.
        points: ``(step, theta)`` or ``(step, objective)`` in the order of training. An objective of its own
            brings its norm statistics: its loss is what that checkpoint really had.
        plane: such as :func:`landscape.pca.pca_plane` gives.
        measures: names of :func:`landscape.sharpness.sharpness`, computed at every checkpoint.
        seed: of the measures' random draws, the same at every checkpoint, so that noise does not look like
            a trend.
        settings: of the measures, by name.
        label: name of the run, shown on figures.
        out: file that makes it resumable: saved after every checkpoint. What is in it is not computed
            again; measures that are not in it are added.
        progress: called with each step that is done.

    Returns:
        Dataset sorted by ``step``, schema ``landscape.trajectory/1`` in ``docs/schema.md``.

    Raises:
        ValueError: no points, a step given twice, a point that does not fit, an unknown measure, nearly
            parallel directions, or a file in ``out`` that is another path.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(3).double())
    >>> path = [(0, torch.tensor([2.0, 1.0, 3.0]).double()), (9, torch.zeros(3).double())]
    >>> found = follow(bowl, path, Plane(torch.zeros(3).double(), torch.eye(3)[:2].double()))
    >>> [found[n].values.tolist() for n in ("alpha", "beta", "residual", "loss", "surface_loss")]
    [[2.0, 0.0], [1.0, 0.0], [3.0, 0.0], [14.0, 0.0], [5.0, 0.0]]
    """
    names = list(dict.fromkeys(measures))
    table = available(objective)
    for name in names:
        if name not in table:
            raise ValueError(unknown_measure(name, table))
    attrs = _attrs(objective, plane, label, seed, settings or {})
    attrs["measure_titles"] = json_text({name: entry.title for name, entry in table.items()})
    path = None if out is None else writable(out)
    given: set[int] = set()
    with held(path):
        rows = _earlier(path, attrs) if path is not None and path.exists() else {}
        for step, point in points:
            if step in given:
                raise ValueError(f"step {step} is given twice")
            where, theta = _placed(point, objective)
            place = _place(plane, theta)  # refuses what does not fit before anything is computed
            given.add(step)
            row = rows.get(step)
            if row is None:
                row = place | _losses(objective, where, theta, plane, place)
            else:
                # Settings cannot tell two functions apart; a loss can, and one is enough.
                _check_same(path, step, row, place, where, theta if len(given) == 1 else None)
            missing = [n for n in names if row.get(f"{n}_converged", _PENDING) == _PENDING]
            if step in rows and not missing:
                continue
            if missing:
                row |= _sharpness(where, theta, missing, seed, settings or {})
            rows[step] = row
            if path is not None:
                save(_dataset(rows, attrs), path)
            if progress is not None:
                progress(step)
    if not given:
        raise ValueError("no points: expected (step, theta) or (step, objective) pairs")
    return _dataset(rows, attrs)


def _attrs(
    objective: Objective,
    plane: Plane,
    label: str,
    seed: int,
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    attrs: dict[str, Any] = {
        "schema": TRAJECTORY,
        "label": label,
        "seed": seed,
        "axes": plane.axes,
        "measure_settings": json_text({name: dict(given) for name, given in settings.items()}),
        "objective": json_text(objective.settings),
        "plane": json_text(plane.settings),
        "origin_sha256": digest([plane.origin]),
        "basis_sha256": digest([plane.basis]),
        "direction_norms": list(plane.norms),
        "direction_cosine": plane.cosine,
        "created_at": created_at(),
        "torch_version": str(torch.__version__),
    }
    if "variance" in plane.settings:
        attrs["variance"] = list(plane.settings["variance"])
    return attrs


def _placed(point: Objective | Tensor, objective: Objective) -> tuple[Objective, Tensor]:
    if isinstance(point, Tensor):
        return objective, point.to(objective.theta)
    return point, point.theta


def _place(plane: Plane, theta: Tensor) -> Row:
    found = project(plane, [theta])
    alpha, beta = (*found.coordinates[0].tolist(), 0.0)[:2]
    return {
        "alpha": alpha,
        "beta": beta,
        "residual": float(found.residuals[0]),
        "residual_share": float(found.shares[0]),
        "theta_sha256": digest([theta]),
    }


def _losses(objective: Objective, where: Objective, theta: Tensor, plane: Plane, place: Row) -> Row:
    metrics = {name: float(value) for name, value in where.metrics(theta).items()}
    foot = plane.point(*[place["alpha"], place["beta"]][: plane.axes])
    return {**metrics, "surface_loss": float(objective.value(foot))}


def _sharpness(
    where: Objective,
    theta: Tensor,
    names: Sequence[str],
    seed: int,
    settings: Mapping[str, Mapping[str, Any]],
) -> Row:
    chosen = {name: settings[name] for name in names if name in settings}
    report = sharpness(where, names, seed=seed, theta=theta, settings=chosen)
    row: Row = {}
    for name in names:
        found = report[name]
        low, high = found.interval or (np.nan, np.nan)
        row |= {
            name: found.value,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_converged": int(found.converged),
        }
    return row


def _earlier(path: Path, attrs: Mapping[str, Any]) -> dict[int, Row]:
    """The rows in ``path``, if they are of the same path over the same plane."""
    held = load(path, TRAJECTORY)
    for name in _SAME:
        if held.attrs.get(name) != encoded(attrs[name]):
            raise ValueError(
                f"{path} holds another trajectory: {name} is {held.attrs.get(name)} there and "
                f"{attrs[name]} here; give another out=, or delete the file"
            )
    return {
        int(step): {str(name): held[name].values[i] for name in held.data_vars}
        for i, step in enumerate(held["step"].values)
    }


def _check_same(
    path: Path | None, step: int, row: Row, place: Row, where: Objective, theta: Tensor | None
) -> None:
    what = "weights" if row["theta_sha256"] != place["theta_sha256"] else ""
    if not what and theta is not None:
        loss = float(where.metrics(theta)["loss"])
        what = (
            "" if np.isclose(row["loss"], loss, rtol=1e-4, atol=1e-12, equal_nan=True) else "loss"
        )
    if what:
        raise ValueError(
            f"{path} holds another trajectory: the {what} at step {step} there and here differ; "
            "give another out=, or delete the file"
        )


def _dataset(rows: Mapping[int, Row], attrs: Mapping[str, Any]) -> xr.Dataset:
    steps = sorted(rows)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for step in steps for name in rows[step]):
        flag = name.endswith("_converged")
        values = [rows[step].get(name, _PENDING if flag else np.nan) for step in steps]
        columns[name] = ("step", np.array(values, np.int8) if flag else np.array(values))
    done = [name.removesuffix("_converged") for name in columns if name.endswith("_converged")]
    return xr.Dataset(columns, {"step": steps}, {**attrs, "measures": json.dumps(done)})
