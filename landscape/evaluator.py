"""Evaluators: many points of one plane at once, as one table of numbers. What surfaces are filled from."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.directions import Plane
from landscape.objective import Objective

Columns = dict[str, np.ndarray[Any, np.dtype[Any]]]
"""Name of a number -> one entry a point, ``(points,)``; ``"terms"`` is ``(points, terms)``."""


class Evaluator(Protocol):
    """Evaluates one objective at points of one plane, the same bits whatever else is asked with them.

    Attributes:
        name: what the user calls it (``--executor NAME``).
        setup_seconds: spent once before the first point, on compilation for example.
    """

    name: str
    setup_seconds: float

    def __call__(self, coordinates: np.ndarray[Any, np.dtype[Any]], terms: bool = False) -> Columns:
        """Numbers at ``coordinates (points, axes)``, in units of the plane's directions.

        ``loss``, ``loss_stderr``, ``rise`` and ``rise_stderr`` (see :func:`summary`) and the
        objective's other metrics; with ``terms`` also the terms of each mean loss.
        """


def summary(losses: Tensor, centre: Tensor) -> dict[str, Tensor]:
    """Means and standard errors of ``losses (points, terms)``, plain and paired with ``centre (terms,)``.

    ``rise`` is the mean of ``losses - centre``: the same terms are compared, so what they have in
    common cancels and ``rise_stderr`` is as a rule much smaller than ``loss_stderr``. All ``(points,)``
    and float64. Standard errors are NaN for a single term.

    >>> out = summary(torch.tensor([[2.0, 4.0]]), torch.tensor([1.0, 3.0]))
    >>> {name: value.item() for name, value in out.items()}
    {'loss': 3.0, 'loss_stderr': 1.0, 'rise': 1.0, 'rise_stderr': 0.0}
    """
    exact, base = losses.double(), centre.double()
    columns: dict[str, list[Tensor]] = {}
    # Row by row: torch may add up a row in another order when it has company.
    for row in exact:
        for name, values in (("loss", row), ("rise", row - base)):
            columns.setdefault(name, []).append(values.mean())
            columns.setdefault(f"{name}_stderr", []).append(_stderr(values))
    return {name: torch.stack(values) for name, values in columns.items()}


def _stderr(values: Tensor) -> Tensor:
    count = values.numel()
    if count < 2:
        return torch.full_like(values[0], math.nan)
    return values.std(correction=1) / math.sqrt(count)


class PointByPoint:
    """The evaluator that every objective has: its own ``losses``, and ``metrics`` where it has others."""

    name = "plain"
    setup_seconds = 0.0

    def __init__(self, objective: Objective, plane: Plane) -> None:
        self._objective = objective
        self._plane = plane
        self._centre = self._terms(plane.origin)
        metrics = objective.metrics(plane.origin)
        self._more = set(metrics) > {"loss", "loss_stderr"}
        # A formula has one term and no error, which no scatter can tell.
        self._exact = self._centre.numel() == 1 and metrics["loss_stderr"] == 0

    def __call__(self, coordinates: np.ndarray[Any, np.dtype[Any]], terms: bool = False) -> Columns:
        """See :class:`Evaluator`."""
        rows: list[dict[str, float]] = []
        kept: list[Tensor] = []
        for place in coordinates.tolist():
            theta = self._plane.point(*place)
            losses = self._terms(theta)
            row = {name: float(v) for name, v in summary(losses[None], self._centre).items()}
            if self._exact:
                row |= {"loss_stderr": 0.0, "rise_stderr": 0.0}
            rows.append(row | (self._objective.metrics(theta) if self._more else {}))
            kept.append(losses)
        columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
        if terms:
            columns["terms"] = torch.stack(kept).double().cpu().numpy()
        return columns

    def _terms(self, theta: Tensor) -> Tensor:
        with torch.no_grad():
            return self._objective.losses(theta)
