"""The meta objective of MAML and Sharp-MAML, and its gradient: two radii instead of variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sharpmaml.adapt import adapt
from sharpmaml.inner import InnerLoop
from sharpmaml.perturb import RULES

Aux = Mapping[str, Tensor]


class Task(NamedTuple):
    """One task as two functions of the parameter vector ``(params,)``.

    Attributes:
        support: the loss that the inner loop descends, a scalar.
        query: the loss after adaptation, a scalar, and by-products such as ``accuracy``.
    """

    support: Callable[[Tensor], Tensor]
    query: Callable[[Tensor], tuple[Tensor, Aux]]


@dataclass(frozen=True)
class MetaGradient:
    """What one meta-gradient evaluation yields.

    Attributes:
        gradient: direction to descend, ``(params,)``; applied at ``theta`` itself.
        loss: mean meta loss at ``theta``.
        aux: means of the tasks' by-products at ``theta``.
        norm: ``‖∇h‖`` of the gradient at ``theta``.
        rise: realized ``h(θ+ε) − h(θ)``, 0 without an upper perturbation.
        predicted_rise: its first-order prediction ``ε·∇h``, ``radius · ‖∇h‖`` for SAM.
    """

    gradient: Tensor
    loss: float
    aux: dict[str, float] = field(default_factory=dict)
    norm: float = 0.0
    rise: float = 0.0
    predicted_rise: float = 0.0


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
) -> MetaGradient:
    """Gradient of the mean meta loss at ``θ + ε`` with ``ε = upper · ∇h(θ) / ‖∇h(θ)‖`` held constant.

    The four methods are the corners of (``inner.lower``, ``upper``): (0, 0) MAML, (a, 0) Sharp-MAML
    low, (0, b) up, (a, b) both (Abbas et al. 2022, eqs. 13 to 15; mean over tasks, and the lower
    ascent recomputed at ``θ + ε``). One task's graph is in memory at a time.

    Args:
        tasks: the meta-batch.
        theta: the initialization, ``(params,)``.
        inner: the inner loop, with its own radius ``lower``.
        upper: radius of the ascent in the meta objective, α_up; 0 skips it.
        perturbation: rule of the upper ascent.

    Raises:
        ValueError: no tasks, a negative radius or an unknown rule.
    """
    if not tasks:
        raise ValueError("the meta-batch is empty: at least one task is needed")
    if upper < 0 or perturbation not in RULES:
        raise ValueError(
            f"upper radius {upper} with rule {perturbation!r}: expected a radius of at least 0 "
            f"and one of {', '.join(RULES)}"
        )
    gradient, loss, aux = _mean_gradient(tasks, theta, inner)
    norm = float(torch.linalg.vector_norm(gradient))
    if upper == 0:
        return MetaGradient(gradient, loss, aux, norm)
    epsilon = RULES[perturbation](gradient, theta, upper)
    ascended, perturbed_loss, _ = _mean_gradient(tasks, theta + epsilon, inner)
    predicted = float(epsilon @ gradient)
    return MetaGradient(ascended, loss, aux, norm, perturbed_loss - loss, predicted)


def _mean_gradient(
    tasks: Sequence[Task], theta: Tensor, inner: InnerLoop
) -> tuple[Tensor, float, dict[str, float]]:
    point = theta.detach().requires_grad_()
    total = torch.zeros_like(point)
    losses: list[Tensor] = []
    extra: dict[str, list[Tensor]] = {}
    for task in tasks:
        loss, aux = meta_loss(task, point, inner)
        (gradient,) = torch.autograd.grad(loss, point)
        total += gradient
        losses.append(loss.detach())
        for name, value in aux.items():
            extra.setdefault(name, []).append(value.detach())
    means = {name: float(torch.stack(values).mean()) for name, values in extra.items()}
    return total.detach() / len(tasks), float(torch.stack(losses).mean()), means
