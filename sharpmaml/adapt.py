"""The inner loop: initialization and support loss -> adapted parameters, as a pure function."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.func import grad

from sharpmaml.inner import InnerLoop
from sharpmaml.perturb import RULES


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
    for _ in range(inner.steps):
        point = theta
        if inner.lower > 0:
            # Detached first, so that no second-order graph is built for an ascent held constant.
            base = theta.detach() if inner.eps_grad == "detach" or inner.first_order else theta
            point = theta + RULES[inner.perturbation](grad(loss)(base), base, inner.lower)
        if inner.first_order:
            point = point.detach()
        theta = theta - inner.rate * grad(loss)(point)
    return theta
