"""Random probes of the Hessian, shared by all measures that are traces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.directions import generator
from landscape.operators.summed import PartsOperator
from landscape.operators.symmetric import SymmetricOperator
from landscape.sharpness.point import Point
from landscape.spectra.eigenpairs import Eigenpairs
from landscape.spectra.estimators import without
from landscape.spectra.stability import Preconditioned

_BLOCK = 8  # probes that go through the data together
_MEMORY = 2**28  # bytes that the images of all parts may take


@dataclass(frozen=True, eq=False)
class Probed:
    """Traces as each random probe sees them, the eigenvectors at hand taken out exactly.

    Attributes:
        traces: ``tr A`` by each probe, float64 ``(probes,)``.
        squares: ``tr A²`` by each probe, ``(probes,)``.
        blocks: trace of the diagonal block of each tensor, ``(probes, tensors)``.
        parts: ``tr A_b`` of each part of the data ``(parts,)``; ``None`` without parts.
        square_parts: ``tr A A_b``, whose mean is ``tr A²``; ``None`` too where it took too much memory.
        block_parts: trace of the diagonal block of each tensor in ``A_b (I - VVᵀ)`` of each part, ``(parts,
            tensors)``; what is deflated has :func:`deflated_blocks`. ``None`` without parts.
        deflated: eigenvectors taken out.
        exact: the probes were an orthonormal basis of all the rest: a single "probe", without error.
    """

    traces: Tensor
    squares: Tensor
    blocks: Tensor
    parts: Tensor | None
    square_parts: Tensor | None
    block_parts: Tensor | None
    deflated: int
    exact: bool

    @property
    def draws(self) -> Tensor | None:
        """The probes' traces, or nothing where they have no error."""
        return None if self.exact else self.traces


def probed(
    point: Point, operator: SymmetricOperator, pairs: Eigenpairs, probes: int, name: str
) -> Probed:
    """``zᵀ A z`` and what else the products with random signs ``z`` tell, at one product a probe.

    With ``z̃ = (I - VVᵀ) z``: ``tr A = Σ λ + E z̃ᵀAz̃``, ``tr A² = Σ λ² + E ‖Az̃‖²``, and of the block of
    tensor ``t``, as ``E zzᵀ = I`` and ``AV = VΛ``, ``Σ λ ‖v_t‖² + E z_tᵀ(Az̃)_t``. Where a basis
    of the complement has no more vectors than there are probes it takes their place, and all is exact.

    Args:
        point: the point; its ledger pays.
        operator: the Hessian of the point, or one made of it.
        pairs: eigenpairs to deflate.
        probes: at least 2.
        name: under which it is shared.

    Raises:
        ValueError: fewer than two probes.
    """
    if probes < 2:
        raise ValueError(f"probes is {probes}: expected at least 2 for an error estimate")

    def compute() -> Probed:
        with point.products(operator):
            return _probe(operator, pairs, probes, point.seed)

    found: Probed = point.once(("probes", name, probes, *_key(pairs)), compute)
    return found


