"""Intervals for few skewed samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from landscape.sharpness.measurement import Measurement


def corrected(row: Measurement) -> Measurement:
    """``row`` with an interval that allows for the skewness of its draws and terms.

    Rises behave like ``zᵀHz``, a sum of squares: with few draws most samples lie below the mean, the mean and
    its error come out small together, and Student's interval misses the truth above it. The cubic
    transformation of Hall 1992 (On the removal of skewness by transformation) takes that off to first
    order. For 8 draws of a single square, 95 % intervals hold the truth in 93 % of cases instead of 85 %
    (``tests/landscape/sharpness/test_skewness.py``). The ends of draws and data add in squares, side by side.

    >>> from landscape.sharpness.measurement import Influence, estimate
    >>> row = estimate("x", 1.0, Influence(of="exact", draws=(-1.0, -1.0, -1.0, 3.0)), {})
    >>> [[round(end, 2) for end in made.interval] for made in (row, corrected(row))]
    [[-2.18, 4.18], [-0.77, 7.99]]
    """
    if row.interval is None or not row.stderr or not math.isfinite(row.stderr):
        return row
    quantile = (row.interval[1] - row.value - row.bound) / row.stderr
    influence = row.influence
    draws = _reaches(influence.draws, row.draw_error, quantile)
    data = _reaches(() if influence.weights else influence.terms, row.data_error, quantile)
    low, high = (math.hypot(a, b) + row.bound for a, b in zip(draws, data, strict=True))
    return replace(row, interval=(row.value - low, row.value + high))


def _reaches(
    deviations: Sequence[float], error: float | None, quantile: float
) -> tuple[float, float]:
    """How far the interval of the mean reaches down and up."""
    error = error or 0.0
    n, x = len(deviations), np.asarray(deviations)
    if n < 3 or not error:
        return quantile * error, quantile * error
    sigma = math.sqrt(float(np.mean(x**2)))
    skewness = float(np.mean((x / sigma) ** 3)) * math.sqrt(n * (n - 1)) / (n - 2)
    if abs(skewness) < 1e-6:
        return quantile * error, quantile * error

    def inverse(y: float) -> float:
        cube = 1 + skewness * (y / math.sqrt(n) - skewness / (6 * n))
        return math.sqrt(n) * error * 3 / skewness * (math.cbrt(cube) - 1)

    return inverse(quantile), -inverse(-quantile)
