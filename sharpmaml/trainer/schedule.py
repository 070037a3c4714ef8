"""The meta learning rate as a pure function of the meta-update, and limits of the meta-gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCHEDULES = ("constant", "cosine")


def rate_at(iteration: int, iterations: int, rate: float, schedule: str) -> float:
    """Meta rate of meta-update ``iteration``, counted from 0.

    ``"cosine"`` is ``rate · (1 + cos(π iteration / iterations)) / 2`` (Loshchilov & Hutter 2017, eq. 5,
    without restarts): ``rate`` at the first, towards 0 at the last.

    Args:
        iteration: number of the meta-update.
        iterations: how many there will be.
        rate: the largest rate.
        schedule: one of `SCHEDULES`.

    Raises:
        ValueError: an unknown schedule.

    >>> [round(rate_at(i, 4, 1.0, "cosine"), 3) for i in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}: expected one of {', '.join(SCHEDULES)}")
    if schedule == "constant":
        return rate
    return rate * 0.5 * (1 + math.cos(math.pi * iteration / iterations))


def clipped(gradients: list[Tensor], value: float, norm: float) -> list[Tensor]:
    """Gradients within limits: first each entry, then the norm of all of them together.

    Args:
        gradients: of what is learned.
        value: largest magnitude of an entry (Finn et al. 2017 use 10 on mini-ImageNet); 0: no limit.
        norm: largest norm of all entries together (Pascanu et al. 2013, algorithm 1); 0: no limit.

    >>> clipped([torch.tensor([3.0, -9.0]), torch.tensor([0.0])], value=4, norm=0)[0]
    tensor([ 3., -4.])
    >>> clipped([torch.tensor([3.0, -9.0])], value=4, norm=1)[0]
    tensor([ 0.6000, -0.8000])
    """
    if value:
        gradients = [gradient.clamp(-value, value) for gradient in gradients]
    if norm:
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        # Stays on the device: asking the number would wait for a GPU.
        factor = (norm / torch.linalg.vector_norm(norms)).clamp(max=1.0)
        gradients = [gradient * factor for gradient in gradients]
    return gradients
