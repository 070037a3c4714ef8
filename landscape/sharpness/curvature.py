"""Measures of the Hessian: its ends, its trace, and both for steps relative to each weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from landscape.sharpness.measurement import Measurement, estimate
from landscape.sharpness.noise import forms, over_parts
from landscape.sharpness.point import Point, measured
from landscape.sharpness.probes import probed
from landscape.spectra.eigenpairs import Eigenpairs, eigenpairs
from landscape.spectra.stability import Preconditioned

TOP = 5
"""Eigenpairs that are found by default, and shared by the measures of this kind."""

_FLOOR = 1e-2  # of ``within``, of λ₁: a smallest eigenvalue that near 0 needs no better residual
_BIAS = "the maximum over directions of a sample is biased upwards, which the interval leaves out"
_LEAST = (
    "the minimum over directions of a sample is biased downwards, which the interval leaves out"
)


@measured
def lambda_max(point: Point, tol: float = 1e-3, k: int = TOP) -> Measurement:
    """Largest eigenvalue of the Hessian; its variants are the next ones, of rank 2 to ``k``.

    ``λ₁ = max over ‖v‖ = 1 of vᵀHv``

    Lanczos; see :func:`landscape.spectra.eigenpairs.eigenpairs`. An eigenvalue lies within the residual of
    the value for certain, whether the iteration converged or not: that is ``bound``. The standard error is
    that of the mean of ``vᵀHᵢv``, to first order the change of ``λ₁`` with the data. Its terms are the
    examples where forward mode gives them and there are fewer than 16 parts, else the parts (batches,
    tasks). It leaves out that ``v`` was fitted to these data: ``λ₁`` of a sample is too large on average,
    which :func:`landscape.spectra.data_noise.held_out` makes visible.

    Not invariant to rescalings that leave a network's function unchanged (Dinh et al. 2017).

    Args:
        point: the point.
        tol: largest residual, relative to the eigenvalue.
        k: eigenvalues to find.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> found = lambda_max(Point(bowl))
    >>> round(found.value, 9), [round(other.value, 9) for other in found.variants]
    (10.0, [2.0])
    """
    return _largest("lambda_max", point, top(point, k, tol), None)


@measured
def lambda_min(point: Point, tol: float = 1e-3, k: int = TOP, within: float = 0.1) -> Measurement:
    """Smallest eigenvalue of the Hessian: the most negative curvature.

    ``λ_P = min over ‖v‖ = 1 of vᵀHv``

    From the far end of the Krylov space of :func:`lambda_max`, at no further product, if its residual is
    at most ``within`` of it (or a hundredth of that of ``λ₁``); else by a search of its own. An eigenvalue
    lies within the residual, ``bound``; a still smaller one is not excluded.

    Args:
        point: the point.
        tol: of the search that is shared with ``lambda_max``.
        k: of that search.
        within: largest residual, relative to the eigenvalue.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> saddle = FunctionObjective(lambda t: t[0] ** 2 - 3 * t[1] ** 2, torch.zeros(2).double())
    >>> round(lambda_min(Point(saddle)).value, 9)
    -6.0
    """
    if not within > 0:
        raise ValueError(f"lambda_min: within is {within}, expected a positive number")
    pairs = top(point, k, tol)
    settings = {"tol": tol, "k": len(pairs.values), "within": within}
    assert pairs.opposite is not None
    value, residual = pairs.opposite
    quotients, converged, note = pairs.opposite_quotients, True, _LEAST
    limit = within * max(abs(value), _FLOOR * abs(float(pairs.values[0])))
    if residual > limit:
        own = point.pairs(1, "SA", within)
        value, residual, converged = float(own.values[0]), float(own.residuals[0]), own.converged
        quotients = None if own.quotients is None else own.quotients[:, 0]
        note = note if converged else own.outcome
    influence = over_parts(point, quotients)
    return estimate(
        "lambda_min", value, influence, settings, bound=residual, note=note, converged=converged
    )


@measured
def trace(point: Point, probes: int = 16, tol: float = 1e-3, k: int = TOP) -> Measurement:
    """Sum of the eigenvalues of the Hessian.

    ``tr H = Σ λ₁..λ_k + E[zᵀ(I − VVᵀ)H(I − VVᵀ)z], z random signs``

    Hutchinson's estimator (1990) on the complement of the eigenvectors that are shared with
    :func:`lambda_max`; where the complement has no more dimensions than ``probes``, exactly. The error
    holds that of the probes and that over the parts of the data (batches, tasks), where there are several.

    Args:
        point: the point.
        probes: products to spend.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(trace(Point(bowl)).value, 6)
    12.0
    """
    found = probed(point, point.hessian, top(point, k, tol), probes, "hessian")
    settings = {"probes": probes, "tol": tol, "deflated": found.deflated}
    influence = over_parts(point, found.parts, found.draws)
    return estimate(
        "trace", float(found.traces.mean()), influence, settings, note=_errors(influence)
    )


@measured
def adaptive_lambda_max(point: Point, tol: float = 1e-3, k: int = TOP) -> Measurement:
    """Largest eigenvalue of the Hessian for steps measured relative to each weight.

    ``λ₁(D H D), D = diag(|w|)``

    ``½ρ²`` times it is the limit for small ``ρ`` of the worst adaptive sharpness at a minimum (Kwon et al.
    2021). It does not change when layers or neurons of a ReLU network are rescaled without
    changing its function. Errors and variants as in :func:`lambda_max`.

    Args:
        point: the point.
        tol: largest residual, relative to the eigenvalue.
        k: eigenvalues to find.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.tensor([-3.0, 1.0]).double())
    >>> round(adaptive_lambda_max(Point(bowl)).value, 9)  # of diag(9 * 2, 1 * 10)
    18.0
    """
    pairs = _adaptive_pairs(point, k, tol)
    return _largest("adaptive_lambda_max", point, pairs, point.theta.abs())


@measured
def adaptive_trace(point: Point, probes: int = 16, tol: float = 1e-3, k: int = TOP) -> Measurement:
    """Sum of the diagonal of the Hessian, each entry in units of its weight.

    ``tr(D H D) = Σ wᵢ² Hᵢᵢ, D = diag(|w|)``

    ``½ρ²`` times it is the limit for small ``ρ`` of the average adaptive sharpness. Invariant as
    :func:`adaptive_lambda_max`, whose eigenvectors it deflates; otherwise as :func:`trace`.

    Args:
        point: the point.
        probes: products to spend.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.tensor([-3.0, 1.0]).double())
    >>> round(adaptive_trace(Point(bowl)).value, 6)
    28.0
    """
    pairs = _adaptive_pairs(point, k, tol)
    found = probed(point, _adaptive(point), pairs, probes, "adaptive")
    settings = {"probes": probes, "tol": tol, "deflated": found.deflated}
    influence = over_parts(point, found.parts, found.draws)
    value = float(found.traces.mean())
    return estimate("adaptive_trace", value, influence, settings, note=_errors(influence))


def top(point: Point, k: int, tol: float) -> Eigenpairs:
    """The ``k`` largest eigenpairs of the Hessian, all of them where it has fewer."""
    return point.pairs(_count(point, k), "LA", tol)


def _count(point: Point, k: int) -> int:
    return min(k, point.theta.numel())


def _adaptive(point: Point) -> Preconditioned:
    made: Preconditioned = point.once(
        "adaptive hessian", lambda: Preconditioned(point.hessian, point.theta.abs())
    )
    return made


def _adaptive_pairs(point: Point, k: int, tol: float) -> Eigenpairs:
    def compute() -> Eigenpairs:
        with point.products(_adaptive(point)) as operator:
            return eigenpairs(operator, count, which="LA", tol=tol, seed=point.seed, spread=True)

    count = _count(point, k)
    pairs: Eigenpairs = point.once(("adaptive pairs", count, tol), compute)
    return pairs


def _largest(name: str, point: Point, pairs: Eigenpairs, scale: Tensor | None) -> Measurement:
    """The first pair as the value, by examples where that is possible, and the others as variants."""
    settings: Mapping[str, Any] = {"tol": pairs.settings["tol"], "k": len(pairs.values)}
    value = float(pairs.values[0])
    direction = pairs.vectors[0] if scale is None else pairs.vectors[0] * scale
    terms = point.once((name, "forms", *settings.values()), lambda: forms(point, direction, value))
    by_part = [
        over_parts(point, None if pairs.quotients is None else pairs.quotients[:, i])
        for i in range(len(pairs.values))
    ]
    note = _BIAS if pairs.converged else pairs.outcome
    variants = [
        estimate(
            name,
            float(pairs.values[i]),
            by_part[i],
            {**settings, "rank": i + 1},
            bound=float(pairs.residuals[i]),
            note="" if pairs.converged else pairs.outcome,
            converged=pairs.converged,
        )
        for i in range(1, len(pairs.values))
    ]
    return estimate(
        name,
        value,
        by_part[0] if terms is None else point.influence(terms),
        settings,
        bound=float(pairs.residuals[0]),
        note=note,
        converged=pairs.converged,
        variants=variants,
    )


def _errors(influence: Any) -> str:
    if influence.data_error() is None:
        return "error over the random probes, not over the data"
    return ""
