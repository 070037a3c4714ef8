"""The two searches for eigenvectors, Lanczos and power iteration, on an operator known by its products."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape.directions import generator
from landscape.hessian import HessianOperator

ENDS = ("LA", "SA", "LM")
"""Largest algebraic, smallest algebraic, largest magnitude: the names ``eigsh`` of SciPy has."""

_CHUNK = 32  # rows by which the Lanczos basis grows
_AIM = 0.5  # estimates stop at half the tolerance, so that rounding does not tip the true residual
_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Search:
    """A search for the ``k`` best eigenvectors of ``operator``, within ``budget`` products in all.

    Attributes:
        operator: the symmetric operator.
        k: eigenvectors wanted.
        which: one of :data:`ENDS`.
        tol: largest residual, relative to the eigenvalue itself (see :func:`accepted`).
        seed: of the random start vectors.
        budget: value of ``operator.products`` at which to stop.
        scale: estimate of the operator's norm, its largest Ritz value in magnitude so far.
    """

    operator: HessianOperator
    k: int
    which: str
    tol: float
    seed: int
    budget: int
    scale: float = field(default=0.0, init=False)

    def lanczos(self) -> Tensor:
        """Orthonormal Ritz vectors ``(k, params)``.

        One Krylov space holds one vector of each repeated eigenvalue. So a run is followed by runs in
        the complement of what was found, until the best of the complement is no better than the
        ``k``-th in hand.
        """
        params = self.operator.shape[0]
        found = self.operator.theta.new_empty(0, params)
        values = np.empty(0)
        runs = 0
        while len(found) < params and self.operator.products < self.budget:
            merits = np.sort(_merit(values, self.which))[::-1]
            bar = float(merits[self.k - 1]) if len(merits) >= self.k else None
            start = self._start(found, "lanczos", runs)
            new_values, new_vectors = self._krylov(found, start, bar, max(1, self.k - len(found)))
            runs += 1
            if bar is not None and _merit(new_values, self.which)[0] <= bar + float(
                self._accepted(bar)
            ):
                break
            found = torch.cat([found, new_vectors])
            values = np.concatenate([values, new_values])
            if self.k == 1:  # the start vector has a part in every eigenspace: this is the best
                break
        for extra in range(
            len(found), self.k
        ):  # out of products: residuals will show these are bare
            found = torch.cat([found, self._start(found, "fill", extra)[None]])
            values = np.append(values, np.nan)  # sorts last
        return found[torch.from_numpy(best_first(values, self.which)[: self.k])]

    def _krylov(
        self, locked: Tensor, q: Tensor, bar: float | None, wanted: int
    ) -> tuple[_Array, Tensor]:
        """One Lanczos run from ``q`` in the complement of ``locked``: best Ritz values and vectors.

        Ends when the ``wanted`` best have converged, when the space is exhausted (then every Ritz
        pair is exact), when the budget is spent, or when the best is clearly below ``bar``.
        """
        params, fixed = self.operator.shape[0], len(locked)
        basis = locked  # its rows stay in front, so that one pass orthogonalizes against both
        diagonal: list[float] = []
        off: list[float] = []
        while True:
            size = fixed + len(diagonal) + 1
            if size > len(basis):
                rows = min(_CHUNK, params - len(basis))
                basis = torch.cat([basis, basis.new_empty(rows, params)])
            basis[size - 1] = q
            w = self.operator @ q
            diagonal.append(float(q.double() @ w.double()))
            w = _complement(w, basis[:size])
            beta = float(w.double().norm())
            ritz, inner = eigh_tridiagonal(np.array(diagonal), np.array(off))
            self.scale = max(self.scale, float(np.abs(ritz).max()))
            order = best_first(ritz, self.which)[:wanted]
            exhausted = size == params or beta <= self._rounding()
            errors = beta * np.abs(inner[-1, order])
            enough = len(order) == wanted and bool(
                (errors <= _AIM * self._accepted(ritz[order])).all()
            )
            if bar is not None and len(diagonal) > 1:
                gap = bar - float(_merit(ritz, self.which)[order[0]])
                enough = enough or bool(errors[0] <= 0.1 * gap)
            if exhausted or enough or self.operator.products >= self.budget:
                rotation = torch.from_numpy(inner[:, order].T.copy()).to(basis)
                return ritz[order], rotation @ basis[fixed:size]
            off.append(beta)
            q = w / beta

    def power(self) -> Tensor:
        """Vectors ``(k, params)`` by power iteration, each in the complement of those before it.

        Plain iteration finds the largest magnitude. Where one sign is wanted and the other one leads,
        the spectrum is moved: ``H + shift`` has no negative eigenvalue, and its largest is the wanted.
        """
        sign = -1.0 if self.which == "SA" else 1.0  # the smallest of H is the largest of -H
        found = self.operator.theta.new_empty(0, self.operator.shape[0])
        shift = 0.0
        for pair in range(self.k):
            begin = self.operator.products
            limit = begin + (self.budget - begin) // (self.k - pair)
            trial = limit if shift or self.which == "LM" else (begin + limit + 1) // 2
            v = self._start(found, "power", pair)
            v, value, norm = self._iterate(found, v, sign, shift, trial)
            if trial < limit and (value < 0 or self.operator.products >= trial):
                shift = norm
                # A converged vector of the wrong sign holds nothing of the right one: start afresh.
                v = self._start(found, "shifted", pair) if value < 0 else v
                v, *_ = self._iterate(found, v, sign, shift, limit)
            found = torch.cat([found, v[None]])
        return found

    def _iterate(
        self, found: Tensor, v: Tensor, sign: float, shift: float, limit: int
    ) -> tuple[Tensor, float, float]:
        """Power steps on ``sign * H + shift`` until the residual is small or products reach ``limit``.

        Returns the vector, its Rayleigh quotient with ``sign * H``, and the length of the last product.
        """
        while True:
            w = _complement(sign * (self.operator @ v), found)
            value = float(v.double() @ w.double())
            residual = float((w.double() - value * v.double()).norm())
            self.scale = max(self.scale, abs(value))
            moved = w + shift * v
            norm = float(moved.double().norm())
            if residual <= _AIM * float(self._accepted(value)) or self.operator.products >= limit:
                return v, value, norm
            v = _complement(moved, found)
            v = _unit(v)

    def _accepted(self, values: _Array | float) -> _Array:
        return accepted(values, self.tol, self.scale, self.operator.dtype)

    def _rounding(self) -> float:
        """Below this length a Lanczos vector is rounding noise: the Krylov space is exhausted."""
        eps = torch.finfo(self.operator.dtype).eps
        return float(10 * eps * np.sqrt(self.operator.shape[0]) * self.scale)

    def _start(self, found: Tensor, *key: object) -> Tensor:
        """A random unit vector orthogonal to the rows of ``found``."""
        drawn = generator(self.seed, *key).standard_normal(self.operator.shape[0])
        q = _complement(torch.from_numpy(drawn).to(self.operator.theta), found)
        return _unit(q)


def accepted(values: _Array | float, tol: float, scale: float, dtype: torch.dtype) -> _Array:
    """Largest residual at which an eigenvalue counts as found: ``tol`` of its own magnitude.

    Not of the norm of the operator: next to an eigenvalue of -900, a space of three vectors already
    holds some pair near 0 with a residual under 1 % of 900, far from the largest eigenvalue of 70. The
    floor, a thousandth of that norm or the rounding of a product, lets eigenvalues near 0 be found too.
    """
    floor = max(tol * 1e-3, 30 * torch.finfo(dtype).eps) * scale
    return np.maximum(tol * np.abs(values), floor)


def best_first(values: _Array, which: str) -> _Array:
    """Indices that put the wanted end of ``values`` first."""
    return np.argsort(-_merit(values, which), kind="stable")


def _merit(values: _Array, which: str) -> _Array:
    """Numbers that are larger for what is wanted more."""
    return {"LA": values, "SA": -values, "LM": np.abs(values)}[which]


def _unit(v: Tensor) -> Tensor:
    return v / float(v.double().norm())


def _complement(v: Tensor, rows: Tensor) -> Tensor:
    """``v`` without its part in the span of orthonormal ``rows``; twice, because once is not enough."""
    for _ in range(2):
        v = v - (rows @ v) @ rows
    return v
