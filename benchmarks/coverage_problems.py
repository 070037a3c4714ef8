"""Populations of quadratic terms on which every measure has a closed form, and those closed forms."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.space import ParameterSpace

Array = np.ndarray

EXAMPLES = 400
PARTS = 8
SPREAD = 0.5  # of the curvature of one term, relative to the mean and absolutely
SLOPE = 0.5  # standard deviation of each entry of a term's gradient


@dataclass(frozen=True, eq=False)
class Quadratic:
    """``½ vᵀAv + bᵀv + level`` near ``w``: a population's mean, or the mean of a sample."""

    a: Array
    b: Array
    level: float
    w: Array
    layers: tuple[tuple[int, int], ...]
    square: float
    """Mean square of the terms' derivatives along ``w``."""

    @cached_property
    def g(self) -> Array:
        """Gradient at ``w``."""
        return self.a @ self.w + self.b

    @cached_property
    def c(self) -> Array:
        """``|w|``."""
        return np.abs(self.w)

    @cached_property
    def adaptive(self) -> Array:
        """``DAD``, ``D = diag(|w|)``."""
        return self.c[:, None] * self.a * self.c

    @cached_property
    def eigenvalues(self) -> Array:
        """Increasing."""
        return np.linalg.eigvalsh(self.a)

    def formula(self) -> tuple[FunctionObjective, Quadratic]:
        """This function as an objective without data, and what its one term is."""
        a, b = torch.from_numpy(self.a), torch.from_numpy(self.b)
        space = ParameterSpace.from_module(Terms(self.w, self.layers))
        made = FunctionObjective(
            lambda v: 0.5 * v @ (a @ v) + b @ v + self.level, torch.from_numpy(self.w), space
        )
        return made, replace(self, square=float(self.w @ self.g) ** 2)

    def loss(self) -> float:
        """At ``w``."""
        return float(0.5 * self.w @ self.a @ self.w + self.b @ self.w + self.level)

    def rise(self, step: Array) -> float:
        """From ``w`` to ``w + step``."""
        return float(self.g @ step + 0.5 * step @ self.a @ step)

    def tensors(self) -> list[slice]:
        """Where each layer's weights are."""
        ends = np.cumsum([rows * columns for rows, columns in self.layers])
        return [slice(end - r * c, end) for end, (r, c) in zip(ends, self.layers, strict=True)]

    def filters(self) -> list[slice]:
        """Where each row of each layer is."""
        found = []
        for place, (_, columns) in zip(self.tensors(), self.layers, strict=True):
            found += [slice(i, i + columns) for i in range(place.start, place.stop, columns)]
        return found

    def sphere(self, groups: list[slice], radius: float) -> float:
        """Mean rise where each group moves by ``radius`` times its own length, uniformly."""
        shares = [
            np.sum(self.w[i] ** 2) * np.trace(self.a[i, i]) / (i.stop - i.start) for i in groups
        ]
        return float(0.5 * radius**2 * np.sum(shares))


class Population(Protocol):
    """What data are drawn from."""

    mean: Quadratic

    def sample(self, seed: int) -> tuple[DataObjective, Quadratic]:
        """The objective of a sample, and what its mean is."""


@dataclass(frozen=True, eq=False)
class QuadraticTerms:
    """Terms ``½ vᵀAᵢv + bᵢᵀv + level`` with ``Aᵢ = A + Σₖ ξₖ Sₖ`` and ``bᵢ = b + SLOPE ξ``, all ``ξ`` normal.

    Attributes:
        mean: the population's mean.
        parts: ``Sₖ``, ``(parts, params, params)``.
    """

    mean: Quadratic
    parts: Array

    @classmethod
    def made(
        cls, eigenvalues: Array, layers: tuple[tuple[int, int], ...], slope: float, seed: int
    ) -> QuadraticTerms:
        """With these eigenvalues of the mean curvature and a mean gradient of length ``slope``."""
        rng = np.random.default_rng(seed)
        params = len(eigenvalues)
        turn = np.linalg.qr(rng.standard_normal((params, params)))[0]
        a = (turn * eigenvalues) @ turn.T
        w = rng.uniform(0.5, 1.5, params) * rng.choice([-1.0, 1.0], params)
        parts = [SPREAD * a]
        for _ in range(3):
            raw = rng.standard_normal((params, params))
            parts.append(SPREAD * (raw + raw.T) / np.linalg.norm(raw + raw.T, 2))
        g = rng.standard_normal(params)
        g *= slope / np.linalg.norm(g)
        b = g - a @ w
        along = [w @ part @ w for part in parts]  # the terms' slopes along w are normal
        square = (w @ g) ** 2 + np.sum(np.square(along)) + SLOPE**2 * w @ w
        level = 1 - (0.5 * w @ a @ w + b @ w)  # the loss is 1 at w
        return cls(Quadratic(a, b, float(level), w, layers, float(square)), np.stack(parts))

    def sample(self, seed: int) -> tuple[DataObjective, Quadratic]:
        """The objective of a sample, and what its mean is."""
        rng = np.random.default_rng([seed, 1])
        params = len(self.mean.w)
        noise = rng.standard_normal((EXAMPLES, len(self.parts)))
        a = self.mean.a + np.tensordot(noise, self.parts, 1)
        b = self.mean.b + SLOPE * rng.standard_normal((EXAMPLES, params))
        objective = DataObjective(
            Terms(self.mean.w, self.mean.layers, self.mean.level),
            list(zip(*(torch.from_numpy(x).chunk(PARTS) for x in (a, b, b[:, 0])), strict=True)),
            loss=_as_it_is,
        )
        w = self.mean.w
        slopes = (a @ w + b) @ w
        mean = self.mean
        found = replace(mean, a=a.mean(0), b=b.mean(0), square=float(np.mean(slopes**2)))
        return objective, found


