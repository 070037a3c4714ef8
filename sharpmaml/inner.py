"""Settings of the inner loop, apart from its computation: reading them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

EPS_GRAD = ("detach", "through")
PERTURBATIONS = ("sam", "asam")


@dataclass(frozen=True)
class InnerLoop:
    """How a task is adapted to.

    Attributes:
        steps: gradient steps on the support loss; 0 leaves the initialization as it is.
        rate: inner learning rate, β_low of Abbas et al. 2022: a number, or one for each parameter
            ``(params,)`` (Meta-SGD, Li et al. 2017), or for each step too ``(steps, params)`` (MAML++,
            Antoniou et al. 2019); later steps than there are rows repeat the last row.
        lower: radius α_low of the ascent before each step; 0 is MAML.
        eps_grad: ``"detach"`` holds the ascent constant in the meta-gradient (SAM's convention),
            ``"through"`` differentiates it (the released Sharp-MAML code).
        first_order: treat the inner gradients as constants (FOMAML).
        perturbation: rule of the ascent, one of `PERTURBATIONS`, functions in `sharpmaml.perturb`.
        adapted: which parameters are adapted, bool ``(params,)``; the others stay, and are not
            perturbed by the ascent. ``None``: all of them.
        proximal: weight λ of ``λ/2 ‖θ' − θ‖²`` that each step descends too (iMAML, Rajeswaran et al.
            2019, eq. 3; problem (P) of Abbas et al. 2022).
    """

    steps: int = 1
    rate: float | Tensor = 0.4
    lower: float = 0.0
    eps_grad: str = "detach"
    first_order: bool = False
    perturbation: str = "sam"
    adapted: Tensor | None = None
    proximal: float = 0.0

    def __post_init__(self) -> None:
        if self.eps_grad not in EPS_GRAD:
            raise ValueError(
                f"eps_grad is {self.eps_grad!r}: expected one of {', '.join(EPS_GRAD)}"
            )
        if self.perturbation not in PERTURBATIONS:
            raise ValueError(
                f"unknown perturbation {self.perturbation!r}: expected one of {', '.join(PERTURBATIONS)}"
            )
        if self.steps < 0 or self.lower < 0 or self.proximal < 0:
            raise ValueError(
                f"steps ({self.steps}), lower ({self.lower}) and proximal ({self.proximal}) "
                "cannot be negative"
            )

    def rate_at(self, step: int) -> float | Tensor:
        """Rate of step number ``step``, counted from 0: a number or ``(params,)``."""
        rate = self.rate
        if isinstance(rate, (int, float)) or rate.ndim < 2:
            return rate
        return rate[min(step, len(rate) - 1)]

    def masked(self, gradient: Tensor) -> Tensor:
        """``gradient (..., params)`` with zeros for what is not adapted."""
        return gradient if self.adapted is None else gradient * self.adapted

    def to(self, like: Tensor) -> InnerLoop:
        """The same with its tensors on the device of ``like``, rates in its dtype."""
        rate, adapted = self.rate, self.adapted
        if not isinstance(rate, (int, float)):
            rate = rate.to(like)
        if adapted is not None:
            adapted = adapted.to(like.device)
        return replace(self, rate=rate, adapted=adapted)

    @property
    def shown_rate(self) -> float | str:
        """The rate for people and JSON: a number, or what was learned in words."""
        if isinstance(self.rate, (int, float)):
            return self.rate
        return f"learned, mean {float(self.rate.mean()):.4g}"
