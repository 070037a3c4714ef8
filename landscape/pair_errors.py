"""How well the difference of the loss between two points of a surface is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]

_ROUNDINGS = 4.0  # units of the last place by which a mean of many terms may be off
_PRECISION = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
_LEVEL = 0.05


@dataclass(frozen=True)
class PairErrors:
    """Errors of ``loss[b] - loss[a]``; cells are flat indices of the grid, ``beta`` before ``alpha``.

    Attributes:
        kind: what the standard errors are made of, in words for a reader.
        freedom: degrees of freedom of the standard errors; infinite where not known.
    """

    kind: str
    freedom: float
    _terms: Array | None
    _stderrs: tuple[Array, ...]
    _bias: Array
    _measured: NDArray[np.intp]
    _loss: Array
    _unit: float

    def stderr(self, a: int, b: int) -> float:
        """Standard error of the difference over the terms of the loss; infinite where it is not known.

        With the terms of every mean, that of their paired differences. Without, the sum of both standard
        errors, which the error of a difference never exceeds, whatever their correlation.
        """
        i, j = self._measured[a], self._measured[b]
        if i == j:
            return 0.0
        if self._terms is not None:
            differences = self._terms[j] - self._terms[i]
            return float(differences.std(ddof=1) / math.sqrt(len(differences)))
        bounds = [float(each[i] + each[j]) for each in self._stderrs]
        known = [bound for bound in bounds if math.isfinite(bound)]
        return min(known) if known else (math.inf if bounds else 0.0)

    def bias(self, a: int, b: int) -> float:
        """What the difference may be off by for other reasons: interpolation, and rounding."""
        rounding = self._unit * float(max(abs(self._loss[a]), abs(self._loss[b])))
        return float(self._bias[a] + self._bias[b]) + rounding

    def quantile(self, comparisons: int) -> float:
        """Standard errors that none of so many differences exceeds by chance, 95 times of 100 (Bonferroni)."""
        tail = 1 - _LEVEL / (2 * max(comparisons, 1))
        known = math.isfinite(self.freedom)
        return float(student.ppf(tail, self.freedom) if known else norm.ppf(tail))


def pair_errors(surface: xr.Dataset) -> PairErrors:
    """Read from a surface what is known of its errors (``docs/schema.md``).

    ``terms`` come first, then the smaller of the bounds from ``rise_stderr`` and ``loss_stderr``. A point
    that is interpolated has the standard error of the nearest one that is computed, and its ``loss_error``
    besides.
    """
    dims = surface["loss"].dims
    loss = np.asarray(surface["loss"].values, np.float64)

    def read(name: str) -> Array | None:
        if name not in surface:
            return None
        return np.asarray(surface[name].transpose(*dims).values, np.float64)

    interpolated = read("interpolated")
    made = np.zeros(loss.shape, bool) if interpolated is None else interpolated != 0
    bias = read("loss_error")
    bias = np.zeros(loss.shape) if bias is None else np.where(np.isnan(bias), np.inf, bias)
    unit = _ROUNDINGS * _PRECISION.get(str(surface.attrs.get("dtype")), 2.0**-52)
    terms = _terms(surface, np.isfinite(loss) & ~made)
    stderrs = [each for name in ("rise_stderr", "loss_stderr") if (each := read(name)) is not None]
    stderrs = [each.ravel() for each in stderrs if np.isfinite(each).any()]
    kind, freedom = "no standard errors in the file", math.inf
    if terms is not None:
        kind, freedom = f"paired differences of {terms.shape[1]} terms", terms.shape[1] - 1.0
    elif stderrs:
        exact = any(not each[np.isfinite(each)].any() for each in stderrs)
        kind = "an exact loss" if exact else "bounds from the standard errors of both points"
    measured = _nearest(np.isfinite(loss) & ~made)
    return PairErrors(
        kind, freedom, terms, tuple(stderrs), bias.ravel(), measured, loss.ravel(), unit
    )


def _terms(surface: xr.Dataset, measured: NDArray[np.bool_]) -> Array | None:
    """``(cells, terms)`` where every point that was computed has all of its terms, at least two."""
    if "terms" not in surface or surface.sizes["term"] < 2:
        return None
    values = surface["terms"].transpose(*surface["loss"].dims, "term").values
    whole = np.asarray(values, np.float64).reshape(measured.size, -1)
    return whole if np.isfinite(whole[measured.ravel()]).all() else None


def _nearest(measured: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Flat index of the nearest cell that was computed; a cell itself where it was, or where none was."""
    cells = np.arange(measured.size).reshape(measured.shape)
    if measured.all() or not measured.any():
        return cells.ravel()
    where = distance_transform_edt(~measured, return_distances=False, return_indices=True)
    return np.asarray(cells[tuple(where)], np.intp).ravel()
