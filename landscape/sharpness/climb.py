"""The search for the largest rise of a function in a ball."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.sharpness.point import length

_KEPT = 4  # targets that are mixed


@dataclass(frozen=True)
class Ball:
    """A unit ball around zero in coordinates ``u = δ / scale``: of the 2-norm, or a box."""

    scale: Tensor
    box: bool

    def farthest(self, slope: Tensor, rho: float) -> Tensor:
        """Where a linear function of this ``slope`` is largest; zero where it has none."""
        if self.box:
            return rho * slope.sign()
        norm = length(slope)
        return slope * (rho / norm) if norm > 0 else torch.zeros_like(slope)

    def within(self, u: Tensor, rho: float, outward: bool = False) -> Tensor:
        """The nearest point of the ball; with ``outward``, of its sphere (a box keeps its inside)."""
        if self.box:
            return u.clamp(-rho, rho)
        norm = length(u)
        return u * (rho / norm) if norm > rho or (outward and norm > 0) else u


@dataclass(frozen=True)
class Spot:
    """A place in a ball ``u``, and what is known there: the rise, and its slope in ``u``."""

    u: Tensor
    rise: float
    slope: Tensor


@dataclass(frozen=True)
class Top:
    """Where a search ended: the best place, the one it would have looked at next, whether it stalled.

    ``seen`` is 0, infinity or NaN: what the loss was on the way.
    """

    spot: Spot
    next: Tensor
    stalled: bool
    seen: float = 0.0


def climb(look: Callable[[Tensor], Spot], ball: Ball, rho: float, steps: int, start: Spot) -> Top:
    """The best place of the ball found from ``start``, which lies in it, in ``steps`` gradients at most.

    From a place of slope ``g`` the next one is the *target*, where ``gᵀu`` is largest on the ball: the
    conditional gradient with steps of length 1, which never loses height where the loss is convex, and is
    power iteration where it is quadratic. The last few targets are mixed to make the fixed point come
    sooner (Anderson 1965; type II of Walker & Ni 2011). Where a step does not gain, the next ones go from
    the best place ``u`` only a part of the way: in a box to its target, in a ball to the point of it nearest
    to ``u + g / σ``, with ``σ`` the curvature that the lost step has shown (projected gradients; on the sphere,
    power iteration with a shift), halved with every gain. The search stalls when two steps gain less than a
    part ``0.1/steps`` of the rise (after one that does not gain: what the slope promises of the next), so that
    all of its steps at that pace would have added less than a tenth.
    """
    best, target = start, ball.farthest(start.slope, rho)
    place, part, shift, mixed, quiet, seen = target, 1.0, 0.0, False, 0, 0.0
    past: list[tuple[Tensor, Tensor]] = []  # targets, and the way to them
    for _ in range(steps):
        here = look(place)
        if here.rise == math.inf:
            return Top(here, place, True, math.inf)
        known = math.isfinite(here.rise) and bool(here.slope.isfinite().all())
        gain = here.rise - best.rise if known else -math.inf
        if known:
            goal = ball.farthest(here.slope, rho)
            past = [*past, (goal, goal - place)][-_KEPT:]
        else:
            seen = math.nan
        failed_mix = mixed and gain <= 0
        if gain > 0:
            best, target, part = here, goal, min(1.0, 2 * part)
            shift = shift / 2 if shift * rho > length(best.slope) / 4 else 0.0
        elif not failed_mix:
            part /= 2
            shift = max(2 * shift, _curvature(best, place, gain))
        mixed = gain > 0 and shift == 0 and len(past) > 1 and not ball.box
        if mixed:
            place = ball.within(_mix(past), rho, outward=True)
        elif ball.box and part == 0.5 and known:
            # The targets are corners, and the search hops between two: their mean slope decides.
            place = ball.farthest(best.slope + here.slope, rho)
        elif ball.box:
            place = best.u + part * (target - best.u)
        else:
            place = ball.within(best.u + best.slope / shift, rho) if shift else target
        if known and best.rise > 0 and not failed_mix:
            worth = gain if gain > 0 or ball.box else float(best.slope @ (place - best.u))
            quiet = quiet + 1 if worth < 0.1 / steps * best.rise else 0
        if quiet == 2 or not bool(target.any()):
            return Top(best, place, True, seen)
    return Top(best, place, False, seen)


def _curvature(best: Spot, place: Tensor, gain: float) -> float:
    """Of the way from the best place to one that is lower, downwards; of an unknown height, twice the slope's."""
    way = place - best.u
    far = length(way)
    if far == 0:
        return 0.0
    if gain == -math.inf:
        return 2 * length(best.slope) / far
    return max(2 * (float(best.slope @ way) - gain) / far**2, 0.0)


def _mix(past: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The combination of the targets, of weights that sum to 1, whose ways to them cancel best."""
    targets, ways = (torch.stack(column) for column in zip(*past, strict=True))
    changes = ways.diff(dim=0).double()
    gram = changes @ changes.T
    gram.diagonal().add_(1e-6 * float(gram.diagonal().max()) or 1.0)
    weights = torch.linalg.solve(gram, changes @ ways[-1].double())
    mixed: Tensor = targets[-1] - weights.to(targets) @ targets.diff(dim=0)
    return mixed
