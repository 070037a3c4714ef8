"""The meta objective of MAML and Sharp-MAML, and its gradient: two radii instead of variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sharpmaml.adapt import adapt
from sharpmaml.execution.loop import Loop
from sharpmaml.inner import InnerLoop
from sharpmaml.perturb import RULES
from sharpmaml.plan import Aux, Executor, Pass, PlainTasks, Plan, Task, Tasks

__all__ = ["Aux", "MetaGradient", "Task", "Upper", "meta_gradient", "meta_gradient_of", "meta_loss"]

EPS_M = ("recompute", "reuse")


@dataclass(frozen=True)
class Upper:
    """The ascent in the meta-update of Sharp-MAML.

    Attributes:
        radius: α_up of Abbas et al. 2022; 0 is no ascent.
        perturbation: rule of the ascent, one of `sharpmaml.inner.PERTURBATIONS`.
        eps_m: ``"recompute"`` the inner ascents at ``θ + ε`` (the released code), or ``"reuse"`` those of
            ``θ`` as constants (eq. 14 of the paper).
    """

    radius: float = 0.0
    perturbation: str = "sam"
    eps_m: str = "recompute"

    def __post_init__(self) -> None:
        if not self.radius >= 0 or self.perturbation not in RULES:
            raise ValueError(
                f"upper radius {self.radius} with rule {self.perturbation!r}: expected a radius of at "
                f"least 0 and one of {', '.join(RULES)}"
            )
        if self.eps_m not in EPS_M:
            raise ValueError(f"eps_m is {self.eps_m!r}: expected one of {', '.join(EPS_M)}")


@dataclass(frozen=True)
class MetaGradient:
    """What one meta-gradient evaluation yields.

    Attributes:
        gradient: direction to descend, ``(params,)``; applied at ``theta`` itself.
        loss: mean meta loss at ``theta``.
        aux: means of the tasks' by-products at ``theta``.
        norm: ``‖∇h‖`` of the gradient at ``theta``.
        rates: the same for the rates of each step, ``(steps, params)``, where they are learned.
        passes: passes over the meta-batch that were made.
        rise: realized ``h(θ+ε) − h(θ)``, 0 without an upper perturbation.
        predicted_rise: its first-order prediction ``ε·∇h``, ``radius · ‖∇h‖`` for SAM.
    """

    gradient: Tensor
    loss: float
    aux: dict[str, float] = field(default_factory=dict)
    norm: float = 0.0
    rise: float = 0.0
    predicted_rise: float = 0.0
    rates: Tensor | None = None
    passes: int = 1


def meta_loss(task: Task, theta: Tensor, inner: InnerLoop) -> tuple[Tensor, Aux]:
    """Query loss after adaptation, as a differentiable function of the initialization.

    ``h_m(θ) = Q_m(adapt(S_m, θ))`` (Finn et al. 2017, eq. 2).
    """
    return task.query(adapt(task.support, theta, inner))


def meta_gradient(
    tasks: Sequence[Task],
    theta: Tensor,
    inner: InnerLoop,
    *,
    upper: float = 0.0,
    perturbation: str = "sam",
    eps_m: str = "recompute",
) -> MetaGradient:
    """Gradient of the mean meta loss at ``θ + ε`` with ``ε = upper · ∇h(θ) / ‖∇h(θ)‖`` held constant.

    The four methods are the corners of (``inner.lower``, ``upper``): (0, 0) MAML, (a, 0) Sharp-MAML
    low, (0, b) up, (a, b) both (Abbas et al. 2022, eqs. 13 to 15; mean over tasks). One task's graph is
    in memory at a time.

    Args:
        tasks: the meta-batch.
        theta: the initialization, ``(params,)``.
        inner: the inner loop, with its own radius ``lower``.
        upper: radius of the ascent in the meta objective, α_up; 0 skips it.
        perturbation: rule of the upper ascent.
        eps_m: what becomes of the inner ascents at ``θ + ε``, see `Upper`.

    Raises:
        ValueError: no tasks, a negative radius or an unknown rule.
    """
    if not tasks:
        raise ValueError("the meta-batch is empty: at least one task is needed")
    ascent = Upper(upper, perturbation, eps_m)
    return meta_gradient_of(PlainTasks(tuple(tasks)), theta, Plan(inner), ascent, Loop())


def meta_gradient_of(
    batch: Tasks, theta: Tensor, plan: Plan, upper: Upper, executor: Executor
) -> MetaGradient:
    """The same for any plan and executor.

    Args:
        batch: the meta-batch.
        theta: the initialization, ``(params,)``.
        plan: what the gradient is the gradient of.
        upper: the ascent in the meta-update.
        executor: how passes are computed.
    """
    reuses = upper.radius > 0 and upper.eps_m == "reuse" and plan.inner.lower > 0
    first = executor(batch, theta, replace(plan, keeps_ascents=True) if reuses else plan)
    gradient = first.gradient
    loss, aux = _mean(first)
    norm = float(torch.linalg.vector_norm(gradient))
    if upper.radius == 0:
        return MetaGradient(gradient, loss, aux, norm, rates=first.rates)
    epsilon = RULES[upper.perturbation](gradient, theta, upper.radius)
    second = executor(batch, theta + epsilon, plan, first.ascents if reuses else None)
    return MetaGradient(
        second.gradient,
        loss,
        aux,
        norm,
        _mean(second)[0] - loss,
        float(epsilon @ gradient),
        second.rates,
        passes=2,
    )


def _mean(result: Pass) -> tuple[float, dict[str, float]]:
    means = {name: float(values.mean()) for name, values in result.aux.items()}
    return float(result.losses.mean()), means
