import json
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    ball_maximum,
    conv_net,
    conv_objective,
    full_hessian,
    images,
    normal,
    quadratic,
    softmax_regression,
    symmetric,
)
from torch.autograd import forward_ad

import landscape.sharpness
from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.sharpness import MEASURES, Measurement, NotApplicable, SharpnessReport, sharpness
from landscape.sharpness.point import Point

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5]


def bowl(seed=8):
    matrix = symmetric(SPECTRUM)
    return quadratic(matrix, normal(5, seed=seed)), matrix


def one(objective, name, **options):
    return sharpness(objective, [name], settings={name: options})[name]


def test_gradient_norm_of_a_quadratic():
    objective, matrix = bowl()
    row = one(objective, "gradient_norm")
    assert row.value == pytest.approx(float((matrix @ objective.theta).norm()), rel=1e-12)
    assert row.stderr == 0 and row.cost == 1


def test_sam_of_a_quadratic():
    objective, matrix = bowl()
    g = matrix @ objective.theta
    for rho in (0.05, 0.7):
        expected = rho * g.norm() + rho**2 / 2 * (g @ matrix @ g) / g.norm() ** 2
        row = one(objective, "sam", rho=rho)
        assert row.value == pytest.approx(float(expected), rel=1e-10)
        assert row.settings == {"rho": rho} and row.stderr == 0


@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_asam_of_a_quadratic(eta):
    objective, matrix = bowl()
    g, c, rho = matrix @ objective.theta, objective.theta.abs() + eta, 0.5
    long = (c * g).norm()
    expected = rho * long + rho**2 / 2 * ((c**2 * g) @ matrix @ (c**2 * g)) / long**2
    assert one(objective, "asam", eta=eta).value == pytest.approx(float(expected), rel=1e-10)


def test_worst_l2_of_a_quadratic():
    objective, matrix = bowl()
    for rho in (0.05, 0.5):
        row = one(objective, "worst_l2", rho=rho, steps=200)
        assert row.value == pytest.approx(
            ball_maximum(matrix, matrix @ objective.theta, rho), rel=1e-6
        )
        default = one(objective, "worst_l2", rho=rho)
        assert default.value == pytest.approx(row.value, rel=1e-4)


def test_worst_l2_at_an_exact_minimum():
    objective = quadratic(symmetric([4.0, 2.0, 1.0, 0.5]))
    row = one(objective, "worst_l2", rho=0.3, steps=100)
    assert row.value == pytest.approx(0.5 * 0.3**2 * 4, rel=1e-6)
    assert one(objective, "sam").value == 0
    assert "no ascent direction" in one(objective, "sam").note


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-3, 5), min_size=2, max_size=6),
    st.floats(0.01, 2),
    st.integers(0, 100),
)
def test_sam_is_below_worst_l2_is_below_its_bound(spectrum, rho, seed):
    matrix = symmetric(spectrum, seed)
    objective = quadratic(matrix, normal(len(spectrum), seed=seed))
    report = sharpness(
        objective,
        ["sam", "worst_l2"],
        settings={"sam": {"rho": rho}, "worst_l2": {"rho": rho, "steps": 5}},
    )
    gradient = float((matrix @ objective.theta).norm())
    bound = rho * gradient + 0.5 * rho**2 * max(max(spectrum), 0)
    assert report["sam"].value <= report["worst_l2"].value
    assert report["worst_l2"].value <= bound * (1 + 1e-12) + 1e-12


def test_average_of_a_quadratic():
    objective, matrix = bowl()
    row = one(objective, "average", sigma=0.2, pairs=1500)
    exact = 0.5 * 0.2**2 * float(matrix.trace())
    assert row.interval[0] < row.value < row.interval[1]
    assert abs(row.value - exact) < 4 * row.stderr
    assert row.stderr < 0.05 * exact
    assert row.stderr == pytest.approx(
        0.5 * 0.2**2 * math.sqrt(2 * sum(a * a for a in SPECTRUM) / 1500), rel=0.1
    )


def test_curvature_of_a_quadratic():
    objective, matrix = bowl()
    report = sharpness(objective, ["lambda_max", "trace"])
    assert report["lambda_max"].value == pytest.approx(4.0, rel=1e-6)
    low, high = report["lambda_max"].interval
    assert low <= 4.0 + 1e-12 and high >= 4.0 - 1e-12 and report["lambda_max"].stderr == 0
    trace = report["trace"]
    assert trace.interval[0] - 1e-12 <= float(matrix.trace()) <= trace.interval[1] + 1e-12


def test_the_error_of_the_gradient_norm_is_that_of_the_slopes():
    objective, x = softmax_regression()
    labels = objective.batches[0].target
    p = torch.softmax(x @ objective.theta.view(3, 4).T, 1) - F.one_hot(labels, 3)
    each = torch.einsum("nc,nd->ncd", p, x).flatten(1)
    g = each.mean(0)
    slopes = each @ g / g.norm()
    row = one(objective, "gradient_norm")
    assert row.value == pytest.approx(float(slopes.mean()), rel=1e-12)
    assert row.value == pytest.approx(float(g.norm()), rel=1e-12)
    assert row.stderr == pytest.approx(float(slopes.std()) / math.sqrt(len(x)), rel=1e-10)


