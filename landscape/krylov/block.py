"""Block Lanczos: several products in each pass over the data."""

from __future__ import annotations

from dataclasses import dataclass, field

from landscape.krylov.projection import Projection, Ritz
from landscape.krylov.wanted import Wanted
from landscape.operators.symmetric import SymmetricOperator


@dataclass
class BlockSearch:
    """Block Lanczos (Golub & Underwood 1977), orthogonalized in full, from a random block.

    A block of ``b`` holds up to ``b`` copies of an eigenvalue by itself. Directions that are left of a
    product only by rounding are dropped from the next block, which random ones fill up once none is
    left.

    Args:
        operator: the symmetric operator.
        wanted: which eigenpairs, and how well.
        seed: of the random block.
        budget: value of ``operator.products`` at which to stop.
        size: vectors in a block.
        spread: note the quotients of the parts.

    Attributes:
        space: the projection that the search works in.
    """

    operator: SymmetricOperator
    wanted: Wanted
    seed: int
    budget: int
    size: int
    spread: bool = False
    space: Projection = field(init=False)

    def __post_init__(self) -> None:
        self.space = Projection(self.operator, self.wanted.k, self.spread)
        self._starts = 0

    def run(self) -> Ritz:
        """Multiplies blocks until the wanted pairs have converged, and returns them."""
        params = self.operator.shape[0]
        while True:
            exhausted = not self.space.open
            if exhausted:
                self._fill()
            self.space.multiply(self.space.open[: self.budget - self.operator.products])
            ritz = self.space.ritz()
            best = ritz.take(self.wanted.best(ritz.values))
            reached = len(best.values) == self.wanted.k and self.wanted.reached(
                best.values, best.residuals, self.space.scale
            )
            # An exhausted block may have left copies out: only a look at a fresh one can tell.
            settled = reached and (self.space.open or exhausted or not self.wanted.repeatable)
            if settled or len(self.space.done) == params or self.operator.products >= self.budget:
                return best

    def _fill(self) -> None:
        for _ in range(min(self.size, self.operator.shape[0] - len(self.space.basis))):
            self._starts += 1
            self.space.random_start(self.seed, "block", self._starts)
