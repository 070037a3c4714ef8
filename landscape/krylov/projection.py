"""Rayleigh-Ritz on a growing basis whose products are written in the basis itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.directions import generator
from landscape.krylov.basis import Basis, length
from landscape.krylov.wanted import Array
from landscape.operators.symmetric import SymmetricOperator


@dataclass(frozen=True, eq=False)
class Ritz:
    """Ritz pairs of a :class:`Projection`, values ascending.

    Attributes:
        values: ``(m,)``.
        mix: ``(m, m)``, a column for each pair: its coordinates in the vectors that were multiplied.
        residuals: ``(m,)``, ``||A y - value y||`` by the products that were made.
        asymmetry: ``(m,)``, what of that no further product can take away: the products did not come
            from one symmetric matrix.
    """

    values: Array
    mix: Array
    residuals: Array
    asymmetry: Array

    def take(self, chosen: Array) -> Ritz:
        """Some of the pairs, in this order."""
        return Ritz(
            self.values[chosen],
            self.mix[:, chosen],
            self.residuals[chosen],
            self.asymmetry[chosen],
        )


class Projection:
    """Orthonormal vectors ``u_i`` and all coefficients ``C`` of ``A u_j = Σ_i C_ij u_i``.

    A product is orthogonalized against the basis twice, and what is left becomes a new basis vector. So
    its coefficients say all of it: Ritz pairs have the residuals of the products that were made, not
    of a recurrence, at the cost of none. Lanczos, block Lanczos, new starts in the complement and
    thick restarts differ only in the vector that they multiply next.

    Args:
        operator: the symmetric operator.
        first: rows of the first block of memory: the number of vectors that will be returned.
        spread: note the coefficients of every part of the operator too, see :meth:`quotients`.

    Attributes:
        spread: whether they are noted.
        basis: the vectors.
        done: numbers of those that were multiplied.
        open: numbers of those that were not yet.
        scale: estimate of the operator's norm: the longest product, or Ritz value, so far.
        passes: calls of the operator.
    """

    def __init__(self, operator: SymmetricOperator, first: int, spread: bool = False) -> None:
        self.operator = operator
        self.basis = Basis(operator.theta, first)
        self.done: list[int] = []
        self.open: list[int] = []
        self.scale = 0.0
        self.passes = 0
        self.spread = spread
        self._columns: dict[int, Array] = {}  # C, a column for each product
        self._dropped: dict[int, float] = {}  # length of what was rounding noise in that product
        self._parts: dict[int, dict[tuple[int, int], float]] = {}

    def start(self, v: Tensor) -> int | None:
        """Add the part of ``v`` outside the basis, to be multiplied; ``None`` if nothing is left of it.

        Works in the memory of ``v``.
        """
        v /= length(v)
        for _ in range(2):  # the second time for the rounding that a short remainder magnifies
            self.basis.orthogonalize(v)
            left = length(v)
            if left < 100 * torch.finfo(v.dtype).eps:
                return None
            v /= left
        self.open.append(self.basis.append(v))
        return self.open[-1]

    def random_start(self, seed: int, *key: object) -> int | None:
        """Add a random unit vector, uniform in the complement of the basis."""
        return self.start(random_unit(self.operator, seed, *key))

    def multiply(self, numbers: list[int]) -> list[int]:
        """Multiply these basis vectors, in one pass; returns the numbers of the new basis vectors."""
        if self.spread and hasattr(self.operator, "watch"):
            self.operator.watch = lambda part, _, images: self._note(part, numbers, images)
        try:
            vectors = self.basis.rows(numbers)
            images = self.operator.rows(vectors).detach()
            if images.untyped_storage().data_ptr() == vectors.untyped_storage().data_ptr():
                images = images.clone()  # an operator may return what it got; below, in place
        finally:
            if self.spread and hasattr(self.operator, "watch"):
                self.operator.watch = None
        self.passes += 1
        self.scale = max(self.scale, float(torch.linalg.vector_norm(images, dim=1).max()))
        columns = {j: np.zeros(len(self.basis)) for j in numbers}
        if len(numbers) > 1:
            taken = self.basis.orthogonalize(images, passes=1)
            columns = {j: taken[:, i] for i, j in enumerate(numbers)}
        for j in numbers:
            self.open.remove(j)
            self.done.append(j)
        added: list[int] = []
        left = list(range(len(numbers)))
        while left:  # longest first: what is left of the others at the end is rounding
            row = max(left, key=lambda i: float(torch.linalg.vector_norm(images[i])))
            left.remove(row)
            j, image = numbers[row], images[row]
            column = self.basis.orthogonalize(image)
            columns[j] = _padded(columns[j], len(column)) + column
            rest = length(image)
            if len(self.basis) == len(image) or rest <= self._rounding():
                self._dropped[j] = rest
                continue
            self._dropped[j] = 0.0
            image /= rest
            columns[j] = np.append(columns[j], rest)
            added.append(self.basis.append(image))
            for other in left:
                part = float(image @ images[other])
                images[other].add_(image, alpha=-part)
                earlier = _padded(columns[numbers[other]], len(self.basis))
                earlier[-1] += part
                columns[numbers[other]] = earlier
        self._columns.update(columns)
        self.open += added
        return added

    def forget_rounding(self) -> None:
        """Give up the last basis vectors where rounding made them more than products did.

        What is left of a product at the end of a Krylov space, divided by its length, is a vector of
        any direction. A start drawn in the complement of the basis would be orthogonal to it, and to the copies
        of eigenvalues that it may hold. Residuals stay: what is given up counts as dropped.
        """
        noise = math.sqrt(torch.finfo(self.operator.dtype).eps) * self.scale
        while self.open and self.open[-1] == len(self.basis) - 1:
            last = self.open[-1]
            couplings = {j: c[last] for j, c in self._columns.items() if len(c) > last}
            if not couplings or math.hypot(*couplings.values()) > noise:
                break
            for j, coupling in couplings.items():
                self._columns[j] = self._columns[j][:last]
                self._dropped[j] = math.hypot(self._dropped[j], coupling)
            self.open.pop()
            self.basis.pop()

    def ritz(self) -> Ritz:
        """The Ritz pairs of the vectors multiplied so far."""
        columns = self.images()
        square = columns[self.done]
        even = (square + square.T) / 2
        values, mix = np.linalg.eigh(even)
        self.scale = max(self.scale, float(np.abs(values).max()))
        errors = columns @ mix
        errors[self.done] -= mix * values
        dropped = np.abs(mix.T) @ np.array([self._dropped[j] for j in self.done])
        residuals = np.sqrt((errors**2).sum(0) + dropped**2)
        return Ritz(values, mix, residuals, np.linalg.norm((square - even) @ mix, axis=0))

    def images(self) -> Array:
        """Coefficients ``(basis, m)`` of the products made, in the order of ``done``."""
        return np.stack([_padded(self._columns[j], len(self.basis)) for j in self.done], axis=1)

    def heaviest(self, mix: Array) -> int:
        """The open vector that weighs most in the residual of the pair with coordinates ``mix (m,)``."""
        weights = np.abs(self.images()[self.open] @ mix)
        return self.open[int(np.argmax(weights))]

    def in_basis(self, mix: Array) -> Array:
        """Coordinates in the vectors multiplied ``(m, ...)`` -> coordinates in the basis."""
        whole = np.zeros((len(self.basis), *mix.shape[1:]))
        whole[self.done] = mix
        return whole

    def restart(self, kept: Ritz) -> None:
        """Shrink to these Ritz vectors and the open ones: a thick restart (Wu & Simon 2000)."""
        columns = self.images()
        count, coupling = kept.mix.shape[1], columns[self.open] @ kept.mix
        stay = np.zeros((len(self.basis), len(self.open)))
        stay[self.open, range(len(self.open))] = 1
        dropped = np.abs(kept.mix.T) @ np.array([self._dropped[j] for j in self.done])
        parts = {part: kept.mix.T @ self._of_part(part) @ kept.mix for part in self._parts}
        self.basis.rotate(np.concatenate([self.in_basis(kept.mix), stay], axis=1))
        self.done, self.open = list(range(count)), list(range(count, count + len(self.open)))
        self._columns = {
            j: np.concatenate([kept.values[j] * np.eye(count)[j], coupling[:, j]])
            for j in self.done
        }
        self._dropped = {j: float(np.hypot(dropped[j], kept.asymmetry[j])) for j in self.done}
        self._parts = {
            part: {(i, j): float(g[i, j]) for i in range(count) for j in range(count)}
            for part, g in parts.items()
        }

    def quotients(self, mix: Array) -> Array | None:
        """``yᵀ A_b y`` of each part ``b`` at the vectors with coordinates ``mix (m, k)``: ``(parts, k)``.

        By coefficients noted when the products were made; parts that another process has are zero.
        ``None`` where the operator told nothing of parts.
        """
        if not self._parts:
            return None
        found = np.zeros((max(self._parts) + 1, mix.shape[1]))
        for part in self._parts:
            found[part] = np.einsum("ik,ij,jk->k", mix, self._of_part(part), mix)
        return found

    def _of_part(self, part: int) -> Array:
        """``u_iᵀ A_b u_j`` over the vectors multiplied, ``(m, m)``."""
        table = self._parts[part]
        pairs = [[table.get((i, j), table.get((j, i), 0.0)) for j in self.done] for i in self.done]
        return np.array(pairs)

    def _note(self, part: int, numbers: list[int], images: Tensor) -> None:
        """Coefficients of one part; against all vectors so far, so one of (i, j), (j, i) gets known."""
        taken = self.basis.coefficients(images)
        table = self._parts.setdefault(part, {})
        for column, j in enumerate(numbers):
            table.update({(i, j): float(value) for i, value in enumerate(taken[:, column])})

    def _rounding(self) -> float:
        """Below this length what is left of a product is rounding: its space is exhausted.

        ``10 eps √params ||A||``, at most ``300 eps ||A||``, which is what products in fact show: with
        millions of float32 parameters the first would be 2e-3 of the norm, more than a residual.
        """
        eps = torch.finfo(self.operator.dtype).eps
        return float(10 * eps * min(np.sqrt(self.operator.shape[0]), 30) * self.scale)


def random_unit(operator: SymmetricOperator, seed: int, *key: object) -> Tensor:
    """A random unit vector ``(params,)``, uniform on the sphere."""
    drawn = generator(seed, *key).standard_normal(operator.shape[0])
    drawn /= np.linalg.norm(drawn)
    return torch.from_numpy(drawn).to(operator.theta)


def _padded(column: Array, size: int) -> Array:
    """``column`` with zeros for basis vectors that came later."""
    return np.concatenate([column, np.zeros(size - len(column))])
