"""What a meta-gradient is the gradient of, and what an executor gives back: the contract between them.

An executor computes one pass over a meta-batch; `sharpmaml.meta` makes MAML and Sharp-MAML of passes.
Every executor gives the same numbers to rounding; they differ in time and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from sharpmaml.inner import InnerLoop

ESTIMATORS = ("unrolled", "implicit", "reptile")

Aux = Mapping[str, Tensor]


class Task(NamedTuple):
    """One task as two functions of the parameter vector ``(params,)``.

    Attributes:
        support: the loss that the inner loop descends, a scalar.
        query: the loss after adaptation, a scalar, and by-products such as ``accuracy``.
    """

    support: Callable[[Tensor], Tensor]
    query: Callable[[Tensor], tuple[Tensor, Aux]]


class Tasks(Protocol):
    """A meta-batch: tasks as functions. `sharpmaml.tasks.NetworkTasks` also knows its network and episodes."""

    def tasks(self) -> Sequence[Task]:
        """One a task."""
        ...


@dataclass(frozen=True)
class PlainTasks:
    """A meta-batch of formulas, without a network."""

    given: tuple[Task, ...]

    def tasks(self) -> Sequence[Task]:
        """One a task."""
        return self.given


@dataclass(frozen=True)
class Plan:
    """What one pass computes.

    Attributes:
        inner: the inner loop; its rate may be learned.
        weights: of the query losses after steps 1 to K, ``K`` numbers (the multi-step loss of MAML++,
            Antoniou et al. 2019, section 4.1); ``None``: the last step alone.
        estimator: ``"unrolled"`` differentiates the inner loop; ``"implicit"`` solves
            ``(I + H/λ) v = ∇Q`` at the adapted point by conjugate gradients (Rajeswaran et al. 2019,
            eq. 6; λ is ``inner.proximal``); ``"reptile"`` is ``θ − θ_K`` (Nichol et al. 2018).
        solver_steps: conjugate gradient steps of ``"implicit"``.
        learns_rates: also return the gradient for the rates of every step.
        keeps_ascents: also return the inner ascents, one a task and step.
    """

    inner: InnerLoop
    weights: tuple[float, ...] | None = None
    estimator: str = "unrolled"
    solver_steps: int = 5
    learns_rates: bool = False
    keeps_ascents: bool = False

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"unknown estimator {self.estimator!r}: expected one of {', '.join(ESTIMATORS)}"
            )
        if self.estimator == "implicit" and not self.inner.proximal > 0:
            raise ValueError(
                "the implicit gradient needs a proximal weight above 0: without one the adapted point "
                "does not depend on the initialization"
            )
        if self.weights is not None and (
            len(self.weights) != self.inner.steps or self.estimator != "unrolled"
        ):
            raise ValueError(
                f"{len(self.weights)} weights of the multi-step loss for {self.inner.steps} steps of "
                f"the {self.estimator} gradient: expected one a step of the unrolled one"
            )
        if self.learns_rates and self.estimator != "unrolled":
            raise ValueError(
                f"the {self.estimator} gradient does not know the rates: learn them with the unrolled one"
            )


@dataclass(frozen=True)
class Pass:
    """What one pass over a meta-batch yields; no tensor has a graph.

    Attributes:
        gradient: of the mean over tasks, ``(params,)``.
        losses: query loss of each task after the last step, ``(tasks,)``.
        aux: by-products of each task there, ``(tasks,)`` each.
        rates: gradient of the mean for the rates of each step, ``(steps, params)``, where asked for.
        ascents: inner ascents ``(tasks, steps, params)``, where asked for.
    """

    gradient: Tensor
    losses: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)
    rates: Tensor | None = None
    ascents: Tensor | None = None


class Executor(Protocol):
    """A way to compute passes.

    Attributes:
        name: how it is chosen and listed.
    """

    name: str

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """One pass at ``theta (params,)``.

        Args:
            batch: the meta-batch.
            theta: the initialization.
            plan: what to compute.
            ascents: inner ascents to take as constants, ``(tasks, steps, params)``.

        Raises:
            ValueError: this executor does not know such tasks or such a plan.
        """
        ...
