"""Sharpness measures that only a meta objective has: around adapted weights, and between tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from landscape import device as devices
from landscape.objective import FunctionObjective
from landscape.operators.hessian import HessianOperator
from landscape.sharpness.ascent import sam
from landscape.sharpness.average import average
from landscape.sharpness.curvature import lambda_max, trace
from landscape.sharpness.measurement import Measurement, NotApplicable, estimate
from landscape.sharpness.point import Point, measured
from landscape.sharpness.registry import ENTRIES
from sharpmaml.adapt import adapt
from sharpmaml.meta import Task, meta_loss
from sharpmaml.objective import MetaObjective

DIRECTIONS = ("support", "displacement", "meta")
"""What tasks can be compared by; see :func:`coherence`."""

Measure = Callable[..., Measurement]


class Shares:
    """What parts of a meta-gradient cost, in FB of the meta objective: one gradient of it.

    Counted in passes through the network, a backward pass as two forward ones. With ``s`` support and
    ``q`` query examples a task, an inner gradient takes ``3s`` and differentiating it ``6s``, the query
    gradient takes ``3q``: one gradient of the meta loss is ``9Ks + 3q`` after ``K`` MAML steps, and
    ``3Ks + 3q`` of first order. An ascent in each step has another gradient, differentiated or not. With an
    upper ascent, the meta-gradient is computed twice, once to be differentiated: four times the passes.
    Where the examples of the tasks are unknown, ``s = q``.

    Attributes:
        support: a gradient of all support losses.
        adaptation: the inner loops of all tasks.
        query: a gradient of all query losses.
        meta: a meta-gradient without an upper ascent; 1 where the objective has none.

    >>> Shares(support=5, query=15, steps=1).query  # 45 / (45 + 45)
    0.5
    """

    def __init__(
        self, support: float = 1.0, query: float = 1.0, *, steps: int = 1, lower: float = 0.0,
        eps_grad: str = "detach", first_order: bool = False, upper: float = 0.0,
    ) -> None:  # fmt: skip
        gradients = steps * (2 if lower > 0 else 1)
        through = 0 if first_order else gradients if eps_grad == "through" else steps
        whole = 3 * support * gradients + 6 * support * through + 3 * query
        plain = whole
        whole *= 4 if upper > 0 else 1
        self.meta = plain / whole
        self.support = 3 * support / whole
        self.adaptation = 3 * support * gradients / whole
        self.query = 3 * query / whole

    @classmethod
    def of(cls, objective: MetaObjective) -> Shares:
        """Those of an objective."""
        support = query = 1.0
        if objective.network is not None:
            episodes = objective.network.episodes
            support = float(sum(len(e.support_x) for e in episodes))
            query = float(sum(len(e.query_x) for e in episodes))
        inner = objective.inner
        return cls(
            support, query, steps=inner.steps, lower=inner.lower, eps_grad=inner.eps_grad,
            first_order=inner.first_order, upper=objective.upper,
        )  # fmt: skip


class _TestedElsewhere(Point):
    """The query loss of one task: its Hessian is made like that of the first task, which was tested."""

    @cached_property
    def hessian(self) -> HessianOperator:
        return HessianOperator(self.objective, self.theta)


class _QueryLoss(FunctionObjective):
    """A task's query loss around its adapted weights, which float64 can check."""

    def __init__(self, objective: MetaObjective, index: int, end: Tensor) -> None:
        super().__init__(_query(objective.tasks[index]), end, objective.space)
        self._meta, self._index = objective, index

    def double(self) -> FunctionObjective:
        """The same loss in float64.

        Raises:
            ValueError: the tasks are plain functions.
        """
        made = self._meta.double()
        return FunctionObjective(
            _query(made.tasks[self._index]), self.theta.double(), self.space, self.settings
        )


def adapted(measure: Measure) -> Measure:
    """A measure of each task's query loss at its adapted weights, as its mean over tasks.

    ``mean over m of measure(Q_m at θ'_m), θ'_m = adapt(S_m, θ)``

    Guiroy et al. 2019 (Towards Understanding Generalization in Gradient-Based Meta-Learning), section 3.1,
    for the largest eigenvalue. All tasks share their random draws, so the error over the draws is that of
    the tasks' mean at each draw; the error over the data is over tasks, whose values are its terms.
    """

    @measured
    @functools.wraps(measure)
    def mean_over_tasks(point: Point, *args: Any, **kwargs: Any) -> Measurement:
        rows = []
        for task in adapted_points(point):
            rows.append(measure(task, *args, **kwargs))
            task.release()  # the graphs of one task at a time: those of hundreds would not fit
        return _mean(point, f"adapted_{measure.__name__}", rows)

    mean_over_tasks.__name__ = mean_over_tasks.__qualname__ = f"adapted_{measure.__name__}"
    mean_over_tasks.__doc__ = _title(measure, "at each task's adapted weights")
    entry = ENTRIES[measure.__name__]
    mean_over_tasks.orientation = entry.orientation  # type: ignore[attr-defined]
    mean_over_tasks.forecast = (1 + entry.forecast) * Shares().query  # type: ignore[attr-defined]
    return mean_over_tasks


