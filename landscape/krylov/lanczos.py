"""Lanczos orthogonalized in full, with restarts, and the search for copies of an eigenvalue."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import betainc
from torch import Tensor

from landscape.krylov.projection import Projection, Ritz, random_unit
from landscape.krylov.wanted import ENDS, Array, Wanted, accepted, best_first
from landscape.operators.symmetric import SymmetricOperator

__all__ = ["ENDS", "MULTIPLICITIES", "Search", "accepted", "best_first"]

MULTIPLICITIES = ("check", "full", "skip")
"""How hard to look for further copies of an eigenvalue: see :class:`Complement`."""

_TINY = np.finfo(float).tiny
_CHECK = 3  # products that a check may take before it has seen anything suspicious
_CHANCE = {"check": 0.05, "full": 1e-4}  # of having overlooked a copy, at which the check is over


@dataclass
class Complement:
    """A Lanczos run in the complement of the basis that looks for eigenvalues a Krylov space cannot hold.

    A Krylov space holds one vector of a repeated eigenvalue; the other copies are orthogonal to all of
    it. The run starts from a vector drawn uniformly in that complement. Its coefficients ``α, β``
    bound the weight that an eigenvalue at ``x``, or beyond it, can have in the start: at most
    ``1 / Σ pᵢ(x)²``, with the orthonormal polynomials ``pᵢ`` of the run (the Christoffel function;
    Szegő, *Orthogonal polynomials*, 3.41). Beyond the last Ritz value each step multiplies that sum,
    for Krylov vectors by about ``(2 x / bulk)²``. But the weight of one vector in a random start is
    ``Beta(½, (n-1)/2)``, about ``1 / n``. So the run can tell the chance that a copy was there and
    went unseen; it is :attr:`chance`.

    Attributes:
        dimensions: of the complement.
        bounds: eigenvalues below the first or above the second would be wanted.
        diagonal: ``α``.
        off: ``β``, one for each ``α``.
    """

    dimensions: int
    bounds: tuple[float, float]
    diagonal: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)

    @property
    def chance(self) -> float:
        """Of a start with so little of an eigenvector beyond the bounds as this run allows."""
        if not self.diagonal:
            return 1.0
        return max(self._unseen(bound) for bound in self.bounds)

    def suspicious(self) -> bool:
        """Whether a Ritz value may still pass a bound.

        It is more than half way there from the first quotient, and its error would let it.
        """
        small = np.diag(self.diagonal) + np.diag(self.off[:-1], 1)
        ritz, inner = np.linalg.eigh(small, UPLO="U")
        first, (low, high) = self.diagonal[0], self.bounds
        for sign, end, bound in ((1, -1, high), (-1, 0, low)):
            error = self.off[-1] * abs(inner[-1, end])
            far = sign * (ritz[end] - (first + bound) / 2) > 0
            if far and sign * (ritz[end] - bound) + error >= 0:
                return True
        return False

    def _unseen(self, x: float) -> float:
        if math.isinf(x):
            return 0.0
        total, before, last = 1.0, 0.0, 1.0
        for step, (alpha, beta) in enumerate(zip(self.diagonal, self.off, strict=True)):
            coupling = self.off[step - 1] if step else 0.0
            if beta == 0:  # the space is exhausted: all weight lies on its Ritz values
                return 0.0
            before, last = last, ((x - alpha) * last - coupling * before) / beta
            total += last * last
        if self.dimensions < 2:
            return float(total < 1.01)
        return float(betainc(0.5, (self.dimensions - 1) / 2, 1 / total))


@dataclass
class Search:
    """Lanczos for the wanted eigenvectors of ``operator``.

    Args:
        operator: the symmetric operator.
        wanted: which eigenpairs, and how well.
        seed: of the random start vectors.
        budget: value of ``operator.products`` at which to stop.
        multiplicity: one of :data:`MULTIPLICITIES`.
        max_vectors: vectors in memory at which to restart.
        spread: note the quotients of the parts.

    Attributes:
        space: the projection that the search works in.
        overlooked: chance that a further copy of a wanted eigenvalue was there and went unseen;
            ``None`` where it would make no difference or was not looked for.
    """

    operator: SymmetricOperator
    wanted: Wanted
    seed: int
    budget: int
    multiplicity: str = "check"
    max_vectors: int = 200
    spread: bool = False
    space: Projection = field(init=False)
    overlooked: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.space = Projection(self.operator, self.wanted.k, self.spread)
        self._starts = 0
        self._exhausted = False

    def run(self) -> Ritz:
        """Multiplies until the wanted pairs have converged, and returns them."""
        self.space.start(self._first())
        self.space.multiply([0])
        while True:
            best = self._converge()
            looks = self.wanted.repeatable and (self._exhausted or self.multiplicity != "skip")
            if not (looks and self._reached(best)) or self._complete():
                return best
            if self._nothing_left(best):
                return self._best()

    def _converge(self) -> Ritz:
        """Multiply what weighs most in the worst residual, until none is too large."""
        while True:
            best = self._best()
            self._exhausted |= not self.space.open
            if self._complete() or self._spent() or self._reached(best) or self._hopeless(best):
                return best
            if self._make_room():
                best = self._best()
            if not self.space.open:
                self._random()
            worst = np.argmax(best.residuals / np.maximum(self._accepted(best), _TINY))
            self.space.multiply([self.space.heaviest(best.mix[:, worst])])

    def _nothing_left(self, best: Ritz) -> bool:
        """Look in the complement of the basis for what belongs among ``best``."""
        if self._make_room(self.max_vectors // 4):
            best = self._best()
        self.space.forget_rounding()
        margin = float(self._accepted(best).max())  # closer to the last of them makes no difference
        low, high = self.wanted.bounds(best.values)
        check = Complement(
            self.operator.shape[0] - len(self.space.basis), (low - margin, high + margin)
        )
        latest = self._random()
        if latest is None:  # the basis is complete, and some of it was not multiplied yet
            self.space.multiply(self.space.open[:1])
            return False
        full = self._exhausted or self.multiplicity == "full"
        while not self._spent():
            added = self.space.multiply([latest])
            column = self.space.images()[:, -1]
            check.diagonal.append(float(column[latest]))
            check.off.append(float(column[added[0]]) if added else 0.0)
            self.overlooked = check.chance
            now = self._best()
            if self._moved(best, now) or not self._reached(now):
                return False
            over = len(check.diagonal) >= _CHECK and not full and not check.suspicious()
            if over or check.chance <= _CHANCE["full" if full else "check"]:
                return True
            if not added or self._full():  # out of room: `overlooked` says what that leaves open
                return True
            latest = added[0]
        return True

    def _best(self) -> Ritz:
        ritz = self.space.ritz()
        return ritz.take(self.wanted.best(ritz.values))

    def _accepted(self, pairs: Ritz) -> Array:
        return self.wanted.accepted(pairs.values, self.space.scale)

    def _reached(self, pairs: Ritz) -> bool:
        enough = len(pairs.values) == self.wanted.k
        return enough and self.wanted.reached(pairs.values, pairs.residuals, self.space.scale)

    def _hopeless(self, pairs: Ritz) -> bool:
        """Only what no product can cure keeps the residuals up: the products are noisy."""
        rest = np.sqrt(np.maximum(pairs.residuals**2 - pairs.asymmetry**2, 0))
        enough = len(pairs.values) == self.wanted.k
        return enough and self.wanted.reached(pairs.values, rest, self.space.scale)

    def _moved(self, before: Ritz, now: Ritz) -> bool:
        a, b = before.values, now.values
        if self.wanted.which == "LM":  # of 3 and -3 either may come first
            a, b = np.abs(a), np.abs(b)
        return bool((np.abs(a - b) > self._accepted(now)).any())

    def _spent(self) -> bool:
        return self.operator.products >= self.budget

    def _complete(self) -> bool:
        return len(self.space.done) == self.operator.shape[0]

    def _full(self, spare: int = 0) -> bool:
        params, most = self.operator.shape[0], self.max_vectors
        return most < params and len(self.space.basis) + spare >= most

    def _make_room(self, spare: int = 0) -> bool:
        """Where the memory is full but for ``spare`` vectors, keep the better half of the Ritz vectors."""
        if not self._full(spare):
            return False
        ritz = self.space.ritz()
        count = max(self.wanted.k, (self.max_vectors - len(self.space.open)) // 2)
        self.space.restart(ritz.take(best_first(ritz.values, self.wanted.which)[:count]))
        return True

    def _first(self) -> Tensor:
        """A random unit vector, with one that the operator may know to lie near its leading ones."""
        q = random_unit(self.operator, self.seed, "lanczos")
        knows = getattr(self.operator, "start", None) if self.wanted.which != "SA" else None
        known = knows() if knows else None
        if known is not None and float(known.norm()) > 0:
            known = known / float(known.norm())
            q = q + known if float(q @ known) >= 0 else q - known  # they must not cancel
        return q

    def _random(self) -> int | None:
        self._starts += 1
        return self.space.random_start(self.seed, "complement", self._starts)
