"""Which eigenvalue method suits this machine: by timing a few products."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from landscape.directions import generator
from landscape.operators.symmetric import SymmetricOperator

_BLOCK = 5
_PASSES = (
    6  # that block Lanczos needed for five pairs, where plain Lanczos needed 3 products a pair:
)
_PER_PAIR = 3  # means over networks' spectra


@dataclass(frozen=True)
class Calibration:
    """A choice of method and what it rests on.

    Attributes:
        method: ``"lanczos"`` or ``"block"``.
        single: seconds of one product.
        block: seconds of a pass with five vectors.
        reason: a sentence.
    """

    method: str
    single: float
    block: float
    reason: str


def choose_method(operator: SymmetricOperator, k: int) -> Calibration:
    """Block Lanczos where a block of products is so cheap that it wins with twice the products.

    For five pairs of a network's Hessian, Lanczos needs about 15 products and block Lanczos 30 in 6
    passes. So blocks win where a pass with five vectors costs less than 2.5 single products: where
    loading, augmentation or kernel launches dominate. Times one product twice and one block: seven
    products. The clock decides, so the choice can differ from run to run.

    Args:
        operator: the operator; its product count moves on by seven.
        k: pairs that are wanted.

    >>> from landscape.operators.symmetric import MatrixOperator
    >>> choose_method(MatrixOperator(torch.eye(50)), k=5).method in ("lanczos", "block")
    True
    """
    drawn = generator(0, "calibration").standard_normal((_BLOCK, operator.shape[0]))
    vectors = torch.from_numpy(drawn).to(operator.theta)
    first, second = _seconds(operator, vectors[:1]), _seconds(operator, vectors[:1])
    single, block = min(first, second), _seconds(operator, vectors)
    each = max(block - single, 0.0) / (_BLOCK - 1)
    blocks = _PASSES * (single + each * (k + 1))  # blocks of k + 2
    plain = _PER_PAIR * k * single
    method = "block" if blocks < plain else "lanczos"
    reason = (
        f"a product takes {single:.2g} s and {_BLOCK} at once {block:.2g} s: about {plain:.2g} s by "
        f"lanczos, {blocks:.2g} s by block"
    )
    return Calibration(method, single, block, reason)


def _seconds(operator: SymmetricOperator, vectors: torch.Tensor) -> float:
    """Wall time of one pass; what it returns is read, so that a GPU has finished."""
    start = time.perf_counter()
    float(operator.rows(vectors).sum())
    return time.perf_counter() - start
