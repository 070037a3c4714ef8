"""Power iteration with deflation: the search for eigenvectors that is easy to read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from landscape.directions import generator
from landscape.krylov.wanted import Wanted
from landscape.operators.symmetric import SymmetricOperator


@dataclass
class PowerSearch:
    """Power iteration on ``operator``, each vector in the complement of those before it.

    Plain iteration finds the largest magnitude. Where one sign is wanted and the other one leads, the
    spectrum is moved: ``A + shift`` has no negative eigenvalue, and its largest is the wanted.

    Args:
        operator: the symmetric operator.
        wanted: which eigenpairs, and how well.
        seed: of the random start vectors.
        budget: value of ``operator.products`` at which to stop.

    Attributes:
        vectors: those found so far, orthonormal rows ``(found, params)``.
        images: their products.
        scale: the largest Rayleigh quotient in magnitude so far, an estimate of the operator's norm.
    """

    operator: SymmetricOperator
    wanted: Wanted
    seed: int
    budget: int
    vectors: Tensor = field(init=False)
    images: Tensor = field(init=False)
    scale: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.vectors = self.operator.theta.new_empty(0, self.operator.shape[0])
        self.images = self.vectors.clone()

    def run(self) -> None:
        """Fill :attr:`vectors` and :attr:`images` with ``k`` rows."""
        k = self.wanted.k
        high = {"LA": k, "SA": 0, "LM": k, "BE": (k + 1) // 2}[self.wanted.which]
        shift = 0.0
        for pair in range(k):
            if pair == high:
                shift = 0.0
            sign = 1.0 if pair < high else -1.0  # the smallest of A is the largest of -A
            begin = self.operator.products
            limit = begin + (self.budget - begin) // (k - pair)
            trial = limit if shift or self.wanted.which == "LM" else (begin + limit + 1) // 2
            v = self._start("power", pair)
            v, image, value, norm = self._iterate(v, sign, shift, trial)
            if trial < limit and (value < 0 or self.operator.products >= trial):
                shift = norm
                # A converged vector of the wrong sign holds nothing of the right one: start afresh.
                v = self._start("shifted", pair) if value < 0 else v
                v, image, *_ = self._iterate(v, sign, shift, limit)
            self.vectors = torch.cat([self.vectors, v[None]])
            self.images = torch.cat([self.images, image[None]])

    def _iterate(
        self, v: Tensor, sign: float, shift: float, limit: int
    ) -> tuple[Tensor, Tensor, float, float]:
        """Power steps on ``sign * A + shift`` until the residual is small or products reach ``limit``.

        Returns the vector, its product with ``A``, its Rayleigh quotient with ``sign * A``, and the
        length of the last step.
        """
        while True:
            image = self.operator.matvec(v)
            w = self._complement(sign * image)
            value = float(v.double() @ w.double())
            residual = float((w.double() - value * v.double()).norm())
            self.scale = max(self.scale, abs(value))
            moved = w + shift * v
            norm = float(moved.double().norm())
            # The vectors of nearly equal eigenvalues are mixed at the end, and so are their residuals.
            mixed = residual * math.sqrt(self.wanted.k)
            small = self.wanted.reached(np.array([value]), np.array([mixed]), self.scale)
            if small or self.operator.products >= limit:
                return v, image, value, norm
            v = _unit(self._complement(moved))

    def _start(self, *key: object) -> Tensor:
        """A random unit vector orthogonal to those found."""
        drawn = generator(self.seed, *key).standard_normal(self.operator.shape[0])
        return _unit(self._complement(torch.from_numpy(drawn).to(self.operator.theta)))

    def _complement(self, v: Tensor) -> Tensor:
        """``v`` without its part in the span of those found; twice, because once is not enough."""
        for _ in range(2):
            v = v - (self.vectors @ v) @ self.vectors
        return v


def _unit(v: Tensor) -> Tensor:
    return v / float(v.double().norm())
