"""Which parameters a task adapts, and inner learning rates that are learned."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.config import ADAPTED, RATES


def adapted_mask(
    space: ParameterSpace, adapted: str = "all", norm_affine: bool = True
) -> Tensor | None:
    """Which entries of the parameter vector the inner loop moves, bool ``(params,)``; ``None``: all.

    Args:
        space: the parameters.
        adapted: ``"all"``; ``"head"``, the last module alone (ANIL, Raghu et al. 2020); ``"body"``, all
            but the last module (BOIL, Oh et al. 2021).
        norm_affine: whether scale and shift of norm layers are adapted.

    Raises:
        ValueError: an unknown name, or nothing is left to adapt.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    >>> adapted_mask(ParameterSpace.from_module(net), "head").int()
    tensor([0, 0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.int32)
    """
    if adapted not in ADAPTED:
        raise ValueError(f"adapted is {adapted!r}: expected one of {', '.join(ADAPTED)}")
    last = space.names[-1].rpartition(".")[0]
    chosen = []
    for name, role in zip(space.names, space.roles, strict=True):
        head = name.rpartition(".")[0] == last
        moves = adapted == "all" or head == (adapted == "head")
        chosen.append(moves and (norm_affine or role != "norm"))
    if all(chosen):
        return None
    if not any(chosen):
        raise ValueError(
            f"adapted={adapted!r} with norm_affine={norm_affine} leaves no parameter to adapt"
        )
    flags = [torch.full((size,), flag) for size, flag in zip(space.sizes, chosen, strict=True)]
    return torch.cat(flags)


def initial_rates(
    space: ParameterSpace, kind: str, steps: int, rate: float, dtype: torch.dtype | None = None
) -> Tensor | None:
    """Learned rates at the start of training, all equal to ``rate``.

    Args:
        space: the parameters.
        kind: ``"fixed"``: none; ``"parameter"``: ``(params,)`` (Meta-SGD, Li et al. 2017); ``"layer"``:
            ``(steps, tensors)``, one for each tensor and step (MAML++, Antoniou et al. 2019).
        steps: inner steps.
        rate: where they start.
        dtype: of the rates, that of the weights; torch's default when left out.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in RATES:
        raise ValueError(f"rates is {kind!r}: expected one of {', '.join(RATES)}")
    if kind == "fixed":
        return None
    shape = (space.size,) if kind == "parameter" else (steps, len(space.names))
    return torch.full(shape, rate, dtype=dtype)


def expanded_rates(rates: Tensor, space: ParameterSpace) -> Tensor:
    """Learned rates as the inner loop takes them: ``(params,)`` or ``(steps, params)``."""
    if rates.ndim == 1:
        return rates
    return rates.repeat_interleave(torch.tensor(space.sizes, device=rates.device), 1)


def contracted_rates(gradient: Tensor, rates: Tensor, space: ParameterSpace) -> Tensor:
    """The gradient for ``rates`` from the one for each step and parameter ``(steps, params)``."""
    if rates.ndim == 1:
        return gradient.sum(0)
    return torch.stack([piece.sum(1) for piece in torch.split(gradient, list(space.sizes), 1)], 1)
