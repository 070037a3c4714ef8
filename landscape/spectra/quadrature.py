"""Lanczos in a complement, and the Gauss quadrature that its matrix stands for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape.operators.symmetric import SymmetricOperator
from landscape.spectra.estimators import without

Array = np.ndarray[Any, np.dtype[np.float64]]
Tridiagonal = tuple[Array, Array]
"""Diagonal ``(steps,)`` and off-diagonal ``(steps - 1,)``."""
Note = Callable[[int, int, int, float], None]


class Watched(Protocol):
    """An operator that tells what each of its parts contributes to a product."""

    weights: Tensor

    def watching(self, watch: Callable[[int, float, Tensor], None]) -> AbstractContextManager[None]:
        """See :meth:`landscape.operators.summed.PartsOperator.watching`."""


def tridiagonals(
    operator: SymmetricOperator,
    starts: Tensor,
    locked: Tensor,
    steps: int,
    scale: float = 0.0,
    note: Note | None = None,
) -> list[Tridiagonal]:
    """Lanczos matrices in the complement of ``locked``, all starts in step with each other.

    Args:
        operator: the operator.
        starts: unit rows ``(count, params)`` orthogonal to ``locked``.
        locked: orthonormal rows ``(k, params)``.
        steps: at most; at most the dimension of the complement.
        scale: norm of the operator as far as known; rounding errors are relative to it.
        note: called as ``note(part, start, step, q₁ᵀ A_part q_step)`` for every part of the operator, one
            that can be watched.

    Returns:
        A matrix for each start; smaller than ``steps`` where the Krylov space was exhausted.
    """
    count, params = starts.shape
    basis = starts.new_empty(count, steps, params)
    diagonals: list[list[float]] = [[] for _ in range(count)]
    offs: list[list[float]] = [[] for _ in range(count)]
    noise = 10 * torch.finfo(operator.dtype).eps * float(np.sqrt(params))
    active, vectors = list(range(count)), starts
    for step in range(steps):
        basis[active, step] = vectors
        if note is None:
            images = operator.rows(vectors)
        else:
            with cast(Watched, operator).watching(_couplings(note, starts, active, step)):
                images = operator.rows(vectors)
        following, going = [], []
        for i, q, w in zip(active, vectors, images, strict=True):
            diagonals[i].append(float(q.double() @ w.double()))
            w = without(basis[i, : step + 1], without(locked, w[None]))
            w = without(locked, w)[0]
            beta = float(w.double().norm())
            scale = max(scale, abs(diagonals[i][-1]) + (offs[i][-1] if step else 0.0))
            if step + 1 < steps and beta > noise * scale:
                offs[i].append(beta)
                following.append(w / beta)
                going.append(i)
        if not going:
            break
        active, vectors = going, torch.stack(following)
    return [(np.array(a), np.array(b)) for a, b in zip(diagonals, offs, strict=True)]


def _couplings(
    note: Note, starts: Tensor, active: list[int], step: int
) -> Callable[[int, float, Tensor], None]:
    def watch(part: int, _: float, images: Tensor) -> None:
        for i, image in zip(active, images, strict=True):
            note(part, i, step, float(starts[i].double() @ image.double()))

    return watch


def rule(tridiagonal: Tridiagonal) -> tuple[Array, Array]:
    """Nodes and weights of the Gauss quadrature that a Lanczos matrix stands for."""
    nodes, vectors = eigh_tridiagonal(*tridiagonal)
    return nodes, vectors[0] ** 2
