"""Symmetric matrices that are known by their products only: what every spectral computation works on."""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from landscape.space import ParameterSpace


class Record(Protocol):
    """Products that were made before, and are made now."""

    def replayed(self, vectors: Tensor) -> tuple[Tensor, float] | None:
        """Products of rows and their cost, if they were made before."""

    def keep(self, vectors: Tensor, made: Tensor, cost: float) -> None:
        """Keep products that were made now."""


class SymmetricOperator(ABC):
    """``v -> A v`` with ``A = Aᵀ``, ``(params, params)``, never formed; counts its products.

    Attributes:
        kind: what ``A`` is: ``"hessian"``, ``"ggn"``, ``"fisher"``.
        theta: the point, ``(params,)``: the coordinates that ``A`` acts on.
        space: names and shapes of those coordinates.
        products: products made so far.
        cost: FB spent so far by this process' own count, where the operator counts them.
        record: keeps the products on disk (:func:`landscape.operators.recording.recording`), if anything.
        settings: what to record beside numbers made from it.
    """

    kind = "operator"

    def __init__(self, theta: Tensor, space: ParameterSpace) -> None:
        self.theta = theta
        self.space = space
        self.products = 0
        self.cost = 0.0
        self.record: Record | None = None
        self._replayed = False  # an earlier process paid for what is kept between products
        self.settings: dict[str, Any] = {"operator": self.kind}

    @property
    def shape(self) -> tuple[int, int]:
        """``(params, params)``."""
        return (self.theta.numel(), self.theta.numel())

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors in and out."""
        return self.theta.dtype

    @property
    def device(self) -> torch.device:
        """Of vectors in and out."""
        return self.theta.device

    @property
    def product_cost(self) -> float:
        """Cost of one product in gradients of the same loss over the same data (FB)."""
        return 3.0

    def matvec(self, v: Tensor) -> Tensor:
        """``A v`` for ``v (params,)``.

        Raises:
            ValueError: the product has NaN or infinite entries, or ``v`` another shape.
        """
        if tuple(v.shape) != (self.shape[1],):
            raise ValueError(f"v has shape {tuple(v.shape)}, expected ({self.shape[1]},)")
        return self.rows(v[None])[0]

    def rows(self, vectors: Tensor) -> Tensor:
        """``A v`` for each row: ``(count, params)`` -> ``(count, params)``, in one pass over the data.

        Raises:
            ValueError: a product has NaN or infinite entries, or the rows another length.
        """
        if vectors.dim() != 2 or vectors.shape[1] != self.shape[1]:
            raise ValueError(
                f"vectors have shape {tuple(vectors.shape)}, expected (count, {self.shape[1]})"
            )
        products = self._recorded(vectors.detach().to(self.theta))
        self.products += len(vectors)
        if not torch.isfinite(products).all():
            raise ValueError(
                f"the {self.kind} is not finite at this point: the loss or a derivative overflows "
                "there; check the weights, or compute in float64"
            )
        return products

    def _recorded(self, vectors: Tensor) -> Tensor:
        if self.record is None:
            return self._products(vectors)
        found = self.record.replayed(vectors)
        if found is not None:
            self.cost += found[1]
            self._replayed = True
            return found[0]
        before = self.cost
        made = self._products(vectors)
        self.record.keep(vectors, made, self.cost - before)
        return made

    def release(self) -> None:  # noqa: B027 - most keep nothing
        """Give back what is kept in memory between products; later ones make it again."""

    @abstractmethod
    def _products(self, vectors: Tensor) -> Tensor:
        """``(count, params)`` -> ``(count, params)``."""

    def __matmul__(self, v: Tensor) -> Tensor:
        """``A v`` for one vector ``(params,)``, or for each column of ``(params, count)``."""
        return self.rows(v.T.contiguous()).T if v.dim() == 2 else self.matvec(v)

    def to_scipy(self) -> LinearOperator:
        """The same operator for ``scipy.sparse.linalg``: float64 NumPy vectors in and out."""

        def product(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            rows = np.ascontiguousarray(v.reshape(self.shape[1], -1).T, dtype=np.float64)
            made = self.rows(torch.from_numpy(rows).to(self.theta)).double().cpu().numpy()
            return np.ascontiguousarray(made.T).reshape(v.shape)

        return LinearOperator(
            self.shape, matvec=product, rmatvec=product, matmat=product, dtype=np.float64
        )


class MatrixOperator(SymmetricOperator):
    """A dense symmetric matrix as an operator: for tests, and for matrices made elsewhere.

    >>> (MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 3.0]])) @ torch.tensor([1.0, 0.0])).tolist()
    [2.0, 1.0]
    """

    kind = "matrix"

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"the matrix has shape {tuple(matrix.shape)}, expected a square")
        super().__init__(matrix.new_zeros(len(matrix)), ParameterSpace.of_vector(len(matrix)))
        self._matrix = matrix

    def _products(self, vectors: Tensor) -> Tensor:
        return vectors @ self._matrix


def select(space: ParameterSpace, params: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of the tensors that patterns choose, in the order of the space.

    Args:
        space: all parameters.
        params: globs over parameter names, in a sequence or separated by commas; one that begins with
            ``-`` takes away from what the others chose (from everything, where no other is given), and
            ``weight``, ``bias`` and ``norm`` stand for the tensors of that role. ``None``: all.

    Raises:
        ValueError: a pattern matches no parameter, or none is left.

    >>> space = ParameterSpace.from_module(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)))
    >>> select(space, "1.*"), select(space, "-bias")
    (('1.weight', '1.bias'), ('0.weight', '1.weight'))
    """
    if params is None:
        return space.names
    patterns = params.split(",") if isinstance(params, str) else list(params)
    patterns = [pattern.strip() for pattern in patterns if pattern.strip()]
    chosen: set[str] = set(space.names) if all(p.startswith("-") for p in patterns) else set()
    for pattern in patterns:
        matched = {
            name
            for name, role in zip(space.names, space.roles, strict=True)
            if fnmatch.fnmatchcase(name, pattern.removeprefix("-"))
            or role == pattern.removeprefix("-")
        }
        if not matched:
            shown = ", ".join(space.names[:6]) + (", ..." if len(space.names) > 6 else "")
            raise ValueError(f"params: {pattern!r} matches no parameter; there are {shown}")
        chosen = chosen - matched if pattern.startswith("-") else chosen | matched
    if not patterns or not chosen:
        raise ValueError(f"params {params!r} leave no parameter")
    return tuple(name for name in space.names if name in chosen)
