"""The upper ascent of Sharp-MAML over a whole training, with the cheap forms that remember earlier steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sharpmaml.config import ASCENT_GRADIENTS
from sharpmaml.meta import MetaGradient, Upper, ascended, described, scouting
from sharpmaml.perturb import RULES, sam
from sharpmaml.plan import Executor, Pass, Plan, Tasks

REDUCTIONS = ("mean", "sum")


class UpperAscent:
    """Meta-gradients of a training, in order.

    Without the keyword arguments each is :func:`sharpmaml.meta.meta_gradient_of`: two passes over the
    meta-batch where there is a radius. They make it cheaper, or confine it:

    Args:
        upper: radius, rule, and what becomes of the inner ascents.
        gradient: whose direction is climbed. ``"full"``: the meta-gradient's. ``"first-order"``: that of
            the first-order meta-gradient (FOMAML); what is descended at ``θ + ε`` stays second-order.
            ``"momentum"``: that of the running mean of the directions returned before (after Momentum-SAM,
            Becker et al. 2024), which takes no pass of its own; the first update has none, and is plain.
        every: climb at every so many meta-updates, the first among them (LookSAM, Liu et al. 2022).
        reuse: in between, descend ``g + reuse · ‖g‖ · v / ‖v‖`` with ``v`` the part of the last ascended
            gradient across the plain one (LookSAM's α); 0: ``g`` itself.
        part: what is climbed, bool ``(params,)``, as of :func:`sharpmaml.adaptable.adapted_mask`; the
            gradient is cut to it before it is normalized. ``None``: all.
        momentum: share of the running mean that stays at a meta-update.
        reduction: the direction is the ``"mean"`` over tasks, or the ``"sum"``: the mean times the number
            of tasks. The ascent is normalized and does not change; neither does what is reported.

    Raises:
        ValueError: a setting out of its range, or settings that say nothing together.
    """

    def __init__(
        self,
        upper: Upper,
        *,
        gradient: str = "full",
        every: int = 1,
        reuse: float = 0.0,
        part: Tensor | None = None,
        momentum: float = 0.9,
        reduction: str = "mean",
    ) -> None:
        if gradient not in ASCENT_GRADIENTS or reduction not in REDUCTIONS:
            raise ValueError(
                f"ascent of the {gradient!r} gradient with the {reduction!r} over tasks: expected one of "
                f"{', '.join(ASCENT_GRADIENTS)} and one of {', '.join(REDUCTIONS)}"
            )
        if every < 1 or not 0 <= reuse <= 1 or not 0 <= momentum < 1:
            raise ValueError(
                f"every {every}, reuse {reuse}, momentum {momentum}: expected at least 1, a share of "
                "at most 1, and a share below 1"
            )
        if upper.radius > 0 and reuse > 0 and every == 1:
            raise ValueError(
                f"ascent_reuse is {reuse}, but every meta-update ascends anew: set ascent_every to 2 or "
                "more, or leave the reuse out"
            )
        if upper.radius > 0 and reuse > 0 and gradient != "full":
            raise ValueError(
                f"ascent_reuse needs the full gradient at the point itself, which an ascent along the "
                f"{gradient!r} one does not compute: set ascent_gradient to full, or the reuse to 0"
            )
        self.upper = upper
        self.gradient = gradient
        self.every = every
        self.reuse = reuse
        self.part = part
        self.momentum = momentum
        self.reduction = reduction
        self._memory: dict[str, Tensor] = {}

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, executor: Executor, iteration: int
    ) -> MetaGradient:
        """The direction to descend at meta-update ``iteration``, counted from 0.

        Raises:
            ValueError: inner ascents are to be reused, but no pass at ``theta`` computes them.
        """
        if self.upper.radius == 0:
            result = described(executor(batch, theta, plan))
        elif self._climbs(iteration):
            result = self._ascent(batch, theta, plan, executor)
        else:
            result = self._between(executor(batch, theta, plan))
        if self.upper.radius > 0 and self.gradient == "momentum":
            mean = running_mean(self._kept("mean", theta), result.gradient, self.momentum)
            self._memory["mean"] = mean
        if self.reduction == "sum":
            rates = None if result.rates is None else result.rates * result.tasks
            result = replace(result, gradient=result.gradient * result.tasks, rates=rates)
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """What has to be kept for the same numbers after a resumption; the iteration is the caller's."""
        return {name: tensor.clone() for name, tensor in self._memory.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a kept state.

        Raises:
            ValueError: it holds something that no ascent keeps.
        """
        unknown = sorted(set(state) - {"mean", "orthogonal"})
        if unknown:
            raise ValueError(
                f"the state of the ascent holds {unknown[0]!r}: expected mean or orthogonal"
            )
        self._memory = {name: tensor.clone() for name, tensor in state.items()}

    def _kept(self, name: str, like: Tensor) -> Tensor | None:
        kept = self._memory.get(name)
        return None if kept is None else kept.to(like)

    def _climbs(self, iteration: int) -> bool:
        # A run that was resumed without the state has nothing to reuse yet.
        nothing = self.reuse > 0 and "orthogonal" not in self._memory
        return nothing or iteration % self.every == 0

    def _epsilon(self, direction: Tensor, theta: Tensor) -> Tensor:
        if self.part is not None:
            direction = direction * self.part.to(direction.device)
        return RULES[self.upper.perturbation](direction, theta, self.upper.radius)

    def _ascent(self, batch: Tasks, theta: Tensor, plan: Plan, executor: Executor) -> MetaGradient:
        if self.gradient == "momentum":
            return self._along_momentum(batch, theta, plan, executor)
        scout = scouting(plan, self.upper)
        if self.gradient == "first-order":
            scout = first_order(scout)
        first = executor(batch, theta, scout)
        epsilon = self._epsilon(first.gradient, theta)
        second = executor(batch, theta + epsilon, plan, first.ascents)
        if self.reuse > 0:
            self._memory["orthogonal"] = across(second.gradient, first.gradient)
        return ascended(first, second, epsilon)

    def _along_momentum(
        self, batch: Tasks, theta: Tensor, plan: Plan, executor: Executor
    ) -> MetaGradient:
        if self.upper.eps_m == "reuse" and plan.inner.lower > 0:
            raise ValueError(
                "eps_m='reuse' needs the inner ascents of θ, which an ascent along the momentum does not "
                "compute: set eps_m to recompute, or ascent_gradient to full or first-order"
            )
        mean = self._kept("mean", theta)
        if mean is None:
            return described(executor(batch, theta, plan))
        only = executor(batch, theta + self._epsilon(mean, theta), plan)
        return replace(described(only), rise=None, predicted_rise=None)

    def _between(self, only: Pass) -> MetaGradient:
        plain = described(only)
        orthogonal = self._kept("orthogonal", only.gradient)
        if self.reuse == 0 or orthogonal is None:
            return plain
        return replace(plain, gradient=turned(only.gradient, orthogonal, self.reuse))


def first_order(plan: Plan) -> Plan:
    """The same with the inner gradients held constant (FOMAML); Reptile's direction is so already."""
    if plan.estimator == "reptile":
        return plan
    return replace(plan, inner=replace(plan.inner, first_order=True), estimator="unrolled")


def running_mean(mean: Tensor | None, gradient: Tensor, momentum: float) -> Tensor:
    """``momentum · mean + (1 − momentum) · gradient``, from zero.

    >>> running_mean(torch.tensor([1.0]), torch.tensor([3.0]), 0.5)
    tensor([2.])
    """
    fresh = gradient * (1 - momentum)
    return fresh if mean is None else mean * momentum + fresh


def across(ascended: Tensor, plain: Tensor) -> Tensor:
    """The part of ``ascended`` across ``plain``: LookSAM's ``g_v`` (Liu et al. 2022, section 3).

    >>> across(torch.tensor([3.0, 2.0]), torch.tensor([0.0, 5.0]))
    tensor([3., 0.])
    """
    unit = sam(plain, plain, 1.0)
    return ascended - (ascended @ unit) * unit


def turned(gradient: Tensor, orthogonal: Tensor, share: float) -> Tensor:
    """``gradient`` with ``orthogonal``, at a ``share`` of its own length, added.

    >>> turned(torch.tensor([0.0, 4.0]), torch.tensor([9.0, 0.0]), 0.5)
    tensor([2., 4.])
    """
    length: Tensor = torch.linalg.vector_norm(gradient)
    return gradient + share * length * sam(orthogonal, orthogonal, 1.0)
