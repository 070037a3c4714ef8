"""The inner loop: initialization and support loss -> adapted parameters, as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.func import grad

from sharpmaml.perturb import RULES

EPS_GRAD = ("detach", "through")


@dataclass(frozen=True)
class InnerLoop:
    """How a task is adapted to.

    Attributes:
        steps: gradient steps on the support loss; 0 leaves the initialization as it is.
        rate: inner learning rate, β_low of Abbas et al. 2022.
        lower: radius α_low of the ascent before each step; 0 is MAML.
        eps_grad: ``"detach"`` holds the ascent constant in the meta-gradient (SAM's convention),
            ``"through"`` differentiates it (the released Sharp-MAML code).
        first_order: treat the inner gradients as constants (FOMAML).
        perturbation: rule of the ascent, a name in ``sharpmaml.perturb.RULES``.
    """

    steps: int = 1
    rate: float = 0.4
    lower: float = 0.0
    eps_grad: str = "detach"
    first_order: bool = False
    perturbation: str = "sam"

    def __post_init__(self) -> None:
        if self.eps_grad not in EPS_GRAD:
            raise ValueError(
                f"eps_grad is {self.eps_grad!r}: expected one of {', '.join(EPS_GRAD)}"
            )
        if self.perturbation not in RULES:
            raise ValueError(
                f"unknown perturbation {self.perturbation!r}: expected one of {', '.join(RULES)}"
            )
        if self.steps < 0 or self.lower < 0:
            raise ValueError(f"steps ({self.steps}) and lower ({self.lower}) cannot be negative")


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
