"""How near the run behind a checkpoint is to the edge of stability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape.sharpness.curvature import TOP, top
from landscape.sharpness.measurement import Measurement, NotApplicable, estimate
from landscape.sharpness.noise import over_parts
from landscape.sharpness.point import Point, measured
from landscape.spectra.dynamics import dynamics
from landscape.spectra.eigenpairs import eigenpairs
from landscape.spectra.stability import Preconditioned, read_optimizer


@measured
def edge_of_stability(
    point: Point,
    optimizer: Path | str | Mapping[str, Any] | None = None,
    tol: float = 1e-3,
    k: int = TOP,
) -> Measurement:
    """Sharpness in the metric of the optimizer, over the largest that its steps bear.

    ``λ₁(P⁻¹H) / threshold``: ``ηλ₁/2`` for gradient descent, ``ηλ₁/(2 + 2β)`` with momentum

    Above 1 the steps along the sharpest direction grow. Cohen et al. 2021, and 2022 for Adam, whose
    preconditioner comes from its state; coupled weight decay adds to the Hessian. See
    :func:`landscape.spectra.dynamics.dynamics`. The thresholds are those of a quadratic function under
    full-batch steps: small batches are unstable earlier. The error is that of ``vᵀHv`` over the parts of
    the data (batches, tasks); ``bound`` is the residual over the threshold.

    Args:
        point: the weights that the optimizer moves.
        optimizer: a checkpoint that holds the optimizer's state, or settings such as
            ``{"lr": 0.1, "momentum": 0.9}``.
        tol: largest residual, relative to the eigenvalue.
        k: eigenpairs of the search that is shared with ``lambda_max`` where nothing preconditions.

    Raises:
        NotApplicable: no optimizer, one that is not known, or a state of other parameters.
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 9.5 * t[0] ** 2 + t[1] ** 2, torch.zeros(2))
    >>> found = edge_of_stability(Point(bowl), {"lr": 0.1, "momentum": 0.9})
    >>> round(found.value, 4), found.note
    (0.5, 'SGD lr 0.1, momentum 0.9: unstable above (2+2β)/η = 38')
    """
    if optimizer is None:
        raise NotApplicable(
            "no optimizer state: set optimizer to a checkpoint that holds one, or to its settings "
            "({'lr': 0.1, 'momentum': 0.9})"
        )
    given = isinstance(optimizer, Mapping)
    try:
        state = optimizer if isinstance(optimizer, Mapping) else read_optimizer(optimizer)
        rule = dynamics(state, point.objective.space)
    except ValueError as reason:
        raise NotApplicable(str(reason)) from None
    if rule.scale is None and isinstance(rule.decay, float) and rule.decay == 0:
        pairs = top(point, k, tol)  # the metric of plain steps is that of the Hessian
    else:
        metric = Preconditioned(point.hessian, rule.scale, rule.decay)
        with point.products(metric):
            pairs = eigenpairs(metric, k=1, which="LA", tol=tol, seed=point.seed, spread=True)
    quotients = None if pairs.quotients is None else pairs.quotients[:, 0] / rule.threshold
    return estimate(
        "edge_of_stability",
        float(pairs.values[0]) / rule.threshold,
        over_parts(point, quotients),
        {"optimizer": rule.text if given else str(optimizer), "tol": tol},
        bound=float(pairs.residuals[0]) / rule.threshold,
        note=rule.text if pairs.converged else f"{rule.text}; {pairs.outcome}",
        converged=pairs.converged,
    )
