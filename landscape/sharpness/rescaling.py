"""Weights rescaled without changing the function: found on the network at hand, verified on its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.batches import Batch
from landscape.data_objective import DataObjective
from landscape.directions import generator
from landscape.objective import Objective
from landscape.sharpness.point import VALUE_COST
from landscape.sharpness.symmetries import Candidate, candidates

EXAMPLES = 256
"""At most so many examples tell whether the loss has stayed."""

_SCREEN = 16  # examples that each candidate is tried on, before all of them are tried together
_NOISE = 0.1  # of a point nearby, relative to each tensor: what is dead at theta proves nothing
_WITH_EPS = 1e-3  # a norm's eps does not scale with its input: such a symmetry holds nearly


@dataclass(frozen=True, eq=False)
class Rescaling:
    """Points of the same function as ``theta``, and of another shape of the loss around them.

    Attributes:
        layers: ``theta`` with one factor a pair, 4 or ¼, ``(params,)``; ``None`` where there is no pair.
        neurons: ``theta`` with a factor for each channel, ¼, ½, 2 or 4, ``(params,)``, or ``None``.
        pairs: modules whose weights were rescaled, ``(A, B)`` by name, in order of execution.
        reason: why there is no ``layers`` or no ``neurons``; empty where there are both.
        examples: on how many examples the losses were compared.
        cost: what the comparisons took, in FB over all data of the objective.
    """

    layers: Tensor | None
    neurons: Tensor | None
    pairs: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    examples: int = 0
    cost: float = 0.0


def rescalings(objective: Objective, theta: Tensor | None = None, seed: int = 0) -> Rescaling:
    """Rescale consecutive layers of a network such that its losses stay what they are.

    ``W₁ ← diag(a) W₁, b₁ ← a b₁, W₂ ← W₂ diag(1/a)``

    Dinh et al. 2017 (Sharp Minima Can Generalize For Deep Nets), theorem 2, for any network: every two
    layers that run after one another are tried, values and outputs of attention, and layers before a
    norm (which are scaled alone). A pair is kept only if the loss of each example stays the same, here
    and at a point nearby, so nothing needs to be known of what lies between. Factors are powers of two,
    which floating point multiplies without rounding.

    Tensors that are tied, frozen, or of a module that runs more than once are left alone.

    Args:
        objective: the loss of a network over data; others have a ``reason`` alone.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        seed: of the factors.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    >>> objective = DataObjective(net, (torch.ones(4, 2), torch.zeros(4, 1)), loss="mse_loss")
    >>> found = rescalings(objective)
    >>> found.pairs, bool((found.layers == objective.theta).any())
    ((('0', '2'),), False)
    """
    if objective.settings.get("objective") == "meta":
        return Rescaling(
            None,
            None,
            reason="adaptation steps do not rescale with the weights: the meta loss changes",
        )
    if not isinstance(objective, DataObjective):
        return Rescaling(None, None, reason="no network whose layers could be rescaled")
    point = objective.theta if theta is None else theta.detach()
    check = _Check(objective, point, seed)
    if not check.usable:
        return Rescaling(None, None, reason="the loss is not finite", cost=check.cost)
    tried = candidates(objective, point, check.few)
    check.pay(check.few)
    # What holds neuron by neuron holds for the whole layer.
    neurons = [c for i, c in enumerate(tried) if check.alone(c, _drawn(c, seed, i))]
    layers = [c for c in tried if c in neurons or check.alone(c, _uniform(c, 4.0))]
    by_neuron = check.together([(c, _drawn(c, seed, tried.index(c))) for c in neurons])
    start = seed % 2
    by_layer = check.together(
        [(c, _uniform(c, (4.0, 0.25)[(start + i) % 2])) for i, c in enumerate(layers)]
    )
    missing = [
        f"no {what} whose rescaling leaves the loss as it is ({len(tried)} pairs of layers tried)"
        for what, found in (("layers", by_layer), ("neurons", by_neuron))
        if found is None
    ]
    return Rescaling(
        None if by_layer is None else by_layer[0],
        None if by_neuron is None else by_neuron[0],
        () if by_layer is None else tuple(c.pair for c in by_layer[1]),
        "; ".join(missing),
        check.whole.size,
        check.cost,
    )


def _drawn(candidate: Candidate, seed: int, number: int) -> Tensor:
    # Upwards alone before a norm: its eps then says less, not more.
    powers = [1, 2] if candidate.before_norm else [-2, -1, 1, 2]
    draw = generator(seed, "rescalings", number).choice(powers, candidate.width)
    return torch.from_numpy(np.exp2(draw)).float()


def _uniform(candidate: Candidate, factor: float) -> Tensor:
    return torch.full((candidate.width,), 4.0 if candidate.before_norm else factor)


class _Check:
    """Whether factors leave the losses as they are, here and at a point nearby."""

    def __init__(self, objective: DataObjective, theta: Tensor, seed: int) -> None:
        self.objective, self.theta, self.cost = objective, theta, 0.0
        self.whole = objective.batches[0].split(EXAMPLES)[0]
        self.few = objective.batches[0].split(_SCREEN)[0]
        # Products with powers of two are exact: what is left is the rounding of a few odd kernels.
        self.tolerance = max(1e-9, 100 * torch.finfo(theta.dtype).eps)
        drawn = generator(seed, "rescalings").standard_normal(theta.numel())
        noise = torch.from_numpy(drawn).to(theta)
        sizes = [t.square().mean().sqrt().expand(t.numel()) for t in self._tensors(theta)]
        size = torch.cat(sizes)
        self.nearby = theta + _NOISE * noise * torch.where(size > 0, size, size.mean())
        self.before = {
            (id(batch), id(point)): self._losses(point, batch)
            for batch, point in (
                (self.few, self.nearby), (self.whole, self.nearby), (self.whole, self.theta),
            )
        }  # fmt: skip
        self.usable = all(bool(torch.isfinite(losses).all()) for losses in self.before.values())

    def pay(self, batch: Batch) -> None:
        """Note that a batch went through the network."""
        statistics = 1.0 if self.objective.norm == "recalibrate" else 0.0
        self.cost += (statistics + batch.size / self.objective.examples) * VALUE_COST

    def alone(self, candidate: Candidate, factors: Tensor) -> bool:
        """Whether one candidate holds."""
        multiplier = self._multiplier([(candidate, factors)])
        return self._holds(multiplier, self.few, self.nearby, candidate.before_norm)

    def together(
        self, chosen: Sequence[tuple[Candidate, Tensor]]
    ) -> tuple[Tensor, list[Candidate]] | None:
        """``theta`` with all factors, or all that need no allowance for an ``eps``; ``None`` for none."""
        exact = [(c, factors) for c, factors in chosen if not c.before_norm]
        for some in (chosen, exact):
            multiplier = self._multiplier(some)
            nearly = len(some) > len(exact)
            if some and all(
                self._holds(multiplier, self.whole, point, nearly)
                for point in (self.theta, self.nearby)
            ):
                return self.theta * multiplier, [c for c, _ in some]
        return None

    def _tensors(self, vector: Tensor) -> list[Tensor]:
        return list(self.objective.space.unflatten(vector).values())

    def _multiplier(self, chosen: Sequence[tuple[Candidate, Tensor]]) -> Tensor:
        whole = torch.ones_like(self.theta)
        views = self.objective.space.unflatten(whole)
        for candidate, factors in chosen:
            for name, factor in candidate.scale(factors).items():
                views[name].mul_(factor.to(whole))
        return whole

    def _holds(self, multiplier: Tensor, batch: Batch, point: Tensor, nearly: bool) -> bool:
        before = self.before[id(batch), id(point)]
        after = self._losses(point * multiplier, batch)
        size = torch.maximum(before.abs(), before.abs().mean())
        tolerance = max(self.tolerance, _WITH_EPS) if nearly else self.tolerance
        return bool(((after - before).abs() <= tolerance * size).all())

    def _losses(self, theta: Tensor, batch: Batch) -> Tensor:
        self.pay(batch)
        with torch.no_grad():
            output = self.objective.call(self.objective.state(theta), batch)
            return self.objective.loss_of(output, batch).double().reshape(-1)
