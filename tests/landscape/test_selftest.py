import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import (
    conv_objective,
    linear_regression,
    normal,
    quadratic,
    seeded,
    softmax_regression,
    symmetric,
)
from torch import nn
from torch.func import functional_call, grad, hessian
from zoo import objective_of

from landscape.data_objective import DataObjective
from landscape.norms import with_primitive_norms
from landscape.objective import FunctionObjective
from landscape.operators import operator_of
from landscape.operators.hessian import HessianOperator
from landscape.operators.selftest import COARSE_LIMIT, SMOOTH_LIMIT, OperatorError, check, require
from landscape.operators.symmetric import MatrixOperator, SymmetricOperator
from landscape.space import ParameterSpace


def deep_relu(dtype=torch.float32):
    sizes = [6, 40, 40, 40, 3]
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    net = seeded(lambda: nn.Sequential(*layers[:-1])).to(dtype)
    return DataObjective(net, (normal(60, 6, seed=1), torch.arange(60) % 3), batch_size=25)


def line(dtype):
    slopes = torch.linspace(-1, 1, 9, dtype=dtype)
    return FunctionObjective(lambda t: slopes @ t, torch.ones(9, dtype=dtype))


HEALTHY = {
    "convolutions": lambda: conv_objective(),
    "convolutions, float32": lambda: conv_objective(torch.float32, batch_size=8),
    "batch statistics": lambda: conv_objective(torch.float32, norm="batch"),
    "recalibrated": lambda: conv_objective(norm="recalibrate", batch_size=8),
    "bfloat16": lambda: conv_objective(torch.float32, precision="bfloat16"),
    "attention": lambda: objective_of("sdpa"),
    "encoder, float32": lambda: objective_of("encoder", torch.float32),
    "lstm, float32": lambda: objective_of("lstm", torch.float32),
    "unused and frozen": lambda: objective_of("partial"),
    "layer norm": lambda: objective_of("norms"),
    "relu, float32": deep_relu,
    "relu": lambda: deep_relu(torch.float64),
    "least squares": lambda: linear_regression()[0],
    "softmax": lambda: softmax_regression()[0],
    "saddle": lambda: quadratic(symmetric([3.0, 1.0, -2.0, -2.0])),
    "saddle, float32": lambda: quadratic(
        symmetric([3.0, 1.0, -2.0]), torch.ones(3), dtype=torch.float32
    ),
    "flat direction": lambda: quadratic(symmetric([1.0, 0.0, 0.0, 1e-9])),
    "line": lambda: line(torch.float64),
    "line, float32": lambda: line(torch.float32),
    "nearly a line": lambda: FunctionObjective(
        lambda t: t.sum() + 1e-13 * t.square().sum(), torch.ones(9, dtype=torch.float64)
    ),
    "tiny": lambda: quadratic(1e-12 * symmetric([1.0, 2.0]), torch.ones(2)),
    "huge": lambda: quadratic(1e12 * symmetric([1.0, 2.0]), torch.ones(2), dtype=torch.float32),
    "cubic, float32": lambda: FunctionObjective(lambda t: (t**3).sum(), torch.ones(5) * 100),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_right_passes(name):
    for seed in range(2):
        operator = HessianOperator(HEALTHY[name]())
        result = check(operator, seed)
        assert result.passed and not result.reasons, result
        assert result.difference is not None
        assert operator.products == 0 and operator.cost == 0
        assert 4 <= result.products <= 6
        assert result.cost == pytest.approx(
            12 + (4 if operator.dtype == torch.float32 else 2), abs=4
        )


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
def test_other_kinds_have_no_gradient_to_compare_with(kind):
    result = check(operator_of(conv_objective(batch_size=8), kind=kind))
    assert result.passed and result.difference is None and result.products == 4
    assert check(MatrixOperator(symmetric([1.0, -2.0, 0.0]))).passed


def test_blocks_and_subsets_are_compared_with_their_own_gradient():
    objective = conv_objective(torch.float32, batch_size=8)
    for options in (
        {"params": "head.*"},
        {"params": "-bias", "subset": [1, 3]},
        {"mode": "forward", "params": "norm"},
        {"keep_graph": False, "theta": objective.theta * 2},
    ):
        result = check(HessianOperator(objective, **options))
        assert result.passed and result.difference < 1e-3


def test_a_run_may_begin_with_it():
    objective = conv_objective()
    made = operator_of(objective, check=True)
    assert operator_of(made, check=True) is made and made.products == 0
    assert require(made).passed


NATIVE = {
    "batch norm": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "instance norm": lambda: nn.InstanceNorm2d(3, affine=True),
    "layer norm": lambda: nn.LayerNorm([3, 4, 4]),
}


def one_step(net, dtype=torch.float64):
    """A MAML objective by hand: the query loss after one gradient step on the support loss."""
    net = net.to(dtype)
    space = ParameterSpace.from_module(net)
    x, y = normal(8, 1, 6, 6, seed=1).to(dtype), torch.arange(8) % 3

    def loss(theta, rows):
        return F.cross_entropy(functional_call(net, space.unflatten(theta), (x[rows],)), y[rows])

    def meta(theta):
        inner = grad(lambda t: loss(t, slice(0, 4)))(theta)
        return loss(theta - 0.4 * inner, slice(4, 8))

    objective = FunctionObjective(meta, space.flatten(dict(net.named_parameters())), space)
    objective.network = SimpleNamespace(model=net)
    return objective


def small_net(norm):
    def make():
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), norm(), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)
        ).double()

    return seeded(make)


