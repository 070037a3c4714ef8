"""The ascent step of sharpness-aware minimization: gradient and radius -> epsilon.

One global radius over all parameters jointly, as in SAM (Foret et al. 2021, eq. 2), its adaptive form
ASAM (Kwon et al. 2021, eq. 9) and Sharp-MAML (Abbas et al. 2022, eqs. 11 and 13).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Perturbation = Callable[[Tensor, Tensor, float], Tensor]
"""``(gradient (params,), theta (params,), radius) -> epsilon (params,)``."""


def sam(gradient: Tensor, theta: Tensor, radius: float) -> Tensor:
    """``radius · g / ‖g‖``; zero where the gradient is zero. ``theta`` does not matter.

    >>> sam(torch.tensor([3.0, 4.0]), torch.zeros(2), 0.5)
    tensor([0.3000, 0.4000])
    """
    return gradient * (radius / _norm(gradient))


def asam(gradient: Tensor, theta: Tensor, radius: float) -> Tensor:
    """``radius · T²g / ‖Tg‖`` with ``T = |theta|``: the ball grows with the weights.

    >>> asam(torch.tensor([1.0, 1.0]), torch.tensor([3.0, -4.0]), 0.5)
    tensor([0.9000, 1.6000])
    """
    scale = theta.abs()
    return scale.square() * gradient * (radius / _norm(scale * gradient))


RULES: dict[str, Perturbation] = {"sam": sam, "asam": asam}
"""Perturbation rules by name."""


def _norm(vector: Tensor) -> Tensor:
    # The floor turns 0/0 into 0: at a stationary point there is no direction of ascent. It is the root of
    # the smallest number because the squares in a norm below it vanish: an ascent would outgrow its radius.
    norm: Tensor = torch.linalg.vector_norm(vector)
    return norm.clamp_min(torch.finfo(vector.dtype).tiny ** 0.5)