class LeastSquares:
    """``(w·x − w*·x − ε)²`` of a linear layer of one output, ``x`` (correlated) and ``ε`` normal."""

    def __init__(self, scales: Array, seed: int) -> None:
        rng = np.random.default_rng(seed)
        size = len(scales)
        self.mix = np.linalg.qr(rng.standard_normal((size, size)))[0] * scales
        w = rng.uniform(0.5, 1.5, size)
        self.best = w + 0.5 * rng.standard_normal(size)
        covariance = self.mix @ self.mix.T
        off = w - self.best
        residual, output, both = (
            off @ covariance @ off + 1,
            w @ covariance @ w,
            w @ covariance @ off,
        )
        square = 4 * (residual * output + 2 * both**2)  # E (2 r s)² of normal r and s
        a, level = 2 * covariance, float(self.best @ covariance @ self.best) + 1
        self.mean = Quadratic(a, -a @ self.best, level, w, ((1, size),), float(square))

    def sample(self, seed: int) -> tuple[DataObjective, Quadratic]:
        """The objective of a sample, and what its mean is."""
        rng = np.random.default_rng([seed, 2])
        x = rng.standard_normal((EXAMPLES, len(self.best))) @ self.mix.T
        y = x @ self.best + rng.standard_normal(EXAMPLES)
        w = self.mean.w
        model = nn.Linear(len(w), 1, bias=False).double()
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(w)[None])
        batches = zip(
            torch.from_numpy(x).chunk(PARTS), torch.from_numpy(y)[:, None].chunk(PARTS), strict=True
        )
        slopes = 2 * (x @ w - y) * (x @ w)
        a = 2 * x.T @ x / EXAMPLES
        b, level = -2 * x.T @ y / EXAMPLES, float(np.mean(y**2))
        found = replace(self.mean, a=a, b=b, level=level, square=float(np.mean(slopes**2)))
        return DataObjective(model, list(batches), loss="mse_loss"), found


class Terms(nn.Module):
    """The terms as a "network" whose inputs are ``Aᵢ`` and ``bᵢ``; its weights lie in linear layers."""

    def __init__(self, w: Array, layers: tuple[tuple[int, int], ...], level: float = 0.0) -> None:
        super().__init__()
        self.level = level
        self.layers = nn.ModuleList(
            nn.Linear(columns, rows, bias=False).double() for rows, columns in layers
        )
        pieces = torch.from_numpy(w).split([rows * columns for rows, columns in layers])
        with torch.no_grad():
            for layer, piece in zip(self.layers, pieces, strict=True):
                layer.weight.copy_(piece.view_as(layer.weight))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``(batch, params, params)``, ``(batch, params)`` -> terms ``(batch,)``."""
        v = torch.cat([layer.weight.flatten() for layer in self.layers])
        return 0.5 * (a @ v) @ v + b @ v + self.level


def _as_it_is(output: Tensor, _: Tensor) -> Tensor:
    return output


def ball(a: Array, g: Array, radius: float) -> float:
    """Largest ``gᵀδ + ½ δᵀAδ`` over ``‖δ‖ ≤ radius``, of an ``A`` with a positive eigenvalue.

    The maximizer lies on the sphere and solves ``(μI − A) δ = g`` with ``μ ≥ λ₁``.
    """
    values, vectors = np.linalg.eigh(a)
    h = vectors.T @ g

    def excess(mu: float) -> float:
        return float(np.sum((h / (mu - values)) ** 2) - radius**2)

    low = values[-1] + abs(h[-1]) / radius * 0.5  # too long
    high = values[-1] + 2 * np.linalg.norm(h) / radius  # too short
    delta = h / (brentq(excess, low, high, xtol=1e-13, rtol=1e-13) - values)
    return float(h @ delta + 0.5 * delta @ (values * delta))


def box(a: Array, g: Array, reach: Array) -> float:
    """Largest ``gᵀδ + ½ δᵀAδ`` over ``|δᵢ| ≤ reachᵢ``, of an ``A`` with a positive diagonal: at a corner."""
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=len(g)))) * reach
    return float(np.max(corners @ g + 0.5 * np.sum((corners @ a) * corners, 1)))


def _wide() -> Array:
    return np.concatenate(
        [[10.0, 6.0, 4.0, 3.2, 2.6], np.linspace(0.5, 2.0, 30), np.linspace(-1.0, -0.5, 5)]
    )


_SMALL = np.array([8.0, 3.0, 2.0, 1.5, 1.0, 0.8, 0.6, 0.4])

POPULATIONS: dict[str, Population] = {
    "small": QuadraticTerms.made(_SMALL, ((2, 2), (2, 2)), 1.0, 0),
    "near a minimum": QuadraticTerms.made(_SMALL, ((2, 2), (2, 2)), 0.1, 0),
    "wide": QuadraticTerms.made(_wide(), ((5, 4), (5, 4)), 1.0, 1),
    "least squares": LeastSquares(np.array([2.0, 1.0, 0.7, 0.5, 0.3]), 2),
}
"""8 parameters and a gradient of length 1, the same with 0.1, 40 parameters, a linear layer of 5."""
