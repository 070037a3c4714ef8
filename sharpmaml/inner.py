"""Settings of the inner loop, apart from its computation: reading them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

EPS_GRAD = ("detach", "through")
PERTURBATIONS = ("sam", "asam")


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
        perturbation: rule of the ascent, one of `PERTURBATIONS`, functions in `sharpmaml.perturb`.
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
        if self.perturbation not in PERTURBATIONS:
            raise ValueError(
                f"unknown perturbation {self.perturbation!r}: expected one of {', '.join(PERTURBATIONS)}"
            )
        if self.steps < 0 or self.lower < 0:
            raise ValueError(f"steps ({self.steps}) and lower ({self.lower}) cannot be negative")
