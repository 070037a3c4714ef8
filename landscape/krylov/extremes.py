"""Both ends of a spectrum from one Krylov space that starts near where the last one ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.directions import generator
from landscape.krylov.projection import Projection, Ritz
from landscape.krylov.wanted import Array
from landscape.operators.symmetric import SymmetricOperator

_FLOOR = (
    1e-2  # of the tolerance, of the norm: where an eigenvalue is so near 0 that only that counts
)


@dataclass(frozen=True, eq=False)
class Extremes:
    """The highest and the lowest eigenvalues of an operator.

    Attributes:
        values: ``(top + bottom,)``, float64: the highest, falling, then the lowest, rising.
        residuals: ``(top + bottom,)``, ``||A v - value v||`` by the products made, with the
            discrepancy that the audit found added: an eigenvalue lies within that of each value.
        vectors: ``(top + bottom, params)``, orthonormal rows.
        products: products made, the audit included.
        converged: every residual is within the tolerance.
    """

    values: Array
    residuals: Array
    vectors: Tensor
    products: int
    converged: bool


def extremes(
    operator: SymmetricOperator,
    top: int = 1,
    bottom: int = 1,
    *,
    near: Tensor | None = None,
    tol: float = 1e-2,
    seed: int = 0,
    key: object = 0,
    max_products: int = 200,
) -> Extremes:
    """The ``top`` highest and ``bottom`` lowest eigenpairs by Lanczos, orthogonalized twice.

    The Krylov space starts from a random unit vector, or with ``near`` from the sum of that and of
    those vectors: where an operator differs little from the last one, its eigenvectors are a good
    start. The random part is as long as each of them, so that an eigenvector that has none of them in
    it is found as it would be from a random start alone. What cannot be excluded, warm or cold, is an
    eigenvalue that the space has not come to yet: an interval holds *an* eigenvalue, and the highest
    value is a lower bound of the highest eigenvalue. Of an exactly repeated eigenvalue one copy is
    found, unless the Krylov space is exhausted; :func:`landscape.eigenpairs` looks for more.

    Args:
        operator: the symmetric operator.
        top: number of eigenpairs at the high end.
        bottom: number at the low end; both together at most ``params``.
        near: vectors ``(count, params)`` to start near.
        tol: largest residual, relative to the eigenvalue's own magnitude; for eigenvalues near 0, a
            hundredth of ``tol`` relative to the norm of the operator.
        seed: of the random part.
        key: what else fixes the random part, such as the number of the point.
        max_products: bound on the products.

    Raises:
        ValueError: a number out of range, or an operator that is not finite.

    >>> from landscape.operators.symmetric import MatrixOperator
    >>> found = extremes(MatrixOperator(torch.diag(torch.tensor([3.0, -1.0, 1.0, 0.5]))))
    >>> found.values.round(5).tolist(), found.converged
    ([3.0, -1.0], True)
    """
    params, k = operator.shape[0], top + bottom
    if top < 0 or bottom < 0 or not 1 <= k <= params:
        raise ValueError(
            f"top {top} and bottom {bottom}: expected at least 1 and at most {params} in all"
        )
    if not tol > 0:
        raise ValueError(f"tol is {tol}: expected a positive number")
    if max_products <= k:
        raise ValueError(f"max_products is {max_products}: expected at least {k + 1}")
    begin = operator.products
    drawn = torch.from_numpy(generator(seed, "extremes", key).standard_normal(params))
    start = (drawn / drawn.norm()).to(operator.theta)
    if near is not None:
        start = start + near.to(operator.theta).sum(0)
    space = Projection(operator, k)
    space.start(start)
    best = _search(space, top, bottom, tol, seed, begin + max_products - 1)
    limits = _limits(space, best.values, tol)
    residuals = best.residuals + math.sqrt(k) * _discrepancy(space, best, seed)
    space.basis.rotate(space.in_basis(best.mix))
    return Extremes(
        values=best.values,
        residuals=residuals,
        vectors=space.basis.first_block().clone(),
        products=operator.products - begin,
        converged=bool((residuals <= limits).all()),
    )


def _search(space: Projection, top: int, bottom: int, tol: float, seed: int, budget: int) -> Ritz:
    """Multiply until the wanted pairs have converged.

    Every start has a part in each eigenspace, so the extreme values of an exhausted space are those
    of the operator; but further copies of them may be missing, and a second start brings those.
    """
    earlier: Array | None = None
    starts = 0
    while True:
        space.multiply(list(space.open))  # it takes them off that list
        ritz = space.ritz()
        best = ritz.take(_ends(len(ritz.values), top, bottom))
        limits = _limits(space, best.values, tol)
        enough = len(best.values) == top + bottom
        if space.operator.products >= budget and enough:
            return best
        if space.open:
            if enough and earlier is None and (best.residuals <= 0.9 * limits).all():
                return best
            continue
        if enough and max(top, bottom) == 1:
            return best
        if enough and earlier is not None and (np.abs(best.values - earlier) <= limits).all():
            return best
        earlier = best.values if enough else None
        starts += 1
        if space.random_start(seed, "extremes", "again", starts) is None:
            return best


def _ends(count: int, top: int, bottom: int) -> Array:
    """Numbers of the wanted ones among ``count`` ascending values; no number twice."""
    high = np.arange(count)[::-1][:top]
    return np.concatenate([high, np.arange(max(count - len(high), 0))[:bottom]])


def _limits(space: Projection, values: Array, tol: float) -> Array:
    eps = float(torch.finfo(space.operator.dtype).eps)
    return np.maximum(tol * np.abs(values), max(tol * _FLOOR, 30 * eps) * space.scale)


def _discrepancy(space: Projection, best: Ritz, seed: int) -> float:
    """How far a unit mixture of the vectors, multiplied once more, is from what products said of it."""
    k = len(best.values)
    signs = generator(seed, "audit").integers(0, 2, k) * 2.0 - 1
    mix = best.mix @ (signs / math.sqrt(k))
    recorded = space.basis.combine(space.images() @ mix)
    again = space.operator.matvec(space.basis.combine(space.in_basis(mix))).detach()
    return float((again.double() - recorded.double()).norm())