def test_forward_mode_agrees_with_the_gradient_through_batch_statistics():
    row = one(conv_objective(norm="batch"), "gradient_norm")
    assert row.stderr is not None and row.note == ""


def test_slopes_that_contradict_the_gradient_give_no_error():
    class Wrong(DataObjective):
        def losses(self, theta):
            return super().losses(theta) * 2

    row = one(Wrong(conv_net(), images(70)), "gradient_norm")  # too many for gradients one by one
    assert row.stderr is None and "do not average" in row.note


def test_errors_of_the_rises_are_paired():
    objective = conv_objective()
    g = objective.gradient(objective.theta)
    moved = objective.theta + 0.05 * g / g.norm()
    rise = objective.losses(moved) - objective.losses(objective.theta)
    row = one(objective, "sam")
    assert row.value == pytest.approx(float(rise.mean()), rel=1e-12)
    # A step along the gradient depends on the data too: that part is in test_ascent.py.
    assert row.stderr != pytest.approx(float(rise.std()) / math.sqrt(30), rel=1e-2)
    unpaired = objective.metrics(objective.theta)["loss_stderr"]
    assert row.stderr < unpaired / 2
    for name in ("asam", "worst_l2"):
        assert 0 < one(objective, name).stderr < math.inf


def test_curvature_of_a_network():
    objective = conv_objective()
    exact = torch.linalg.eigvalsh(full_hessian(objective))
    report = sharpness(objective, ["trace", "lambda_max"])
    assert report["lambda_max"].value == pytest.approx(float(exact[-1]), rel=1e-4)
    low, high = report["trace"].interval
    assert low - 1 * (high - low) < float(exact.sum()) < high + 1 * (high - low)


def test_asam_does_not_see_a_rescaling_of_a_relu_network():
    w = normal(6, seed=1)
    x = normal(20, 2, seed=2)

    def loss(t):
        return ((torch.relu(x @ t[:4].view(2, 2)) @ t[4:] - 1) ** 2).mean()

    scaled = torch.cat(
        [w[:4].view(2, 2) * torch.tensor([3.0, 0.5]), (w[4:] / torch.tensor([3, 0.5]))[None]]
    )
    plain, rescaled = FunctionObjective(loss, w), FunctionObjective(loss, scaled.flatten())
    assert float(plain.value(plain.theta)) == pytest.approx(float(rescaled.value(rescaled.theta)))
    assert one(plain, "asam").value == pytest.approx(one(rescaled, "asam").value, rel=1e-10)
    assert abs(one(plain, "sam").value / one(rescaled, "sam").value - 1) > 0.05


def test_the_whole_report():
    seen = []
    report = sharpness(conv_objective(), progress=lambda *a: seen.append(a))
    assert len(MEASURES) == 28
    assert [name for name in MEASURES if name in report] == list(report)
    assert set(report) | set(report.skipped) == set(MEASURES)
    assert not any(reason.startswith("failed") for reason in report.skipped.values())
    assert seen == [(i, len(MEASURES)) for i in range(1, len(MEASURES) + 1)]
    for name, row in report.items():
        assert row.name == name and math.isfinite(row.value) and row.cost > 0
        assert row.stderr is not None or row.interval is not None
    table = report.table().splitlines()
    assert table[0].split()[:3] == ["measure", "value", "±"]
    named = [line.split()[0] for line in table[1:] if not line.startswith(" ")]
    assert named[: len(report)] == list(report)


def test_the_top_eigenvectors_are_computed_once():
    matrix = symmetric([*range(1, 31)])
    point = Point(quadratic(matrix))
    top = MEASURES["lambda_max"](point)
    alone = point.hessian.products
    assert top.cost == point.hessian.product_cost * alone
    both = MEASURES["trace"](point)
    assert both.cost == point.hessian.product_cost * point.hessian.products
    assert point.hessian.products > alone
    assert both.paid == point.hessian.product_cost * (point.hessian.products - alone)
    fresh = MEASURES["trace"](Point(quadratic(matrix)))
    assert (fresh.value, fresh.cost) == (both.value, both.cost)


def test_costs_are_what_was_done():
    class Counted(FunctionObjective):
        spent = 0.0

        def value(self, theta):
            forward_mode = forward_ad.unpack_dual(theta).tangent is not None
            type(self).spent += 1 if forward_mode else 1 / 3
            return super().value(theta)

        def gradient(self, theta):
            type(self).spent += 2 / 3
            return super().gradient(theta)

    matrix = symmetric(SPECTRUM)
    for name, measure in MEASURES.items():
        Counted.spent = 0.0
        point = Point(Counted(lambda t: 0.5 * t @ matrix @ t, torch.ones(5).double()))
        try:
            row = measure(point)
        except NotApplicable:
            assert name in ("edge_of_stability", "relative_flatness")
            continue
        hessian = point.__dict__.get("hessian")  # made where it was needed
        spent = Counted.spent if hessian is None else hessian.products * hessian.product_cost
        # The loss at the point comes with its gradient; the formula computes it once more.
        assert spent - row.cost == pytest.approx(0, abs=0.34), name


