"""How much the loss rises on average around the point.

All draws come in pairs ``±δ``, so that the gradient cancels. The mean rises give each piece of at most 128
terms pairs of its own (:mod:`landscape.sharpness.draws`): ``pairs`` counts those on all pieces together, at
least; a round, one pair on each piece, is one sample and costs ⅔ FB, and there are at least 4 rounds where there are
several pieces. Pieces are batches, cut where they are larger. The draws are the same at every radius and for every
objective of that size on the same pieces, so that differences of radii and of checkpoints are paired, and an
evaluation that two measures share is paid once.

The standard error is over the rounds and over the terms of the data together. What a draw does to a
single term is counted on both sides, which makes it a little too large. The interval allows for the skewness
of squares (:mod:`landscape.sharpness.skewness`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from landscape.sharpness.draws import check_pairs, drawn, even_parts, pair, perturbation, relative
from landscape.sharpness.measurement import Measurement, estimate
from landscape.sharpness.point import Point, measured, positive
from landscape.sharpness.skewness import corrected


@measured
def average(
    point: Point,
    sigma: float = 0.01,
    pairs: int = 16,
    ladder: Sequence[float] = (0.001, 0.02, 0.05, 0.1),
) -> Measurement:
    """Mean rise of the loss under Gaussian noise on the weights.

    ``E[L(w + δ)] − L(w), δ ~ N(0, σ² I)``

    The low-pass filter measure of Bisla et al. 2022, with ``L(w)`` subtracted; average-case sharpness
    of Andriushchenko et al. 2023. On ``½ wᵀAw`` it is ``½σ² tr A`` wherever ``w`` is. ``sigma``
    is in units of the weights; ``ladder`` holds other values of it, each a variant.

    >>> from landscape.objective import FunctionObjective
    >>> line = FunctionObjective(lambda t: t.sum(), torch.zeros(3, dtype=torch.float64))
    >>> abs(average(Point(line)).value) < 1e-15  # no curvature, and the slope cancels in each pair
    True
    """
    return _mean_rise(point, "average", "plain", "sigma", sigma, pairs, ladder)


@measured
def average_adaptive(
    point: Point,
    sigma: float = 0.1,
    pairs: int = 16,
    ladder: Sequence[float] = (0.01, 0.05, 0.2, 0.4),
) -> Measurement:
    """Mean rise of the loss under Gaussian noise in proportion to each weight.

    ``E[L(w + δ)] − L(w), δ ~ N(0, σ² diag(w²))``

    Average-case adaptive sharpness of Andriushchenko et al. 2023, whose radii are 0.05 to 0.4
    for ResNets. It does not change when the weights of a ReLU network are rescaled without changing its
    function; a weight of exactly zero stays zero. On ``½ wᵀAw`` it is ``½σ² Σ wᵢ² aᵢᵢ``. ``sigma`` has no
    unit.

    Raises:
        NotApplicable: all weights are zero.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + t[1] ** 2, torch.tensor([0.0, 2.0]).double())
    >>> row = average_adaptive(Point(bowl), sigma=0.5, pairs=400, ladder=())
    >>> abs(row.value - 0.5**2 * 2**2) < 4 * row.stderr
    True
    """
    return _mean_rise(point, "average_adaptive", "adaptive", "sigma", sigma, pairs, ladder)


@measured
def filter_average(
    point: Point,
    radius: float = 0.1,
    pairs: int = 16,
    ladder: Sequence[float] = (0.25, 0.5, 1.0),
) -> Measurement:
    """Mean rise of the loss along the random directions of filter-normalized surfaces.

    ``E[L(w + r d)] − L(w), d_i = z_i ‖w_i‖/‖z_i‖ for each filter i, z ~ N(0, I)``

    The number that belongs to the plots of Li et al. 2018, sec. 4: ``radius`` is their coordinate, so
    1 is the edge of the usual plot. Biases and norm layers stay. Rescaling whole layers of a ReLU
    network leaves it unchanged; rescaling single neurons does not, because the filter that reads a
    neuron has a length of its own. A formula is one tensor without filters and moves on the sphere of radius
    ``r‖w‖``: on ``½ wᵀAw`` it is ``½ r²‖w‖² tr A / params``.

    Raises:
        NotApplicable: all the weights that could move are zero.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]).double())
    >>> round(filter_average(Point(bowl), radius=0.1).value, 9)  # (0.1 * 5) ** 2
    0.25
    """
    return _mean_rise(point, "filter_average", "filter", "radius", radius, pairs, ladder)


@measured
def layer_relative(
    point: Point, xi: float = 0.5, pairs: int = 16, worst: float = 0.003, steps: int = 20
) -> Measurement:
    """Rise of the loss for perturbations in proportion to the length of each layer, on average and at worst.

    ``E[L(w + δ)] − L(w), ‖δ_l‖ = ξ‖w_l‖``; worst case: ``max over ‖δ_l‖ ≤ ξ‖w_l‖``

    Stutz, Hein & Schiele 2021 (Relating Adversarially Robust Generalization to Flat Minima). As
    in their published code, a layer is one tensor, biases are layers, norm layers stay, and the average
    is over directions drawn uniformly for each layer on the sphere, not in the ball: 10 of them at
    ``xi = 0.5``, where we take pairs. Their data are 1000 test examples; ours are the point's. The worst
    case is a variant, with ``case="worst"`` and ``xi=worst`` among its settings: gradient ascent with
    the gradient of each layer scaled to ``‖w_l‖``, then projected. Theirs takes 20 steps of
    0.01 from each of 10 random points and the best end; ours takes one climb from ``w`` (from a draw where
    the gradient is zero), first step ``2 ξ``, halved whenever the loss does not rise, and the best
    point seen: a lower bound of the maximum.

    Invariant to rescaling whole layers of a ReLU network without biases, not single neurons. On a
    formula, which is one layer, the average on ``½ wᵀAw`` is ``½ ξ²‖w‖² tr A / params``.

    Args:
        point: where.
        xi: relative radius of the average; no unit.
        pairs: of draws ``±δ``, on all pieces of the data together.
        worst: relative radius of the worst case; 0 leaves it out.
        steps: of the ascent, 1 FB each.

    Raises:
        NotApplicable: all the weights that could move are zero.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]).double())
    >>> row = layer_relative(Point(bowl), worst=0.1)
    >>> round(row.value, 9), round(row.variants[0].value, 9)  # (ξ 5)², and 5² (1.1² - 1)
    (6.25, 5.25)
    """
    positive("layer_relative", xi=xi)
    check_pairs("layer_relative", pairs)
    if not worst >= 0 or steps < 1:
        raise ValueError(
            f"layer_relative: worst is {worst} and steps is {steps}, expected at least 0 and 1"
        )
    row = _at(point, "layer_relative", "layer", {"case": "average", "xi": xi}, xi, pairs)
    variants = (_worst(point, worst, steps),) if worst else ()
    return replace(row, variants=variants)


@measured
def local_entropy(point: Point, gamma: float = 100.0, pairs: int = 16) -> Measurement:
    """Negative logarithm of the mean Gibbs weight around the point; large in sharp valleys.

    ``−log E[exp(−(L(w + τ) − L(w)))], τ ~ N(0, I/γ)``

    The local entropy of Baldassi et al. 2015 and Chaudhari et al. 2017 (Entropy-SGD), with the
    constant of the Gaussian left out, so that it is 0 for a flat loss. ``gamma`` is in units of
    1/weight². On ``½ wᵀAw`` it is ``½ Σ log(1 + aᵢ/γ) − ½ gᵀ(γ + A)⁻¹g``.

    The Gibbs weight of a draw needs the mean loss over all the data, so each draw is evaluated on all of it,
    unlike those of the mean rises: a pair costs ⅔ FB. Where the data are one piece of at most 128 terms, the
    draws are those of :func:`average` at ``σ = γ^(−1/2)`` (0.1 by default), and paid once.

    The published code of Bisla et al. draws with standard deviation ``1/γ``: its numbers are not
    comparable.

    The logarithm of a mean of few draws is too large on average, by about the squared relative error of
    that mean over two; where a few draws carry the mean (the note says so), by much more. The error is
    that of the delta method and does not cover this.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2).double())  # A = 2 I
    >>> row = local_entropy(Point(bowl), gamma=4.0, pairs=400)
    >>> abs(row.value - math.log(1 + 2 / 4)) < 4 * row.stderr
    True
    """
    positive("local_entropy", gamma=gamma)
    check_pairs("local_entropy", pairs)
    sigma = 1 / math.sqrt(gamma)
    rises = torch.stack([pair(point, "plain", sigma, draw)["loss"] for draw in range(pairs)])
    logs = -rises.mean(2).flatten()  # of the Gibbs weights, (pairs * 2,)
    value = math.log(logs.numel()) - float(torch.logsumexp(logs, 0))
    shares = torch.softmax(logs, 0)
    counted = shares > 0  # a loss that overflows weighs nothing, and 0 * inf is not 0
    terms = shares[counted] @ rises.flatten(0, 1)[counted]
    weights = shares.view(pairs, 2).sum(1) * pairs  # of each pair, 1 on average
    effective = pairs**2 / float((weights**2).sum())
    note = f"{effective:.1f} of {pairs} pairs carry the mean" if effective < pairs / 2 else ""
    influence = point.influence(terms, -weights)
    return corrected(
        estimate("local_entropy", value, influence, {"gamma": gamma, "pairs": pairs}, note=note)
    )


def _mean_rise(
    point: Point,
    name: str,
    scaling: str,
    key: str,
    radius: float,
    pairs: int,
    ladder: Sequence[float],
) -> Measurement:
    """The measure at ``radius``, and a variant at each other radius of the ladder."""
    others = [r for r in dict.fromkeys(ladder) if r != radius]
    for r in (radius, *others):
        positive(name, **{key: r})
    check_pairs(name, pairs)
    rows = [_at(point, name, scaling, {key: r}, r, pairs) for r in (radius, *others)]
    return replace(rows[0], variants=tuple(rows[1:]))


@measured
def _at(
    point: Point,
    name: str,
    scaling: str,
    settings: dict[str, float | str],
    radius: float,
    pairs: int,
) -> Measurement:
    rises = even_parts(point, scaling, radius, pairs)
    value = float(rises.mean())
    note = "" if math.isfinite(value) else "the loss is not finite at some of the draws"
    influence = point.influence(rises.mean(0), rises.mean(1))
    settings = {**settings, **drawn(point, pairs)}
    return corrected(estimate(name, value, influence, settings, note=note))


@measured
def _worst(point: Point, xi: float, steps: int) -> Measurement:
    """The largest rise found in the product of the balls ``‖δ_l‖ ≤ ξ‖w_l‖``."""
    place, best, uphill = torch.zeros_like(point.theta), float(point.terms.mean()), point.gradient
    if not bool(relative(point, uphill, "layer").any()):
        place = perturbation(point, "layer", xi, 0)
        best, uphill = point.loss_and_gradient(point.theta + place)
    size = 2 * xi
    for _ in range(steps):
        trial = _projected(point, place + size * relative(point, uphill, "layer"), xi)
        loss, gradient = point.loss_and_gradient(point.theta + trial)
        if loss > best:
            place, best, uphill = trial, loss, gradient
        else:
            size /= 2
    rise = point.rise(place)
    if float(rise.mean()) < 0:  # the ball holds its own centre
        rise = torch.zeros_like(rise)
    return estimate(
        "layer_relative",
        float(rise.mean()),
        point.influence(rise),
        {"case": "worst", "xi": xi, "steps": steps},
        note="lower bound of the maximum; the error is paired over the data at the point found",
    )


def _projected(point: Point, step: Tensor, xi: float) -> Tensor:
    edge = xi * relative(point, step, "layer")
    # Parallel tensor by tensor, so that the shorter one is shorter in every entry.
    return torch.where(step.abs() <= edge.abs(), step, edge)
