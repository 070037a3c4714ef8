"""An objective at one point, with everything that several measures share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from landscape.directions import generator
from landscape.objective import FunctionObjective, Objective
from landscape.operators import operator_of
from landscape.operators.symmetric import SymmetricOperator
from landscape.sharpness.ledger import Ledger
from landscape.sharpness.measurement import Influence, Measurement
from landscape.spectra.eigenpairs import Eigenpairs, eigenpairs

VALUE_COST = 1 / 3
"""Cost of one loss in units of one gradient (FB, a forward and a backward pass)."""

P = ParamSpec("P")


@runtime_checkable
class InPieces(Protocol):
    """An objective whose terms can be taken in groups, each an objective of its own."""

    def pieces(self, size: int) -> list[Objective]:
        """Objectives over at most ``size`` consecutive terms; their size-weighted mean is the whole."""


@runtime_checkable
class Scored(Protocol):
    """An objective that gives further numbers a term in the same pass as the loss."""

    def scores(self, theta: Tensor) -> dict[str, Tensor]:
        """``"loss"`` ``(terms,)`` and, where there are classes, ``"accuracy"`` ``(terms,)``."""


@runtime_checkable
class Fused(Protocol):
    """An objective that gives its terms and its gradient in one forward and backward pass."""

    def losses_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Terms ``(terms,)`` (or their mean, ``(1,)``) and the gradient of their mean ``(params,)``."""


