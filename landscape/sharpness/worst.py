"""The largest rise of the loss within a ball, over a ladder of radii."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.directions import generator
from landscape.sharpness.climb import Ball, Spot, Top, climb
from landscape.sharpness.corners import FEW, SOFTNESS, inside, random_corners, turned
from landscape.sharpness.measurement import Measurement, estimate
from landscape.sharpness.point import Point, length, measured, positive

_NOISE = 0.01  # of a random direction in the first step, which leaves symmetric places


@measured
def worst_l2(
    point: Point,
    rho: float = 0.05,
    steps: int = 20,
    ladder: Sequence[float] = (0.01, 0.1, 0.25, 0.5),
    m: int | None = 128,
) -> Measurement:
    """Largest rise of the loss within a ball.

    ``max over ‖δ‖₂ ≤ ρ of L(w + δ) − L(w)``

    Andriushchenko et al. 2023 (A Modern Look at Sharpness), section 3; Foret et al. 2021, eq. 1. How the
    maximum is sought is told in :func:`landscape.sharpness.climb.climb`. The value is a lower bound of the
    maximum, never below that of ``sam`` of the same radius, nor of a smaller radius of the ladder. At a
    minimum of a quadratic it is ``½ρ² λ_max``.

    With ``m``, the mean over pieces of at most ``m`` examples (or tasks) of each piece's own maximum
    (m-sharpness, Foret et al. 2021, section 4.1): what is usually published, with ``m = 128``.

    Args:
        point: where.
        rho: radius, in units of the weights.
        steps: gradients for each radius (and each piece), at most; a search that stalls ends before.
        ladder: further radii, each a variant; the search for a radius starts at the maximum of its
            neighbour, so it costs less than one of its own.
        m: size of the pieces of the variants of m-sharpness; ``None`` for none. An objective that is one
            piece or cannot be cut has none.

    Errors are paired over the data at the maximum found: by the envelope theorem its own movement does not
    count, to first order.

    Raises:
        ValueError: a radius that is not positive, steps or m below 1.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(worst_l2(Point(bowl), rho=0.1).value, 9)  # at a minimum: rho ** 2 / 2 * lambda_max
    0.05
    """
    return _measure(point, "worst_l2", rho, steps, ladder, m)


@measured
def worst_l2_adaptive(
    point: Point,
    rho: float = 0.5,
    steps: int = 20,
    ladder: Sequence[float] = (0.05, 0.25, 1.0, 2.0),
    m: int | None = 128,
) -> Measurement:
    """Largest rise of the loss within an ellipsoid whose axes are the magnitudes of the weights.

    ``max over ‖δ/|w|‖₂ ≤ ρ of L(w + δ) − L(w), δᵢ = 0 where wᵢ = 0``

    Andriushchenko et al. 2023 (A Modern Look at Sharpness), section 3, after Kwon et al. 2021 (ASAM). It
    does not change when the weights of a ReLU network are rescaled without changing its function. At a
    minimum of a quadratic it is ``½ρ² λ_max(DHD)``, ``D = diag(|w|)``. Steps are those of the ellipsoid's
    own metric, ``w²⊙g/‖|w|⊙g‖``; the published code steps along ``|w|⊙g/‖g‖``, which is not the direction
    of steepest ascent in it, and its values are lower (and its norm is NaN where a weight is 0).

    Args:
        point: where.
        rho: radius, relative to the weights.
        steps: as for ``worst_l2``.
        ladder: further radii.
        m: as for ``worst_l2``.

    Raises:
        ValueError: a radius that is not positive, steps or m below 1.

    >>> from landscape.objective import FunctionObjective
    >>> slope = FunctionObjective(lambda t: t.sum(), torch.tensor([3.0, 4.0, 0.0]).double())
    >>> round(worst_l2_adaptive(Point(slope), rho=0.5).value, 9)  # 0.5 * |(3, 4)|
    2.5
    """
    return _measure(point, "worst_l2_adaptive", rho, steps, ladder, m)


@measured
def worst_linf_adaptive(
    point: Point,
    rho: float = 2e-3,
    steps: int = 20,
    ladder: Sequence[float] = (1e-3, 4e-3, 8e-3),
    m: int | None = 128,
) -> Measurement:
    """Largest rise of the loss when every weight may move by a fraction of itself.

    ``max over |δᵢ| ≤ ρ|wᵢ| of L(w + δ) − L(w)``

    Andriushchenko et al. 2023 (A Modern Look at Sharpness), section 3. It does not change when the weights
    of a ReLU network are rescaled without changing its function. For a linear loss it is ``ρ Σ |wᵢgᵢ|``; at
    a minimum of a quadratic whose Hessian has no negative entry ``½ρ² |w|ᵀH|w|``.

    The value is a lower bound of the maximum, and no more than a local one: a convex loss may have one at
    each of the ``2ⁿ`` corners, and the best of them is hard to find (NP-hard for a quadratic). Up to three
    gradients inside the box come before the corners, which find sharp directions first. With at most 64
    weights the search also starts from random corners, and ends where no turn of a single weight gains.

    Args:
        point: where.
        rho: radius, relative to each weight.
        steps: as for ``worst_l2``, without those inside the box; rounds of single turns too.
        ladder: further radii.
        m: as for ``worst_l2``.

    Raises:
        ValueError: a radius that is not positive, steps or m below 1.

    >>> from landscape.objective import FunctionObjective
    >>> slope = FunctionObjective(lambda t: t.sum(), torch.tensor([3.0, -4.0, 0.0]).double())
    >>> round(worst_linf_adaptive(Point(slope), rho=0.01).value, 9)
    0.07
    """
    return _measure(point, "worst_linf_adaptive", rho, steps, ladder, m)


@dataclass(frozen=True)
class _Rung:
    """The outcome for one radius: the rise of every term at the maximum."""

    rises: Tensor
    stalled: bool
    seen: float = 0.0
    shares: Tensor | None = None


def _measure(
    point: Point, name: str, rho: float, steps: int, ladder: Sequence[float], m: int | None
) -> Measurement:
    positive(name, rho=rho)
    for radius in ladder:
        positive(name, **{"a radius of the ladder": radius})
    if steps < 1:
        raise ValueError(f"{name}: steps is {steps}, expected at least 1")
    if m is not None and m < 1:
        raise ValueError(f"{name}: m is {m}, expected at least 1, or None for no m-sharpness")
    radii = tuple(dict.fromkeys([rho, *ladder]))
    sorts: list[int | None] = [None] if m is None or not point.pieces(m) else [None, m]

    def compute() -> dict[tuple[float, int | None], _Rung]:
        scale = torch.ones_like(point.theta) if name == "worst_l2" else point.theta.abs()
        ball = Ball(scale, name == "worst_linf_adaptive")
        return _ladder(point, ball, sorted(radii), steps, sorts[-1])

    rungs = point.once((name, tuple(sorted(radii)), steps, sorts[-1]), compute)
    rows = [
        _row(point, name, rungs[radius, size], {"rho": radius, "steps": steps, "m": size or "all"})
        for size in sorts
        for radius in radii
    ]
    return replace(rows[0], variants=tuple(rows[1:]))


def _row(point: Point, name: str, rung: _Rung, settings: dict[str, float | str]) -> Measurement:
    value = float(rung.rises.mean() if rung.shares is None else rung.shares @ rung.rises)
    note = "lower bound of the maximum; the error is paired over the data at the point found"
    influence = point.influence()
    if value == math.inf:
        note = "the loss overflows within the ball"
    elif math.isnan(value):
        note = "the loss is not finite at the point itself"
    else:
        of = "" if rung.shares is None else "parts"
        influence = point.influence(rung.rises, weights=rung.shares, of=of)
        if math.isnan(rung.seen):
            note = f"{note}; the loss is not a number in a part of the ball"
    return estimate(name, value, influence, settings, note=note, converged=rung.stalled)


def _ladder(
    point: Point, ball: Ball, radii: Sequence[float], steps: int, m: int | None
) -> dict[tuple[float, int | None], _Rung]:
    """The maxima by radius and size of piece (``None``: one ``δ`` for all data)."""
    first = point.gradient * ball.scale
    drawn = generator(point.seed, "worst_l2").standard_normal(first.numel())
    noise = torch.from_numpy(drawn).to(first)
    # At an exact minimum the slope is zero, and the first step is all random.
    noise = noise * ((_NOISE * length(first) or 1.0) / length(noise))
    start = Spot(torch.zeros_like(first), 0.0, first + noise * (ball.scale > 0))
    starts = _box_starts(point, ball, _first(radii), steps, start) if ball.box else [start]
    whole, places = _rungs(
        point, ball, radii, steps, starts,
        lambda radius: point.rise(ball.scale * ball.farthest(first, radius)),
    )  # fmt: skip
    found: dict[tuple[float, int | None], _Rung] = {(r, None): rung for r, rung in whole.items()}
    pieces = [] if m is None else point.pieces(m)
    if not pieces:
        return found
    parted = len(point.terms) > 1
    counts = [len(piece.terms) for piece in pieces]
    columns = []
    for i, piece in enumerate(pieces):

        def common(radius: float, i: int = i) -> Tensor:
            """What the maximum of all data is to this piece."""
            return torch.split(whole[radius].rises, counts)[i]

        begin = _look(piece, ball, places[_first(radii)])
        columns.append(_rungs(piece, ball, radii, steps, [begin], common if parted else None)[0])
    sizes = torch.tensor([piece.share for piece in pieces], dtype=torch.float64)
    shares = None if parted else sizes / sizes.sum()
    for radius in radii:
        rungs = [column[radius] for column in columns]
        found[radius, m] = _Rung(
            torch.cat([rung.rises for rung in rungs]),
            all(rung.stalled for rung in rungs),
            sum(rung.seen for rung in rungs),
            shares,
        )
    return found


def _first(radii: Sequence[float]) -> float:
    """The radius that is searched first: the largest but one, as the largest is the least convex."""
    return radii[max(len(radii) - 2, 0)]


def _box_starts(point: Point, ball: Ball, rho: float, steps: int, start: Spot) -> list[Spot]:
    """Where a search in a box may start: on a path inside it and, with few weights, at corners."""
    for softness in SOFTNESS[: steps - 1]:
        spot = _look(point, ball, inside(start.slope, rho, softness))
        if not (math.isfinite(spot.rise) and bool(spot.slope.isfinite().all())):
            break
        start = spot
    if len(start.u) > FEW:
        return [start]
    corners = random_corners(point.seed, rho, start.u)
    return [start, *(_look(point, ball, corner) for corner in corners)]


def _rungs(
    point: Point,
    ball: Ball,
    radii: Sequence[float],
    steps: int,
    starts: Sequence[Spot],
    other: Callable[[float], Tensor] | None,
) -> tuple[dict[float, _Rung], dict[float, Tensor]]:
    """Maxima by radius, and their places; ``other`` gives further rises to beat at a radius.

    The :func:`_first` radius is searched from all ``starts``, then those above it and those below, each from
    the maximum of its neighbour: at a small radius a search from zero is slow to leave the gradient for the
    sharp directions.
    """
    first = radii.index(_first(radii))
    rises: dict[float, Tensor] = {}
    tops: dict[float, Top] = {}
    places: dict[float, Tensor] = {}
    for path in (radii[first:], radii[:first][::-1]):
        of = radii[first]
        for radius in path:
            begin = list(starts)
            if tops:
                spot = tops[of].spot
                spot = spot if radius >= of else _look(point, ball, spot.u * (radius / of))
                begin = [spot if math.isfinite(spot.rise) else starts[0]]
            ends = [_summit(point, ball, radius, steps, start) for start in begin]
            top, found, place = max(ends, key=lambda end: _height(end[1]))
            rises[radius], tops[radius], places[radius] = found, top, place
            of = radius
    rungs = {}
    best = point.terms - point.terms  # zero, and NaN where the loss itself is not finite
    for radius in radii:
        rivals = [best, rises[radius], *([] if other is None else [other(radius)])]
        best = max(rivals, key=_height)
        rungs[radius] = _Rung(best, tops[radius].stalled, tops[radius].seen)
    return rungs, places


def _summit(
    point: Point, ball: Ball, radius: float, steps: int, start: Spot
) -> tuple[Top, Tensor, Tensor]:
    """Where a search ends, the rises at the best place, and that place."""
    top = climb(lambda u: _look(point, ball, u), ball, radius, steps, start)

    def rise(u: Tensor) -> Tensor:
        return point.rise(ball.scale * u)

    place = top.next  # a last step that costs no gradient
    found = rise(place)
    if not float(found.mean()) >= top.spot.rise:
        place = top.spot.u
        found = rise(place)
    if ball.box and len(place) <= FEW and math.isfinite(float(found.mean())):
        free = ball.scale.nonzero().flatten().tolist()
        better, found = turned(rise, place, found, radius, free, steps)
        if better is not place:
            place = better
            top = replace(top, spot=_look(point, ball, place))
    return top, found, place


def _height(rises: Tensor) -> float:
    return -math.inf if rises.mean().isnan() else float(rises.mean())


def _look(point: Point, ball: Ball, u: Tensor) -> Spot:
    loss, gradient = point.loss_and_gradient(point.theta + ball.scale * u)
    return Spot(u, loss - float(point.terms.mean()), ball.scale * gradient)
