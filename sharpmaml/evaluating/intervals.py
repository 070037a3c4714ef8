"""Intervals of means, and the correction for several verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

LEVEL = 0.05
Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def half_width(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1.96 s / √n`` of the mean over the first axis, as Finn et al. 2017 report; NaN for one value.

    >>> float(half_width(np.array([0.0, 2.0]))).__round__(6)
    1.959964
    """
    n = len(values)
    if n < 2:
        return np.full(np.shape(values)[1:], np.nan)
    return np.asarray(Z95 * values.std(0, ddof=1) / math.sqrt(n))


class Mean(NamedTuple):
    """A mean with Student's interval.

    Attributes:
        value: the mean.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided, of the hypothesis that the true mean is 0.
        n: number of independent values.
    """

    value: float
    low: float
    high: float
    p: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self._asdict()


def student_mean(values: Sequence[float] | NDArray[np.float64]) -> Mean:
    """Mean of independent values with the interval of Student 1908, ``t s / √n`` at ``n − 1`` degrees.

    Where all values are the same nothing is uncertain, and ``p`` is 0, or 1 for a mean of 0.

    Raises:
        ValueError: fewer than two values.

    >>> mean = student_mean([1.0, 3.0])
    >>> mean.value, round(mean.high - mean.value, 3), round(mean.p, 3)
    (2.0, 12.706, 0.295)
    """
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n < 2:
        raise ValueError(f"{n} value has no interval: at least 2 are needed")
    value = float(array.mean())
    if np.ptp(array) == 0:  # not `error == 0`: equal values may leave a rounding error
        return Mean(value, value, value, float(value == 0), n)
    # A power of two changes no bit, and the squares of differences below 1e-162 would vanish.
    unit = math.ldexp(1.0, math.frexp(float(np.abs(array).max()))[1] - 1)
    error = float((array / unit).std(ddof=1)) / math.sqrt(n)
    half = float(student.ppf(1 - LEVEL / 2, n - 1)) * error * unit
    p = float(2 * student.sf(abs(value / unit) / error, n - 1))
    return Mean(value, value - half, value + half, p, n)


def holm(ps: Sequence[float]) -> list[bool]:
    """Which hypotheses Holm 1979 rejects, all together wrong with a probability of at most 5 %.

    The ``k``-th smallest of ``n`` has to be at most ``0.05 / (n − k + 1)``, and all before it.

    >>> holm([0.04, 0.001, 0.02])
    [True, True, True]
    >>> holm([0.04, 0.001, 0.03])
    [False, True, False]
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    passed = [False] * len(ps)
    for rank, i in enumerate(order):
        if ps[i] > LEVEL / (len(ps) - rank):
            break
        passed[i] = True
    return passed
