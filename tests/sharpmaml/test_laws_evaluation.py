"""Laws of what is said about scores: intervals, paired differences, permutations, calibration, ranks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import SEEDS, examples

from sharpmaml.evaluating.calibration import Calibration
from sharpmaml.evaluating.gaps import BETTER, UNDECIDED, WORSE, corrected, gap
from sharpmaml.evaluating.intervals import half_width, holm, student_mean
from sharpmaml.evaluating.permutations import drawn
from sharpmaml.evaluating.scorer import accuracies, losses
from sharpmaml.reproduction.statistics import correlation

VALUES = st.lists(st.floats(-5, 5).map(lambda x: round(x, 4)), min_size=2, max_size=12)
UNITS = st.sampled_from([1e-200, 1e-8, 0.01, 100.0, 1e8])
OPPOSITE = {BETTER: WORSE, WORSE: BETTER, UNDECIDED: UNDECIDED}


@examples(60)
@given(VALUES, UNITS, st.floats(-3, 3))
def test_intervals_follow_unit_and_origin(values, unit, shift):
    """Mean and ends; of a negative unit they change places; p does not see the unit. ``1.96 s/√n`` by hand."""
    one = student_mean(values)
    size = 1 + max(map(abs, values))
    large = student_mean([unit * v for v in values])
    moved = student_mean([v + shift for v in values])
    negative = student_mean([-v for v in values])
    for end in ("value", "low", "high"):
        assert getattr(large, end) == pytest.approx(
            unit * getattr(one, end), rel=1e-9, abs=1e-11 * unit * size
        )
        assert getattr(moved, end) == pytest.approx(getattr(one, end) + shift, rel=1e-9, abs=1e-9)
    assert (negative.low, negative.high) == pytest.approx(
        (-one.high, -one.low), rel=1e-12, abs=1e-15
    )
    assert large.p == pytest.approx(one.p, rel=1e-6, abs=1e-12)
    assert one.low <= one.value <= one.high and 0 <= one.p <= 1
    by_hand = 1.959963984540054 * np.std(values, ddof=1) / math.sqrt(len(values))
    assert float(half_width(np.array(values))) == pytest.approx(by_hand, rel=1e-12, abs=1e-290)
    assert (one.low > 0 or one.high < 0) == (one.p < 0.05) or abs(one.p - 0.05) < 1e-9


@examples(60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=10),
    SEEDS,
    st.sampled_from(["accuracy", "mse"]),
)
def test_paired_differences_are_antisymmetric_and_do_not_see_the_order(pairs, seed, metric):
    a, b = np.array(pairs).T
    one, back = gap("A", "B", a, b, metric), gap("B", "A", b, a, metric)
    assert back.mean.value == -one.mean.value and back.verdict == OPPOSITE[one.verdict]
    order = np.random.default_rng(seed).permutation(len(a))
    mixed = gap("A", "B", a[order], b[order], metric)
    assert mixed.mean.value == pytest.approx(one.mean.value, rel=1e-9, abs=1e-12)
    shared = np.random.default_rng(seed).standard_normal(len(a))  # how hard the episodes are
    harder = gap("A", "B", a + shared, b + shared, metric)
    assert harder.mean.value == pytest.approx(one.mean.value, rel=1e-6, abs=1e-9)
    same = gap("A", "A", a, a, metric)
    assert same.verdict == UNDECIDED and same.mean.value == 0


@examples(60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), SEEDS)
def test_holm_lies_between_bonferroni_and_no_correction(ps, seed):
    """And it does not see the order, and smaller p-values are rejected first."""
    found = holm(ps)
    for p, rejected in zip(ps, found, strict=True):
        assert (p <= 0.05 / len(ps)) <= rejected <= (p <= 0.05)
    if any(found) and not all(found):
        assert max(p for p, r in zip(ps, found, strict=True) if r) <= min(
            p for p, r in zip(ps, found, strict=True) if not r
        )
    order = np.random.default_rng(seed).permutation(len(ps))
    assume(len(set(ps)) == len(ps))
    assert holm([ps[i] for i in order]) == [found[i] for i in order]
    gaps = [
        gap("A", "B", np.zeros(4), np.random.default_rng(seed + i).standard_normal(4) + i, "mse")
        for i in range(3)
    ]
    for before, after in zip(gaps, corrected(gaps), strict=True):
        assert after.mean == before.mean and after.verdict == before.verdict
        assert not after.holm or before.verdict != UNDECIDED


@examples(60)
@given(st.integers(1, 7), st.integers(1, 40), SEEDS)
def test_permutations_are_different_and_the_identity_is_among_them(ways, count, seed):
    found = drawn(ways, count, seed)
    assert found.shape == (min(count, math.factorial(ways)), ways)
    assert found[0].tolist() == list(range(ways))
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert all(sorted(row) == list(range(ways)) for row in found.tolist())
    assert np.array_equal(drawn(ways, count, seed), found)


@st.composite
def answers(draw):
    episodes, queries, classes = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 6)),
        draw(st.integers(2, 5)),
    )
    rng = np.random.default_rng(draw(SEEDS))
    logits = draw(st.sampled_from([0.1, 1.0, 30.0])) * rng.standard_normal(
        (episodes, queries, classes)
    )
    return logits, rng.integers(0, classes, (episodes, queries)), rng


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@examples(40)
@given(answers())
def test_calibration_is_bounded_and_does_not_see_names_or_order(made):
    """ECE in [0, 1], Brier in [0, 2], NLL at least 0; renumbering classes or queries changes nothing."""
    logits, labels, rng = made
    one = Calibration(softmax(logits), labels, 0, {})
    accuracy = (logits.argmax(-1) == labels).mean()
    confidence = softmax(logits).max(-1).mean()
    assert abs(accuracy - confidence) - 1e-12 <= one.ece <= 1
    assert (one.nll >= 0).all() and (one.brier >= 0).all() and (one.brier <= 2 + 1e-12).all()
    names, order = rng.permutation(logits.shape[2]), rng.permutation(logits.shape[1])
    inverse = np.argsort(names)
    other = Calibration(softmax(logits)[:, order][..., names], inverse[labels[:, order]], 0, {})
    assert other.ece == pytest.approx(one.ece, abs=1e-12)
    np.testing.assert_allclose(other.nll, one.nll, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(other.brier, one.brier, rtol=1e-12, atol=1e-15)


@examples(40)
@given(answers())
def test_losses_of_queries_are_means_and_begin_at_log_n(made):
    """``ln N`` where the network knows nothing, with an accuracy of 1/N on balanced labels; any common shift."""
    logits, labels, rng = made
    y, outputs = torch.from_numpy(labels), torch.from_numpy(logits)[None]
    exact = -np.log(
        softmax(logits)[np.arange(len(labels))[:, None], np.arange(labels.shape[1]), labels]
    ).mean(1)
    np.testing.assert_allclose(
        losses(outputs, y, "classification")[0], exact, rtol=1e-9, atol=1e-12
    )
    shifted = outputs + torch.from_numpy(rng.standard_normal((*labels.shape, 1)))
    np.testing.assert_allclose(losses(shifted, y, "classification")[0], exact, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(accuracies(outputs, y)[0], (logits.argmax(-1) == labels).mean(1))
    classes = logits.shape[2]
    blank = torch.zeros(1, 1, 2 * classes, classes, dtype=torch.float64)
    balanced = torch.arange(2 * classes)[None] % classes
    assert float(losses(blank, balanced, "classification")) == pytest.approx(
        math.log(classes), rel=1e-12
    )
    assert float(accuracies(blank, balanced)) == pytest.approx(1 / classes)


@examples(12)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=7), SEEDS)
def test_rank_correlations_see_ranks_only(pairs, seed):
    """Monotone maps change nothing, a falling one the sign; the order of the pairs does not matter."""
    x, y = np.array(pairs, dtype=float).T
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    one = correlation(x, y)
    assert -1 <= one.spearman <= 1
    assert correlation(np.exp(x / 3), y**3).spearman == pytest.approx(one.spearman, abs=1e-12)
    assert correlation(-x, y).spearman == pytest.approx(-one.spearman, abs=1e-12)
    assert correlation(y, x).spearman == pytest.approx(one.spearman, abs=1e-12)
    order = np.random.default_rng(seed).permutation(len(x))
    assert correlation(x[order], y[order]).spearman == pytest.approx(one.spearman, abs=1e-12)
