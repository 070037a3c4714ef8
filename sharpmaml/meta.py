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
        loss: mean meta loss at ``theta``; where no pass was made there (an ascent along the ``momentum``),
            at ``theta + ε``.
        aux: means of the tasks' by-products at the same point.
        norm: ``‖∇h‖`` of the gradient at the same point; of the first-order gradient, where that made the
            ascent.
        rates: the same for the rates of each step, ``(steps, params)``, where they are learned.
        passes: passes over the meta-batch that were made.
        rise: realized ``h(θ+ε) − h(θ)``; 0 without an ascent, ``None`` where ``h(θ)`` is not known.
        predicted_rise: its first-order prediction ``ε·∇h``, ``radius · ‖∇h‖`` for SAM; ``None`` likewise.
        tasks: how many the means are over.
    """

    gradient: Tensor
    loss: float
    aux: dict[str, float] = field(default_factory=dict)
    norm: float = 0.0
    rise: float | None = 0.0
    predicted_rise: float | None = 0.0
    rates: Tensor | None = None
    passes: int = 1
    tasks: int = 1


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
    if upper.radius == 0:
        return described(executor(batch, theta, plan))
    first = executor(batch, theta, scouting(plan, upper))
    epsilon = RULES[upper.perturbation](first.gradient, theta, upper.radius)
    second = executor(batch, theta + epsilon, plan, first.ascents)
    return ascended(first, second, epsilon)


def scouting(plan: Plan, upper: Upper) -> Plan:
    """The plan of the pass at ``θ`` that an ascent is made of: no rates, and the inner ascents to reuse."""
    reuses = upper.eps_m == "reuse" and plan.inner.lower > 0
    return replace(plan, keeps_ascents=reuses, learns_rates=False)


def described(only: Pass) -> MetaGradient:
    """The meta-gradient that is one pass."""
    loss = float(only.losses.mean())
    aux = {name: float(values.mean()) for name, values in only.aux.items()}
    norm = float(torch.linalg.vector_norm(only.gradient))
    return MetaGradient(only.gradient, loss, aux, norm, rates=only.rates, tasks=len(only.losses))


def ascended(first: Pass, second: Pass, epsilon: Tensor) -> MetaGradient:
    """The meta-gradient that is a pass at ``θ + ε``, told by what is known from the one at ``θ``.

    Args:
        first: the pass at ``θ``.
        second: the pass at ``θ + ε``.
        epsilon: the ascent, ``(params,)``.
    """
    plain = described(first)
    return replace(
        plain,
        gradient=second.gradient,
        rates=second.rates,
        rise=float(second.losses.mean()) - plain.loss,
        predicted_rise=float(epsilon @ first.gradient),
        passes=2,
    )
