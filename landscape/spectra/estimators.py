"""The two estimators behind :func:`landscape.spectra.traces.trace`: they take more probes at any time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from landscape.directions import generator
from landscape.operators.symmetric import SymmetricOperator

Array = np.ndarray[Any, np.dtype[np.float64]]


class TraceEstimator(ABC):
    """Estimates ``tr A``, ``A = (I - VVᵀ) H (I - VVᵀ)``, the part of ``H`` not spanned by ``locked``.

    Attributes:
        operator: ``H``.
        locked: ``V``, orthonormal rows ``(k, params)``.
        dimension: ``params - k``.
        probes: random vectors used so far.
        cost: products that a probe takes.
    """

    cost = 1

    def __init__(self, operator: SymmetricOperator, locked: Tensor, seed: int, block: int) -> None:
        self.operator = operator
        self.locked = locked
        self.dimension = operator.shape[0] - len(locked)
        self.seed = seed
        self.block = block
        self.probes = 0

    def add(self, count: int) -> None:
        """Use ``count`` more random vectors, ``block`` of them in each pass over the data."""
        end = self.probes + count
        while self.probes < end:
            numbers = range(self.probes, min(end, self.probes + self.block))
            vectors = without(self.locked, self._draw(numbers))
            self._take(vectors, without(self.locked, self.operator.rows(vectors)))
            self.probes += len(numbers)

    @abstractmethod
    def estimate(self) -> tuple[float, float]:
        """The trace of ``A`` and its standard error."""

    @abstractmethod
    def size(self) -> float:
        """An estimate of ``Σ|λ|`` of ``A`` from below."""

    @abstractmethod
    def _draw(self, numbers: range) -> Tensor:
        """The random vectors of these numbers ``(count, params)``."""

    @abstractmethod
    def _take(self, vectors: Tensor, images: Tensor) -> None:
        """Use random vectors of the complement and their products with ``A``."""


class Hutchinson(TraceEstimator):
    """The mean of ``zᵀ A z`` over random signs ``z`` (Hutchinson 1990)."""

    def __init__(self, operator: SymmetricOperator, locked: Tensor, seed: int, block: int) -> None:
        super().__init__(operator, locked, seed, block)
        self._samples: list[float] = []
        self._grams: list[Array] = []

    def estimate(self) -> tuple[float, float]:
        """Mean and standard error of the samples."""
        deviation = float(np.std(self._samples, ddof=1))
        return float(np.mean(self._samples)), deviation / math.sqrt(self.probes)

    def size(self) -> float:
        """The trace itself, or what the lengths and angles of the images show, whichever is more."""
        return max(abs(self.estimate()[0]), holder(self._grams, self.dimension))

    def _draw(self, numbers: range) -> Tensor:
        params = self.operator.shape[0]
        signs = [
            generator(self.seed, "trace", i).integers(0, 2, params, dtype=np.int8) * 2 - 1
            for i in numbers
        ]
        return torch.from_numpy(np.stack(signs)).to(self.operator.theta)

    def _take(self, vectors: Tensor, images: Tensor) -> None:
        self._samples += (vectors.double() * images.double()).sum(1).tolist()
        self._grams.append(_inner(images, images))


class Exchangeable(TraceEstimator):
    """XTrace (Epperly, Tropp, Webber 2024).

    With ``Q`` an orthonormal basis of the images ``Y = AΩ = QR`` of ``m`` random vectors, ``Qᵢ`` one of
    the images but the ``i``-th, estimate ``i`` is ``tr Qᵢᵀ A Qᵢ`` plus Hutchinson's for the rest,
    ``ωᵢᵀ (I - QᵢQᵢᵀ) A (I - QᵢQᵢᵀ) ωᵢ``, with the projected vector scaled to its expected
    length. ``QᵢQᵢᵀ = Q (I - sᵢsᵢᵀ) Qᵀ`` with ``sᵢ`` the unit vector along column ``i`` of ``R⁻ᵀ``, so all
    ``m`` estimates come from ``m x m`` matrices, and ``Qᵀ A ωᵢ`` is column ``i`` of ``R``.

    Keeps ``Q``, ``m`` vectors; the random vectors are drawn again when they are needed.
    """

    cost = 2

    def __init__(self, operator: SymmetricOperator, locked: Tensor, seed: int, block: int) -> None:
        super().__init__(operator, locked, seed, block)
        self._basis = locked[:0]
        self._r = np.zeros((0, 0))
        self._h = np.zeros((0, 0))  # Qᵀ A Q
        self._w = np.zeros((0, 0))  # Qᵀ Ω
        self._lengths: list[float] = []  # |ωᵢ|²
        self._forms: list[float] = []  # ωᵢᵀ A ωᵢ

    def estimate(self) -> tuple[float, float]:
        """Mean of the estimates, and their standard deviation over the root of their number."""
        m = self.probes
        diagonal = np.abs(np.diag(self._r))
        floor = np.finfo(float).eps * (float(diagonal.max()) or 1.0)
        # Where the images have run out of rank any sᵢ orthogonal to the others will do.
        r = self._r + np.diag(np.where(diagonal < floor, floor, 0.0))
        s = solve_triangular(r, np.eye(m), trans="T")
        s /= np.linalg.norm(s, axis=0)
        x = self._w - s * (s * self._w).sum(0)
        rest = np.array(self._forms) - 2 * (x * self._r).sum(0) + (x * (self._h @ x)).sum(0)
        scale = (self.dimension - m + 1) / (np.array(self._lengths) - np.square(x).sum(0))
        samples = np.trace(self._h) - (s * (self._h @ s)).sum(0) + scale * rest
        return float(np.mean(samples)), float(np.std(samples, ddof=1)) / math.sqrt(m)

    def size(self) -> float:
        """Two parts: what the first two thirds of the basis span, and what the other images add to it.

        Compressions to orthogonal subspaces only lose: ``Σ|λ(A)| >= Σ|λ(Qᵀ A Q)| + Σ|λ(rest)|``.
        """
        fixed = 2 * self.probes // 3
        inner = self._h[:fixed, :fixed]
        rest, corner = self.estimate()[0] - np.trace(inner), self._r[fixed:, fixed:]
        spanned = float(np.abs(np.linalg.eigvalsh(inner)).sum())
        added = holder([corner.T @ corner], self.dimension - fixed)
        return spanned + max(abs(float(rest)), added)

    def _draw(self, numbers: range) -> Tensor:
        params = self.operator.shape[0]
        drawn = [generator(self.seed, "xtrace", i).standard_normal(params) for i in numbers]
        return torch.from_numpy(np.stack(drawn)).to(self.operator.theta)

    def _take(self, vectors: Tensor, images: Tensor) -> None:
        old, new = self.probes, len(vectors)
        self._lengths += vectors.double().square().sum(1).tolist()
        self._forms += (vectors.double() * images.double()).sum(1).tolist()
        q, corner = torch.linalg.qr(without(self._basis, images).T)
        added = without(self.locked, q.T.contiguous())
        shares = _inner(self._basis, images)
        self._r = _bordered(self._r, shares, corner.double().cpu().numpy(), np.zeros((new, old)))
        products = self.operator.rows(added)
        across, within = _inner(self._basis, products), _inner(added, products)
        self._h = _bordered(self._h, across, (within + within.T) / 2, across.T)
        down = np.empty((new, old))
        for begin in range(0, old, self.block):
            numbers = range(begin, min(begin + self.block, old))
            down[:, numbers] = _inner(added, without(self.locked, self._draw(numbers)))
        self._w = _bordered(self._w, _inner(self._basis, vectors), _inner(added, vectors), down)
        self._basis = torch.cat([self._basis, added])


def without(rows: Tensor, vectors: Tensor) -> Tensor:
    """``vectors (count, params)`` less their part in the span of orthonormal ``rows``, taken off twice."""
    for _ in range(2 if len(rows) else 0):
        vectors = vectors - (vectors @ rows.T) @ rows
    return vectors


def holder(grams: Sequence[Array], dimension: int) -> float:
    """An estimate from below of ``Σ|λ|`` of a matrix ``A``, from its images ``y = A z`` of random vectors.

    By Hölder's inequality ``Σλ² <= (Σ|λ|)^(2/3) (Σλ⁴)^(1/3)``, so ``Σ|λ| >= (tr A²)^(3/2) / (tr A⁴)^(1/2)``,
    and ``E |y|² = tr A²``, ``E (yᵢᵀ yⱼ)² = tr A⁴``. The pairs are few, so their mean is taken one standard
    error up, and held to its own bound ``tr A⁴ >= (tr A²)² / dimension``.

    Args:
        grams: inner products of the images, in one or more groups ``(count, count)``.
        dimension: rank of ``A`` at most.
    """
    square = float(np.mean(np.concatenate([np.diag(gram) for gram in grams])))
    pairs = np.concatenate([gram[np.triu_indices(len(gram), 1)] for gram in grams])
    if not len(pairs) or not square:
        return 0.0
    ratios = np.square(pairs / square)
    fourth = float(np.mean(ratios) + np.std(ratios) / math.sqrt(len(ratios)))
    return math.sqrt(square / max(fourth, 1 / dimension))


def complement_trace(
    operator: SymmetricOperator, locked: Tensor, block: int
) -> tuple[float, float]:
    """``tr A`` without sampling and ``Σ|Aᵢᵢ|``, at most ``Σ|λ|``: one product a dimension.

    Forms an orthonormal basis of the complement of ``locked``: for few dimensions.
    """
    basis = torch.eye(operator.shape[0], dtype=operator.dtype, device=operator.device)
    if len(locked):
        basis = torch.linalg.qr(locked.T, mode="complete").Q.T[len(locked) :].contiguous()
    diagonal = torch.zeros(0, dtype=torch.float64, device=operator.device)
    for begin in range(0, len(basis), block):
        rows = basis[begin : begin + block]
        forms = (rows.double() * operator.rows(rows).double()).sum(1)
        diagonal = torch.cat([diagonal, forms])
    return float(diagonal.sum()), float(diagonal.abs().sum())


def _inner(rows: Tensor, columns: Tensor) -> Array:
    """Inner products ``(rows, columns)`` as float64."""
    found: Array = (rows.double() @ columns.double().T).cpu().numpy()
    return found


def _bordered(corner: Array, right: Array, new: Array, below: Array) -> Array:
    """``[[corner, right], [below, new]]``."""
    return np.block([[corner, right], [below, new]])
