"""The largest and the smallest eigenvalue of the Hessian at every point of a plane."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from landscape import grid
from landscape.directions import Plane
from landscape.grid import Index, Span
from landscape.holding import held
from landscape.krylov.extremes import extremes
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.symmetric import SymmetricOperator
from landscape.resume import check_centre, first_difference
from landscape.store import CURVATURE_MAP, json_text, load, save, writable

_ENDS = ("lambda_max", "lambda_min")


def curvature_map(
    objective: Objective,
    plane: Plane,
    span: Span = 1.0,
    points: int = 11,
    *,
    tol: float = 1e-2,
    seed: int = 0,
    label: str = "",
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **operator_options: Any,
) -> xr.Dataset:
    """Both ends of the spectrum over a plane, each with its residual.

    A sign of convexity that a loss surface cannot give: where ``|lambda_min / lambda_max|`` is small, the
    function is nearly convex in *all* directions and not only in the two that are drawn (Li et al.
    2018, section 6). A point starts from the eigenvectors of the point before it in its row
    (:func:`landscape.krylov.extremes.extremes`); each row starts anew, so a run that was interrupted repeats
    the row it was in and comes to the same bits.

    Args:
        objective: the function.
        plane: one or two directions.
        span: half-width of each axis in units of its direction, or a pair ``(low, high)``.
        points: number of points on each axis.
        tol: largest residual, relative to the eigenvalue's own magnitude; near 0, a hundredth of ``tol``
            relative to the norm of the Hessian.
        seed: of the random part of the start vectors (that of the directions is the plane's).
        label: name of the subject, shown on figures.
        out: file that makes the run resumable: saved after every row, and when the run ends or is
            interrupted. A file of the same run is continued.
        progress: called as ``progress(done, total)`` after each point.
        operator_options: ``params``, ``keep_graph``, ``kind``, ...: see
            :func:`landscape.operators.operator_of`. The test of the operator is made at the origin.

    Returns:
        Dataset over ``(beta, alpha)``, or ``(alpha,)`` on a line: ``loss``, ``lambda_max``, ``lambda_min``
        and their ``_residual``: an eigenvalue lies within that of each. ``products`` counts those of the
        point, ``converged`` is 1 where both met ``tol``. Where the loss or its Hessian is not finite
        the numbers are NaN and ``evaluated`` is 1.

    Raises:
        ValueError: a bad grid or option, a plane that carries norm statistics, or a file in ``out`` that
            is another run (the first setting that differs is named).

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> saddle = FunctionObjective(lambda t: t[0] ** 4 - t[1] ** 2, torch.zeros(2, dtype=torch.float64))
    >>> found = curvature_map(saddle, Plane(saddle.theta, torch.eye(2, dtype=torch.float64)), points=3)
    >>> found["lambda_max"].values[0].round(6).tolist(), found["lambda_min"].values[0].round(6).tolist()
    ([12.0, 0.0, 12.0], [-2.0, -2.0, -2.0])
    """
    if plane.buffers:
        raise ValueError(
            "the plane carries norm statistics: second derivatives are taken at fixed ones, so use a "
            "plane without buffers and norm='eval', 'batch' or 'recalibrate'"
        )
    if not tol > 0:
        raise ValueError(f"tol is {tol}: expected a positive number")
    params = operator_of(objective, plane.origin, **operator_options).shape[0]
    if params < 2:
        raise ValueError(
            f"the operator has {params} parameter: expected at least 2, one for each end"
        )
    coordinates, ends = grid.axis(plane, span, points)
    surface = _blank(objective, plane, coordinates, ends, label)
    surface.attrs |= {"tol": tol, "search_seed": seed, "operator": json_text(operator_options)}
    path = None if out is None else writable(out)
    with held(path):
        if path is not None and path.exists():
            surface = _continued(path, surface)
        check_centre(surface, float(objective.value(plane.origin)), path)
        done = surface["evaluated"].values
        try:
            for row in _rows(surface):
                if all(done[index] for index in row):
                    continue
                near: Tensor | None = None
                for index, where in zip(row, grid.place(surface, row), strict=True):
                    theta = plane.point(*map(float, where))
                    loss = float(objective.value(theta))
                    surface["loss"].values[index] = loss
                    operator = operator_of(objective, theta, **{**operator_options, "check": False})
                    numbers, near = _both_ends(operator, loss, near, tol, seed, index)
                    for name, value in numbers.items():
                        surface[name].values[index] = value
                    done[index] = 1
                    if progress is not None:
                        progress(int(done.sum()), done.size)
                if path is not None:
                    save(_summed(surface), path)
        finally:
            if path is not None:
                save(_summed(surface), path)
    return _summed(surface)


def _both_ends(
    operator: SymmetricOperator,
    loss: float,
    near: Tensor | None,
    tol: float,
    seed: int,
    index: Index,
) -> tuple[dict[str, float], Tensor | None]:
    """The numbers of one point, and the eigenvectors to start near at the next."""
    if not math.isfinite(loss):
        return {}, None
    try:
        found = extremes(operator, near=near, tol=tol, seed=seed, key=index)
    except ValueError as error:
        if "not finite" not in str(error):
            raise
        return {}, None
    numbers = dict(zip(_ENDS, found.values.tolist(), strict=True))
    for name, residual in zip(_ENDS, found.residuals.tolist(), strict=True):
        numbers[f"{name}_residual"] = residual
    return {**numbers, "products": found.products, "converged": found.converged}, found.vectors


def _blank(
    objective: Objective,
    plane: Plane,
    coordinates: grid.Array,
    ends: tuple[float, float],
    label: str,
) -> xr.Dataset:
    surface = grid.blank(objective, plane, coordinates, ends, label)
    surface = surface.drop_vars("loss_stderr").assign_attrs(schema=CURVATURE_MAP)
    dims, shape = surface["loss"].dims, surface["loss"].shape
    for name in _ENDS:
        surface[name] = (dims, np.full(shape, np.nan))
        surface[f"{name}_residual"] = (dims, np.full(shape, np.nan))
    surface["products"] = (dims, np.zeros(shape, np.int32))
    surface["converged"] = (dims, np.zeros(shape, np.int8))
    return surface


def _rows(surface: xr.Dataset) -> Iterator[list[Index]]:
    """Indices row by row."""
    shape = surface["loss"].shape
    for head in np.ndindex(*shape[:-1]):
        yield [(*head, i) for i in range(shape[-1])]


def _continued(path: Path, fresh: xr.Dataset) -> xr.Dataset:
    """The map in ``path``, if it is the same run as ``fresh``."""
    found = load(path, CURVATURE_MAP)
    names = ("axes", "points", "span", "dtype", "tol", "search_seed", "operator")
    difference = first_difference(fresh, found, names)
    if difference is not None:
        name, ours, theirs = difference
        raise ValueError(
            f"{path} holds another map: {name} is {theirs} there and {ours} here; "
            "give another out=, or delete the file"
        )
    if fresh.attrs["label"]:
        found.attrs["label"] = fresh.attrs["label"]
    return found


def _summed(surface: xr.Dataset) -> xr.Dataset:
    """The same map with the products made in all."""
    surface.attrs["products"] = int(surface["products"].values.sum())
    return surface
