"""Sharpness measures against their formulas on random small networks."""

from functools import cache

import differential_sharpness as checks
import pytest
from differential import Subject
from random_networks import network

SMALL = 40  # parameters

subject = cache(lambda seed: Subject(network(100 + seed, most=SMALL)))


def agree(findings):
    failed = [
        f"{f.quantity}: {f.error:.1e}, allowed {f.tolerance:.0e}" for f in findings if f.failed
    ]
    assert not failed, "; ".join(failed)


@pytest.mark.parametrize("seed", range(25))
def test_one_step(seed):
    agree(checks.MEASURE_CHECKS["first_order"](subject(seed)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["curvature", "head", "worst"])
def test_curvature_and_worst_cases(name, seed):
    agree(checks.MEASURE_CHECKS[name](subject(seed)))


@pytest.mark.parametrize("seed", range(2))
def test_means_over_noise(seed):
    agree(checks.noise(subject(seed), pairs=10))
