"""Lanczos in a complement, and the Gauss quadrature that its matrix stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape.operators.symmetric import SymmetricOperator
from landscape.spectra.estimators import without

Array = np.ndarray[Any, np.dtype[np.float64]]
Tridiagonal = tuple[Array, Array]
"""Diagonal ``(steps,)`` and off-diagonal ``(steps - 1,)``."""


def tridiagonals(
    operator: SymmetricOperator, starts: Tensor, locked: Tensor, steps: int, scale: float = 0.0
) -> list[Tridiagonal]:
    """Lanczos matrices in the complement of ``locked``, all starts in step with each other.

    Args:
        operator: the operator.
        starts: unit rows ``(count, params)`` orthogonal to ``locked``.
        locked: orthonormal rows ``(k, params)``.
        steps: at most; at most the dimension of the complement.
        scale: norm of the operator as far as known; rounding errors are relative to it.

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


def rule(tridiagonal: Tridiagonal) -> tuple[Array, Array]:
    """Nodes and weights of the Gauss quadrature that a Lanczos matrix stands for."""
    nodes, vectors = eigh_tridiagonal(*tridiagonal)
    return nodes, vectors[0] ** 2
