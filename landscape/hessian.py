"""The Hessian of an objective at a point, as a symmetric operator that is never formed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from landscape.objective import Objective


class HessianOperator:
    """``v -> H v`` with ``H`` the Hessian of ``objective`` at ``theta``; counts its products.

    Args:
        objective: any objective; its ``hvp`` does the work.
        theta: the point ``(params,)``; ``objective.theta`` when left out.

    Attributes:
        shape: ``(params, params)``.
        dtype: the dtype of ``theta``, that products are computed in.
        products: Hessian-vector products made so far; each costs about three gradients.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2))
    >>> hessian = HessianOperator(bowl)
    >>> (hessian @ torch.tensor([1.0, 1.0])).tolist(), hessian.products
    ([2.0, 4.0], 1)
    """

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        self.objective = objective
        self.theta = (objective.theta if theta is None else theta).detach()
        if tuple(self.theta.shape) != (objective.space.size,):
            raise ValueError(
                f"theta has shape {tuple(self.theta.shape)}, expected ({objective.space.size},)"
            )
        self.shape = (objective.space.size, objective.space.size)
        self.dtype = self.theta.dtype
        self.products = 0

    def matvec(self, v: Tensor) -> Tensor:
        """``H v`` for ``v (params,)``.

        Raises:
            ValueError: the product has NaN or infinite entries, or ``v`` another shape.
        """
        if tuple(v.shape) != (self.shape[1],):
            raise ValueError(f"v has shape {tuple(v.shape)}, expected ({self.shape[1]},)")
        product = self.objective.hvp(self.theta, v).detach()
        self.products += 1
        if not torch.isfinite(product).all():
            raise ValueError(
                "the Hessian is not finite at this point: the loss or a derivative overflows "
                "there; check the weights, or compute in float64"
            )
        return product

    def __matmul__(self, v: Tensor) -> Tensor:
        """``H v`` for one vector ``(params,)``, or for each column of ``(params, count)``."""
        if v.dim() == 2:
            return torch.stack([self.matvec(column) for column in v.T.contiguous()], dim=1)
        return self.matvec(v)

    def to_scipy(self) -> LinearOperator:
        """The same operator for ``scipy.sparse.linalg``: float64 NumPy vectors in and out."""

        def product(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            column = torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64).reshape(-1))
            return self.matvec(column.to(self.theta)).double().cpu().numpy()

        return LinearOperator(self.shape, matvec=product, rmatvec=product, dtype=np.float64)
