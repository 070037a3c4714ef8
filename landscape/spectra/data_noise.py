"""How far eigenvalues depend on the data: their spread over batches, and their values on held-out data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from landscape.directions import generator
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.summed import parts_of
from landscape.spectra.eigenpairs import eigenpairs


class Parted(Protocol):
    """An operator that is a weighted mean over parts of the data."""

    weights: Tensor

    def quotients(self, vectors: Tensor) -> Tensor:
        """``vᵀ A_b v`` of each part for unit rows ``(k, params)``: ``(parts, k)``."""


@dataclass(frozen=True, eq=False)
class Spread:
    """Rayleigh quotients over the parts (batches, tasks) of the data.

    Attributes:
        mean: ``(k,)``, weighted by size: the quotients of the whole operator.
        stderr: ``(k,)``, standard error of ``mean`` over the parts; NaN for a single one. For vectors
            made from the same data it leaves out that they were fitted to them: see :func:`held_out`.
        minimum: ``(k,)``, of the parts.
        maximum: ``(k,)``, of the parts.
        quotients: ``(parts, k)``.
        weights: ``(parts,)``, of sum 1.
    """

    mean: Tensor
    stderr: Tensor
    minimum: Tensor
    maximum: Tensor
    quotients: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Top eigenvalues of two halves of the data, and what each half's vectors are worth on the other.

    Attributes:
        values: ``(2, k)``, eigenvalues of each half, largest first.
        quotients: ``(2, k)``: ``vᵀ A v`` with the vectors of that half and the matrix of the other.
        residuals: ``(2, k)``, of the values.
        upper: ``(k,)``, mean of ``values``, weighted by the size of the halves.
        lower: ``(k,)``, mean of ``quotients``, weighted in the same way.
        halves: numbers of the parts in each half.
        shares: share of each half in the data, of sum 1.
        converged: of the eigenvectors of both halves.
        products: products made, each over one half of the data.
    """

    values: Tensor
    quotients: Tensor
    residuals: Tensor
    upper: Tensor
    lower: Tensor
    halves: tuple[tuple[int, ...], tuple[int, ...]]
    shares: tuple[float, float]
    converged: bool
    products: int


def spread(operator: Parted, vectors: Tensor) -> Spread:
    """Spread over the parts of the Rayleigh quotients of ``vectors (k, params)``, unit rows.

    One pass over the data: ``k`` products. :func:`landscape.spectra.eigenpairs.eigenpairs` with ``spread=True``
    has the quotients at none; give them to :func:`spread_of`.

    Raises:
        ValueError: vectors of another shape.
    """
    return spread_of(operator.quotients(vectors), operator.weights)


def spread_of(quotients: Tensor, weights: Tensor) -> Spread:
    """Mean, standard error and range of ``quotients (parts, k)``, parts weighted by ``weights (parts,)``.

    A part of ``n`` examples has the variance ``σ²/n``, so ``Σ w (q - mean)² / (parts - 1)``, with
    weights of sum 1, is an unbiased estimate of the variance ``σ²/N`` of the mean, also where the last
    batch is short. The examples are taken as independent draws: with batch statistics of norm layers,
    where they are not, it is the scatter of batches all the same.

    Raises:
        ValueError: shapes that do not fit, or weights that are not positive.

    >>> found = spread_of(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]))
    >>> found.mean.tolist(), found.stderr.tolist()
    ([2.0], [1.0])
    """
    if quotients.dim() != 2 or weights.shape != quotients.shape[:1] or not len(weights):
        raise ValueError(
            f"quotients have shape {tuple(quotients.shape)} and weights {tuple(weights.shape)}: "
            "expected (parts, k) and (parts,)"
        )
    if not bool((weights > 0).all()):
        raise ValueError("weights: expected positive numbers, the sizes of the parts")
    values = quotients.detach().double().cpu()
    shares = weights.detach().double().cpu()
    shares = shares / shares.sum()
    mean = shares @ values
    if len(values) > 1:
        stderr = (shares @ (values - mean) ** 2 / (len(values) - 1)).sqrt()
    else:
        stderr = torch.full_like(mean, math.nan)
    return Spread(mean, stderr, values.amin(0), values.amax(0), values, shares)


def held_out(
    objective: Objective,
    k: int = 1,
    *,
    seed: int = 0,
    tol: float = 1e-3,
    theta: Tensor | None = None,
    **options: Any,
) -> HeldOut:
    """Top eigenvalues with the bias of a finite sample made visible: vectors of one half, quotients on the other.

    The largest eigenvalue is a maximum over directions, so on a sample ``A`` of the data it comes out
    too large: ``E λ₁(A) >= λ₁(E A)``, as ``λ₁`` is convex. On data ``B`` that the vector has not seen
    its quotient comes out too small: ``E vᵀ B v = vᵀ E[B] v <= λ₁``. So ``upper`` and ``lower`` enclose,
    on average over samples of this size, the eigenvalue of the distribution that the data came from;
    the gap is what the sample is too small for. The same holds for sums of the ``k`` largest (Ky Fan),
    not for each of them by itself. For the data at hand ``upper[0]`` is a bound without averages:
    ``λ₁ <= Σ share λ₁(half)``.

    Args:
        objective: one with at least two parts (batches, tasks).
        k: eigenvalues.
        seed: of the halves, drawn among the parts, and of the searches.
        tol: of :func:`landscape.spectra.eigenpairs.eigenpairs`.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        options: see :func:`landscape.operators.operator_of`.

    Raises:
        ValueError: an objective that is a single part, or ``subset`` among the options.
    """
    if "subset" in options:
        raise ValueError("subset: held_out chooses the parts itself, leave it out")
    parts = parts_of(objective)
    if len(parts) < 2:
        raise ValueError(
            "the objective is a single part, expected at least 2: give more batches, or batch_size"
        )
    order = generator(seed, "halves").permutation(len(parts)).tolist()
    middle = len(parts) // 2
    halves = (tuple(sorted(order[:middle])), tuple(sorted(order[middle:])))
    operators = [
        operator_of(objective, theta, subset=half, **more)
        for half, more in zip(halves, (options, {**options, "check": False}), strict=True)
    ]
    sizes = [sum(parts[i].size for i in half) for half in halves]
    shares = (sizes[0] / sum(sizes), sizes[1] / sum(sizes))
    pairs = [eigenpairs(operator, k, tol=tol, seed=seed) for operator in operators]
    quotients = []
    for found, other in zip(pairs, reversed(operators), strict=True):
        vectors = found.vectors.double()
        quotients.append((vectors * other.rows(found.vectors).double()).sum(1).cpu())
    values = torch.stack([found.values for found in pairs])
    weights = torch.tensor(shares, dtype=torch.float64)
    return HeldOut(
        values=values,
        quotients=torch.stack(quotients),
        residuals=torch.stack([found.residuals for found in pairs]),
        upper=weights @ values,
        lower=weights @ torch.stack(quotients),
        halves=halves,
        shares=shares,
        converged=all(found.converged for found in pairs),
        products=sum(operator.products for operator in operators),
    )
