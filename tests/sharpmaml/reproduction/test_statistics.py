"""Intervals and rank correlations against closed forms and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from sharpmaml.reproduction.statistics import correlation, holm, mean_of, pooled, t_half

RNG = np.random.default_rng(7)


def test_intervals_over_episodes_and_seeds():
    values = RNG.normal(0.3, 1.0, (3, 50))
    found = mean_of(values)
    episodes, seeds = values.mean(0), values.mean(1)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.episodes == pytest.approx(1.959963984540054 * stats.sem(episodes), rel=1e-12)
    low, high = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
    assert found.seeds == pytest.approx((high - low) / 2, rel=1e-9)
    assert found.p_seeds == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue, rel=1e-9)
    z = episodes.mean() / stats.sem(episodes)
    assert found.p_episodes == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert found.p == max(found.p_seeds, found.p_episodes)
    assert found.half == max(found.seeds, found.episodes)


def test_one_seed_has_no_interval_over_seeds_and_its_verdict_says_so():
    found = mean_of([[1.0, 1.1, 0.9, 1.0]])
    assert math.isnan(found.seeds) and found.p == found.p_episodes
    assert found.verdict() == "better in these runs"
    assert found.verdict(-1) == "worse in these runs"
    assert math.isnan(t_half(1.0, 0))


def test_a_difference_that_is_always_zero_is_no_finding():
    found = mean_of(np.zeros((3, 4)))
    assert found.verdict() == "cannot tell" and found.p == 1.0


def test_holm_steps_down():
    assert holm([0.012, 0.02, 0.03, 0.2]) == [True, False, False, False]
    assert holm([0.012, 0.016, 0.02, 0.04]) == [True, True, True, True]
    assert holm([0.2, 0.001]) == [False, True]
    assert holm([]) == []


@pytest.mark.parametrize("n", [6, 15])
def test_rank_correlations_are_scipys(n):
    x, y = RNG.integers(0, 6, n), RNG.normal(size=n)
    found = correlation(x, y)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    half = 1.959963984540054 * math.sqrt((1 + found.spearman**2 / 2) / (n - 3))
    assert math.atanh(found.high) - math.atanh(found.spearman) == pytest.approx(half, rel=1e-6)
    assert math.atanh(found.spearman) - math.atanh(found.low) == pytest.approx(half, rel=1e-6)


def test_permutations_of_few_are_exact():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    found = correlation(x, y)
    exact = stats.permutation_test(
        (x,), lambda z: stats.spearmanr(z, y).statistic, permutation_type="pairings"
    )
    assert found.exact and found.p == pytest.approx(exact.pvalue, abs=1e-9)
    assert correlation([1, 2, 3], [1, 2, 3]).p == pytest.approx(2 / 6)


def test_permutations_of_many_are_drawn_and_repeatable():
    x = np.arange(12.0)
    y = x + 6 * RNG.normal(size=12)
    found = correlation(x, y)
    assert not found.exact and found == correlation(x, y)
    assert found.p == pytest.approx(stats.spearmanr(x, y).pvalue, abs=0.02)
    assert correlation(x, x).p == pytest.approx(1 / 10_001)  # never 0


def test_verdicts_of_correlations():
    x = np.arange(10.0)
    assert correlation(x, x).verdict == "positive"
    assert correlation(x, -x).verdict == "negative"
    assert correlation(x, np.ones(10)).verdict == "cannot tell"
    assert correlation([1.0, 2.0], [1.0, 2.0]).verdict == "cannot tell"
    # Perfect order, but four points cannot be told from chance.
    assert correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]).verdict == "cannot tell"


def test_pooled_is_the_mean_over_runs_and_its_interval_covers():
    x, y = RNG.normal(size=(3, 40)), RNG.normal(size=(3, 40))
    y[0] += x[0]
    found = pooled(x, y)
    each = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert found.value == pytest.approx(np.mean(each), abs=1e-12)
    assert found.low < found.value < found.high and found == pooled(x, y)
    assert pooled(x, x).verdict == "positive" and pooled(x, -x).verdict == "negative"
    assert math.isnan(pooled([[1.0, 2.0]], [[1.0, 2.0]]).value)


def test_tasks_are_drawn_for_all_runs_together():
    # The same tasks seen by ten equal runs are no more information than those of one.
    x, y = RNG.normal(size=(1, 30)), RNG.normal(size=(1, 30))
    one, ten = pooled(x, y), pooled(np.tile(x, (10, 1)), np.tile(y, (10, 1)))
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=1e-9)
