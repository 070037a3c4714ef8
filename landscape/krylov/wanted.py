"""Which eigenvalues are wanted, and when one counts as found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[Any]]

ENDS = ("LA", "SA", "LM", "BE")
"""Largest algebraic, smallest algebraic, largest magnitude, both ends: the names ``eigsh`` of SciPy has."""

_AIM = 0.9  # of the tolerance: leaves room for the rounding of the vectors that are returned


@dataclass(frozen=True)
class Wanted:
    """The ``k`` best eigenvalues at an end of the spectrum.

    Attributes:
        k: how many.
        which: one of :data:`ENDS`; of both ends, the high one gets the odd one.
        tol: largest residual, relative to the eigenvalue itself (see :func:`accepted`).
        dtype: that products are computed in.
    """

    k: int
    which: str
    tol: float
    dtype: torch.dtype

    def best(self, values: Array) -> Array:
        """Indices of the ``k`` best of ``values``, in the order in which they are returned.

        >>> Wanted(3, "BE", 1e-3, torch.float64).best(np.array([1.0, 5.0, -2.0, 4.0])).tolist()
        [1, 3, 2]
        """
        order = best_first(values, self.which)[: self.k]
        return np.concatenate([order[::2], order[1::2]]) if self.which == "BE" else order

    def bounds(self, values: Array) -> tuple[float, float]:
        """``(low, high)``: beside these ``k`` values, one below ``low`` or above ``high`` would be wanted.

        >>> Wanted(2, "LM", 1e-3, torch.float64).bounds(np.array([-5.0, 3.0]))
        (-3.0, 3.0)
        """
        if self.which == "LM":
            return -float(np.abs(values).min()), float(np.abs(values).min())
        low, high = -np.inf, np.inf
        top = {"LA": self.k, "SA": 0, "BE": (self.k + 1) // 2}[self.which]
        if top:
            high = float(values[:top].min())
        if top < self.k:
            low = float(values[top:].max())
        return low, high

    @property
    def repeatable(self) -> bool:
        """Whether a second copy of an eigenvalue could be among the wanted."""
        return self.k > (2 if self.which == "BE" else 1)

    def accepted(self, values: Array | float, scale: float) -> Array:
        """Largest residuals at which ``values`` count as found."""
        return accepted(values, self.tol, scale, self.dtype)

    def reached(self, values: Array, residuals: Array, scale: float) -> bool:
        """Whether these residuals are small enough to stop."""
        return bool((residuals <= _AIM * self.accepted(values, scale)).all())


def accepted(values: Array | float, tol: float, scale: float, dtype: torch.dtype) -> Array:
    """Largest residual at which an eigenvalue counts as found: ``tol`` of its own magnitude.

    Not of the norm of the operator: next to an eigenvalue of -900, a space of three vectors already
    holds some pair near 0 with a residual under 1 % of 900, far from the largest eigenvalue of 70. The
    floor, a thousandth of that norm or the rounding of a product, lets eigenvalues near 0 be found too.
    """
    floor = max(tol * 1e-3, 30 * torch.finfo(dtype).eps) * scale
    return np.maximum(tol * np.abs(values), floor)


def best_first(values: Array, which: str) -> Array:
    """Indices that put the wanted end of ``values`` first; of both ends, in turns, the high one first."""
    if which == "BE":
        falling = np.argsort(-values, kind="stable")
        half = (len(values) + 1) // 2
        order = np.empty(len(values), dtype=int)
        order[::2], order[1::2] = falling[:half], falling[half:][::-1]
        return order
    return np.argsort(-{"LA": values, "SA": -values, "LM": np.abs(values)}[which], kind="stable")
