"""Eigenvalues of the Hessian along a training run, one step after the other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from landscape.checkpoint import read_weights
from landscape.clock import created_at
from landscape.holding import held
from landscape.krylov.extremes import Extremes, extremes
from landscape.objective import Objective, digest
from landscape.operators import operator_of
from landscape.operators.symmetric import SymmetricOperator
from landscape.space import ParameterSpace
from landscape.store import ALONG_TRAINING, json_text, load, save, writable

Point = Objective | SymmetricOperator | Tensor
_SAME = ("k", "tol", "search_seed", "operator")
_NEAR = "next_start"
"""Variable of an unfinished file: the eigenvectors that the next step starts from."""


def along_training(
    points: Iterable[tuple[int, Point]],
    k: int = 3,
    *,
    objective: Objective | None = None,
    tol: float = 1e-2,
    seed: int = 0,
    thresholds: Mapping[int, float] | None = None,
    label: str = "",
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
    **operator_options: Any,
) -> xr.Dataset:
    """The ``k`` highest eigenvalues and the lowest one at several steps of training.

    Each step starts from the eigenvectors of the step before it (:func:`landscape.krylov.extremes.extremes`).
    That changes the way to the values, so their last digits depend on which steps were asked for; what
    does not is that an eigenvalue lies within the residual of each.

    Args:
        points: ``(step, objective)``, ``(step, operator)``, or ``(step, theta)`` beside ``objective``; for
            checkpoint folders see :func:`run_points`.
        k: eigenvalues at the high end.
        objective: the function, where ``points`` are parameter vectors.
        tol: largest residual, relative to the eigenvalue's own magnitude; near 0, a hundredth of ``tol``
            relative to the norm of the Hessian.
        seed: of the random part of the start vectors.
        thresholds: by step, the eigenvalue beyond which the optimizer is unstable, such as
            :attr:`landscape.spectra.stability.Stability.threshold`.
        label: name of the run, shown on figures.
        out: file that makes it resumable: saved after every step. Steps in it are not computed again. Until
            the end it also holds the vectors that the next step starts from, so that a run that was interrupted
            comes to the same bits; a finished file that is given more steps starts anew there.
        progress: called with each step that is done.
        operator_options: ``params``, ``keep_graph``, ``kind``, ...: see
            :func:`landscape.operators.operator_of`.

    Returns:
        Dataset sorted by ``step``: ``eigenvalue`` and ``residual (step, rank)``, ``smallest``,
        ``smallest_residual``, ``loss`` (NaN for an operator), ``products``, ``converged`` (1 where all met
        ``tol``), ``theta_sha256``, and ``threshold`` where given.

    Raises:
        ValueError: no points, a step given twice, a point that does not fit, a Hessian that is not
            finite, or a file in ``out`` that is another run.

    >>> from landscape.objective import FunctionObjective
    >>> quartic = FunctionObjective(lambda t: t[0] ** 4 - t[1] ** 2, torch.zeros(2, dtype=torch.float64))
    >>> line = [(step, torch.tensor([float(step), 0.0], dtype=torch.float64)) for step in (1, 2, 3)]
    >>> found = along_training(line, k=1, objective=quartic)
    >>> found["eigenvalue"].values[:, 0].round(6).tolist(), found["smallest"].values.round(6).tolist()
    ([12.0, 48.0, 108.0], [-2.0, -2.0, -2.0])
    """
    if not tol > 0:
        raise ValueError(f"tol is {tol}: expected a positive number")
    settings = {
        "schema": ALONG_TRAINING,
        "label": label,
        "k": k,
        "tol": tol,
        "search_seed": seed,
        "operator": json_text(operator_options),
        "created_at": created_at(),
        "torch_version": str(torch.__version__),
    }
    path = None if out is None else writable(out)
    given: set[int] = set()
    with held(path):
        rows, kept = _earlier(path, settings) if path is not None and path.exists() else ({}, {})
        near: Tensor | None = None
        for step, point in points:
            if step in given:
                raise ValueError(f"step {step} is given twice")
            # One test is enough: later points differ in their weights only.
            check = {"check": False} if given else {}
            operator, loss = _operator(point, objective, {**operator_options, **check})
            given.add(step)
            settings.setdefault("objective", json_text(_settings(point, objective)))
            theta_sha256 = digest([getattr(operator, "whole", operator.theta)])
            if step in rows:
                _check_same(path, step, rows[step], theta_sha256, loss())
                near = kept.get(step)
                continue
            if near is not None:
                fits = near.shape[1] == operator.shape[0]
                near = near.to(operator.theta) if fits else None
            found = extremes(operator, k, 1, near=near, tol=tol, seed=seed, key=step)
            near = found.vectors
            rows[step] = {"loss": loss(), "theta_sha256": theta_sha256, **_numbers(found, k)}
            if path is not None:
                # With the start of the next search: one from elsewhere would end at other bits.
                start = (("vector", "param"), near.cpu().numpy(), {"step": step})
                save(_dataset(rows, settings, thresholds).assign({_NEAR: start}), path)
            if progress is not None:
                progress(step)
    if not given:
        raise ValueError("no points: expected (step, objective) or (step, theta) pairs")
    whole = _dataset(rows, settings, thresholds)
    if path is not None:
        save(whole, path)  # with the thresholds of this call, also where nothing was computed
    return whole


def run_checkpoints(run: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """Checkpoint folders ``checkpoints/step_000500`` of a run, with their steps, oldest first.

    Raises:
        ValueError: there is none.
    """
    found = []
    for folder in sorted((Path(run) / "checkpoints").glob("step_*")):
        number = re.fullmatch(r"step_(\d+)", folder.name)
        if number and (folder / "meta.json").is_file():
            found.append((int(number[1]), folder))
    if not found:
        raise ValueError(
            f"{run} has no checkpoints: expected folders such as {Path(run) / 'checkpoints/step_000500'}"
        )
    return sorted(found)


def run_points(run: str | os.PathLike[str], space: ParameterSpace) -> Iterator[tuple[int, Tensor]]:
    """Weights ``(params,)`` of every checkpoint of a run, for :func:`along_training`.

    Args:
        run: a run folder.
        space: of the objective, which says their order.

    Raises:
        ValueError: no checkpoint, or one that cannot be read or is of another architecture.
    """
    for step, folder in run_checkpoints(run):
        weights = read_weights(folder / "model.safetensors")
        yield step, space.flatten(weights.named_as(space.names))


def _operator(
    point: Point, objective: Objective | None, options: Mapping[str, Any]
) -> tuple[SymmetricOperator, Callable[[], float]]:
    """The operator at a point, and what tells the loss there."""
    if isinstance(point, SymmetricOperator):
        own = [name for name in options if name != "check"]
        if own:
            raise ValueError(f"an operator has its own options: leave out {', '.join(own)}")
        return point, lambda: float("nan")
    if isinstance(point, Tensor):
        if objective is None:
            raise ValueError("points are parameter vectors: give objective= beside them")
        where, theta = objective, point.to(objective.theta)
    else:
        where, theta = point, point.theta
    return operator_of(where, theta, **options), lambda: float(where.value(theta))


def _settings(point: Point, objective: Objective | None) -> Mapping[str, Any]:
    if isinstance(point, Tensor):
        return {} if objective is None else objective.settings
    return point.settings


def _numbers(found: Extremes, k: int) -> dict[str, Any]:
    return {
        "eigenvalue": found.values[:k],
        "residual": found.residuals[:k],
        "smallest": found.values[k],
        "smallest_residual": found.residuals[k],
        "products": found.products,
        "converged": int(found.converged),
    }


def _earlier(
    path: Path, settings: Mapping[str, Any]
) -> tuple[dict[int, dict[str, Any]], dict[int, Tensor]]:
    """The rows in ``path``, if they were made with the same settings, and the last one's vectors by its step."""
    held = load(path, ALONG_TRAINING)
    for name in _SAME:
        if held.attrs.get(name) != settings[name]:
            raise ValueError(
                f"{path} holds another run: {name} is {held.attrs.get(name)} there and "
                f"{settings[name]} here; give another out=, or delete the file"
            )
    names = [str(name) for name in held.data_vars if name not in ("threshold", _NEAR)]
    rows = {
        int(step): {name: held[name].values[i] for name in names}
        for i, step in enumerate(held["step"].values)
    }
    if _NEAR not in held:  # it was finished, or stopped before this was kept
        return rows, {}
    return rows, {int(held[_NEAR].attrs["step"]): torch.from_numpy(held[_NEAR].values)}