@pytest.mark.parametrize("name", NATIVE)
def test_third_derivatives_through_native_norms_are_caught(name):
    net = small_net(NATIVE[name])
    result = check(HessianOperator(one_step(net)))
    assert not result.passed and SMOOTH_LIMIT < result.difference < 1
    with pytest.raises(
        OperatorError, match=r"native norm layers \(1\) are wrong.*with_primitive_norms"
    ):
        operator_of(one_step(net), check=True)
    hidden = one_step(net)
    del hidden.network
    with pytest.raises(ValueError, match="for native batch, instance or layer norms use"):
        require(HessianOperator(hidden))
    mended = check(HessianOperator(one_step(with_primitive_norms(net))))
    assert mended.passed and mended.difference < 1e-6
    coarse = check(HessianOperator(one_step(with_primitive_norms(net), torch.float32)))
    assert coarse.passed and coarse.limits[3] == COARSE_LIMIT and coarse.products == 6


class Dense(SymmetricOperator):
    """Products by a function of the caller, with an objective."""

    kind = "hessian"

    def __init__(self, objective, product):
        super().__init__(objective.theta, objective.space)
        self.objective, self._product = objective, product

    def _products(self, vectors):
        return torch.stack([self._product(v) for v in vectors])


def test_the_hessian_of_torch_through_batch_statistics_is_caught():
    objective = conv_objective(norm="batch")
    wrong = hessian(objective.value)(objective.theta).detach()
    assert check(Dense(objective, lambda v: objective.hvp(objective.theta, v))).passed
    result = check(Dense(objective, lambda v: wrong @ v))
    assert not result.passed and "not symmetric" in result.reasons[0]
    half = check(Dense(objective, lambda v: (wrong @ v + v @ wrong) / 2))
    assert not half.passed and "differences of the gradient" in half.reasons[0]


def test_products_that_are_wrong_in_other_ways_are_caught():
    objective = quadratic(symmetric([4.0, 2.0, 1.0, -1.0]))
    right = HessianOperator(objective)
    skew = torch.triu(torch.ones(4, 4).double(), 1) * 0.01
    cases = {
        "differences of the gradient": lambda v: 1.03 * (right @ v),
        "not symmetric": lambda v: right @ v + skew @ v,
        "not linear": lambda v: (right @ v) * (1 + 0.01 * v[0].abs()),
    }
    for message, product in cases.items():
        with pytest.raises(OperatorError, match=message):
            require(Dense(objective, product))
        reasons = check(Dense(objective, product)).reasons
        assert any(message in reason and "limit" in reason for reason in reasons)


