"""The meta-gradient by the chain rule, step by step backwards: no graph outlives one derivative.

Of the way there, only the parameters before and after every step are kept (and the ascents, with a radius).
One step of the inner loop is, with mask ``M``, rates ``β``, ascent rule ``R`` and proximal weight ``λ``::

    ε_k = R(M g(θ_k), θ_k)        d_k = M g(θ_k + ε_k) + λ M (θ_k − θ_0)        θ_{k+1} = θ_k − β d_k

so that with ``v_{k+1} = ∂h/∂θ_{k+1}`` and ``u = M β v_{k+1}``::

    w   = −H(θ_k + ε_k) u                                  ∂h/∂β_k = −v_{k+1} ⊙ d_k
    v_k = v_{k+1} + w + (∂ε_k/∂θ_k)ᵀ w − λ u               v_0 gains λ u at every step

``w`` is 0 for first order (FOMAML), the third term of ``v_k`` is 0 where the ascent is held constant; with
one Hessian product more it is ``H(θ_k) M R_gᵀ w + R_θᵀ w`` for any rule. Without mask and pull these are the
adjoint equations of MAML (Finn et al. 2017, eq. 1) and Sharp-MAML (Abbas et al. 2022, eqs. 11 and 12).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from sharpmaml.execution.rows import Rows
from sharpmaml.inner import InnerLoop
from sharpmaml.perturb import RULES
from sharpmaml.plan import Pass, Plan


class Walk:
    """An adaptation of all rows, step by step, with what its way back needs.

    The way back asks `Rows` about the very tensors of the way there: rows may know them again.

    Attributes:
        points: before, between and after the steps, ``steps + 1`` times ``(tasks, params)``.
        places: where the gradient of each step was taken: the point, or the point and its ascent.
        ascents: ``(steps, tasks, params)``; kept only where asked for and there is a radius.
        descents: what the rates are multiplied with, in the same form; kept only where asked for.
    """

    def __init__(self, rows: Rows, theta: Tensor, plan: Plan, ascents: Tensor | None) -> None:
        inner = plan.inner
        shape = (inner.steps, rows.count, len(theta))

        # Whole blocks from the start: vectors kept one by one between the temporary tensors of a step
        # would fragment the heap, and peak memory would grow with the steps after all.
        def block(wanted: bool) -> Tensor | None:
            return theta.new_empty(shape) if wanted else None

        self.points = list(theta.new_empty(inner.steps + 1, *shape[1:]))
        self.ascents = block(plan.keeps_ascents and inner.lower > 0 and inner.steps > 0)
        self.descents = block(plan.learns_rates)
        perturbed = block(inner.lower > 0)
        self.places = self.points[:-1] if perturbed is None else list(perturbed)
        self.points[0].copy_(theta)
        for step, (at, place) in enumerate(zip(self.points[:-1], self.places, strict=True)):
            if inner.lower > 0:
                epsilon = _ascent(rows, at, inner) if ascents is None else ascents[:, step]
                torch.add(at, epsilon, out=place)
                if self.ascents is not None:
                    self.ascents[step] = epsilon
            descent = inner.masked(rows.gradients(place))
            if inner.proximal:
                descent = descent + inner.masked(inner.proximal * (at - theta))
            if self.descents is not None:
                self.descents[step] = descent
            self.points[step + 1].copy_(at - inner.rate_at(step) * descent)


def passed(rows: Rows, theta: Tensor, plan: Plan, ascents: Tensor | None = None) -> Pass:
    """One pass over the tasks of ``rows``, as `sharpmaml.plan.Executor` says.

    Args:
        rows: the tasks.
        theta: the initialization, ``(params,)``, without a graph.
        plan: what to compute.
        ascents: inner ascents to take as constants, ``(tasks, steps, params)``.
    """
    inner = plan.inner
    walk = Walk(rows, theta, plan, ascents)
    slope, losses, aux = rows.queries(walk.points[-1])
    rates = None
    if plan.estimator == "reptile":
        gradient = theta - walk.points[-1]
    elif plan.estimator == "implicit":
        gradient = _implicit(rows, walk.points[-1], slope, plan)
    else:
        through = inner.eps_grad == "through" and inner.lower > 0 and ascents is None
        gradient, rates = _back(rows, walk, slope, plan, through)
    kept = None if walk.ascents is None else walk.ascents.transpose(0, 1)
    return Pass(gradient.mean(0), losses, dict(aux), rates, kept)


def _back(
    rows: Rows, walk: Walk, slope: Tensor, plan: Plan, through: bool
) -> tuple[Tensor, Tensor | None]:
    inner, weights = plan.inner, plan.weights
    v = slope * weights[-1] if weights else slope
    pull = torch.zeros_like(v)
    rates: list[Tensor] = []
    for step in reversed(range(inner.steps)):
        at = walk.points[step]
        if walk.descents is not None:
            rates.append(-(v * walk.descents[step]).mean(0))
        u = inner.masked(inner.rate_at(step) * v)
        if inner.proximal:
            pull = pull + inner.proximal * u
            v = v - inner.proximal * u
        if not inner.first_order:
            w = -rows.products(walk.places[step], u)
            v = v + w
            if through:
                v = v + _ascent_transposed(rows, at, inner, w)
        if weights and step > 0 and weights[step - 1]:
            v = v + weights[step - 1] * rows.queries(at)[0]
    learned = None
    if plan.learns_rates:
        learned = torch.stack(rates[::-1]) if rates else v.new_zeros(0, v.shape[1])
    return v + pull, learned


def _ascent(rows: Rows, at: Tensor, inner: InnerLoop) -> Tensor:
    rule = RULES[inner.perturbation]
    slopes = inner.masked(rows.gradients(at, once=inner.eps_grad == "detach"))
    found: Tensor = vmap(lambda g, t: rule(g, t, inner.lower))(slopes, at)
    return found


def _ascent_transposed(rows: Rows, at: Tensor, inner: InnerLoop, w: Tensor) -> Tensor:
    """``(∂ε/∂θ)ᵀ w`` of the rule itself, so that it holds for every rule."""
    rule = RULES[inner.perturbation]

    def one(gradient: Tensor, theta: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        made: Any = vjp(lambda g, t: rule(g, t, inner.lower), gradient, theta)
        to_gradient, to_theta = made[1](row)
        return to_gradient, to_theta

    to_gradient, to_theta = vmap(one)(inner.masked(rows.gradients(at)), at, w)
    return rows.products(at, inner.masked(to_gradient)) + to_theta


def _implicit(rows: Rows, points: Tensor, slope: Tensor, plan: Plan) -> Tensor:
    """Solve ``(I + H/λ) v = slope`` in every row.

    Parameters that are not adapted have their own slope, less ``H v / λ``: the adapted ones depend on them.
    """
    inner = plan.inner
    kept = slope - inner.masked(slope)
    residual = inner.masked(slope)
    solution, direction = torch.zeros_like(residual), residual
    square = _inner(residual, residual)
    for _ in range(plan.solver_steps):
        image = direction + inner.masked(rows.products(points, direction)) / inner.proximal
        # A row that is solved already stands still: 0/0 would spoil it.
        step = torch.where(square > 0, square / _inner(direction, image), 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        before, square = square, _inner(residual, residual)
        direction = residual + torch.where(before > 0, square / before, 0.0) * direction
    if inner.adapted is None:
        return solution
    image = rows.products(points, solution)
    return solution + kept - (image - inner.masked(image)) / inner.proximal


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1, keepdim=True)
