"""One chunk of tasks through ``vmap`` as a pure function of tensors, to be called or to be compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from sharpmaml.adapt import path
from sharpmaml.execution.batches import Columns, NetworkBatch
from sharpmaml.plan import Aux, Pass, Plan

Changing = Mapping[str, Tensor]
"""What may change from one meta-update to the next without another computation, see `changing`."""

Found = tuple[tuple[Tensor, ...], Tensor, Aux, tuple[Tensor, ...]]
"""Mean gradients (for the parameters, and perhaps the rates), losses, by-products, ascents where kept."""

Computation = Callable[[Tensor, Changing, Columns, Tensor | None], Found]
"""``(theta, tensors of the plan, stacked episodes, given ascents) -> found``."""


def changing(plan: Plan, theta: Tensor) -> dict[str, Tensor]:
    """The tensors of a plan: ``rates``, ``adapted`` and ``weights``, as far as it has them."""
    inner, found = plan.inner, {}
    if plan.learns_rates:
        rates = theta.new_empty(inner.steps, len(theta))
        for step in range(inner.steps):
            rates[step] = inner.rate_at(step)
        found["rates"] = rates.detach()
    elif not isinstance(inner.rate, (int, float)):
        found["rates"] = inner.rate
    if inner.adapted is not None:
        found["adapted"] = inner.adapted
    if plan.weights:
        found["weights"] = theta.new_tensor(plan.weights)
    return found


def unrolled(network: NetworkBatch, plan: Plan) -> Computation:
    """The computation of a plan whose estimator is ``"unrolled"``.

    Every gradient is inside the ``vmap`` over tasks: see `sharpmaml.execution.vectorized`.

    Args:
        network: whose loss functions.
        plan: what to compute; its tensors are arguments of what is returned, see `changing`.

    Returns:
        A function of the initialization ``(params,)``, the tensors of the plan, the stacked episodes and
        the given ascents ``(tasks, steps, params)``.
    """
    settings = plan.inner if plan.inner.adapted is None else replace(plan.inner, adapted=None)
    learns, keeps, steps = plan.learns_rates, plan.keeps_ascents, plan.inner.steps

    def total(
        theta: Tensor, tensors: Changing, rates: Tensor | None, *columns: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Aux, tuple[Tensor, ...]]]:
        xs, ys, xq, yq, *ascents = columns
        inner = replace(
            settings,
            rate=settings.rate if rates is None else rates,
            adapted=tensors.get("adapted"),
        )
        # A tensor (steps, params) is a sequence of its rows.
        fixed: Any = ascents[0] if ascents else None
        walked = path(lambda t: network.support(t, xs, ys), theta, inner, fixed)
        loss, aux = network.query(walked.points[-1], xq, yq)
        value = loss
        if "weights" in tensors:
            weights = tensors["weights"]
            value = weights[-1] * loss
            for k in range(1, steps):
                value = value + weights[k - 1] * network.query(walked.points[k], xq, yq)[0]
        kept = (torch.stack(walked.ascents).detach(),) if keeps and walked.ascents else ()
        return value, (loss, aux, kept)

    def chunk(theta: Tensor, tensors: Changing, columns: Columns, ascents: Tensor | None) -> Found:
        rates = tensors.get("rates")

        def one(*columns: Tensor) -> Any:
            if learns:
                of_both = grad(lambda t, r: total(t, tensors, r, *columns), (0, 1), has_aux=True)
                return of_both(theta, rates)
            slope, rest = grad(lambda t: total(t, tensors, rates, *columns), has_aux=True)(theta)
            return (slope,), rest

        more = (ascents,) if ascents is not None else ()
        slopes, (losses, aux, kept) = vmap(one)(*columns, *more)
        return tuple(slope.mean(0) for slope in slopes), losses, aux, kept

    return chunk


def packed(found: Found) -> Pass:
    """What such a function returns, as a pass."""
    (gradient, *rates), losses, aux, kept = found
    return Pass(gradient, losses, dict(aux), *(part[0] if part else None for part in (rates, kept)))
