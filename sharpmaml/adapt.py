"""The inner loop: initialization and support loss -> adapted parameters, as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.func import grad

from sharpmaml.inner import InnerLoop
from sharpmaml.perturb import RULES


class Path(NamedTuple):
    """An adaptation, step by step.

    Attributes:
        points: the parameters before, between and after the steps: ``steps + 1`` times ``(params,)``.
        ascents: the ascent ε of each step, ``(params,)`` each; empty without a radius.
    """

    points: list[Tensor]
    ascents: list[Tensor]


def adapt(loss: Callable[[Tensor], Tensor], theta: Tensor, inner: InnerLoop) -> Tensor:
    """Take ``inner.steps`` steps ``θ ← θ − β ∇loss(θ + ε)`` from ``theta``.

    ``ε`` is recomputed at every step from the gradient at the current point (Abbas et al. 2022,
    eqs. 11 and 12, carried along the path); with ``lower=0`` it is absent and the step is MAML's
    (Finn et al. 2017, eq. 1).

    Args:
        loss: support loss, ``(params,) -> scalar``.
        theta: the initialization, ``(params,)``.
        inner: steps, rate, radius and what is differentiated.

    Returns:
        Adapted parameters ``(params,)``, differentiable with respect to ``theta``.

    >>> import torch
    >>> bowl = lambda t: 0.5 * (t * t).sum()
    >>> adapt(bowl, torch.tensor([1.0, -2.0]), InnerLoop(steps=2, rate=0.5))
    tensor([ 0.2500, -0.5000])
    """
    return path(loss, theta, inner).points[-1]


def path(
    loss: Callable[[Tensor], Tensor],
    theta: Tensor,
    inner: InnerLoop,
    ascents: Sequence[Tensor] | None = None,
    slope: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] | None = None,
) -> Path:
    """The same, with all points on the way.

    Args:
        loss: support loss, ``(params,) -> scalar``.
        theta: the initialization, ``(params,)``.
        inner: as for :func:`adapt`.
        ascents: take these, one a step, as constants instead of computing them: those of another point
            (Abbas et al. 2022, eq. 14: ε_m of θ is used at θ + ε too).
        slope: gradient of a loss at a point, differentiable where the point has a graph; by `torch.func`,
            which any transform may wrap, when left out.
    """
    slope = slope or _slope
    points, used = [theta], []
    for step in range(inner.steps):
        at = points[-1]
        point = at
        if inner.lower > 0:
            if ascents is not None:
                epsilon = ascents[step]
            else:
                # Detached first, so that no second-order graph is built for an ascent held constant.
                base = at.detach() if inner.eps_grad == "detach" or inner.first_order else at
                gradient = inner.masked(slope(loss, base))
                epsilon = RULES[inner.perturbation](gradient, base, inner.lower)
            used.append(epsilon)
            point = at + epsilon
        if inner.first_order:
            point = point.detach()
        descent = inner.masked(slope(loss, point))
        if inner.proximal:
            descent = descent + inner.masked(inner.proximal * (at - theta))
        points.append(at - inner.rate_at(step) * descent)
    return Path(points, used)


def _slope(loss: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    gradient: Tensor = grad(loss)(point)
    return gradient
