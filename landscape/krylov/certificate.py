"""From a search to certified eigenpairs: an audit of the products, true residuals where it fails."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.directions import generator
from landscape.krylov.basis import length
from landscape.krylov.power import PowerSearch
from landscape.krylov.projection import Projection, Ritz
from landscape.krylov.wanted import Array, Wanted
from landscape.operators.symmetric import SymmetricOperator


class Found(ABC):
    """Pairs as a search leaves them: ``values`` and ``residuals (k,)`` by the products it made."""

    values: Array
    residuals: Array
    scale: float
    passes: int
    memory_bytes: int

    @abstractmethod
    def mixture(self, weights: Array) -> tuple[Tensor, Tensor]:
        """``Σ weightsᵢ vᵢ`` and its image by the products that were made, each ``(params,)``."""

    @abstractmethod
    def vectors(self) -> Tensor:
        """The vectors ``(k, params)``; the last call, as it frees the memory of the search."""


class FoundByKrylov(Found):
    """Ritz pairs of a projection."""

    opposite: tuple[float, float] | None
    opposite_quotients: Tensor | None

    def __init__(self, space: Projection, best: Ritz, which: str) -> None:
        self._space, self._best = space, best
        self.values, self.residuals = best.values, best.residuals
        self.scale, self.passes = space.scale, space.passes
        self.memory_bytes = space.basis.peak_bytes
        self.opposite = self.opposite_quotients = None
        mix = best.mix
        if which != "BE":
            ritz = space.ritz()
            low = which == "LA" or (which == "LM" and best.values[0] >= 0)
            end = 0 if low else len(ritz.values) - 1
            self.opposite = (float(ritz.values[end]), float(ritz.residuals[end]))
            mix = np.column_stack([mix, ritz.mix[:, end]])
        quotients, self.weights = _of_all(space, mix)
        if quotients is not None and which != "BE":
            self.opposite_quotients = quotients[:, -1]
        self.quotients = None if quotients is None else quotients[:, : len(best.values)]

    def mixture(self, weights: Array) -> tuple[Tensor, Tensor]:
        """See :class:`Found`."""
        mix, basis = self._best.mix @ weights, self._space.basis
        return basis.combine(self._space.in_basis(mix)), basis.combine(self._space.images() @ mix)

    def vectors(self) -> Tensor:
        """See :class:`Found`."""
        self._space.basis.rotate(self._space.in_basis(self._best.mix))
        return self._space.basis.first_block()


class FoundByPower(Found):
    """Rayleigh-Ritz pairs of the vectors of a power iteration."""

    def __init__(self, search: PowerSearch, passes: int) -> None:
        vectors, images = search.vectors.double(), search.images.double()
        small = (vectors @ images.T).cpu().numpy()
        values, mix = np.linalg.eigh((small + small.T) / 2)
        order = search.wanted.best(values)
        turn = torch.from_numpy(mix[:, order].T.copy()).to(vectors.device)
        self.values = values[order]
        self._vectors, self._images = turn @ vectors, turn @ images
        ritz = torch.from_numpy(self.values.copy()).to(vectors.device)
        errors = self._images - ritz[:, None] * self._vectors
        self.residuals = errors.norm(dim=1).cpu().numpy()
        self.scale = max(search.scale, float(np.abs(values).max()))
        self.passes = passes
        self._like = search.vectors
        self.memory_bytes = 2 * search.vectors.numel() * search.vectors.element_size()

    def mixture(self, weights: Array) -> tuple[Tensor, Tensor]:
        """See :class:`Found`."""
        w = torch.from_numpy(weights).to(self._vectors)
        return (w @ self._vectors).to(self._like), (w @ self._images).to(self._like)

    def vectors(self) -> Tensor:
        """See :class:`Found`."""
        return self._vectors.to(self._like)


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the pairs are worth.

    Attributes:
        vectors: ``(k, params)``.
        residuals: ``(k,)``, float64.
        discrepancy: length of the difference between a product made again and the record of it.
        passes: calls of the operator that the audit took.
        converged: every residual is accepted.
        outcome: the sentence.
    """

    vectors: Tensor
    residuals: Tensor
    discrepancy: float
    passes: int
    converged: bool
    outcome: str


def certify(
    operator: SymmetricOperator,
    found: Found,
    wanted: Wanted,
    seed: int,
    begin: int,
    budget: int,
    advice: str = "",
) -> Certificate:
    """Audit ``found`` with one product, and with one more for each pair that it leaves in doubt.

    The residuals follow from products already made, so they are those of the operator only if it
    repeats itself, is linear, and rounds well. One random-sign mixture of all vectors is multiplied
    again: its squared error is on average the mean of the squared errors of the ``k`` images, so
    ``√k`` times its length stands for the error of each of them and is added to every residual. Where
    that makes a residual too large, it comes from a fresh product instead; all of them do where
    the discrepancy is beyond rounding.

    Args:
        operator: the operator.
        found: pairs to certify.
        wanted: which tolerance they were to meet.
        seed: of the signs.
        begin: value of ``operator.products`` before the search.
        budget: value of ``operator.products`` not to pass.
        advice: what else to try if they did not converge.
    """
    k = len(found.values)
    signs = generator(seed, "audit").integers(0, 2, k) * 2.0 - 1
    mixture, recorded = found.mixture(signs / math.sqrt(k))
    discrepancy = length(recorded.sub_(operator.matvec(mixture).detach()))
    passes = 1
    del mixture, recorded
    limits = wanted.accepted(found.values, found.scale)
    residuals = found.residuals + math.sqrt(k) * discrepancy
    vectors = found.vectors()
    noisy = discrepancy > float(limits.min())
    failed = np.full(k, True) if noisy else (residuals > limits) & (found.residuals <= limits)
    if failed.any() and operator.products + failed.sum() <= budget:
        rows = vectors[torch.from_numpy(failed).to(vectors.device)]
        images = operator.rows(rows).detach()
        passes += 1
        residuals[failed] = [
            length(image - float(value) * v)
            for image, value, v in zip(images, found.values[failed], rows, strict=True)
        ]
    worst = int(np.argmax(residuals / limits)) if limits.min() > 0 else int(np.argmax(residuals))
    converged = bool((residuals <= limits).all())
    made = operator.products - begin
    if converged:
        outcome = f"{k} pair{'s' if k > 1 else ''} converged in {made} products"
    else:
        outcome = (
            f"not converged after {made} products: eigenvalue {float(found.values[worst]):.4g} has "
            f"residual {float(residuals[worst]):.2g}, asked for {limits[worst]:.2g}; "
        )
        noise = "compute in float64, and switch off what is random in the loss"
        patience = f"raise max_products, raise tol, or compute in float64{advice}"
        outcome += noise if noisy else patience
    if noisy:
        outcome += (
            f"; the products are noisy: one that was made again differs by {discrepancy:.2g}, so the "
            "operator does not repeat itself or rounds too coarsely"
        )
    return Certificate(
        vectors, torch.from_numpy(residuals), discrepancy, passes, converged, outcome
    )


def _of_all(space: Projection, mix: Array) -> tuple[Tensor | None, Tensor | None]:
    """Quotients and weights of all parts, those of other processes included."""
    own = space.quotients(mix)
    weights = getattr(space.operator, "weights", None)
    if not space.spread or weights is None:
        return None, None
    whole = torch.zeros(len(weights), mix.shape[1], dtype=torch.float64)
    if own is not None:
        whole[: len(own)] = torch.from_numpy(own)
    return space.operator.team.sum(whole), weights  # type: ignore[attr-defined]
