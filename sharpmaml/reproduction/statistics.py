"""Intervals over episodes and over seeds, and rank correlations with few points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, norm, rankdata
from scipy.stats import t as student

Array = NDArray[np.float64]

LEVEL = 0.05
BETTER, WORSE, THESE_RUNS, UNDECIDED = "better", "worse", " in these runs", "cannot tell"
_EXACT = 8  # 8! orders are looked at one by one, more are drawn
_DRAWS = 10_000
_TOGETHER = 50  # draws of the bootstrap that are in memory at a time


@dataclass(frozen=True)
class Mean:
    """A mean with two intervals: over episodes (or tasks), the seeds as they are, and over seeds.

    Attributes:
        value: the mean over seeds and episodes.
        episodes: half width of the 95 % interval over episodes of the mean over seeds.
        seeds: half width of the 95 % interval over seeds (Student's t); NaN for one seed.
        p_episodes: of a mean of 0, over episodes.
        p_seeds: the same over seeds; NaN for one seed.
    """

    value: float
    episodes: float
    seeds: float
    p_episodes: float
    p_seeds: float

    @property
    def p(self) -> float:
        """The larger of both: a finding has to stand over episodes and over seeds."""
        return max(self.p_episodes, 0.0 if math.isnan(self.p_seeds) else self.p_seeds)

    @property
    def half(self) -> float:
        """The wider of both half widths."""
        return max(self.episodes, 0.0 if math.isnan(self.seeds) else self.seeds)

    def verdict(self, sign: int = 1, words: tuple[str, str] = (BETTER, WORSE)) -> str:
        """What the interval says: one of ``words``, that with "in these runs", or "cannot tell".

        Args:
            sign: 1 where a positive mean earns the first word, -1 where a negative one does.
            words: for both sides.

        >>> Mean(1.0, 0.2, 0.3, 0, 0).verdict(), Mean(1.0, 0.2, 3.0, 0, 0).verdict(-1)
        ('better', 'worse in these runs')
        >>> Mean(1.0, 2.0, 0.3, 0, 0).verdict()
        'cannot tell'
        """
        if not abs(self.value) > self.episodes:
            return UNDECIDED
        word = words[0] if sign * self.value > 0 else words[1]
        return word if abs(self.value) > self.seeds else word + THESE_RUNS


def mean_of(values: Any) -> Mean:
    """Of ``(seeds, episodes)`` values, all seeds scored on the same episodes.

    Over episodes the interval is ``1.96 s / √episodes`` (Finn et al. 2017), with ``s`` the deviation of
    the episodes' means over seeds; over seeds it is Student's.

    >>> m = mean_of([[1.0, 3.0], [2.0, 4.0]])
    >>> m.value, round(m.episodes / 1.96, 3), round(m.seeds / 12.706, 3)
    (2.5, 1.0, 0.5)
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    value = float(table.mean())
    over_episodes, over_seeds = (_stderr(table.mean(axis)) for axis in (0, 1))
    return Mean(
        value,
        float(norm.ppf(1 - LEVEL / 2)) * over_episodes,
        t_half(over_seeds, len(table) - 1),
        _p(value, over_episodes, math.inf),
        _p(value, over_seeds, len(table) - 1),
    )


def t_half(stderr: float, freedom: float) -> float:
    """Half width of a 95 % interval; NaN without a degree of freedom."""
    return float(student.ppf(1 - LEVEL / 2, freedom)) * stderr if freedom >= 1 else math.nan


def holm(ps: Sequence[float]) -> list[bool]:
    """Which of several hypotheses are rejected at 5 % in all (Holm 1979); a NaN never is.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [True, False, False, False]
    """
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    rejected = [False] * len(ps)
    for rank, i in enumerate(order):
        if ps[i] > LEVEL / (len(order) - rank):
            break
        rejected[i] = True
    return rejected


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of two quantities.

    Attributes:
        n: points.
        spearman: Spearman's ρ; NaN where one of both does not vary.
        low: lower end of its 95 % interval (Bonett & Wright 2000), NaN below five points.
        high: upper end.
        p: of no association, over permutations of one of both.
        exact: whether ``p`` is over all permutations.
        kendall: Kendall's τ-b.
    """

    n: int
    spearman: float
    low: float
    high: float
    p: float
    exact: bool
    kendall: float

    @property
    def verdict(self) -> str:
        """``"positive"``, ``"negative"`` or ``"cannot tell"``; by the interval and by ``p``."""
        if not (self.p <= LEVEL and self.low * self.high > 0):
            return UNDECIDED
        return "positive" if self.spearman > 0 else "negative"


def correlation(x: Any, y: Any, seed: int = 0) -> Correlation:
    """Rank correlation of ``x (n,)`` and ``y (n,)``.

    Args:
        x: one quantity.
        y: the other.
        seed: of the permutations, where there are too many to take all.

    >>> found = correlation([1, 2, 3, 4], [1, 3, 2, 4])
    >>> round(found.spearman, 3), round(found.p, 3), found.exact, found.low
    (0.8, 0.333, True, nan)
    >>> found = correlation(range(5), range(5))
    >>> round(found.spearman, 3), round(found.low, 2), round(found.high, 3)
    (1.0, 0.13, 0.998)
    """
    a, b = _ranks(x), _ranks(y)
    n = len(a)
    if n < 3 or not a.any() or not b.any():
        return Correlation(n, math.nan, math.nan, math.nan, math.nan, False, math.nan)
    rho = min(max(float(a @ b), -1.0), 1.0)  # rounding may pass 1
    low = high = math.nan
    if n >= 5:
        # At ±1 the transform has no interval: half of the smallest step of ρ inside, there is one.
        edge = 1 - 6 / (n * (n**2 - 1))
        centre = math.atanh(max(min(rho, edge), -edge))
        half = float(norm.ppf(1 - LEVEL / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
        low, high = math.tanh(centre - half), math.tanh(centre + half)
    exact = n <= _EXACT
    if exact:
        orders = np.array(list(itertools.permutations(range(n))))
        p = float(np.mean(np.abs(b[orders] @ a) >= abs(rho) - 1e-9))
    else:
        draws = _generator(seed).permuted(np.tile(b, (_DRAWS, 1)), axis=1) @ a
        # The order seen is one of the permutations: a p of 0 is never found (Phipson & Smyth 2010).
        p = float((np.sum(np.abs(draws) >= abs(rho) - 1e-9) + 1) / (_DRAWS + 1))
    tau = float(kendalltau(np.asarray(x, float), np.asarray(y, float)).statistic)
    return Correlation(n, rho, low, high, p, exact, tau)


@dataclass(frozen=True)
class Pooled:
    """Mean over runs of a rank correlation over tasks.

    Attributes:
        value: mean of Spearman's ρ.
        low: lower end of its 95 % interval over tasks.
        high: upper end.
        runs: how many runs.
        tasks: tasks in each, the same ones.
    """

    value: float
    low: float
    high: float
    runs: int
    tasks: int

    @property
    def verdict(self) -> str:
        """``"positive"``, ``"negative"`` or ``"cannot tell"``."""
        if not self.low * self.high > 0:
            return UNDECIDED
        return "positive" if self.value > 0 else "negative"


def pooled(x: Any, y: Any, seed: int = 0, draws: int = 1000) -> Pooled:
    """Mean over runs of Spearman's ρ over tasks, with a bootstrap interval.

    Tasks are drawn for all runs together, because a hard task is hard for every run.

    Args:
        x: ``(runs, tasks)``.
        y: likewise.
        seed: of the bootstrap.
        draws: of the bootstrap.

    >>> found = pooled([[1, 2, 3, 4, 5]], [[5, 4, 3, 2, 1]])
    >>> [round(v, 9) for v in (found.value, found.low, found.high)]
    [-1.0, -1.0, -1.0]
    """
    a, b = (np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in (x, y))
    runs, tasks = a.shape
    if tasks < 5:
        return Pooled(math.nan, math.nan, math.nan, runs, tasks)
    value = float(_rho(a, b).mean())
    generator, found = _generator(seed), []
    for _ in range(0, draws, _TOGETHER):
        some = generator.integers(tasks, size=(_TOGETHER, 1, tasks))
        drawn = (
            np.take_along_axis(np.broadcast_to(v, (_TOGETHER, runs, tasks)), some, -1)
            for v in (a, b)
        )
        found.append(_rho(*drawn).mean(-1))
    means = np.concatenate(found)[:draws]
    known = means[np.isfinite(means)]
    if math.isnan(value) or len(known) < draws / 2:
        return Pooled(value, math.nan, math.nan, runs, tasks)
    low, high = np.quantile(known, [LEVEL / 2, 1 - LEVEL / 2])
    return Pooled(value, min(float(low), value), max(float(high), value), runs, tasks)


def _rho(x: Array, y: Array) -> Array:
    """Spearman's ρ along the last axis; NaN where one of both does not vary."""
    a, b = _ranks(x), _ranks(y)
    varies = a.any(-1) & b.any(-1)
    return np.where(varies, np.clip((a * b).sum(-1), -1.0, 1.0), math.nan)


def _ranks(values: Any) -> Array:
    """Ranks along the last axis, of mean 0 and length 1; zeros where all are equal."""
    ranks = rankdata(np.asarray(values, dtype=np.float64), axis=-1)
    centred = np.asarray(ranks - ranks.mean(-1, keepdims=True), dtype=np.float64)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return centred / np.where(length > 0, length, 1.0)


def _stderr(values: Array) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _p(value: float, stderr: float, freedom: float) -> float:
    if math.isnan(stderr) or freedom < 1:
        return math.nan
    if stderr == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * student.sf(abs(value) / stderr, freedom))


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))
