"""Spectral measures against dense spectra."""

import math

import numpy as np
import pytest
import torch
from problems import conv_objective, full_hessian, normal, quadratic, seeded, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.sharpness import spectral
from landscape.sharpness.curvature import lambda_max
from landscape.sharpness.point import Point
from landscape.sharpness.spectral import (
    effective_dimension,
    frobenius,
    log_determinant,
    negative_mass,
)
from landscape.spectra.functionals import sums

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5, -3.0, 0.1, 0.2]


def effective(x, alpha=1.0):
    high = np.maximum(x, 0)
    return high / (high + alpha)


def logarithm(x, gamma=1.0):
    return 0.5 * np.log1p(np.maximum(x, 0) / gamma)


def negative(x):
    return np.maximum(-x, 0).sum() / np.abs(x).sum()


def test_closed_forms_of_a_quadratic():
    a = np.array(SPECTRUM)
    for point in (Point(quadratic(symmetric(SPECTRUM), normal(8)), seed=s) for s in (0, 1)):
        settings = {"tol": 1e-9, "k": 8}
        found = effective_dimension(point, alpha=0.3, **settings)
        assert found.value == pytest.approx(effective(a, 0.3).sum(), rel=1e-9)
        assert found.stderr == pytest.approx(0, abs=1e-9) and found.bound < 1e-9
        found = log_determinant(point, gamma=0.7, **settings)
        assert found.value == pytest.approx(logarithm(a, 0.7).sum(), rel=1e-9)
        assert negative_mass(point, **settings).value == pytest.approx(negative(a), rel=1e-9)
        assert frobenius(point, **settings).value == pytest.approx(np.sqrt((a**2).sum()), rel=1e-9)


def test_a_space_that_is_exhausted_is_exact():
    values = [2.0] * 20 + [-1.0] * 20  # two steps say it all, up to how much of each a start has
    point = Point(quadratic(symmetric(values)))
    found = effective_dimension(point, k=1, probes=40)
    assert found.bound < 1e-9
    assert abs(found.value - 20 * 2 / 3) < 4 * found.draw_error


@pytest.mark.parametrize("steps", [20, 70])
def test_a_network_against_its_dense_spectrum(steps):
    objective = conv_objective(batch_size=15)
    a = torch.linalg.eigvalsh(full_hessian(objective)).numpy()
    point = Point(objective)
    for row, exact in (
        (effective_dimension(point, 0.01, steps), effective(a, 0.01).sum()),
        (log_determinant(point, 0.01, steps), logarithm(a, 0.01).sum()),
        (negative_mass(point, steps), negative(a)),
    ):
        assert abs(row.value - exact) < 4 * row.draw_error + row.bound, row.name
        assert row.bound < 0.1 * exact and row.settings["steps"] == steps


def test_the_bound_holds_where_steps_are_few():
    """Many small eigenvalues beside a few large ones: 6 steps cannot resolve them."""
    a = np.concatenate([10 * np.arange(1, 61.0) ** -1.0, np.linspace(-1e-3, 1e-3, 60)])
    point = Point(quadratic(torch.diag(torch.from_numpy(a))))
    row = effective_dimension(point, 0.3, steps=6, probes=30, k=2)
    error = abs(row.value - effective(a, 0.3).sum())
    assert error < row.bound + 4 * row.draw_error
    fine = effective_dimension(point, 0.3, steps=40, probes=30, k=2)
    assert fine.bound < row.bound / 3
    assert abs(fine.value - effective(a, 0.3).sum()) < fine.bound + 4 * fine.draw_error


def test_the_mean_of_both_rules_is_exact_for_polynomials():
    """Gauss of n steps and anti-Gauss of n + 1: their mean has degree 2 n + 1 (Laurie 1996)."""
    point = Point(quadratic(symmetric(np.linspace(-1, 2, 20).tolist())))
    coarse = spectral._run(point, 3, 4, 1e-9, 1)
    fine = spectral._run(point, 12, 4, 1e-9, 1)
    for degree in range(6):
        expected = sums(fine.density, lambda x, d=degree: x**d)
        assert coarse.sums(lambda x, d=degree: x**d) == pytest.approx(expected, rel=1e-8), degree


def test_errors_over_the_data_are_those_of_reweighted_spectra():
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))).double()
    x, y = normal(24, 3, seed=1), torch.arange(24) % 3
    objective = DataObjective(model, (x, y), batch_size=10)  # 10, 10, 4
    dense = full_hessian(objective)
    pairs = zip(x.split(10), y.split(10), strict=True)
    batches = [full_hessian(DataObjective(model, pair)) for pair in pairs]
    point, e = Point(objective), 1e-5
    shapes = {
        effective_dimension: lambda a: effective(a, 0.05).sum(),
        log_determinant: lambda a: logarithm(a, 0.05).sum(),
        negative_mass: negative,
    }
    for measure, shape in shapes.items():
        settings = {} if measure is negative_mass else {"alpha": 0.05}
        if measure is log_determinant:
            settings = {"gamma": 0.05}
        row = measure(point, **settings, steps=26, probes=40, tol=1e-8)
        assert row.influence.of == "parts"
        exact = []
        for batch in batches:
            ends = [
                shape(torch.linalg.eigvalsh(dense + s * (batch - dense)).numpy()) for s in (e, -e)
            ]
            exact.append((ends[0] - ends[1]) / (2 * e))
        scale = np.abs(exact).max()
        assert row.influence.terms == pytest.approx(exact, abs=0.15 * scale), measure
        shares = np.array([10, 10, 4]) / 24
        error = math.sqrt(shares @ np.square(exact) / 2)
        assert row.data_error == pytest.approx(error, rel=0.15)


def test_one_run_serves_all():
    point = Point(conv_objective(batch_size=15))
    rows = [m(point) for m in (lambda_max, effective_dimension, log_determinant, negative_mass)]
    each = point.hessian.product_cost
    assert rows[1].paid == pytest.approx(5 * 20 * each)
    assert rows[2].paid == rows[3].paid == 0
    assert rows[1].cost == rows[2].cost == rows[3].cost > rows[1].paid
    assert point.ledger.spent == pytest.approx(point.hessian.products * each + 3)
    same = negative_mass(Point(conv_objective(batch_size=15)))
    assert (same.value, same.cost, same.influence) == (
        rows[3].value,
        rows[3].cost,
        rows[3].influence,
    )


def test_a_hessian_of_zeros():
    point = Point(quadratic(torch.zeros(30, 30)))
    assert negative_mass(point, k=1).value == 0 and frobenius(point, k=1).value == 0
    assert effective_dimension(point, k=1).value == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: effective_dimension(p, alpha=0), "alpha is 0"),
        (lambda p: log_determinant(p, gamma=-1), "gamma is -1"),
        (lambda p: negative_mass(p, steps=1), "steps is 1"),
        (lambda p: negative_mass(p, probes=1), "probes is 1"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call(Point(quadratic(symmetric(SPECTRUM))))
