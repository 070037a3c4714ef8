"""What a sharpness measure works on and what it returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

from landscape.objective import FunctionObjective, Objective, standard_error
from landscape.operators import operator_of
from landscape.operators.symmetric import SymmetricOperator
from landscape.spectra.eigenpairs import Eigenpairs, eigenpairs

VALUE_COST = 1 / 3
"""Cost of one loss in units of one gradient (FB, a forward and a backward pass)."""


@dataclass(frozen=True)
class Measurement:
    """One row of a sharpness report.

    Attributes:
        name: name of the measure.
        value: the number.
        stderr: standard error of ``value``, or ``None`` where there is none to give.
        interval: an interval that ``value`` comes with, or ``None``; ``note`` says of which kind.
        settings: every setting that changes the number.
        cost: what the measure costs on its own, in gradients over the same data (FB).
        note: what the reader must know: where the error comes from, or what went wrong.
        converged: whether the iteration behind it met its tolerance.
    """

    name: str
    value: float
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0
    note: str = ""
    converged: bool = True


class Point:
    """An objective at one ``theta``, with what several measures share computed once.

    Args:
        objective: any objective.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        seed: of every random draw made here.
    """

    def __init__(self, objective: Objective, theta: Tensor | None = None, seed: int = 0) -> None:
        self.objective = objective
        self.theta = (objective.theta if theta is None else theta).detach()
        if tuple(self.theta.shape) != (objective.space.size,):
            raise ValueError(
                f"theta has shape {tuple(self.theta.shape)}, expected ({objective.space.size},)"
            )
        self.seed = seed
        self._has_terms = True
        self._pairs: dict[tuple[Any, ...], Eigenpairs] = {}

    @cached_property
    def gradient(self) -> Tensor:
        """Gradient ``(params,)``."""
        return self.objective.gradient(self.theta).detach()

    @cached_property
    def hessian(self) -> SymmetricOperator:
        """The Hessian, tested once.

        Raises:
            OperatorError: it fails its test.
        """
        return operator_of(self.objective, self.theta)

    @cached_property
    def terms(self) -> Tensor:
        """The losses whose mean is the value, ``(terms,)``, float64."""
        return self.terms_at(self.theta)

    def terms_at(self, theta: Tensor) -> Tensor:
        """Loss terms at ``theta``, float64; the mean alone where the objective has no terms."""
        if self._has_terms:
            try:
                return self.objective.losses(theta).detach().double()
            except ValueError:  # a loss that returns one scalar a batch
                self._has_terms = False
        return self.objective.value(theta).detach().double().reshape(1)

    def rise(self, step: Tensor) -> Tensor:
        """How much each term rises from ``theta`` to ``theta + step``, ``(terms,)``, float64.

        Differences are taken term by term: their scatter is the *paired* error of the rise, and the
        loss that both points share cancels before anything is rounded.
        """
        return self.terms_at(self.theta + step) - self.terms

    def paired_error(self, differences: Tensor) -> float | None:
        """Standard error of the mean of ``differences``; 0 for a formula, ``None`` if unknown."""
        if differences.numel() > 1:
            return standard_error(differences)
        return 0.0 if isinstance(self.objective, FunctionObjective) else None

    def pairs(self, k: int, which: str, tol: float) -> Eigenpairs:
        """Eigenpairs at ``theta``, computed once for each set of arguments."""
        key = (k, which, tol)
        if key not in self._pairs:
            self._pairs[key] = eigenpairs(
                self.hessian, k=k, which=which, tol=tol, seed=self.seed, spread=True
            )
        return self._pairs[key]


def mean_with_interval(samples: Tensor) -> tuple[float, float, tuple[float, float]]:
    """Mean, standard error and 95 % Student interval of ``samples (draws,)``, at least two."""
    value, error = float(samples.mean()), standard_error(samples)
    half = float(student.ppf(0.975, samples.numel() - 1)) * error
    return value, error, (value - half, value + half)


def length(v: Tensor) -> float:
    """Euclidean norm, accumulated in float64."""
    return math.sqrt(float(torch.dot(v.double(), v.double())))
