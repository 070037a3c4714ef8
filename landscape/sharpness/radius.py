"""The radius at which a rising function reaches a target: a bracket, then safeguarded secants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from landscape.sharpness.measurement import NotApplicable

_NEAR, _FAR = (
    1.1,
    1.65,
)  # ratios: nearer, a slope is that of the steps of a 0/1 error; farther, of a chord
_MOST_MOVE = 10.0  # a factor, while there is no bracket
_MARGIN = 0.05  # of a bracket, at both ends, where no secant may land
_MOST_VALUES = 40


@dataclass(frozen=True)
class Crossing:
    """Where the function crosses the target.

    Attributes:
        radius: the crossing; the function was evaluated there.
        slope: derivative of the function by the logarithm of the radius, over a finite distance.
        error: how far ``log radius`` may be from the crossing.
        converged: whether the tolerance was met.
        seen: every value by radius.
    """

    radius: float
    slope: float
    error: float
    converged: bool
    seen: Mapping[float, float]


def crossing(
    rise: Callable[[float], float],
    target: float,
    ladder: Sequence[float],
    tol: float = 0.01,
    limits: tuple[float, float] = (1e-6, 1e3),
) -> Crossing:
    """A radius where ``rise`` goes through ``target``, the largest of the last bracket that is below it.

    Until the target is bracketed: the values of the ladder from its middle outwards, then where a parabola
    would reach the target. Then secants between the logarithms of radius and rise, on which a power law is
    a line, never closer to an end than a twentieth of the bracket. It ends where the rise is within ``tol``
    of the target, relatively, or the ends of the bracket are within ``tol``, relatively: a 0/1 error is a
    step function. One more value is taken for the slope where none is near. A rise that is not a number
    counts as infinite.

    Args:
        rise: increasing, at least on the whole; of mean error or loss.
        target: positive.
        ladder: increasing radii where a value costs nothing or little.
        tol: relative.
        limits: smallest and largest radius.

    Raises:
        NotApplicable: the target is not crossed within the limits.

    >>> found = crossing(lambda r: 3 * r**2, 0.75, ladder=(0.1, 0.2))
    >>> round(found.radius, 9), round(found.slope, 9)  # d rise / d log r = 2 * rise
    (0.5, 1.5)
    """
    seen: dict[float, float] = {}

    def at(radius: float) -> float:
        value = rise(radius)
        seen[radius] = math.inf if math.isnan(value) else value
        return seen[radius]

    low, high = first = _bracket(at, target, ladder, limits)
    while len(seen) < _MOST_VALUES and not _done(low, high, seen, target, tol):
        radius = _secant(low, high, seen, target)
        low, high = (radius, high) if at(radius) <= target else (low, radius)
    nearest = min((low, high), key=lambda r: abs(seen[r] - target))
    met = abs(seen[nearest] - target) <= tol * target
    radius = nearest if met else low
    span = _span(radius, seen)
    if span is None or span[1] / span[0] > _FAR:
        at(radius * (1.2 if high / radius > radius / low else 1 / 1.2))
    slope = _slope(radius, first, seen)
    error = math.log(high / low)
    if met and slope > 0:
        error = min(error, abs(seen[radius] - target) / slope)
    return Crossing(radius, slope, error, _done(low, high, seen, target, tol), seen)


def _bracket(
    at: Callable[[float], float],
    target: float,
    ladder: Sequence[float],
    limits: tuple[float, float],
) -> tuple[float, float]:
    """Neighbouring radii with ``at(low) <= target < at(high)``."""
    radius = ladder[len(ladder) // 2]
    value = at(radius)
    up, least = value <= target, 1.0
    while True:
        steps = [r for r in ladder if r > radius] if up else [r for r in ladder[::-1] if r < radius]
        if steps:
            following = steps[0]
        else:
            least *= 2  # a curve that has saturated must not be followed in small steps
            move = _move(value, target, up, least)
            following = min(radius * move, limits[1]) if up else max(radius / move, limits[0])
        if not limits[0] < radius < limits[1]:
            raise NotApplicable(
                f"a rise of {target:g} is {'not reached' if up else 'exceeded'} even at the radius {radius:g}"
            )
        value = at(following)
        if (value <= target) != up:
            return (radius, following) if up else (following, radius)
        radius = following


def _move(value: float, target: float, up: bool, least: float) -> float:
    """Factor to where a parabola through ``value`` passes the target by half of the radius."""
    if not 0 < value < math.inf:
        return _MOST_MOVE
    factor = 1.5 * math.sqrt(target / value if up else value / target)
    return min(max(factor, least), _MOST_MOVE)


def _done(low: float, high: float, seen: Mapping[float, float], target: float, tol: float) -> bool:
    nearest = min(abs(seen[low] - target), abs(seen[high] - target))
    return nearest <= tol * target or math.log(high / low) <= tol


def _secant(
    low: float,
    high: float,
    seen: Mapping[float, float],
    target: float,
) -> float:
    below, above = seen[low] / target, seen[high] / target
    below, above = (math.log(below), math.log(above)) if below > 0 else (below - 1, above - 1)
    share = -below / (above - below) if math.isfinite(above) and above > below else 0.5
    share = min(max(share, _MARGIN), 1 - _MARGIN)
    return low * math.pow(high / low, share)


def _slope(radius: float, first: tuple[float, float], seen: Mapping[float, float]) -> float:
    """Slope by the logarithm of the radius between the values of :func:`_span`, or NaN.

    That of the power law through both values, where they are positive.
    """
    span, value, slope = _span(radius, seen), seen[radius], math.nan
    if span is not None:
        below, above, width = seen[span[0]], seen[span[1]], math.log(span[1] / span[0])
        slope = (above - below) / width
        if min(below, above, value) > 0:
            slope = value * math.log(above / below) / width
    if not 0 < slope < math.inf:
        slope = (seen[first[1]] - seen[first[0]]) / math.log(first[1] / first[0])
    return slope if 0 < slope < math.inf else math.nan


def _span(radius: float, seen: Mapping[float, float]) -> tuple[float, float] | None:
    """The nearest radii around this one, or one of them itself, that are not too near."""
    finite = [r for r, value in seen.items() if math.isfinite(value)]
    spans = [(a, b) for a in finite for b in finite if a <= radius <= b and b / a >= _NEAR]
    return min(spans, key=lambda ends: ends[1] / ends[0], default=None)