@measured
def coherence(point: Point, of: str = "support") -> Measurement:
    """Cosine between the adaptation directions of two tasks, mean over pairs of tasks.

    ``mean over i ≠ j of ⟨gᵢ, gⱼ⟩ / (‖gᵢ‖ ‖gⱼ‖)``

    Guiroy et al. 2019, section 3.2. Near 1 where all tasks are adapted to alike, near 0 where each goes a
    way of its own. The standard error is over tasks: pairs are not independent, so it comes from the
    projection of the mean onto each task (Hoeffding 1948). A task without a gradient counts as 0.

    Args:
        point: a meta objective at an initialization.
        of: the direction of a task: ``"support"`` the gradient of its support loss at the initialization,
            ``"displacement"`` the way of all its inner steps, ``θ − θ'_m`` (the same after one MAML step),
            ``"meta"`` its meta-gradient.
    """
    vectors = _directions(point, of).double()
    lengths = vectors.norm(dim=1, keepdim=True)
    return _pairwise(point, "coherence", vectors / lengths.where(lengths > 0, 1.0), of)


@measured
def gradient_inner_product(point: Point, of: str = "support") -> Measurement:
    """Inner product between the gradients of two tasks, mean over pairs of tasks.

    ``mean over i ≠ j of ⟨gᵢ, gⱼ⟩``

    Guiroy et al. 2019, section 3.3: positive where a step for one task helps the others. The squared
    length of the mean gradient without the part that is noise between tasks. Settings and error as for
    :func:`coherence`.
    """
    return _pairwise(point, "gradient_inner_product", _directions(point, of).double(), of)


def measures() -> dict[str, Measure]:
    """The measures that a meta objective brings to a sharpness report, by name."""
    own = [adapted(measure) for measure in (sam, lambda_max, trace, average)]
    return {measure.__name__: measure for measure in [*own, coherence, gradient_inner_product]}


def adapted_points(point: Point) -> list[Point]:
    """Each task's query loss at its adapted weights, on the account of ``point``; adapted once.

    Raises:
        NotApplicable: the objective has no tasks.
    """
    objective = _meta(point)
    shares = Shares.of(objective)

    def compute() -> list[Point]:
        point.pay(shares.adaptation)
        share = point.share * shares.query / len(objective.tasks)
        found: list[Point] = []
        for i, task in enumerate(objective.tasks):
            with devices.exact_kernels():
                end = adapt(task.support, point.theta, objective.inner).detach()
            kind = _TestedElsewhere if found else Point
            query = _QueryLoss(objective, i, end)
            found.append(kind(query, end, point.seed, ledger=point.ledger, share=share))
        return found

    points: list[Point] = point.once("adapted", compute)
    return points


def _query(task: Task) -> Callable[[Tensor], Tensor]:
    def loss(theta: Tensor) -> Tensor:
        with devices.exact_kernels():
            return task.query(theta)[0]

    return loss


def _meta(point: Point) -> MetaObjective:
    if not isinstance(point.objective, MetaObjective):
        raise NotApplicable("the objective has no tasks to adapt to")
    return point.objective


def _mean(point: Point, name: str, rows: Sequence[Measurement]) -> Measurement:
    """The mean over tasks of measurements at the same settings, and of their variants."""
    values = torch.tensor([row.value for row in rows], dtype=torch.float64)
    draws = [row.influence.draws for row in rows]
    alike = len({len(each) for each in draws}) == 1
    common = torch.tensor(draws, dtype=torch.float64).mean(0) if alike else None
    unsettled = [row for row in rows if not row.converged]
    variants = zip(*(row.variants for row in rows), strict=True)
    return estimate(
        name,
        float(values.mean()),
        point.influence(values, common),
        rows[0].settings,
        bound=sum(row.bound for row in rows) / len(rows),
        note=unsettled[0].note if unsettled else "",
        converged=not unsettled,
        variants=[_mean(point, name, each) for each in variants],
    )


def _directions(point: Point, of: str) -> Tensor:
    """One vector a task, ``(tasks, params)``."""
    objective = _meta(point)
    if of not in DIRECTIONS:
        raise ValueError(f"of is {of!r}: expected one of {', '.join(DIRECTIONS)}")
    if len(objective.tasks) < 2:
        raise NotApplicable("there is one task alone, and no pair of tasks")
    if of == "displacement":
        return torch.stack([point.theta - task.theta for task in adapted_points(point)])

    def compute() -> Tensor:
        shares = Shares.of(objective)
        point.pay(shares.meta if of == "meta" else shares.support)
        with devices.exact_kernels():
            return torch.stack([_gradient(objective, task, point, of) for task in objective.tasks])

    directions: Tensor = point.once(("directions", of), compute)
    return directions


def _gradient(objective: MetaObjective, task: Task, point: Point, of: str) -> Tensor:
    if of == "support":
        found: Tensor = grad(task.support)(point.theta)
    else:
        found = grad(lambda theta: meta_loss(task, theta, objective.inner)[0])(point.theta)
    return found.detach()


def _pairwise(point: Point, name: str, vectors: Tensor, of: str) -> Measurement:
    """Mean inner product over pairs of rows, with the error of a U-statistic of order two."""
    count = len(vectors)
    products = vectors @ vectors.T
    others = (products.sum(1) - products.diagonal()) / (count - 1)
    # Each task is in two places of the pair: twice its projection is its share of the deviation.
    return estimate(name, float(others.mean()), point.influence(2 * others), {"of": of})


def _title(measure: Measure, where: str) -> str:
    text = (measure.__doc__ or measure.__name__).strip().splitlines()
    return f"{text[0].rstrip('.')}, {where}: mean over tasks.\n\n    See :func:`adapted`."