def _probe(operator: SymmetricOperator, pairs: Eigenpairs, probes: int, seed: int) -> Probed:
    params, k = operator.shape[0], len(pairs.values)
    locked = pairs.vectors.to(operator.theta)
    values = pairs.values.double()
    exact = params - k <= probes
    count = params - k if exact else probes
    basis = _complement(locked) if exact else None
    watched = isinstance(operator, PartsOperator | Preconditioned) and operator.weights is not None
    parts = len(operator.weights) if watched else 0  # type: ignore[attr-defined]
    bytes_each = parts * params * operator.theta.element_size()
    # A part's images are kept until their sum is known; fewer probes at a time take less.
    block = _BLOCK if _BLOCK * bytes_each <= _MEMORY else 1
    keeps = watched and block * bytes_each <= _MEMORY
    traces, squares, blocks = [], [], []
    sums = torch.zeros(parts, dtype=torch.float64)
    square_sums = torch.zeros(parts, dtype=torch.float64)
    block_sums = torch.zeros(parts, len(operator.space.sizes), dtype=torch.float64)
    for first in range(0, count, block):
        numbers = range(first, min(first + block, count))
        raw = _signs(numbers, operator, seed) if basis is None else basis[list(numbers)]
        vectors = without(locked, raw)
        images_of: dict[int, Tensor] = {}

        def watch(  # type: ignore[no-untyped-def]
            part: int, _: float, images: Tensor, raw=raw, vectors=vectors, of=images_of
        ) -> None:
            sums[part] += float((vectors.double() * images.double()).sum())
            block_sums[part] += _by_tensor(operator, raw.double() * images.double()).sum(0).cpu()
            if keeps:
                of[part] = images

        if watched:
            with operator.watching(watch):  # type: ignore[attr-defined]
                images = operator.rows(vectors)
        else:
            images = operator.rows(vectors)
        inner = without(locked, images)
        for part, own in images_of.items():
            square_sums[part] += float((inner.double() * own.double()).sum())
        traces.append((vectors.double() * images.double()).sum(1))
        # Twice the whole less the inner part: what is left of AV - VΛ counts on both sides of the diagonal.
        twice = 2 * images.double().square() - inner.double().square()
        squares.append(twice.sum(1))
        blocks.append(_by_tensor(operator, raw.double() * (2 * images - inner).double()))
    if watched:
        team = operator.team  # type: ignore[attr-defined]
        sums, square_sums = team.sum(sums), team.sum(square_sums)
        block_sums = team.sum(block_sums)
    scale = 1.0 if exact else 1 / max(count, 1)
    own = _by_tensor(operator, locked.double().square()) if k else torch.zeros(0, 1)
    known = (values.to(own.device)[:, None] * own).sum(0).cpu() if k else 0.0
    quotients = pairs.quotients if watched else None
    if not traces:  # every eigenvector was deflated
        traces = squares = [torch.zeros(1, dtype=torch.float64)]
        blocks = [torch.zeros(1, len(operator.space.sizes), dtype=torch.float64)]
    return Probed(
        _whole(traces, exact) + float(values.sum()),
        _whole(squares, exact) + float(values.square().sum()),
        _whole(blocks, exact) + known,
        None if quotients is None else scale * sums + quotients.sum(1),
        scale * square_sums + quotients @ values if keeps and quotients is not None else None,
        scale * block_sums if watched else None,
        k,
        exact,
    )


def deflated_blocks(point: Point, operator: SymmetricOperator, pairs: Eigenpairs) -> Tensor | None:
    """``Σ_k v_ktᵀ(A_b v_k)_t`` of part ``b`` and tensor ``t``, at one product an eigenpair: ``(parts, tensors)``.

    The probes do not see the eigenvectors, and the search for them notes no more than the sums over the
    tensors. ``None`` where there are fewer than two parts.
    """
    if not isinstance(operator, PartsOperator) or operator.parts < 2:
        return None

    def compute() -> Tensor:
        vectors = pairs.vectors.to(operator.theta)
        found = torch.zeros(operator.parts, len(operator.space.sizes), dtype=torch.float64)

        def watch(part: int, _: float, images: Tensor) -> None:
            found[part] = _by_tensor(operator, vectors.double() * images.double()).sum(0).cpu()

        with point.products(operator), operator.watching(watch):
            operator.rows(vectors)
        return operator.team.sum(found)

    made: Tensor = point.once(("deflated blocks", *_key(pairs)), compute)
    return made


def _whole(pieces: list[Tensor], exact: bool) -> Tensor:
    """All probes one after the other, or the sum over a basis as a single one."""
    rows = torch.cat(pieces).cpu()
    return rows.sum(0, keepdim=True) if exact else rows


def _by_tensor(operator: SymmetricOperator, rows: Tensor) -> Tensor:
    """``(count, params)`` -> sums over each tensor ``(count, tensors)``."""
    pieces = torch.split(rows, list(operator.space.sizes), 1)
    return torch.stack([piece.sum(1) for piece in pieces], 1)


def _signs(numbers: range, operator: SymmetricOperator, seed: int) -> Tensor:
    rows = [
        generator(seed, "trace", i).integers(0, 2, operator.shape[0], dtype=np.int8) * 2 - 1
        for i in numbers
    ]
    return torch.from_numpy(np.stack(rows)).to(operator.theta)


def _complement(locked: Tensor) -> Tensor:
    """Orthonormal rows of the complement of ``locked (k, params)``; for few dimensions."""
    made: Tensor = torch.linalg.qr(locked.T, mode="complete").Q.T[len(locked) :].contiguous()
    return made


def _key(pairs: Eigenpairs) -> tuple[object, ...]:
    return (len(pairs.values), pairs.settings["tol"])
