"""Eigenvalues and trace of a Hessian that is never formed; every number carries its error."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from landscape.directions import generator
from landscape.hessian import HessianOperator
from landscape.krylov import ENDS, Search, accepted, best_first
from landscape.objective import Objective

METHODS = ("lanczos", "power")


class ConvergenceWarning(UserWarning):
    """An iteration ended before its result met the tolerance."""


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues and eigenvectors of a Hessian, best first, with what they are worth.

    Attributes:
        values: ``(k,)``, float64 on the CPU.
        vectors: ``(k, params)``, orthonormal rows, dtype and device of ``theta``.
        residuals: ``(k,)``, the true ``||H v - value v||`` from products made for this purpose.
        products: Hessian-vector products in all, those included.
        converged: every residual is at most ``tol`` times the norm of the Hessian as estimated.
        outcome: a sentence: what happened and, if it is not good, what to do.
        intervals: ``(k, 2)``, value ± residual: an eigenvalue lies in each, whatever the outcome.
        method: ``"lanczos"`` or ``"power"``.
        which: ``"LA"``, ``"SA"`` or ``"LM"``.
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


@dataclass(frozen=True)
class Trace:
    """Estimate of the trace; the error is that of the random probes, not of the data.

    Attributes:
        value: estimate of the sum of all eigenvalues.
        stderr: standard error over the probes.
        interval: 95 % interval by Student's t with ``probes - 1`` degrees of freedom.
        probes: random vectors used.
        products: Hessian-vector products made.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    probes: int
    products: int


def eigenpairs(
    objective: Objective,
    k: int = 1,
    method: str = "lanczos",
    which: str = "LA",
    tol: float = 1e-3,
    seed: int = 0,
    theta: Tensor | None = None,
    max_products: int | None = None,
) -> Eigenpairs:
    """The ``k`` eigenpairs of the Hessian at one end of its spectrum.

    ``"lanczos"`` orthogonalizes twice against all earlier vectors, so it returns no ghost copies,
    and stops as soon as the residuals are small. A Krylov space holds one vector of a repeated
    eigenvalue, so for ``k > 1`` it then starts again in the complement of what was found, until
    nothing better turns up. ``"power"`` is power iteration with deflation: slower, and easy to
    read; where ``which`` asks for one sign it shifts the Hessian if the other sign dominates.
    Both end with a Rayleigh-Ritz step on the pairs found.

    Args:
        objective: the function.
        k: number of eigenpairs.
        method: ``"lanczos"`` or ``"power"``.
        which: ``"LA"`` largest, ``"SA"`` smallest, ``"LM"`` largest in magnitude.
        tol: largest residual accepted, relative to the eigenvalue's own magnitude; for eigenvalues near
            0, a thousandth of ``tol`` relative to the norm of the Hessian. In float32, products carry
            errors near 1e-6 of that norm.
        seed: of the random start vectors.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        max_products: bound on the Hessian-vector products; left out, ``max(200, 20 k)`` for Lanczos
            (memory: as many vectors) and ``1000 k`` for power iteration.

    Returns:
        The pairs; unconverged ones too, with a :class:`ConvergenceWarning`.

    Raises:
        ValueError: ``k``, ``method``, ``which``, ``tol`` or ``max_products`` out of range, or a
            Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> saddle = FunctionObjective(lambda t: t[0] ** 2 - 3 * t[1] ** 2, torch.zeros(2))
    >>> [round(float(eigenpairs(saddle, which=end).values), 6) for end in ("LA", "SA", "LM")]
    [2.0, -6.0, -6.0]
    """
    operator = HessianOperator(objective, theta)
    params = operator.shape[0]
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    if which not in ENDS:
        raise ValueError(f"unknown end which={which!r}: expected one of {', '.join(ENDS)}")
    if not 1 <= k <= params:
        raise ValueError(f"k is {k}: expected 1 to {params}, the number of parameters")
    if not tol > 0:
        raise ValueError(f"tol is {tol}: expected a positive number")
    if max_products is None:
        max_products = 1000 * k if method == "power" else max(200, 20 * k) + k
    if max_products < 2 * k:
        raise ValueError(f"max_products is {max_products}: expected at least 2 k = {2 * k}")
    search = Search(operator, k, which, tol, seed, max_products - k)
    vectors = search.power() if method == "power" else search.lanczos()
    return _finished(operator, vectors, search.scale, tol, method, which)


