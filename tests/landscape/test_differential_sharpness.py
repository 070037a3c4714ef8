"""Sharpness measures against their formulas on random small networks."""

from functools import cache

import differential_sharpness as checks
import pytest
from differential import Subject, agree
from random_networks import network

SMALL = 40  # parameters

subject = cache(lambda seed: Subject(network(100 + seed, most=SMALL)))


@pytest.mark.parametrize("seed", range(25))
def test_one_step(seed):
    agree(checks.MEASURE_CHECKS["first_order"](subject(seed)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["curvature", "worst"])
def test_curvature_and_worst_cases(name, seed):
    agree(checks.MEASURE_CHECKS[name](subject(seed)))


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5])  # whose heads are linear
def test_flatness_of_the_head(seed):
    agree(checks.MEASURE_CHECKS["head"](subject(seed)))


@pytest.mark.parametrize("seed", range(2))
def test_means_over_noise(seed):
    agree(checks.noise(subject(seed), pairs=10))
