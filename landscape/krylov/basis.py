"""Orthonormal vectors in blocks of memory: grown without a copy, rotated in place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from landscape.krylov.wanted import Array

_ROWS = 4  # a later block; small, so that little is allocated before it is used

_PIECE = 1 << 18  # entries


class Basis:
    """Orthonormal rows ``(count, params)`` in blocks; no operation ever holds a second copy.

    Args:
        like: a vector ``(params,)`` of the dtype and device wanted.
        first: rows of the first block; :meth:`rotate` to as many leaves that block as the result.

    Attributes:
        peak_bytes: the most that the blocks, with one vector being added, have taken.
    """

    def __init__(self, like: Tensor, first: int) -> None:
        self._like = like
        self._blocks = [like.new_empty(first, like.numel())]
        self._count = 0
        self.peak_bytes = 0
        self._note(1)

    def __len__(self) -> int:
        return self._count

    def rows(self, indices: list[int]) -> Tensor:
        """A copy of some rows ``(len(indices), params)``; of one row, a view."""
        parts = [self._row(i)[None] for i in indices]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def append(self, v: Tensor) -> int:
        """Store ``v``, a unit vector orthogonal to the rows; returns its number."""
        if self._count == sum(map(len, self._blocks)):
            rows = min(_ROWS, max(v.numel() - self._count, 1))
            self._blocks.append(v.new_empty(rows, v.numel()))
            self._note(1)
        self._count += 1
        self._row(self._count - 1).copy_(v)
        return self._count - 1

    def pop(self) -> None:
        """Give up the last row."""
        self._count -= 1

    def coefficients(self, vectors: Tensor) -> Array:
        """Inner products of all rows with ``vectors (params,)`` or ``(count, params)``, a column each."""
        parts = self._inner(vectors)
        found: Array = torch.cat(parts).double().cpu().numpy() if parts else np.empty(0)
        return found.reshape(self._count, -1) if vectors.dim() == 2 else found

    def orthogonalize(self, vectors: Tensor, passes: int = 2) -> Array:
        """Take their part in the span of the rows out of ``vectors``, in place; returns what was taken.

        Twice, because once is not enough (Parlett, *The symmetric eigenvalue problem*, 6.9): the first
        pass leaves rounding errors of the length of what came in, the second of what it left over.
        """
        shape = (self._count, len(vectors)) if vectors.dim() == 2 else (self._count,)
        taken = np.zeros(shape)
        for _ in range(passes):
            parts = self._inner(vectors)
            for block, part in zip(self._filled(), parts, strict=True):
                if vectors.dim() == 2:
                    vectors.addmm_(part.T, block, alpha=-1)
                else:
                    vectors.addmv_(block.T, part, alpha=-1)
            if parts:
                taken += torch.cat(parts).double().cpu().numpy()
        return taken

    def combine(self, weights: Array) -> Tensor:
        """``Σ weights[i] row_i``, ``(params,)``."""
        total = torch.zeros_like(self._like)
        for block, part in zip(self._filled(), self._split(weights), strict=True):
            total.addmv_(block.T, torch.from_numpy(part.copy()).to(total))
        return total

    def rotate(self, mix: Array) -> None:
        """Replace the rows by ``mixᵀ rows``; ``mix (count, fewer or as many)`` has orthonormal columns.

        Column slab by column slab, in float64: two slabs are all that it needs beside the basis.
        """
        count, new = mix.shape
        turn = torch.from_numpy(mix.T.copy()).to(self._like.device)
        params = self._like.numel()
        width = max(4096, params // (8 * max(count, 1)))
        for start in range(0, params, width):
            slab = slice(start, start + width)
            old = torch.cat([block[:, slab].double() for block in self._filled()])
            made, row = (turn @ old).to(self._like.dtype), 0
            for block in self._blocks:
                part = made[row : row + len(block)]
                block[: len(part), slab] = part
                row += len(part)
        self._count = new
        kept = 0
        while kept < len(self._blocks) and sum(map(len, self._blocks[:kept])) < new:
            kept += 1
        del self._blocks[max(kept, 1) :]

    def first_block(self) -> Tensor:
        """The rows of the first block that are in use, without a copy."""
        return self._filled()[0]

    def _inner(self, vectors: Tensor) -> list[Tensor]:
        columns = vectors.T if vectors.dim() == 2 else vectors
        return [block @ columns for block in self._filled()]

    def _row(self, i: int) -> Tensor:
        for block in self._blocks:
            if i < len(block):
                return block[i]
            i -= len(block)
        raise IndexError(i)

    def _filled(self) -> list[Tensor]:
        """The part of each block that is in use."""
        left, parts = self._count, []
        for block in self._blocks:
            if left <= 0:
                break
            parts.append(block[:left])
            left -= len(block)
        return parts

    def _split(self, weights: Array) -> list[Array]:
        ends = np.cumsum([len(block) for block in self._filled()])
        return np.split(weights, ends[:-1]) if len(ends) else []

    def _note(self, more: int) -> None:
        rows = sum(map(len, self._blocks)) + more
        self.peak_bytes = max(
            self.peak_bytes, rows * self._like.numel() * self._like.element_size()
        )


def length(v: Tensor) -> float:
    """Euclidean norm, accumulated in float64 without a float64 copy of ``v``."""
    squares = [piece.double().square().sum() for piece in torch.split(v, _PIECE)]
    return float(torch.stack(squares).sum().sqrt())
