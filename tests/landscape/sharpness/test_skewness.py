import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from landscape.sharpness.measurement import Influence, Measurement, estimate
from landscape.sharpness.skewness import corrected


def row_of(samples, terms=None, **options):
    influence = Influence.made(terms, "exact" if terms is None else "examples", None, samples)
    return estimate("x", float(samples.mean()), influence, {}, **options)


def held(samples, truth, correct):
    count = 0
    for draws in samples:
        row = row_of(torch.from_numpy(draws))
        low, high = (corrected(row) if correct else row).interval
        count += low <= truth <= high
    return count / len(samples)


def test_squares():
    samples = np.random.default_rng(0).standard_normal((500, 8)) ** 2
    assert held(samples, 1.0, False) < 0.87
    assert 0.9 < held(samples, 1.0, True) < 0.97


def test_squared_products_over_the_data():
    """Terms like those of the Fisher-Rao norm of least squares."""
    rng, count = np.random.default_rng(4), [0, 0]
    for _ in range(400):
        both = rng.standard_normal((2, 100))
        terms = torch.from_numpy((both[0] * (both[0] + both[1])) ** 2)  # mean 4
        plain = estimate("x", float(terms.mean()), Influence.made(terms, "examples"), {})
        for i, row in enumerate((plain, corrected(plain))):
            count[i] += row.interval[0] <= 4 <= row.interval[1]
    assert count[0] < 0.9 * 400 and 0.91 * 400 < count[1] < 0.97 * 400


def test_normal_numbers_keep_their_coverage():
    samples = np.random.default_rng(1).standard_normal((500, 8))
    assert abs(held(samples, 0.0, True) - held(samples, 0.0, False)) < 0.015


def test_the_ends_solve_the_transformation():
    """Hall's cubic of the studentized distance is the quantile of t at one end, minus it at the other."""
    x = np.random.default_rng(2).standard_normal(9) ** 2
    row = row_of(torch.from_numpy(x))
    n, d = 9, (x - x.mean()) / x.std()
    g = float(np.mean(d**3)) * math.sqrt(n * (n - 1)) / (n - 2)
    q = 2.306004  # t, 8 degrees of freedom
    for end, side in zip(corrected(row).interval, (1, -1), strict=True):
        distance = (x.mean() - end) / x.std(ddof=1)
        cubic = distance + g / 3 * distance**2 + g**2 / 27 * distance**3 + g / (6 * n)
        assert cubic * math.sqrt(n) == pytest.approx(side * q, rel=1e-5)


def test_symmetric_samples_and_mirrors():
    flat = row_of(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    assert corrected(flat) == flat
    x = torch.tensor([0.0, 0.1, 0.2, 3.0]).double()
    low, high = corrected(row_of(x)).interval
    assert corrected(row_of(-x)).interval == pytest.approx((-high, -low))
    assert high - float(x.mean()) > 2 * (float(x.mean()) - low)


def test_data_and_draws_add_in_squares_and_the_bound_on_both_sides():
    x = torch.tensor([0.0, 0.1, 0.2, 3.0]).double()
    terms = torch.from_numpy(np.random.default_rng(3).standard_normal(4000) * 60)
    both = corrected(row_of(x, terms, bound=0.5))
    q = (row_of(x, terms).interval[1] - both.value) / both.stderr
    only = replace(row_of(x), interval=(0.0, both.value + q * row_of(x).stderr))
    low, high = (abs(end - both.value) for end in corrected(only).interval)
    data = q * both.data_error
    expected = both.value - math.hypot(low, data) - 0.5, both.value + math.hypot(high, data) + 0.5
    assert both.interval == pytest.approx(expected, rel=0.02)
    assert both.stderr == row_of(x, terms).stderr


def test_nothing_to_correct():
    bare = Measurement("x", 1.0)
    assert corrected(bare) is bare
    two = row_of(torch.tensor([0.0, 1.0]))
    assert corrected(two) == two
    exact = estimate("x", 1.0, Influence(of="exact"), {}, bound=0.1)
    assert corrected(exact) is exact