def test_json_there_and_back():
    report = sharpness(conv_objective(), ["sam", "lambda_max"])
    document = json.loads(report.to_json())
    assert document["schema"] == "landscape.sharpness/1"
    assert document["measures"][0]["name"] == "sam"
    again = SharpnessReport.from_json(report.to_json())
    assert again.rows == report.rows and again.seed == 0
    assert again.objective == report.objective
    odd = SharpnessReport((Measurement("sam", math.inf, math.nan, (-math.inf, 1.0)),))
    row = SharpnessReport.from_json(odd.to_json())["sam"]
    assert row.value == math.inf and math.isnan(row.stderr) and row.interval == (-math.inf, 1.0)
    with pytest.raises(ValueError, match="not a sharpness report"):
        SharpnessReport.from_json('{"schema": "x"}')


def test_the_package_is_its_function():
    objective, _ = bowl()
    assert landscape.sharpness(objective, "sam").rows == sharpness(objective, "sam").rows
    assert callable(sys.modules["landscape.sharpness"])


def test_a_seed_fixes_the_report_and_another_changes_the_draws():
    objective = conv_objective()
    one_, two, other = (
        sharpness(objective, ["average", "trace"], seed=seed).rows for seed in (0, 0, 1)
    )
    assert one_ == two
    assert all(a.value != b.value for a, b in zip(one_, other, strict=True))


def test_theta_is_followed():
    objective, matrix = bowl()
    theta = objective.theta * 2
    row = sharpness(objective, "gradient_norm", theta=theta)["gradient_norm"]
    assert row.value == pytest.approx(float((matrix @ theta).norm()))
    with pytest.raises(ValueError, match="theta has shape"):
        sharpness(objective, "sam", theta=torch.zeros(2))


def test_a_loss_without_terms_has_values_and_no_data_error():
    objective = DataObjective(conv_net(), images(), loss=lambda o, y: F.cross_entropy(o, y))
    reference = sharpness(conv_objective(), ["gradient_norm", "sam", "worst_l2"])
    report = sharpness(objective, ["gradient_norm", "sam", "worst_l2"])
    for name, row in report.items():
        assert row.stderr is None
        assert row.value == pytest.approx(reference[name].value, rel=1e-8)
    assert " - " in report.table()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measures": ["sma"]}, "unknown measure 'sma': expected any of gradient_norm, sam"),
        ({"measures": "sma"}, "unknown measure 'sma'"),
        ({"settings": {"sam": {"radius": 1}}}, "unknown setting 'radius' of sam: .* rho"),
        ({"settings": {"gradient_norm": {"x": 1}}}, "it has none"),
        ({"settings": {"sma": {}}}, "unknown measure 'sma'"),
        ({"measures": "sam", "settings": {"sam": {"rho": 0}}}, "rho is 0"),
        ({"measures": "asam", "settings": {"asam": {"eta": -1}}}, "eta is -1"),
        ({"measures": "worst_l2", "settings": {"worst_l2": {"steps": 0}}}, "steps is 0"),
        ({"measures": "average", "settings": {"average": {"pairs": 1}}}, "pairs is 1"),
        ({"measures": "average", "settings": {"average": {"sigma": 0}}}, "sigma is 0"),
    ],
)
def test_bad_requests(arguments, message):
    with pytest.raises(ValueError, match=message):
        sharpness(bowl()[0], **arguments)


@pytest.mark.parametrize("norm", ["eval", "batch"])
def test_nothing_of_the_caller_is_touched(norm):
    net = conv_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    objective = DataObjective(net, images(), norm=norm)
    theta = objective.theta.clone()
    sharpness(objective, settings={"worst_l2": {"steps": 2}, "trace": {"probes": 2}})
    assert net.training and all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(theta, objective.theta)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002


def test_a_point_shares_what_is_expensive():
    calls = []

    class Counted(FunctionObjective):
        def gradient(self, theta):
            calls.append(1)
            return super().gradient(theta)

    point = Point(Counted(lambda t: (t * t).sum(), torch.ones(3)))
    assert torch.equal(point.gradient, point.gradient) and len(calls) == 1


def test_the_largest_eigenvalue_carries_its_data_noise():
    parted = conv_objective(batch_size=6)
    row = sharpness(parted, "lambda_max")["lambda_max"]
    values, vectors = torch.linalg.eigh(full_hessian(parted))
    v = vectors[:, -1]
    quotients = torch.stack(
        [
            v @ full_hessian(DataObjective(conv_net(), [b])) @ v
            for b in zip(*(t.split(1) for t in images()), strict=True)
        ]
    )
    assert row.value == pytest.approx(float(values[-1]), rel=1e-5)
    assert row.stderr == pytest.approx(float(quotients.std()) / 30**0.5, rel=1e-2)
    assert (
        row.converged
        and SharpnessReport.from_json(sharpness(parted, "lambda_max").to_json())["lambda_max"]
        == row
    )
