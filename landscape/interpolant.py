"""Scattered losses -> the whole grid, with an estimate of the error at every point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_CHUNK = 4096  # grid points interpolated at once
_Array = np.ndarray[Any, np.dtype[Any]]


class Fit:
    """The interpolants through some points, and an estimate of their error, on the whole grid.

    Attributes, one entry a point of the grid:
        values: the loss, or its prediction; NaN where uncertain and not evaluated.
        raw: estimated error before calibration; infinite where uncertain.
        distance: to the nearest evaluated point, in half-widths of the grid.
        evaluated, uncertain: see :class:`landscape.refine.Refined`.
        doubtful: uncertain points where the border of the finite losses may run.
    """

    def __init__(self, places: _Array, nodes: _Array, losses: _Array, level: float | None) -> None:
        count = len(places)
        finite = np.isfinite(losses)
        inside, outside = places[nodes[finite]], places[nodes[~finite]]
        known = losses[finite]
        self.evaluated = np.zeros(count, dtype=bool)
        self.evaluated[nodes] = True
        self.values = np.full(count, np.nan)
        self.raw = np.full(count, np.inf)
        self.distance = np.ones(count)
        self.uncertain = ~self.evaluated
        self.doubtful = ~self.evaluated
        self.range = float(np.ptp(known)) if len(known) else 0.0
        self.largest = float(np.abs(known).max(initial=0.0))
        if np.linalg.matrix_rank(_linear(inside)) == places.shape[1] + 1:
            lowest, scale = known.min(initial=np.inf), self.range or 1.0
            # Logarithms open up the basin; below its level, or 1 % of the range, nothing is gained.
            offset = 1e-2 if level is None else max((level - lowest) / scale, 1e-4)
            model = _Interpolant(inside, (known - lowest) / scale, offset)
            step = spacing(places)
            unknown = np.flatnonzero(~self.evaluated)
            for start in range(0, len(unknown), _CHUNK):
                part = unknown[start : start + _CHUNK]
                near = _squares(places[part], inside)
                values, raw = model(places[part], near)
                self.values[part], self.raw[part] = lowest + self.range * values, self.range * raw
                good = np.sqrt(near.min(axis=1))
                bad = np.sqrt(_squares(places[part], outside).min(axis=1, initial=np.inf))
                self.distance[part] = np.minimum(good, bad)
                self.uncertain[part] &= bad <= good
                self.doubtful[part] &= (bad <= good) & (good <= 2 * bad) & (bad > 1.01 * step)
        self.values[self.uncertain], self.raw[self.uncertain] = np.nan, np.inf
        self.values[nodes], self.raw[nodes] = losses, 0.0


class _Interpolant:
    """Three interpolants of scattered values, blended by how well each predicts left-out points.

    Cubic radial functions of the values and of ``log(values + offset)``, each with a linear
    polynomial, are weighed against each other place by place. The leave-one-out residual of node
    ``i`` is ``c_i / (A^-1)_ii`` (Rippa 1999). Thin plates serve as a third opinion.
    """

    def __init__(self, nodes: _Array, values: _Array, offset: float) -> None:
        self.nodes, self.offset = nodes, offset
        squares, tail = _squares(nodes, nodes), _linear(nodes)
        self.highest = math.log(2 * values.max() + offset)
        logs = np.log(values + offset)
        right = np.zeros((len(nodes) + tail.shape[1], 2))
        right[: len(nodes)] = np.stack([values, logs], axis=1)
        inverse = np.linalg.inv(_bordered(_cubic(squares), tail))
        self.cubic = inverse @ right
        self.plates = np.linalg.solve(_bordered(_thin_plate(squares), tail), right[:, 0])
        left_out = self.cubic[: len(nodes)] / inverse.diagonal()[: len(nodes), None]
        left_out[:, 1] = self._exp(logs - left_out[:, 1]) - values
        np.fill_diagonal(squares, np.inf)
        self.slopes = left_out**2 / squares.min(axis=1)[:, None]

    def __call__(self, places: _Array, near: _Array) -> tuple[_Array, _Array]:
        """Values and estimated errors at ``places``, at squared distances ``near`` to the nodes."""
        tail, count = _linear(places), len(self.nodes)
        cubic = _cubic(near) @ self.cubic[:count] + tail @ self.cubic[count:]
        plain, logged = cubic[:, 0], self._exp(cubic[:, 1])
        plates = _thin_plate(near) @ self.plates[:count] + tail @ self.plates[count:]
        closeness = 1 / (near + 1e-12)
        closeness *= closeness
        slopes = closeness @ self.slopes / closeness.sum(axis=1, keepdims=True) + 1e-30
        share = slopes[:, 1] / slopes.sum(axis=1)  # of the plain one: the other's squared error
        values = share * plain + (1 - share) * logged
        slope = np.sqrt(share**2 * slopes[:, 0] + (1 - share) ** 2 * slopes[:, 1])
        spread = np.abs(plain - plates) + np.abs(plain - logged)
        return values, slope * np.sqrt(near.min(axis=1)) + spread / 2

    def _exp(self, logs: _Array) -> _Array:
        bounded: _Array = np.clip(logs, math.log(self.offset) - 1, self.highest)
        return np.exp(bounded) - self.offset


def _squares(one: _Array, two: _Array) -> _Array:
    """Squared distances, ``(one, two)``."""
    total = np.zeros((len(one), len(two)))
    for a, b in zip(one.T, two.T, strict=True):
        apart = np.subtract.outer(a, b)
        apart *= apart
        total += apart
    return total


def _linear(places: _Array) -> _Array:
    return np.hstack([np.ones((len(places), 1)), places])


def _bordered(kernel: _Array, tail: _Array) -> _Array:
    corner = np.zeros((tail.shape[1], tail.shape[1]))
    return np.block([[kernel, tail], [tail.T, corner]])


def _cubic(squares: _Array) -> _Array:
    """``r**3``."""
    kernel: _Array = np.sqrt(squares)
    kernel *= squares
    return kernel


def _thin_plate(squares: _Array) -> _Array:
    """``r**2 log r``."""
    kernel: _Array = np.log(np.maximum(squares, 1e-300))
    kernel *= squares
    return kernel / 2


def spacing(places: _Array) -> float:
    """Distance of neighbours on the grid."""
    return float(np.diff(np.unique(places[:, 0])).min())
