"""How much the loss rises on average around the point."""

from __future__ import annotations

import torch

from landscape.directions import generator
from landscape.sharpness.measurement import VALUE_COST, Measurement, Point, mean_with_interval


def average(point: Point, sigma: float = 0.01, pairs: int = 20) -> Measurement:
    """Mean rise of the loss under Gaussian noise on the weights.

    ``E[L(w + δ)] − L(w), δ ~ N(0, σ² I)``

    The low-pass filter measure of Bisla et al. 2022, with ``L(w)`` subtracted. Draws come in pairs
    ``±δ``, so that the gradient cancels, and each pair is one sample. On ``½ wᵀAw`` it is
    ``½σ² tr A`` wherever ``w`` is.

    >>> from landscape.objective import FunctionObjective
    >>> line = FunctionObjective(lambda t: t.sum(), torch.zeros(3, dtype=torch.float64))
    >>> abs(average(Point(line)).value) < 1e-15  # no curvature, and the slope cancels in each pair
    True
    """
    if not sigma > 0:
        raise ValueError(f"average: sigma is {sigma}, expected a positive number")
    if pairs < 2:
        raise ValueError(f"average: pairs is {pairs}, expected at least 2 for an error estimate")
    samples = torch.empty(pairs, dtype=torch.float64)
    for draw in range(pairs):
        normal = generator(point.seed, "average", draw).standard_normal(point.theta.numel())
        step = torch.from_numpy(sigma * normal).to(point.theta)
        samples[draw] = (point.rise(step).mean() + point.rise(-step).mean()) / 2
    value, error, interval = mean_with_interval(samples)
    return Measurement(
        "average",
        value,
        error,
        interval,
        {"sigma": sigma, "pairs": pairs},
        (2 * pairs + 1) * VALUE_COST,
        "error over the random draws, not over the data",
    )
