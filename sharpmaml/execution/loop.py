"""The plain way: tasks one after the other, derivatives by autograd. Any task, any plan; the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from landscape.objective import hvp_of
from sharpmaml.adapt import path
from sharpmaml.plan import Aux, Pass, Plan, Task, Tasks


class Loop:
    """One task's graph is in memory at a time."""

    name = "loop"

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """See :class:`sharpmaml.plan.Executor`; there is no task or plan that it does not know."""
        results = [
            _one(task, theta.detach(), plan, None if ascents is None else ascents[index])
            for index, task in enumerate(batch.tasks())
        ]
        return mean_of(results)


def mean_of(results: list[Pass]) -> Pass:
    """One pass of several over different tasks, each of as many as it has losses."""
    if len(results) == 1:
        return results[0]
    counts = [len(result.losses) for result in results]
    total = sum(counts)

    def mean(tensors: list[Tensor]) -> Tensor:
        # A running sum in the order of the tasks: the same bits whatever comes together.
        value = torch.zeros_like(tensors[0])
        for tensor, count in zip(tensors, counts, strict=True):
            value += tensor if count == 1 else tensor * count
        return value / total

    rates = [result.rates for result in results if result.rates is not None]
    kept = [result.ascents for result in results if result.ascents is not None]
    return Pass(
        mean([result.gradient for result in results]),
        torch.cat([result.losses for result in results]),
        {name: torch.cat([result.aux[name] for result in results]) for name in results[0].aux},
        mean(rates) if rates else None,
        torch.cat(kept) if kept else None,
    )


def _one(task: Task, theta: Tensor, plan: Plan, ascents: Tensor | None) -> Pass:
    if plan.estimator == "unrolled":
        return _unrolled(task, theta, plan, ascents)
    still = dataclasses.replace(plan.inner, first_order=True)
    kept = None if ascents is None else list(ascents)
    walked = path(task.support, theta, still, kept, _slope)
    end = walked.points[-1].detach().requires_grad_()
    loss, aux = task.query(end)
    if plan.estimator == "reptile":
        gradient = theta - end.detach()
    else:
        (slope,) = torch.autograd.grad(loss, end)
        gradient = _implicit(task.support, end.detach(), slope, plan)
    return _passed(gradient, loss, aux, None, walked.ascents, plan)


def _unrolled(task: Task, theta: Tensor, plan: Plan, ascents: Tensor | None) -> Pass:
    point, inner = theta.requires_grad_(), plan.inner
    wanted = [point]
    if plan.learns_rates:
        rates = theta.new_empty(inner.steps, len(theta))
        for k in range(inner.steps):
            rates[k] = inner.rate_at(k)
        rates = rates.detach().requires_grad_()
        inner = dataclasses.replace(inner, rate=rates)
        wanted.append(rates)
    kept = None if ascents is None else list(ascents)
    walked = path(task.support, point, inner, kept, _slope)
    loss, aux = task.query(walked.points[-1])
    total = loss
    if plan.weights:
        total = plan.weights[-1] * loss
        for weight, place in zip(plan.weights[:-1], walked.points[1:-1], strict=True):
            total = total + weight * task.query(place)[0]
    # Without steps nothing depends on the rates, of which there are none: an empty gradient all the same.
    gradient, *others = torch.autograd.grad(total, wanted, materialize_grads=True)
    return _passed(gradient, loss, aux, others[0] if others else None, walked.ascents, plan)


def _slope(loss: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    # torch.func.grad keeps a graph of its own, wanted or not: up to a third more time. Same bits.
    differentiated = point.requires_grad
    at = point if differentiated else point.detach().requires_grad_()
    value = loss(at)
    if not value.requires_grad:
        return torch.zeros_like(point)
    (gradient,) = torch.autograd.grad(
        value, at, create_graph=differentiated, materialize_grads=True
    )
    return gradient


def _implicit(
    support: Callable[[Tensor], Tensor], point: Tensor, slope: Tensor, plan: Plan
) -> Tensor:
    """Solve ``(I + H/λ) v = slope`` for the adapted parameters.

    The others have their own slope, less ``H v / λ``: the adapted ones depend on them.
    """
    inner = plan.inner
    kept = slope - inner.masked(slope)
    slope = inner.masked(slope)

    def product(v: Tensor) -> Tensor:
        image = hvp_of(support, point, v)
        return v + inner.masked(image) / inner.proximal

    solution, residual = torch.zeros_like(slope), slope
    direction, square = residual, residual @ residual
    for _ in range(plan.solver_steps):
        if not square > 0:
            break
        image = product(direction)
        step = square / (direction @ image)
        solution = solution + step * direction
        residual = residual - step * image
        before, square = square, residual @ residual
        direction = residual + square / before * direction
    if inner.adapted is None:
        return solution
    image = hvp_of(support, point, solution)
    return solution + kept - (image - inner.masked(image)) / inner.proximal


def _passed(
    gradient: Tensor,
    loss: Tensor,
    aux: Aux,
    rates: Tensor | None,
    ascents: list[Tensor],
    plan: Plan,
) -> Pass:
    kept = torch.stack(ascents).detach()[None] if plan.keeps_ascents and ascents else None
    values = {name: value.detach().reshape(1) for name, value in aux.items()}
    return Pass(gradient.detach(), loss.detach().reshape(1), values, rates, kept)
