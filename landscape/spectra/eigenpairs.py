"""Eigenvalues and trace of a Hessian that is never formed; every number carries its error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from landscape.krylov.block import BlockSearch
from landscape.krylov.calibration import choose_method
from landscape.krylov.certificate import Found, FoundByKrylov, FoundByPower, certify
from landscape.krylov.lanczos import MULTIPLICITIES, Search
from landscape.krylov.power import PowerSearch
from landscape.krylov.wanted import ENDS, Wanted
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.symmetric import SymmetricOperator

METHODS = ("lanczos", "power", "block")


class ConvergenceWarning(UserWarning):
    """An iteration ended before its result met the tolerance."""


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues and eigenvectors of a symmetric operator, with what they are worth.

    Attributes:
        values: ``(k,)``, float64 on the CPU, best first; of both ends, the high ones first.
        vectors: ``(k, params)``, orthonormal rows, dtype and device of ``theta``.
        residuals: ``(k,)``, ``||A v - value v||`` from the products that were made, with the
            discrepancy that the audit found added; see :func:`landscape.krylov.certificate.certify`.
        products: products in all, the audit included.
        converged: every residual is at most ``tol`` times its eigenvalue's magnitude.
        outcome: a sentence: what happened and, if it is not good, what to do.
        intervals: ``(k, 2)``, value ± residual: an eigenvalue lies in each, whatever the outcome.
        method: ``"lanczos"``, ``"power"`` or ``"block"``.
        which: ``"LA"``, ``"SA"``, ``"LM"`` or ``"BE"``.
        passes: passes over the data: a block of products is one.
        opposite: Ritz value at the end that was not asked for, and its residual: an eigenvalue lies
            that near, and at least as far out lies the end. ``None`` for power iteration and for both ends.
        discrepancy: of the audit: ``||A y - recorded A y||`` for a unit mixture of the vectors.
        memory_bytes: the most that kept vectors took.
        settings: of the search and of the operator, to record beside the numbers. ``overlooked``
            is the chance that a further copy of an eigenvalue was there and went unseen.
        quotients: ``(parts, k)``, float64: ``vᵀ A_b v`` of every part (batch, task) of the operator, at no
            extra product; ``None`` unless ``spread`` was asked for and the operator has parts.
        weights: ``(parts,)``, share of each part: ``weights @ quotients`` are the values.
        opposite_quotients: ``(parts,)``, the quotients behind ``opposite``, under the same conditions.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool
    outcome: str
    intervals: Tensor
    method: str
    which: str
    passes: int = 0
    opposite: tuple[float, float] | None = None
    discrepancy: float = 0.0
    memory_bytes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    quotients: Tensor | None = None
    weights: Tensor | None = None
    opposite_quotients: Tensor | None = None


def eigenpairs(
    objective: Objective | SymmetricOperator,
    k: int = 1,
    method: str = "lanczos",
    which: str = "LA",
    tol: float = 1e-3,
    seed: int = 0,
    theta: Tensor | None = None,
    max_products: int | None = None,
    *,
    block_size: int | None = None,
    multiplicity: str = "check",
    max_vectors: int = 200,
    spread: bool = False,
    **operator_options: Any,
) -> Eigenpairs:
    """The ``k`` eigenpairs of the Hessian, or of any symmetric operator, at an end of its spectrum.

    ``"lanczos"`` orthogonalizes twice against all earlier vectors, so it returns no ghost copies, and
    stops as soon as the residuals are small. They come from the coefficients of the products made,
    for the very vectors that are returned, and one more product audits them. A Krylov space holds
    one vector of a repeated eigenvalue, so for ``k > 1`` a short run in its complement looks for
    further copies (``multiplicity``). ``"block"`` multiplies several vectors in each pass over the
    data: more products in fewer passes, and copies up to the block size are found without a check.
    ``"power"`` is power iteration with deflation: slower, and easy to read. ``"auto"`` takes
    ``"lanczos"`` or ``"block"`` by the clock (:func:`landscape.krylov.calibration.choose_method`), so it may
    differ from run to run.

    Args:
        objective: the function, or an operator.
        k: number of eigenpairs.
        method: ``"lanczos"``, ``"power"``, ``"block"`` or ``"auto"``.
        which: ``"LA"`` largest, ``"SA"`` smallest, ``"LM"`` largest in magnitude, ``"BE"`` half of them
            from each end, the odd one from the high end.
        tol: largest residual accepted, relative to the eigenvalue's own magnitude; for eigenvalues near
            0, a thousandth of ``tol`` relative to the norm of the operator. In float32, products carry
            errors near 1e-6 of that norm.
        seed: of the random start vectors.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        max_products: bound on the products; left out, ``max(200, 20 k) + k`` for Lanczos and
            ``1000 k`` for power iteration.
        block_size: vectors in a block of ``"block"``; ``k + 2`` when left out.
        multiplicity: how hard Lanczos looks for copies. ``"check"``: until the chance of having
            overlooked one is 5 %, but no more than three products unless they show something; what
            it can miss is a copy that stands out little from the bulk, and ``settings["overlooked"]``
            is that chance. ``"full"``: until the chance is 1e-4. ``"skip"``: one of each unless the space is
            exhausted; that is found out at no cost and always looked into.
        max_vectors: vectors of Lanczos in memory at most; at that number it restarts with the best.
        spread: note the quotients of every part, by Lanczos and block Lanczos; no extra product.
        operator_options: ``kind``, ``params``, ``keep_graph``, ...: see :func:`landscape.operators.operator_of`.

    Returns:
        The pairs; unconverged ones too, with a :class:`ConvergenceWarning`.

    Raises:
        ValueError: an argument out of range, or an operator that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> saddle = FunctionObjective(lambda t: t[0] ** 2 - 3 * t[1] ** 2, torch.zeros(2))
    >>> [round(float(eigenpairs(saddle, which=end).values), 6) for end in ("LA", "SA", "LM")]
    [2.0, -6.0, -6.0]
    >>> [round(x, 6) for x in eigenpairs(saddle, k=2, which="BE").values.tolist()]
    [2.0, -6.0]
    """
    begin = objective.products if isinstance(objective, SymmetricOperator) else 0
    operator = operator_of(objective, theta, **operator_options)
    params = operator.shape[0]
    if max_products is None:
        max_products = _default_products(method, k)
    require_settings(
        params, k, method, which, tol, max_products, multiplicity, max_vectors, block_size
    )
    settings: dict[str, Any] = {"tol": tol, "seed": seed}
    end = begin + max_products
    if method == "auto":
        chosen = choose_method(operator, k)
        method, settings["choice"] = chosen.method, chosen.reason
        end += operator.products - begin
    wanted = Wanted(k, which, tol, operator.dtype)
    opposite = quotients = weights = opposite_quotients = None
    found: Found
    if method == "power":
        power = PowerSearch(operator, wanted, seed, end - 1)
        power.run()
        found = FoundByPower(power, operator.products - begin)
    else:
        search: Search | BlockSearch
        if method == "block":
            size = min(block_size or k + 2, params)
            search = BlockSearch(operator, wanted, seed, end - 1, size, spread)
            settings["block_size"] = size
        else:
            search = Search(operator, wanted, seed, end - 1, multiplicity, max_vectors, spread)
            settings |= {"multiplicity": multiplicity, "max_vectors": max_vectors}
        found = FoundByKrylov(search.space, search.run(), which)
        opposite, quotients, weights = found.opposite, found.quotients, found.weights
        opposite_quotients = found.opposite_quotients
        if isinstance(search, Search) and search.overlooked is not None:
            settings["overlooked"] = search.overlooked
    advice = "; method='lanczos' needs fewer" if method == "power" else ""
    certificate = certify(operator, found, wanted, seed, begin, end, advice)
    if not certificate.converged:
        warnings.warn(certificate.outcome, ConvergenceWarning, stacklevel=2)
    values, residuals = torch.from_numpy(found.values.copy()), certificate.residuals
    return Eigenpairs(
        values=values,
        vectors=certificate.vectors,
        residuals=residuals,
        products=operator.products - begin,
        converged=certificate.converged,
        outcome=certificate.outcome,
        intervals=torch.stack([values - residuals, values + residuals], dim=1),
        method=method,
        which=which,
        passes=found.passes + certificate.passes,
        opposite=opposite,
        discrepancy=certificate.discrepancy,
        memory_bytes=found.memory_bytes,
        settings={**operator.settings, **settings},
        quotients=quotients,
        weights=weights,
        opposite_quotients=opposite_quotients,
    )


def require_settings(
    params: int,
    k: int,
    method: str = "lanczos",
    which: str = "LA",
    tol: float = 1e-3,
    max_products: int | None = None,
    multiplicity: str = "check",
    max_vectors: int = 200,
    block_size: int | None = None,
) -> None:
    """Refuse what :func:`eigenpairs` would refuse for an operator of ``params`` parameters.

    Raises:
        ValueError: an argument out of range.
    """
    _one_of("method", method, (*METHODS, "auto"))
    _one_of("end which=", which, ENDS)
    _one_of("multiplicity", multiplicity, MULTIPLICITIES)
    if not 1 <= k <= params:
        raise ValueError(f"k is {k}: expected 1 to {params}, the number of parameters")
    if not tol > 0:
        raise ValueError(f"tol is {tol}: expected a positive number")
    if max_products is not None and max_products <= k:
        raise ValueError(
            f"max_products is {max_products}: expected at least {k + 1}, k and an audit"
        )
    if max_vectors < 2 * k + 10:
        raise ValueError(f"max_vectors is {max_vectors}: expected at least 2 k + 10 = {2 * k + 10}")
    if block_size is not None and not 1 <= block_size <= params:
        raise ValueError(f"block_size is {block_size}: expected 1 to {params}")


def memory_bound(
    operator: SymmetricOperator,
    k: int,
    method: str = "lanczos",
    max_products: int | None = None,
    *,
    block_size: int | None = None,
    max_vectors: int = 200,
) -> int:
    """Bytes that :func:`eigenpairs` with these arguments takes at most, beside the operator's own.

    Kept vectors, with those in the making; most searches end long before it is reached. ``"auto"``
    counts as the larger of its two.

    >>> from landscape.operators.symmetric import MatrixOperator
    >>> memory_bound(MatrixOperator(torch.eye(1000)), k=5) // (1000 * 4)  # vectors
    212
    """
    params = operator.shape[0]
    most = (_default_products(method, k) if max_products is None else max_products) + 1
    kept = {
        "lanczos": min(most, max_vectors + 1, params) + 11,
        "block": min(most + (block_size or k + 2), params) + 2 * (block_size or k + 2) + 11,
        "power": 10 * k + 8,  # two of each pair, in float64 too
    }
    vectors = max(kept["lanczos"], kept["block"]) if method == "auto" else kept[method]
    return vectors * params * operator.theta.element_size()


def _default_products(method: str, k: int) -> int:
    return 1000 * k if method == "power" else max(200, 20 * k) + k


def _one_of(name: str, given: str, expected: Sequence[str]) -> None:
    if given not in expected:
        shown = f"{name}{given!r}" if name.endswith("=") else f"{name} {given!r}"
        raise ValueError(f"unknown {shown}: expected one of {', '.join(expected)}")