def trace(
    objective: Objective,
    probes: int = 32,
    seed: int = 0,
    theta: Tensor | None = None,
    pairs: Eigenpairs | None = None,
) -> Trace:
    """Trace of the Hessian by Hutchinson's estimator with Rademacher probes.

    ``tr H = E[zᵀ H z]`` over random signs ``z`` (Hutchinson 1990); exact for a diagonal ``H``. With
    ``pairs`` of the same point the eigenvalues found enter exactly and only the complement is
    sampled, ``Σ λᵢ + E[z'ᵀ H z']`` with ``z' = z - V Vᵀ z``: much less noise where outliers lead.

    Args:
        objective: the function.
        probes: random vectors, at least 2; each costs one product.
        seed: of the probes: the same ones for every objective, so that differences are paired.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        pairs: eigenpairs at the same ``theta`` to deflate.

    Raises:
        ValueError: fewer than 2 probes, pairs of another size, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2))
    >>> trace(bowl, probes=4).value, trace(bowl, probes=4).stderr
    (6.0, 0.0)
    """
    operator = HessianOperator(objective, theta)
    params = operator.shape[0]
    if probes < 2:
        raise ValueError(f"probes is {probes}: expected at least 2, or there is no error estimate")
    if pairs is not None and pairs.vectors.shape[1] != params:
        raise ValueError(f"pairs have {pairs.vectors.shape[1]} parameters, the objective {params}")
    known = 0.0 if pairs is None else float(pairs.values.sum())
    samples = np.empty(probes)
    for probe in range(probes):
        signs = generator(seed, "trace", probe).integers(0, 2, params, dtype=np.int8) * 2 - 1
        z = torch.from_numpy(signs).to(operator.theta)
        if pairs is not None:
            for _ in range(2):
                z = z - (pairs.vectors @ z) @ pairs.vectors
        samples[probe] = known + float(z.double() @ (operator @ z).double())
    value = float(samples.mean())
    stderr = float(samples.std(ddof=1) / np.sqrt(probes))
    half = float(student.ppf(0.975, probes - 1)) * stderr
    return Trace(value, stderr, (value - half, value + half), probes, operator.products)


def _finished(
    operator: HessianOperator, vectors: Tensor, scale: float, tol: float, method: str, which: str
) -> Eigenpairs:
    """Rayleigh-Ritz on the span of ``vectors``, with true residuals: one more product a vector."""
    images = torch.stack([operator @ v for v in vectors])
    small = (vectors.double() @ images.double().T).cpu().numpy()
    values, rotation = np.linalg.eigh((small + small.T) / 2)
    order = best_first(values, which)
    mix = torch.from_numpy(rotation[:, order].T.copy()).to(vectors.device)
    ritz = torch.from_numpy(values[order].copy())
    exact = mix @ vectors.double()
    errors = mix @ images.double() - ritz.to(exact.device)[:, None] * exact
    residuals = errors.norm(dim=1).cpu()
    scale = max(scale, float(np.abs(values).max()))
    limits = accepted(values[order], tol, scale, vectors.dtype)
    worst = int(np.argmax(residuals.numpy() - limits))
    converged = float(residuals[worst]) <= limits[worst]
    count = f"{len(ritz)} pair{'s' if len(ritz) > 1 else ''}"
    if converged:
        outcome = f"{count} converged in {operator.products} products"
    else:
        outcome = (
            f"not converged after {operator.products} products: eigenvalue {float(ritz[worst]):.4g} has residual "
            f"{float(residuals[worst]):.2g}, asked for {limits[worst]:.2g}; raise "
            "max_products, raise tol, or compute in float64"
            + ("; method='lanczos' needs fewer" if method == "power" else "")
        )
        warnings.warn(outcome, ConvergenceWarning, stacklevel=3)
    return Eigenpairs(
        values=ritz,
        vectors=exact.to(vectors.dtype),
        residuals=residuals,
        products=operator.products,
        converged=converged,
        outcome=outcome,
        intervals=torch.stack([ritz - residuals, ritz + residuals], dim=1),
        method=method,
        which=which,
    )