class Point:
    """An objective at one ``theta``, with what several measures share computed once.

    Args:
        objective: any objective.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        seed: of every random draw made here.
        ledger: accounts; new ones when left out.
        share: part of the data that the objective is about, among the data of the ledger.

    Attributes:
        ledger: what was spent, and what is shared.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Tensor | None = None,
        seed: int = 0,
        *,
        ledger: Ledger | None = None,
        share: float = 1.0,
    ) -> None:
        self.objective = objective
        self.theta = (objective.theta if theta is None else theta).detach()
        if tuple(self.theta.shape) != (objective.space.size,):
            raise ValueError(
                f"theta has shape {tuple(self.theta.shape)}, expected ({objective.space.size},)"
            )
        self.seed = seed
        self.ledger = Ledger() if ledger is None else ledger
        self.share = share
        self._has_terms = True

    @property
    def of(self) -> str:
        """What one term is: ``"examples"``, ``"tasks"``, or ``"exact"`` for a formula."""
        if isinstance(self.objective, FunctionObjective):
            return "exact"
        return "tasks" if self.objective.settings.get("objective") == "meta" else "examples"

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What ``compute()`` returns, computed once for each ``key`` at this point."""
        return self.ledger.once((id(self), key), compute)

    def pay(self, cost: float) -> None:
        """Note a cost, in FB over the data of this point."""
        self.ledger.pay(cost * self.share)

    @property
    def gradient(self) -> Tensor:
        """Gradient ``(params,)``; 1 FB."""

        def compute() -> Tensor:
            self.pay(1.0)
            return self.objective.gradient(self.theta).detach()

        gradient: Tensor = self.once("gradient", compute)
        return gradient

    @cached_property
    def hessian(self) -> SymmetricOperator:
        """The Hessian, tested once; the test is not on the account of any measure.

        Raises:
            OperatorError: it fails its test.
        """
        return operator_of(self.objective, self.theta)

    def release(self) -> None:
        """Give back the graphs of the Hessian; what was computed with them stays."""
        if "hessian" in self.__dict__:
            self.hessian.release()

    @contextmanager
    def products(self, operator: SymmetricOperator) -> Iterator[SymmetricOperator]:
        """Pay for the products of ``operator`` that are made inside."""
        began = operator.products
        try:
            yield operator
        finally:
            self.pay(operator.product_cost * (operator.products - began))

    def pairs(self, k: int, which: str, tol: float) -> Eigenpairs:
        """Eigenpairs of the Hessian, computed once for each set of arguments."""

        def compute() -> Eigenpairs:
            with self.products(self.hessian):
                return eigenpairs(
                    self.hessian, k=k, which=which, tol=tol, seed=self.seed, spread=True
                )

        pairs: Eigenpairs = self.once(("pairs", k, which, tol), compute)
        return pairs

    @property
    def terms(self) -> Tensor:
        """The losses whose mean is the value, ``(terms,)``, float64; ⅓ FB."""
        return self.scores["loss"]

    @property
    def scores(self) -> dict[str, Tensor]:
        """``loss`` and, where there are classes, ``accuracy`` at ``theta``, ``(terms,)``; ⅓ FB."""
        scores: dict[str, Tensor] = self.once("scores", lambda: self.scores_at(self.theta))
        return scores

    def scores_at(self, theta: Tensor) -> dict[str, Tensor]:
        """``loss`` and, where there are classes, ``accuracy``: float64 ``(terms,)``; ⅓ FB.

        The mean alone, ``(1,)``, where the loss has no terms.
        """
        self.pay(VALUE_COST)
        if self._has_terms:
            try:
                if isinstance(self.objective, Scored):
                    found = self.objective.scores(theta)
                else:
                    found = {"loss": self.objective.losses(theta)}
                return {name: values.detach().double() for name, values in found.items()}
            except ValueError:  # a loss that returns one scalar a batch
                self._has_terms = False
        return {"loss": self.objective.value(theta).detach().double().reshape(1)}

    def terms_at(self, theta: Tensor) -> Tensor:
        """Loss terms at ``theta``, float64; the mean alone where the objective has no terms; ⅓ FB."""
        return self.scores_at(theta)["loss"]

    def rise(self, step: Tensor) -> Tensor:
        """How much each term rises from ``theta`` to ``theta + step``, ``(terms,)``, float64; ⅓ FB.

        Differences are taken term by term: their scatter is the *paired* error of the rise, and the
        loss that both points share cancels before anything is rounded.
        """
        return self.terms_at(self.theta + step) - self.terms

    def loss_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Mean loss and gradient ``(params,)`` at ``theta`` in one pass; 1 FB where that is possible.

        For searches: the loss may differ from :meth:`terms_at` by rounding, so differences of losses are
        taken from there.
        """
        if isinstance(self.objective, Fused):
            try:
                losses, gradient = self.objective.losses_and_gradient(theta)
            except ValueError:  # not for this form of the objective
                pass
            else:
                self.pay(1.0)
                return float(losses.double().mean()), gradient.detach()
        self.pay(1.0)
        gradient = self.objective.gradient(theta).detach()
        return float(self.terms_at(theta).mean()), gradient

    def influence(
        self,
        terms: Tensor | None = None,
        draws: Tensor | None = None,
        weights: Tensor | None = None,
        of: str = "",
    ) -> Influence:
        """The influence of terms and draws whose values still have their mean; see :class:`Influence`."""
        exact = self.of == "exact"
        return Influence.made(
            None if exact else terms, "exact" if exact else of or self.of, weights, draws
        )

    def normal(self, i: int) -> Tensor:
        """Draw number ``i`` of independent standard normal numbers ``(params,)``, on CPU generators.

        The same for every measure and every objective of this size: a draw is made, and paid, once.
        """
        drawn = generator(self.seed, "sharpness", i).standard_normal(self.theta.numel())
        return torch.from_numpy(drawn).to(self.theta)

    def pieces(self, size: int) -> list[Point]:
        """Points of the objectives over at most ``size`` terms each, on the same account.

        Empty where the objective cannot be taken in pieces, or is one piece.
        """

        def compute() -> list[Point]:
            if not isinstance(self.objective, InPieces):
                return []
            try:
                found = self.objective.pieces(size)
            except ValueError:  # its terms are coupled
                return []
            counts = [_count(piece) for piece in found]
            return [
                Point(
                    piece, self.theta, self.seed,
                    ledger=self.ledger, share=self.share * count / sum(counts),
                )
                for piece, count in zip(found, counts, strict=True)
                if len(found) > 1
            ]  # fmt: skip

        pieces: list[Point] = self.once(("pieces", size), compute)
        return pieces


def measured(
    measure: Callable[Concatenate[Point, P], Measurement],
) -> Callable[Concatenate[Point, P], Measurement]:
    """A measure that fills in what it costs, from the ledger of its point."""

    @functools.wraps(measure)
    def accounted(point: Point, *args: P.args, **kwargs: P.kwargs) -> Measurement:
        with point.ledger.measuring() as tally:
            found = measure(point, *args, **kwargs)
        return replace(found, cost=tally.alone, paid=tally.paid)

    return cast("Callable[Concatenate[Point, P], Measurement]", accounted)


def positive(name: str, **settings: float) -> None:
    """ValueError unless every setting is above 0."""
    for key, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name}: {key} is {value}, expected a positive number")


def length(v: Tensor) -> float:
    """Euclidean norm, accumulated in float64."""
    return math.sqrt(float(torch.dot(v.double(), v.double())))


def _count(objective: Any) -> int:
    return int(objective.settings.get("examples") or objective.settings.get("tasks") or 1)
