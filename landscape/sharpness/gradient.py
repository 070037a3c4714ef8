"""Measures of first order."""

from __future__ import annotations

import torch

from landscape.objective import standard_error
from landscape.sharpness.measurement import Measurement, Point, length


def gradient_norm(point: Point) -> Measurement:
    """Length of the gradient: how far the point is from stationary.

    ``‖g‖, g = ∇L(w)``

    Print it beside every other measure: most of them assume that it is small. The standard error is
    that of the mean of the terms' slopes along ``g/‖g‖``, whose mean is ``‖g‖`` itself.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 0.5 * (t * t).sum(), torch.tensor([3.0, 4.0]))
    >>> gradient_norm(Point(bowl)).value
    5.0
    """
    value = length(point.gradient)
    error: float | None = None
    cost, note = 1.0, ""
    if value == 0:
        note = "the gradient is zero: its error has no direction"
    elif point.terms.numel() == 1:
        error = point.paired_error(point.terms)
    else:
        try:
            direction = point.gradient / value
            slopes = torch.func.jvp(point.objective.losses, (point.theta,), (direction,))[1]
            slopes = slopes.detach().double()
            cost += 2 / 3  # forward mode: about two forward passes
            # Some layers' derivatives are silently wrong in torch: never trust, compare.
            if abs(float(slopes.mean()) - value) <= 1e-3 * value:
                error = standard_error(slopes)
            else:
                note = "no standard error: the slopes of the terms do not average to the gradient"
        except (RuntimeError, NotImplementedError):
            note = "no standard error: a layer of this model has no forward-mode derivative"
    return Measurement("gradient_norm", value, error, cost=cost, note=note)
