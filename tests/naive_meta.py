"""MAML and Sharp-MAML written out: adaptation step by step, derivatives by finite differences of the meta loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import naive
import numpy as np
import torch
from random_losses import log_shares
from torch import Tensor, nn

Array = naive.Array
Example = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """An adaptation, in the words of Abbas et al. 2022."""

    steps: int = 1
    rate: float = 0.3
    lower: float = 0.0
    rule: str = "sam"
    mask: Array | None = None
    proximal: float = 0.0


@dataclass(frozen=True)
class Learner:
    """A network, and tasks of a support and a query set each."""

    model: nn.Module
    classes: bool
    tasks: Sequence[tuple[Example, Example]]

    def loss(self, examples: Example) -> naive.Function:
        x, y = examples
        if not self.classes:
            return lambda model: ((model(x) - y) * (model(x) - y)).mean()

        def cross_entropy(model: nn.Module) -> Tensor:
            logs = log_shares(model(x))
            return -torch.stack([logs[i, int(y[i])] for i in range(len(y))]).mean()

        return cross_entropy

    def slope(self, examples: Example, w: Array) -> Array:
        return naive.gradient(self.loss(examples), self.model, w)

    def value(self, examples: Example, w: Array) -> float:
        with torch.no_grad():
            return float(self.loss(examples)(naive.written(self.model, w)))


def ascent(g: Array, w: Array, radius: float, rule: str) -> Array:
    """``ρ g/‖g‖`` or ``ρ T²g/‖Tg‖``, ``T = |w|``."""
    scale = np.abs(w) if rule == "asam" else np.ones_like(w)
    return radius * scale**2 * g / np.linalg.norm(scale * g)


def adapted(
    learner: Learner,
    support: Example,
    w: Array,
    recipe: Recipe,
    given: Sequence[Array] | None = None,
) -> tuple[Array, list[Array]]:
    """``w <- w - β ∇S(w + ε)``, step by step, and every ``ε``; those ``given`` instead where there are some."""
    mask = np.ones_like(w) if recipe.mask is None else recipe.mask
    here, used = w.copy(), []
    for step in range(recipe.steps):
        epsilon = np.zeros_like(w)
        if recipe.lower:
            if given is None:
                slope = mask * learner.slope(support, here)
                epsilon = ascent(slope, here, recipe.lower, recipe.rule)
            else:
                epsilon = given[step]
        used.append(epsilon)
        down = learner.slope(support, here + epsilon) + recipe.proximal * (here - w)
        here = here - recipe.rate * mask * down
    return here, used


Ascents = list[list[Array]]


def meta_loss(learner: Learner, w: Array, recipe: Recipe, given: Ascents | None = None) -> float:
    """The mean query loss after adaptation."""
    found = [
        learner.value(
            query, adapted(learner, support, w, recipe, None if given is None else given[i])[0]
        )
        for i, (support, query) in enumerate(learner.tasks)
    ]
    return float(np.mean(found))


def ascents(learner: Learner, w: Array, recipe: Recipe) -> Ascents:
    return [adapted(learner, support, w, recipe)[1] for support, _ in learner.tasks]


def along(function: Callable[[Array], float], w: Array, v: Array, step: float = 1e-3) -> float:
    """Derivative along ``v``: a central difference of fourth order."""
    f = lambda h: function(w + h * v)  # noqa: E731
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def slopes(
    learner: Learner,
    w: Array,
    recipe: Recipe,
    held: bool,
    directions: Array,
    given: Ascents | None = None,
) -> Array:
    """Derivatives of the meta loss along ``directions (count, params)``.

    Args:
        learner: network and tasks.
        w: the initialization.
        recipe: the adaptation.
        held: the inner ascents are those of ``w``, constants of the derivative.
        directions: rows.
        given: inner ascents to hold instead.
    """
    if held and recipe.lower and given is None:
        given = ascents(learner, w, recipe)
    return np.array(
        [along(lambda t: meta_loss(learner, t, recipe, given), w, v) for v in directions]
    )


def first_order(learner: Learner, w: Array, recipe: Recipe) -> Array:
    """The gradient with the inner steps held constant: that of the query loss at the adapted weights."""
    rows = [
        learner.slope(query, adapted(learner, support, w, recipe)[0])
        for support, query in learner.tasks
    ]
    return np.mean(rows, axis=0)
