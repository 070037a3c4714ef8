"""Intervals, verdicts and calibration against closed forms, other implementations and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sharpmaml.evaluating.calibration import Calibration
from sharpmaml.evaluating.gaps import by_chance, corrected, gap
from sharpmaml.evaluating.intervals import half_width, holm, student_mean
from sharpmaml.evaluating.permutations import Permutations, drawn
from sharpmaml.evaluating.seeds import over_seeds, seed_gaps


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=20))
def test_student_is_scipys(values):
    if np.ptp(values) < 1e-3:
        return
    mean = student_mean(values)
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval(0.95)
    assert mean.value == pytest.approx(np.mean(values)) and mean.p == pytest.approx(test.pvalue)
    assert (mean.low, mean.high) == pytest.approx((interval.low, interval.high))
    assert mean.n == len(values)


def test_equal_values_are_certain():
    assert student_mean([0.1] * 7).low == student_mean([0.1] * 7).high
    assert student_mean([0.1] * 7).p == 0 and student_mean([0.0] * 3).p == 1
    with pytest.raises(ValueError, match="1 value has no interval"):
        student_mean([1.0])
    assert np.isnan(half_width(np.ones(1)))


def test_the_paired_interval_holds_the_truth_95_times_in_100():
    generator = np.random.Generator(np.random.Philox(3))
    shared = generator.normal(0, 3, (800, 1, 12))  # how hard an episode is, for both
    a, b = np.moveaxis(shared + generator.normal([[0.0], [0.5]], 0.3, (800, 2, 12)), 1, 0)
    gaps = [gap("a", "b", x, y, "accuracy") for x, y in zip(a, b, strict=True)]
    held = np.mean([g.mean.low <= 0.5 <= g.mean.high for g in gaps])
    assert 0.93 < held < 0.97
    assert np.mean([g.verdict == "better" for g in gaps]) > 0.9
    null = [gap("a", "b", x, y, "accuracy").verdict for x, y in zip(a + 0.5, b, strict=True)]
    assert 0.03 < np.mean([verdict != "cannot tell" for verdict in null]) < 0.07


def test_verdicts_follow_the_metric():
    low, high = np.array([0.1, 0.2, 0.3]), np.array([0.31, 0.39, 0.5])
    assert gap("a", "b", low, high, "accuracy").verdict == "better"
    assert gap("a", "b", high, low, "accuracy").verdict == "worse"
    assert gap("a", "b", low, high, "mse").verdict == "worse"
    assert gap("a", "b", high, low, "mse").verdict == "better"
    same = gap("a", "b", low, low, "mse")
    assert (same.verdict, same.mean.p) == ("cannot tell", 1.0)
    unknown = gap("a", "b", low, np.array([0.1, np.nan, 0.2]), "mse")
    assert unknown.verdict == "cannot tell" and not corrected([unknown])[0].holm
    with pytest.raises(ValueError, match="not pairs"):
        gap("a", "b", low, high[:2], "mse")


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=5))
def test_holm_is_the_closed_testing_of_bonferroni(ps):
    # A hypothesis is rejected when every set that holds it has a p value under 0.05 / its size.
    n = len(ps)
    sets = [s for k in range(1, n + 1) for s in itertools.combinations(range(n), k)]
    expected = [
        all(any(ps[j] <= 0.05 / len(s) for j in s) for s in sets if i in s) for i in range(n)
    ]
    assert holm(ps) == expected


def test_what_chance_would_do():
    far, near = np.arange(5) + 10.0, np.array([1.0, -1.0, 2.0, -2.0, 0.5])
    gaps = corrected([gap("a", "b", np.zeros(5), x, "accuracy") for x in (far, near)])
    assert [g.holm for g in gaps] == [True, False] and gaps[0].marked == "better*"
    assert "about 0.1 of 2 verdicts" in by_chance(gaps) and "here 1 is, 1 also" in by_chance(gaps)
    assert by_chance([]) == ""


def test_over_seeds():
    methods, seeds, means = ["A", "B", "A", "B", "C", "A"], [0, 0, 1, 1, 0, 2], [1, 2, 3, 5, 9, 2]
    groups = over_seeds(methods, seeds, means)
    assert [(g.method, g.seeds, g.scores) for g in groups] == [
        ("A", (0, 1, 2), (1, 3, 2)),
        ("B", (0, 1), (2, 5)),
    ]
    assert groups[0].mean.high - 2 == pytest.approx(4.302653 / np.sqrt(3))
    (found,) = seed_gaps(groups, "accuracy", False)
    assert found.mean.value == 1.5 and found.mean.n == 2  # (2 − 1, 5 − 3): seeds 0 and 1
    assert found.mean.high - 1.5 == pytest.approx(12.7062 * np.sqrt(0.5) / np.sqrt(2), rel=1e-4)
    assert over_seeds(["A", "A"], [0, 0], [1, 2]) == ()
    three = over_seeds([*"AABBCC"], [0, 1] * 3, range(6))
    assert len(seed_gaps(three, "mse", False)) == 2 and len(seed_gaps(three, "mse", True)) == 3


def calibration(confidences, hits, classes=2, seed=0):
    """Class 0 is always predicted, with these confidences."""
    top = np.asarray(confidences, dtype=np.float64)
    others = np.repeat((1 - top)[..., None] / (classes - 1), classes - 1, -1)
    labels = np.where(np.asarray(hits, dtype=bool), 0, 1)
    return Calibration(np.concatenate([top[..., None], others], -1), labels, seed, {})


def test_ece_by_hand():
    # (0.6, 0.6667] holds 0.62 right and 0.66 wrong; (0.8667, 0.9333] holds 0.9, 0.9 right, 0.92 wrong.
    found = calibration([[0.62, 0.66, 0.9], [0.9, 0.92, 1.0]], [[1, 0, 1], [1, 0, 1]])
    first, second = abs(1 / 2 - 1.28 / 2), abs(2 / 3 - 2.72 / 3)
    assert found.ece == pytest.approx(2 / 6 * first + 3 / 6 * second)
    table = found.to_dict()["reliability"]
    assert [row["queries"] for row in table] == [2, 3, 1]
    assert (table[1]["low"], table[1]["high"]) == (13 / 15, 14 / 15)
    assert table[1]["accuracy"] == pytest.approx(2 / 3)
    assert table[1]["confidence"] == pytest.approx(2.72 / 3)
    nll = -np.log([[0.62, 0.34, 0.9], [0.9, 0.08, 1.0]]).mean(1)
    np.testing.assert_allclose(found.nll, nll)
    brier = 2 * np.square([[0.38, 0.66, 0.1], [0.1, 0.92, 0.0]]).mean(1)
    np.testing.assert_allclose(found.brier, brier)
    assert "ECE    0.1667" in found.table()


def test_an_edge_belongs_to_the_bin_below():
    assert list(calibration([[0.6, 0.6]], [[1, 1]]).bins()[0, 0].nonzero()[0]) == [8]


def test_a_network_that_knows_nothing():
    ways, hits = 4, np.arange(40).reshape(8, 5) % 4 == 0
    found = calibration(np.full((8, 5), 1 / ways), hits, ways)
    assert found.ece == pytest.approx(0) and found.nll == pytest.approx(np.full(8, np.log(ways)))
    assert found.brier == pytest.approx(np.full(8, 1 - 1 / ways))


def test_episodes_that_are_alike_leave_no_interval():
    found = calibration(np.full((6, 4), 0.9), [[1, 1, 1, 0]] * 6)
    assert found.ece == pytest.approx(0.15)
    assert found.ece_interval() == pytest.approx((0.15, 0.15))


def simulated(generator, excess, episodes=80, queries=20):
    confidence = generator.uniform(0.5, 0.95, (episodes, queries))
    hits = generator.random(confidence.shape) < confidence + excess
    return calibration(confidence, hits)


def test_the_interval_of_the_ece_and_its_floor():
    generator = np.random.Generator(np.random.Philox(5))
    found = [simulated(generator, -0.2) for _ in range(60)]
    ends = np.array([c.ece_interval() for c in found])
    assert np.mean((ends[:, 0] <= 0.2) & (ends[:, 1] >= 0.2)) > 0.85
    assert np.ptp(ends, 1).mean() < 0.08
    perfect = [simulated(generator, 0.0) for _ in range(20)]
    floor = np.mean([c.ece_floor() for c in perfect])
    assert floor == pytest.approx(np.mean([c.ece for c in perfect]), rel=0.12) and floor > 0.01
    assert perfect[0].ece_interval() == perfect[0].ece_interval()


def test_permutations_are_different_and_the_identity_is_first():
    table = drawn(5, 20, 0)
    assert table[0].tolist() == [0, 1, 2, 3, 4] and len({tuple(row) for row in table}) == 20
    assert all(sorted(row) == [0, 1, 2, 3, 4] for row in table.tolist())
    assert len(drawn(3, 100, 0)) == 6 and not np.array_equal(drawn(5, 20, 1), table)


def test_spread_over_permutations_by_hand():
    values = np.array([[0.2, 0.4, 0.6], [0.5, 0.5, 0.5]])
    d = Permutations(values, False, {}).to_dict()
    assert (d["mean"], d["within"]) == pytest.approx((0.45, 0.1))
    assert (d["best"], d["worst"], d["spread"]) == pytest.approx((0.55, 0.35, 0.2))
    assert d["mean_ci95"] == pytest.approx(1.959964 * 0.05, rel=1e-5)
    complete = Permutations(values, True, {}).within  # all there are: no estimate from a sample
    assert complete == pytest.approx([np.sqrt(0.08 / 3), 0])
