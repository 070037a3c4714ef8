"""Random perturbations of a point: every one is evaluated once, whichever measure asks for it.

A mean over draws and terms needs neither every draw on every term nor the same draws on all of them: each
piece of the data gets draws of its own, and a *round*, which gives each piece one pair ``±δ``, holds as many
independent pairs as there are pieces at the price of one pair on all the data.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.normalization import normalized
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import Point

SCALINGS = ("plain", "adaptive", "filter", "layer")
"""How a draw is scaled against the weights; see :func:`perturbation`."""

PIECE = 128
"""Most terms that share a draw, where the data can be cut."""

_LEAST_ROUNDS = 8  # of 4 the scatter is too little known: 95 % intervals held 92 %

_STILL = {"filter": ("bias", "norm"), "layer": ("norm",)}  # roles that do not move


def perturbation(
    point: Point, scaling: str, radius: float, draw: int, floor: float = 0.0
) -> Tensor:
    """``δ (params,)`` made of draw number ``draw`` of standard normal numbers ``z``.

    ============  ==============================================================================
    ``plain``     ``radius z``
    ``adaptive``  ``√(radius² w² + floor²) z``, entry by entry: a weight of 0 stays 0 without a floor
    ``filter``    ``radius z_i ‖w_i‖/‖z_i‖`` for each filter ``i``; biases and norm layers stay (the
                  rule "filter" of :func:`landscape.directions.random_plane`)
    ``layer``     ``radius z_l ‖w_l‖/‖z_l‖`` for each tensor ``l``; norm layers stay
    ============  ==============================================================================

    Raises:
        NotApplicable: nothing moves, because the weights that could are zero.

    >>> from landscape.objective import FunctionObjective
    >>> line = FunctionObjective(lambda t: t.sum(), torch.tensor([3.0, 4.0]).double())
    >>> round(float(perturbation(Point(line), "layer", 0.1, draw=0).norm()), 9)  # 0.1 * 5
    0.5
    """
    z, w = point.normal(draw), point.theta
    if scaling == "plain":
        return radius * z
    if scaling == "adaptive":
        step = (
            torch.hypot(radius * w, torch.full_like(w, floor)) if floor else radius * w.abs()
        ) * z
    else:
        step = radius * relative(point, z, scaling)
    if not bool(step.any()):
        raise NotApplicable(
            f"nothing moves under the scaling {scaling!r}: the weights that could are all zero"
        )
    return step


def relative(point: Point, vector: Tensor, scaling: str) -> Tensor:
    """``vector (params,)`` with each filter or tensor as long as that of the weights.

    Args:
        point: gives the weights and the space.
        vector: any.
        scaling: ``"filter"`` or ``"layer"``.
    """
    space = point.objective.space
    weights = space.unflatten(point.theta.double())
    pieces = []
    for (name, v), role, grouping in zip(
        space.unflatten(vector.double()).items(), space.roles, space.groupings, strict=True
    ):
        moved = normalized(v, weights[name], scaling, grouping)
        pieces.append((v * 0 if role in _STILL[scaling] else moved).reshape(-1))
    return torch.cat(pieces).to(vector)


def pair(
    point: Point, scaling: str, radius: float, draw: int, floor: float = 0.0
) -> dict[str, Tensor]:
    """Rises of the terms at ``w + δ`` and ``w − δ``: ``"loss"`` ``(2, terms)``, float64; ⅔ FB, once.

    With ``"accuracy"`` ``(2, terms)`` where the objective has classes: how much it rises. All measures
    that ask for the same perturbation get the same numbers, which stay in memory as long as the point: 16
    bytes a term, and as many again for the accuracy.
    """

    def compute() -> dict[str, Tensor]:
        here, step = point.scores, perturbation(point, scaling, radius, draw, floor)
        sides = [point.scores_at(point.theta + sign * step) for sign in (1, -1)]
        return {
            name: torch.stack([side[name] - here[name] for side in sides])
            for name in ("loss", "accuracy")
            if all(name in found for found in (here, *sides))
        }

    key = ("pair", scaling, float(radius), draw, float(floor))
    found: dict[str, Tensor] = point.once(key, compute)
    return found


def pieces_of(point: Point) -> list[Point]:
    """The pieces of the data with draws of their own; the point alone where there is one.

    A loss that is one scalar a batch stays whole: of a part of the batch it may be another function.
    """
    pieces = point.pieces(PIECE)
    return pieces if any(len(piece.terms) > 1 for piece in pieces) else [point]


def rounds_of(pairs: int, pieces: int) -> int:
    """Rounds that hold at least ``pairs`` independent pairs, one for each of the ``pieces``.

    >>> rounds_of(16, 1), rounds_of(16, 3), rounds_of(16, 8)
    (16, 8, 8)
    """
    return pairs if pieces == 1 else max(_LEAST_ROUNDS, math.ceil(pairs / pieces))


def drawn(point: Point, pairs: int) -> dict[str, int]:
    """``pairs`` as asked, with ``rounds`` and ``pieces`` where there are several, for the settings of a row."""
    pieces = len(pieces_of(point))
    made = {"rounds": rounds_of(pairs, pieces), "pieces": pieces} if pieces > 1 else {}
    return {"pairs": pairs, **made}


def even_parts(
    point: Point,
    scaling: str,
    radius: float,
    pairs: int,
    floor: float = 0.0,
    quantity: str = "loss",
) -> Tensor:
    """Means over ``±δ`` of the rises of the terms, ``(rounds, terms)``: the gradient cancels in each.

    In round ``r``, piece ``b`` of ``B`` gets draw ``r B + b``; the pieces follow each other in their order.
    Every mean over the terms weighs the pieces by their size.
    """
    pieces = pieces_of(point)
    count = len(pieces)
    return torch.stack(
        [
            torch.cat(
                [
                    pair(piece, scaling, radius, begin + b, floor)[quantity].mean(0)
                    for b, piece in enumerate(pieces)
                ]
            )
            for begin in range(0, count * rounds_of(pairs, count), count)
        ]
    )


def check_pairs(name: str, pairs: int) -> None:
    """ValueError for fewer than two pairs."""
    if pairs < 2:
        raise ValueError(f"{name}: pairs is {pairs}, expected at least 2 for an error estimate")