class Noisy(nn.Module):
    def __init__(self, source):
        super().__init__()
        self.layer, self.source = nn.Linear(4, 3), source

    def forward(self, x):
        if self.source == "dropout":
            return self.layer(F.dropout(x, 0.5))  # active in eval mode too
        drawn = random.random() if self.source == "python" else np.random.rand()  # noqa: NPY002
        return self.layer(x * (1 + drawn))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("source", ["dropout", "python", "numpy"])
def test_a_random_loss_is_caught_and_the_random_states_stay(source, keep):
    net = Noisy(source).double()
    objective = DataObjective(net, (normal(9, 4, seed=1), torch.arange(9) % 3))
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    operator = HessianOperator(objective, keep_graph=keep)
    with pytest.raises(OperatorError, match="so the loss is random.*Make the loss deterministic"):
        require(operator)
    assert operator.products == 0 and check(operator).repeatability > 1e-5
    after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_an_error_of_three_per_cent_is_caught_in_float32_where_it_can_be():
    class Wrong(HessianOperator):
        def _products(self, vectors):
            return 1.03 * super()._products(vectors)

    result = check(Wrong(conv_objective(torch.float32)))
    assert not result.passed and result.difference == pytest.approx(0.03, rel=0.05)


def test_a_promotion_that_fails_leaves_the_coarse_test():
    weights = torch.tensor([1.0, 2.0, 3.0])

    def weighted(output, y):  # float32 for ever
        return F.cross_entropy(output, y, weights, reduction="none")

    result = check(HessianOperator(conv_objective(torch.float32, loss=weighted)))
    assert result.passed and result.limits[3] == COARSE_LIMIT


def test_products_that_are_not_finite_are_an_error_of_their_own():
    broken = FunctionObjective(lambda t: torch.sqrt(t).sum(), torch.zeros(2))
    with pytest.raises(ValueError, match="not finite at this point"):
        require(HessianOperator(broken))


def test_every_limit_is_a_number_and_errors_are_relative():
    small = check(HessianOperator(quadratic(1e-9 * symmetric([4.0, 1.0]), torch.ones(2))))
    large = check(HessianOperator(quadratic(1e9 * symmetric([4.0, 1.0]), torch.ones(2))))
    for result in (small, large):
        assert all(math.isfinite(limit) for limit in result.limits)
        assert max(result.symmetry, result.linearity, result.repeatability) < 1e-14


def test_a_hessian_too_small_to_square_is_healthy():
    assert check(
        HessianOperator(quadratic(torch.diag(torch.tensor([0.0, 1.7e-270]).double())))
    ).passed


def _with_dead_units(model_dtype=torch.float32):
    """A ReLU network whose point lies on kinks: half of its units have an input of exactly zero."""
    net = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))).to(model_dtype)
    with torch.no_grad():
        net[0].weight[::2] = 0
        net[0].bias[::2] = 0
    y = torch.from_numpy(np.random.default_rng(2).integers(0, 3, 40))
    return DataObjective(net, (normal(40, 4, seed=1).to(model_dtype), y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_point_on_kinks_passes(dtype):
    objective = _with_dead_units(dtype)
    double = objective.double()
    u = normal(objective.theta.numel(), seed=3)
    jump = double.gradient(double.theta + 1e-9 * u) - double.gradient(double.theta - 1e-9 * u)
    assert float(jump.norm()) > 1e-3  # the gradient has no derivative here
    result = check(HessianOperator(objective))
    assert result.passed and result.difference < 1e-3


def test_a_wrong_product_on_kinks_is_refused():
    class Wrong(HessianOperator):
        def _products(self, vectors):
            return 1.03 * super()._products(vectors)

    result = check(Wrong(_with_dead_units()))
    assert not result.passed and "differences of the gradient" in result.reasons[0]


def test_a_product_that_is_wrong_in_float32_alone_is_refused():
    class Wrong(HessianOperator):
        def _products(self, vectors):
            scale = 1.03 if vectors.dtype == torch.float32 else 1.0
            return scale * super()._products(vectors)

    result = check(Wrong(_with_dead_units()))
    assert not result.passed and "differences of the gradient" in result.reasons[0]
