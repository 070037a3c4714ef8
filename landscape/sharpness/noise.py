"""The data noise of measures of the Hessian: what each term, or each part, of the data contributes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jvp

from landscape import device as devices
from landscape.operators.summed import PartsOperator, parts_of
from landscape.sharpness.measurement import Influence
from landscape.sharpness.point import Point

FORMS_COST = 3.0
"""FB of :func:`forms`, by FLOPs of a convolutional network; a product with a kept graph takes 2."""

_ENOUGH = 16  # parts from which their scatter says enough
_AGREE = 1e-3  # relative difference up to which two ways to the same number agree


def over_parts(point: Point, values: Tensor | None, draws: Tensor | None = None) -> Influence:
    """Influence of numbers that are known for each part (batch, task) of the Hessian.

    Args:
        point: the point.
        values: ``(parts,)``, with their mean; ``None`` where there are none.
        draws: ``(draws,)``, with their mean.
    """
    operator = point.hessian
    if values is None or len(values) < 2 or not isinstance(operator, PartsOperator):
        return point.influence(draws=draws)
    if operator.examples == len(values):  # a part is a term
        return point.influence(values, draws)
    return point.influence(values, draws, operator.weights, "parts")


def forms(point: Point, direction: Tensor, expected: float) -> Tensor | None:
    """``vᵀ Hᵢ v`` of each term along ``direction (params,)``: ``(terms,)``, float64; 3 FB.

    By forward mode twice, part by part. Not where it would tell little for its price: many parts, whose
    scatter does as well; tasks, which are parts of their own.

    Args:
        point: the point.
        direction: ``v``.
        expected: their mean, known from elsewhere.

    Returns:
        The terms, or ``None`` where they cannot be had or do not average to ``expected``: the forward mode
        of some layers is silently wrong in torch.
    """
    if point.of != "examples":
        return None
    parts = parts_of(point.objective)
    if len(parts) >= _ENOUGH or any(part.products is not None for part in parts):
        return None
    space, found = point.objective.space, []
    for part in parts:

        def slope(theta: Tensor, losses=part.losses) -> Tensor:  # type: ignore[no-untyped-def]
            made: Tensor = jvp(lambda t: losses(space.unflatten(t)), (theta,), (direction,))[1]
            return made

        try:
            with devices.exact_kernels(), part.kernels():
                found.append(jvp(slope, (point.theta,), (direction,))[1])
        except (RuntimeError, NotImplementedError):  # a layer without such a derivative
            return None
        point.pay(FORMS_COST * part.size / sum(p.size for p in parts))
        if found[-1].dim() == 0:  # a loss that is the mean of its batch
            return None
    terms = torch.cat(found).detach().double()
    if not abs(float(terms.mean()) - expected) <= _AGREE * abs(expected):
        return None
    return terms