def _check_same(
    path: Path | None, step: int, row: Mapping[str, Any], theta_sha256: str, loss: float
) -> None:
    """Settings cannot tell two functions apart; the weights and the loss can."""
    weights = row["theta_sha256"] != theta_sha256
    if weights or not np.isclose(row["loss"], loss, rtol=1e-4, atol=1e-12, equal_nan=True):
        what = "weights" if weights else "loss"
        raise ValueError(
            f"{path} holds another run: the {what} at step {step} there and here differ; "
            "give another out=, or delete the file"
        )


def _dataset(
    rows: Mapping[int, Mapping[str, Any]],
    settings: Mapping[str, Any],
    thresholds: Mapping[int, float] | None,
) -> xr.Dataset:
    steps = sorted(rows)
    columns: dict[str, Any] = {}
    for name in rows[steps[0]]:
        values = np.array([rows[step][name] for step in steps])
        columns[name] = (("step", "rank")[: values.ndim], values)
    if thresholds is not None:
        columns["threshold"] = ("step", [float(thresholds.get(s, np.nan)) for s in steps])
    k = int(settings["k"])
    made = xr.Dataset(columns, {"step": steps, "rank": np.arange(1, k + 1)}, dict(settings))
    made.attrs["products"] = int(made["products"].sum())
    return made
