"""Measures of the Hessian."""

from __future__ import annotations

from landscape.sharpness.measurement import Measurement, Point
from landscape.spectra.data_noise import spread_of
from landscape.spectra.traces import trace as trace_of

_NOTE = "interval: value ± residual; standard error: over the parts of the data"


def lambda_max(point: Point, tol: float = 1e-3) -> Measurement:
    """Largest eigenvalue of the Hessian.

    ``λ₁ = max over ‖v‖ = 1 of vᵀHv``

    Lanczos; see :func:`landscape.spectra.eigenpairs.eigenpairs`. The interval is the value ± its residual: an
    eigenvalue lies in it for certain, whether the iteration converged or not. The standard error is that
    of ``vᵀHv`` over the parts of the data (batches, tasks), where there are several.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(lambda_max(Point(bowl)).value, 9)
    10.0
    """
    pairs = point.pairs(1, "LA", tol)
    low, high = pairs.intervals[0].tolist()
    stderr = None
    if pairs.quotients is not None and pairs.weights is not None and len(pairs.weights) > 1:
        stderr = float(spread_of(pairs.quotients, pairs.weights).stderr[0])
    return Measurement(
        "lambda_max",
        float(pairs.values[0]),
        stderr,
        (low, high),
        {"tol": tol},
        point.hessian.product_cost * pairs.products,
        _NOTE if pairs.converged else pairs.outcome,
        pairs.converged,
    )


def trace(point: Point, probes: int = 32, tol: float = 1e-3) -> Measurement:
    """Sum of the eigenvalues of the Hessian.

    ``tr H = λ₁ + E[zᵀ(I − vvᵀ)H(I − vvᵀ)z], z random signs``

    Hutchinson's estimator on the complement of the top eigenvector ``v``, which is shared with
    ``lambda_max``; see :func:`landscape.spectra.eigenpairs.trace`.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(trace(Point(bowl)).value, 6)
    12.0
    """
    pairs = point.pairs(1, "LA", tol)
    found = trace_of(point.hessian, probes, point.seed, pairs=pairs)
    return Measurement(
        "trace",
        found.value,
        found.stderr,
        found.interval,
        {"probes": probes, "tol": tol, "deflated": 1},
        point.hessian.product_cost * (found.products + pairs.products),
        "error over the random probes, not over the data",
    )
