"""Ways to a good corner of a box, where a convex loss has many local maxima."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from landscape.directions import generator

FEW = 64
"""Coordinates up to which they are turned one by one."""

RESTARTS = 4
"""Random corners to start from where there are few coordinates."""

SOFTNESS = (4.0, 3.0, 2.0)
"""Slopes, in units of their mean magnitude, that reach the side of the box, step by step."""

_GAIN = 1e-6  # of the rise: less is rounding


def inside(slope: Tensor, rho: float, softness: float) -> Tensor:
    """A place of the box ``[-ρ, ρ]ⁿ`` along ``slope``, cut at its sides; zero where there is no slope.

    With less softness it moves to the corner of the slope's signs. Steps of decreasing softness take the
    sharp directions before signs are settled (annealing in a mean field, Peterson & Anderson 1987).

    >>> inside(torch.tensor([9.0, -2.0, 1.0, 0.0]), 1.0, 2.0).tolist()  # their mean magnitude is 4
    [1.0, -0.25, 0.125, 0.0]
    """
    size = float(slope.abs().double().sum()) / max(int(slope.count_nonzero()), 1)
    if not (math.isfinite(size) and size > 0):
        return torch.zeros_like(slope)
    return rho * (slope / (softness * size)).clamp(-1, 1)


def random_corners(seed: int, rho: float, like: Tensor) -> list[Tensor]:
    """:data:`RESTARTS` corners of the box ``[-ρ, ρ]ⁿ``, each of the shape of ``like``."""
    drawn = [generator(seed, "corner", i).standard_normal(len(like)) for i in range(RESTARTS)]
    return [rho * torch.from_numpy(z).to(like).sign() for z in drawn]


def turned(
    rise: Callable[[Tensor], Tensor],
    u: Tensor,
    found: Tensor,
    rho: float,
    free: Sequence[int],
    sweeps: int,
) -> tuple[Tensor, Tensor]:
    """A place of the box ``[-ρ, ρ]ⁿ`` that no turn of one coordinate to the other side improves.

    Args:
        rise: terms of the rise ``(terms,)`` at a place of the box.
        u: place to begin with.
        found: what ``rise(u)`` is.
        rho: half a side of the box.
        free: coordinates that may be turned.
        sweeps: rounds over the coordinates, at most.

    Returns:
        The place, and the terms of the rise there.
    """
    last = None
    for _ in range(sweeps):
        for i in free:
            if i == last:  # a whole round without gain
                return u, found
            last = i if last is None else last
            for side in (-rho, rho):
                if float(u[i]) == side:
                    continue
                trial = u.clone()
                trial[i] = side
                there = rise(trial)
                best = float(found.mean())
                if float(there.mean()) > best + _GAIN * abs(best):
                    u, found, last = trial, there, i
    return u, found
