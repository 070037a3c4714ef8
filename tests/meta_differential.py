"""The meta-gradients of MAML and Sharp-MAML against written-out ones, on one random network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import naive
import naive_meta
import numpy as np
import torch
from differential import Finding, relative
from naive_meta import Learner, Recipe
from random_networks import SHAPES, Case, network

from landscape.operators.hessian import HessianOperator
from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.execution.adjoint import Adjoint
from sharpmaml.execution.loop import Loop
from sharpmaml.execution.vectorized import Vectorized
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Upper, meta_gradient_of, meta_loss
from sharpmaml.models import with_primitive_norms
from sharpmaml.objective import MetaObjective
from sharpmaml.perturb import asam, sam
from sharpmaml.plan import Executor, Plan
from sharpmaml.tasks import NetworkTasks

Array = naive.Array
EXECUTORS: tuple[Executor, ...] = (Loop(), Vectorized(), Adjoint())
KINDS = ("vector", "signal", "image", "sequence")
TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class Problem:
    """A network with two tasks, for the library and written out."""

    case: Case
    learner: Learner
    batch: NetworkTasks
    theta: torch.Tensor
    vector: Array
    directions: Array


def problem(seed: int, most: int = 40) -> Problem:
    """The problem of a seed: a smooth network, two tasks of unequal support and query sets."""
    kind = KINDS[seed % len(KINDS)]
    case = network(seed, smooth=True, most=most, kind=kind, plain=True)
    classes, width = case.task.name == "cross_entropy", case.task.outputs
    draw = np.random.default_rng([seed, 5])

    def examples(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(draw.standard_normal((n, *SHAPES[kind])))
        y = draw.integers(0, width, n) if classes else draw.standard_normal((n, width))
        return x, torch.from_numpy(y)

    tasks = [(examples(3), examples(4)) for _ in range(2)]
    model = case.model.eval()
    called = with_primitive_norms(model) if "WeightNorm" in case.layers else model
    space = ParameterSpace.from_module(model)
    episodes = tuple(Episode(*support, *query) for support, query in tasks)
    batch = NetworkTasks(called, space, episodes, "classification" if classes else "regression")
    vector = naive.weights(model)
    directions = draw.standard_normal((3, len(vector)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Problem(
        case,
        Learner(model, classes, tasks),
        batch,
        torch.from_numpy(vector.copy()),
        vector,
        directions,
    )


def inner_of(recipe: Recipe, through: bool, first: bool = False) -> InnerLoop:
    mask = None if recipe.mask is None else torch.from_numpy(recipe.mask > 0)
    return InnerLoop(
        recipe.steps, recipe.rate, recipe.lower, "through" if through else "detach", first, recipe.rule,
        mask, recipe.proximal,
    )  # fmt: skip


def steps(made: Problem) -> Iterator[Finding]:
    """The rules of the ascent, and the meta loss after adaptation."""
    g = made.learner.slope(made.learner.tasks[0][0], made.vector)
    for name, rule in (("sam", sam), ("asam", asam)):
        found = rule(torch.from_numpy(g), made.theta, 0.07)
        yield Finding(
            f"{name} step", relative(found, naive_meta.ascent(g, made.vector, 0.07, name)), 1e-12
        )
    for recipe in (
        Recipe(0),
        Recipe(3),
        Recipe(2, lower=0.1),
        Recipe(2, lower=0.3, rule="asam", proximal=0.5),
    ):
        expected = naive_meta.meta_loss(made.learner, made.vector, recipe)
        inner = inner_of(recipe, through=True)
        found = np.mean(
            [float(meta_loss(task, made.theta, inner)[0]) for task in made.batch.tasks()]
        )
        yield Finding("meta loss", relative(found, expected), 1e-9)


def gradients(made: Problem, executors: tuple[Executor, ...] = EXECUTORS) -> Iterator[Finding]:
    """MAML, FOMAML, and Sharp-MAML low, by every executor, along random directions."""
    mask = (np.arange(len(made.vector)) % 3 > 0).astype(float)
    plans = {
        "MAML": (Recipe(2), True),
        "Sharp-MAML low": (Recipe(1, lower=0.05), False),
        "Sharp-MAML low, through": (Recipe(2, lower=0.05), True),
        "low by ASAM, some adapted, proximal": (
            Recipe(2, lower=0.2, rule="asam", mask=mask, proximal=0.3),
            True,
        ),
    }
    for name, (recipe, through) in plans.items():
        expected = naive_meta.slopes(
            made.learner, made.vector, recipe, not through, made.directions
        )
        for executor in executors:
            found = meta_gradient_of(
                made.batch, made.theta, Plan(inner_of(recipe, through)), Upper(), executor
            ).gradient
            gap = relative(made.directions @ found.numpy(), expected, float(found.norm()))
            yield Finding(f"meta-gradient, {name}, {executor.name}", gap, TOLERANCE)
    expected = naive_meta.first_order(made.learner, made.vector, Recipe(2, lower=0.05))
    for executor in executors:
        plan = Plan(inner_of(Recipe(2, lower=0.05), through=False, first=True))
        found = meta_gradient_of(made.batch, made.theta, plan, Upper(), executor).gradient
        yield Finding(
            f"meta-gradient, first-order, {executor.name}", relative(found, expected), 1e-9
        )


def upper(made: Problem, executors: tuple[Executor, ...] = EXECUTORS[:1]) -> Iterator[Finding]:
    """Sharp-MAML up and both: the whole gradient by differences, a step along it, and the gradient there."""
    everything = np.eye(len(made.vector))
    plans = {
        "up": (Recipe(1), Upper(0.05), True),
        "up by ASAM": (Recipe(1), Upper(0.2, "asam"), True),
        "both": (Recipe(1, lower=0.05), Upper(0.05), False),
        "both, reused": (Recipe(1, lower=0.05), Upper(0.05, eps_m="reuse"), False),
    }
    for name, (recipe, ascent, through) in plans.items():
        g = naive_meta.slopes(made.learner, made.vector, recipe, not through, everything)
        there = made.vector + naive_meta.ascent(g, made.vector, ascent.radius, ascent.perturbation)
        given = (
            naive_meta.ascents(made.learner, made.vector, recipe)
            if ascent.eps_m == "reuse"
            else None
        )
        expected = naive_meta.slopes(
            made.learner, there, recipe, not through, made.directions, given
        )
        for executor in executors:
            plan = Plan(inner_of(recipe, through))
            found = meta_gradient_of(made.batch, made.theta, plan, ascent, executor).gradient
            gap = relative(made.directions @ found.numpy(), expected, float(found.norm()))
            yield Finding(f"meta-gradient, Sharp-MAML {name}", gap, TOLERANCE)


def curvature(made: Problem) -> Iterator[Finding]:
    """Value, gradient and Hessian of the meta objective, with both ascents differentiated too."""
    batch = replace(made.batch, model=with_primitive_norms(made.batch.model))
    objective = MetaObjective(
        batch.tasks(), made.theta, batch.space, InnerLoop(1, 0.3), network=batch
    )
    recipe, v = Recipe(1), made.directions[0]
    value = naive_meta.meta_loss(made.learner, made.vector, recipe)
    yield Finding("meta objective", relative(float(objective.value(made.theta)), value), 1e-9)
    found = made.directions @ objective.gradient(made.theta).numpy()
    expected = naive_meta.slopes(made.learner, made.vector, recipe, False, made.directions)
    yield Finding("gradient of the meta objective", relative(found, expected), TOLERANCE)
    bend = naive_meta.along(
        lambda t: naive_meta.along(lambda s: naive_meta.meta_loss(made.learner, s, recipe), t, v, 5e-3),
        made.vector, v, 5e-3,
    )  # fmt: skip
    product = HessianOperator(objective) @ torch.from_numpy(v)
    yield Finding("meta-Hessian", relative(v @ product.numpy(), bend, float(product.norm())), 1e-5)


CHECKS = {check.__name__: check for check in (steps, gradients, upper, curvature)}
