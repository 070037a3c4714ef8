"""Measures of first order, and the slopes of the terms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.sharpness.measurement import Measurement, NotApplicable, estimate
from landscape.sharpness.point import Point, length, measured

_MOST = 64  # terms up to which gradients one by one are affordable
_AGREE = 1e-3  # relative difference up to which the slopes agree with the gradient
_ROUNDING = 1e-5  # of the size of a slope: what single precision may leave of a mean that cancels


@measured
def gradient_norm(point: Point) -> Measurement:
    """Length of the gradient: how far the point is from stationary.

    ``‖g‖, g = ∇L(w)``

    Print it beside every other measure: most of them assume that it is small. The standard error is
    that of the mean of the terms' slopes along ``g/‖g‖``, whose mean is ``‖g‖`` itself. The length of a
    noisy vector is too long on average: by about the mean squared length of the noise over ``2‖g‖``.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 0.5 * (t * t).sum(), torch.tensor([3.0, 4.0]))
    >>> gradient_norm(Point(bowl)).value
    5.0
    """
    value = length(point.gradient)
    if value == 0:
        note = "the gradient is zero: its error has no direction"
        return estimate("gradient_norm", value, point.influence(), {}, note=note)
    found, note = None, ""
    if point.of != "exact":
        try:
            found = slopes(point, point.gradient / value)
        except NotApplicable as reason:
            note = f"no standard error: {reason}"
    return estimate("gradient_norm", value, point.influence(found), {}, note=note)


def slopes(point: Point, direction: Tensor) -> Tensor:
    """Derivative of each term along ``direction (params,)``: ``(terms,)``, float64; 1 FB.

    By forward mode. Some layers have none, and that of some is silently wrong in torch, so the mean is
    compared with the gradient (1 FB, shared); where it fails and there are at most 64 terms, by their
    gradients one at a time (1 FB).

    Raises:
        NotApplicable: the loss has no terms, or too many for gradients one by one.
    """
    try:
        found: Tensor = torch.func.jvp(point.objective.losses, (point.theta,), (direction,))[1]
    except ValueError:
        raise NotApplicable("the loss has no terms") from None
    except (RuntimeError, NotImplementedError):
        reason = "a layer of this model has no forward-mode derivative"
    else:
        point.pay(1.0)
        found = found.detach().double()
        if _agrees(point, direction, found):
            return found
        reason = "the slopes of the terms do not average to the gradient"
    settings = point.objective.settings
    count = settings.get("examples") or settings.get("tasks") or 0
    pieces = point.pieces(1) if count <= _MOST else []
    if not pieces:
        raise NotApplicable(reason)
    rows = []
    for piece in pieces:
        piece.pay(1.0)
        gradient = piece.objective.gradient(point.theta).detach()
        rows.append(torch.dot(gradient.double(), direction.double()))
    found = torch.stack(rows)
    if not _agrees(point, direction, found):
        raise NotApplicable(reason)
    return found


def _agrees(point: Point, direction: Tensor, found: Tensor) -> bool:
    expected = float(torch.dot(point.gradient.double(), direction.double()))
    size = math.sqrt(float(found.square().mean()))
    difference = abs(float(found.mean()) - expected)
    return difference <= _AGREE * abs(expected) + _ROUNDING * size
