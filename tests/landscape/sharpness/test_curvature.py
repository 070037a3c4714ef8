"""Measures of the Hessian against dense matrices, closed forms and recomputation."""

import math

import pytest
import torch
import torch.nn.functional as F
from problems import (
    conv_net,
    conv_objective,
    full_hessian,
    images,
    normal,
    quadratic,
    seeded,
    symmetric,
)
from torch import nn

from landscape.data_objective import DataObjective
from landscape.sharpness.curvature import (
    adaptive_lambda_max,
    adaptive_trace,
    lambda_max,
    lambda_min,
    trace,
)
from landscape.sharpness.noise import forms
from landscape.sharpness.point import Point
from landscape.sharpness.spectral import frobenius

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5, -3.0, 0.1, 0.2]
TIGHT = {"tol": 1e-9}


def mlp(batch_size=None, n=24, **options):
    """A ReLU network of three layers on classes, 39 parameters."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)
        )
    ).double()
    data = normal(n, 3, seed=1), (normal(n, seed=2) > 0).long()
    return DataObjective(net, data, batch_size=batch_size, **options)


def each_hessian(objective, x, y, make=conv_net):
    """Dense Hessians of single examples at the point of ``objective``."""
    found = []
    for i in range(len(x)):
        single = DataObjective(make(), (x[i : i + 1], y[i : i + 1]))
        single.theta = objective.theta
        found.append(full_hessian(single))
    return torch.stack(found)


def test_the_ends_and_the_trace_of_a_quadratic():
    matrix = symmetric(SPECTRUM)
    point = Point(quadratic(matrix, normal(8)))
    top = lambda_max(point, **TIGHT)
    assert top.value == pytest.approx(4, rel=1e-9) and top.data_error == 0
    assert [v.value for v in top.variants] == pytest.approx([2, 1, 0.5, 0.2], abs=1e-8)
    assert [v.settings["rank"] for v in top.variants] == [2, 3, 4, 5]
    assert lambda_min(point, **TIGHT).value == pytest.approx(-3, rel=1e-6)
    found = trace(point, **TIGHT)
    assert found.value == pytest.approx(sum(SPECTRUM), rel=1e-9) and found.stderr == 0
    norm = frobenius(point, **TIGHT)
    assert norm.value == pytest.approx(math.sqrt(sum(a * a for a in SPECTRUM)), rel=1e-9)


def test_adaptive_measures_of_a_quadratic():
    matrix, w = symmetric(SPECTRUM), normal(8)
    w[2] = 0.0
    scaled = w.abs()[:, None] * matrix * w.abs()
    point = Point(quadratic(matrix, w))
    exact = torch.linalg.eigvalsh(scaled).flip(0)
    found = adaptive_lambda_max(point, **TIGHT)
    assert found.value == pytest.approx(float(exact[0]), rel=1e-8)
    assert [v.value for v in found.variants] == pytest.approx(exact[1:5].tolist(), abs=1e-7)
    assert adaptive_trace(point, **TIGHT).value == pytest.approx(
        float((w**2 * matrix.diag()).sum()), rel=1e-9
    )


@pytest.mark.parametrize("make", [lambda: conv_objective(batch_size=8), lambda: mlp(7)])
def test_a_network_against_its_dense_hessian(make):
    objective = make()
    dense = full_hessian(objective)
    values = torch.linalg.eigvalsh(dense).flip(0)
    point = Point(objective)
    top = lambda_max(point)
    assert top.value == pytest.approx(float(values[0]), rel=1e-5)
    assert [v.value for v in top.variants] == pytest.approx(values[1:5].tolist(), rel=1e-3)
    low = lambda_min(point)
    assert abs(low.value - float(values[-1])) <= low.bound + 1e-9
    c = objective.theta.abs()
    scaled = c[:, None] * dense * c
    adaptive = torch.linalg.eigvalsh(scaled)
    assert adaptive_lambda_max(point).value == pytest.approx(float(adaptive[-1]), rel=1e-4)
    for found, matrix in ((trace(point), dense), (adaptive_trace(point), scaled)):
        assert abs(found.value - float(matrix.trace())) < 4 * found.draw_error
    norm = frobenius(point)
    assert abs(norm.value - float(dense.norm())) < 4 * norm.draw_error
    for measure, matrix in ((trace, dense), (adaptive_trace, scaled)):
        whole = measure(point, probes=80)  # a basis instead of probes
        assert whole.value == pytest.approx(float(matrix.trace()), rel=1e-9)
        assert whole.draw_error is None
    assert frobenius(point, probes=80).value == pytest.approx(float(dense.norm()), rel=1e-6)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_largest_eigenvalue_moves_with_the_weight_of_each_example(batch_size):
    objective = conv_objective(batch_size=batch_size)
    x, y = images()
    dense = full_hessian(objective)
    each = each_hessian(objective, x, y)
    assert torch.allclose(each.mean(0), dense, atol=1e-10)
    found = lambda_max(Point(objective), tol=1e-6)
    assert found.influence.of == "examples"
    for i in (0, 7, 29):
        moved = [
            float(torch.linalg.eigvalsh(dense + e * (each[i] - dense))[-1]) for e in (1e-4, -1e-4)
        ]
        slope = (moved[0] - moved[1]) / 2e-4
        assert found.influence.terms[i] == pytest.approx(slope, rel=1e-3, abs=1e-6)
    v = torch.linalg.eigh(dense)[1][:, -1]
    forms_ = torch.einsum("p,npq,q->n", v, each, v)
    assert found.stderr == pytest.approx(float(forms_.std()) / math.sqrt(30), rel=1e-3)
    c = objective.theta.abs()
    u = c * torch.linalg.eigh(c[:, None] * dense * c)[1][:, -1]
    forms_ = torch.einsum("p,npq,q->n", u, each, u)
    found = adaptive_lambda_max(Point(objective), tol=1e-6)
    assert found.stderr == pytest.approx(float(forms_.std()) / math.sqrt(30), rel=1e-3)


def test_errors_over_parts_are_those_of_dense_hessians():
    objective = conv_objective(batch_size=7)  # 7, 7, 7, 7, 2
    dense, c = full_hessian(objective), objective.theta.abs()
    x, y = images()
    batches = [
        full_hessian(DataObjective(conv_net(), pair))
        for pair in zip(x.split(7), y.split(7), strict=True)
    ]
    shares = torch.tensor([7, 7, 7, 7, 2.0]).double() / 30
    vectors = torch.linalg.eigh(dense)[1]
    scaled = [c[:, None] * b * c for b in batches]
    norm = float(dense.norm())
    point = Point(objective)
    expected = {
        "trace": (trace(point, probes=80, tol=1e-6), [float(b.trace()) for b in batches]),
        "adaptive": (adaptive_trace(point, probes=80), [float(b.trace()) for b in scaled]),
        "frobenius": (
            frobenius(point, probes=80, tol=1e-6),
            [float((dense * b).sum()) / norm for b in batches],
        ),
        "second": (
            lambda_max(point, tol=1e-6).variants[0],
            [float(vectors[:, -2] @ b @ vectors[:, -2]) for b in batches],
        ),
        "lowest": (
            lambda_min(point, within=1e-5),
            [float(vectors[:, 0] @ b @ vectors[:, 0]) for b in batches],
        ),
    }
    for name, (row, numbers) in expected.items():
        numbers = torch.tensor(numbers).double()
        centred = numbers - shares @ numbers
        assert row.influence.of == "parts", name
        assert row.influence.weights == pytest.approx(shares.tolist())
        assert row.influence.terms == pytest.approx(centred.tolist(), rel=2e-3, abs=1e-4), name
        assert row.data_error == pytest.approx(math.sqrt(float(shares @ centred**2) / 4), rel=1e-3)
    few = trace(point, probes=12)
    assert few.draw_error > 0 and few.data_error > 0
    assert few.stderr == pytest.approx(math.hypot(few.draw_error, few.data_error))


def test_where_examples_cannot_be_told_apart_parts_are_used():
    v = normal(75)
    assert forms(Point(conv_objective()), v, 1e9) is None  # not the mean that they have
    many = lambda_max(Point(conv_objective(batch_size=1)), k=1)
    assert len(many.influence.terms) == 30 and many.influence.of == "examples"
    reference = lambda_max(Point(conv_objective()), k=1)
    assert many.stderr == pytest.approx(reference.stderr, rel=1e-3)

    def mean(output, target):
        return F.cross_entropy(output, target)

    parted = DataObjective(conv_net(), images(), loss=mean, batch_size=10)
    row = lambda_max(Point(parted), k=1)
    assert row.influence.of == "parts" and len(row.influence.terms) == 3
    whole = DataObjective(conv_net(), images(), loss=mean)
    assert lambda_max(Point(whole), k=1).stderr is None
    assert "not over the data" in trace(Point(whole)).note


def test_a_smallest_eigenvalue_far_from_converged_gets_its_own_search():
    spectrum = [100.0, *torch.linspace(-1.0, -0.9, 60).tolist()]
    point = Point(quadratic(symmetric(spectrum)))
    loose = lambda_min(point, k=1, tol=0.5, within=0.5)
    before = point.hessian.products
    found = lambda_min(point, k=1, tol=0.5, within=1e-6)
    assert point.hessian.products > before
    assert found.value == pytest.approx(-1, rel=1e-5) and found.bound <= 1e-6
    assert loose.value >= found.value - 1e-9


def test_adaptive_measures_do_not_see_a_rescaling_of_neurons():
    objective = mlp()
    moved = mlp()
    w = {name: t.clone() for name, t in objective.space.unflatten(objective.theta).items()}
    s = torch.tensor([4.0, 0.5, 2.0, 0.25]).double()
    w["0.weight"] *= s[:, None]
    w["0.bias"] *= s
    w["2.weight"] /= s
    moved.theta = objective.space.flatten(w)
    assert float(objective.value(objective.theta)) == float(moved.value(moved.theta))
    for measure in (adaptive_lambda_max, adaptive_trace):
        one, two = measure(Point(objective), tol=1e-7), measure(Point(moved), tol=1e-7)
        assert one.value == pytest.approx(two.value, rel=1e-8)
        assert one.stderr == pytest.approx(two.stderr, rel=1e-5)
    assert abs(trace(Point(objective)).value / trace(Point(moved)).value - 1) > 0.1


def test_intervals_of_the_trace_cover():
    spectrum = [30.0, 20.0, *torch.linspace(-1, 3, 38).tolist()]
    matrix = symmetric(spectrum)
    hits = 0
    for seed in range(60):
        row = trace(Point(quadratic(matrix), seed=seed), probes=8, k=2, tol=1e-6)
        low, high = row.interval
        hits += low <= sum(spectrum) <= high
    assert 51 <= hits <= 60


def test_every_product_is_paid_once():
    point = Point(conv_objective(batch_size=10))
    rows = [m(point) for m in (lambda_max, lambda_min, trace, frobenius)]
    products = point.hessian.products * point.hessian.product_cost
    assert sum(row.paid for row in rows) == pytest.approx(point.ledger.spent)
    assert point.ledger.spent == pytest.approx(products + 3)  # forms, by examples
    assert rows[3].paid == 0 and rows[3].cost == rows[2].cost > rows[2].paid
    again = [m(Point(conv_objective(batch_size=10))) for m in (frobenius, lambda_max)]
    assert again[0].value == rows[3].value and again[0].cost == rows[3].cost
    assert again[1].cost == rows[0].cost
    spent = point.ledger.spent
    rows = [m(point) for m in (adaptive_lambda_max, adaptive_trace)]
    products = point.hessian.products * point.hessian.product_cost - products
    assert point.ledger.spent - spent == pytest.approx(products + 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: trace(p, probes=1), "probes is 1"),
        (lambda p: lambda_max(p, k=0), "k is 0"),
        (lambda p: lambda_max(p, tol=0.0), "tol is 0"),
        (lambda p: lambda_min(p, within=0.0), "within is 0"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call(Point(quadratic(symmetric(SPECTRUM))))
