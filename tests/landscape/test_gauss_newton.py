from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    conv_net,
    conv_objective,
    images,
    linear_regression,
    normal,
    quadratic,
    seeded,
    softmax_regression,
    symmetric,
)
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, vmap
from torch.utils.flop_counter import FlopCounterMode
from zoo import ZOO, model_of, objective_of

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.operators import KINDS, operator_of
from landscape.operators.gauss_newton import FisherOperator, GGNOperator, with_tensors
from landscape.operators.hessian import HessianOperator


def matrix(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


def logistic(n=30, d=4):
    x, y = normal(n, d, seed=1), (normal(n, 1, seed=2) > 0).double()
    model = seeded(lambda: nn.Linear(d, 1, dtype=torch.float64))
    return DataObjective(model, (x, y), "binary_cross_entropy_with_logits")


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_regression()[0],
        lambda: linear_regression(outputs=3)[0],
        lambda: softmax_regression()[0],
        logistic,
    ],
)
def test_it_is_the_hessian_where_the_network_is_linear(make):
    objective = make()
    expected = matrix(HessianOperator(objective))
    torch.testing.assert_close(matrix(GGNOperator(objective)), expected, rtol=1e-11, atol=1e-13)


def output_at(objective):
    net, (x, _) = conv_net().eval(), images()
    return lambda theta: functional_call(net, objective.space.unflatten(theta), (x,))


def loss(z, y):
    return F.cross_entropy(z, y)


def test_it_is_the_sum_of_jacobian_products():
    objective = conv_objective()
    z, y = output_at(objective)(objective.theta), images()[1]
    jacobian = jacrev(output_at(objective))(objective.theta)
    bend = vmap(hessian(loss))(z, y)
    expected = torch.einsum("nap,nab,nbq->pq", jacobian, bend, jacobian) / len(y)
    for options in (
        {},
        {"batch_size": 7},  # 7, 7, 7, 7, 2
    ):
        ragged = conv_objective(**options)
        for keep in (True, False):
            found = matrix(GGNOperator(ragged, keep_graph=keep))
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    chunked = matrix(GGNOperator(ragged, chunk=20))
    torch.testing.assert_close(chunked, expected, rtol=1e-9, atol=1e-12)
    assert float((matrix(HessianOperator(objective)) - expected).norm()) > 0.01


def test_the_fisher_is_the_mean_of_outer_products():
    net, (x, y) = conv_net().eval(), images()
    objective = conv_objective()

    def one(theta, x, y):
        return loss(functional_call(net, objective.space.unflatten(theta), (x[None],)), y[None])

    each = vmap(grad(one), (None, 0, 0))(objective.theta, x, y)
    expected = each.T @ each / len(y)
    for options in ({}, {"batch_size": 7}):
        for more in ({"keep_graph": False}, {"chunk": 20}):
            found = matrix(FisherOperator(conv_objective(**options), **more))
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    trace = each.square().sum(1).mean()
    torch.testing.assert_close(expected.trace(), trace)


def test_the_fisher_of_a_formula_is_the_square_of_its_gradient():
    cubic = FunctionObjective(lambda t: (t**3).sum() / 3, torch.tensor([1.0, 2.0]))
    assert (FisherOperator(cubic) @ torch.eye(2)).tolist() == [[1, 4], [4, 16]]


def relu_net(activation):
    body = seeded(
        lambda: nn.Sequential(
            nn.Linear(4, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 3)
        ).double()
    )
    y = torch.from_numpy(np.random.default_rng(3).integers(0, 3, 20))
    return DataObjective(body, (normal(20, 4, seed=2), y), batch_size=8)


def block_defects(objective):
    for layer in range(0, 5, 2):
        for leaf in ("weight", "bias", "*"):
            options = {"params": f"{layer}.{leaf}"}
            full = matrix(HessianOperator(objective, **options))
            part = matrix(GGNOperator(objective, **options))
            yield leaf, float((full - part).norm() / full.norm())


def test_in_a_relu_net_every_block_of_a_layer_is_that_of_the_ggn():
    assert max(error for _, error in block_defects(relu_net(nn.ReLU))) < 1e-14
    assert max(error for _, error in block_defects(relu_net(nn.Tanh))) > 0.05


def test_off_the_blocks_it_is_another_matrix():
    objective = relu_net(nn.ReLU)
    full, ggn = (matrix(kind(objective)) for kind in (HessianOperator, GGNOperator))
    assert float((full - ggn).norm() / full.norm()) > 0.05


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), loss_name=st.sampled_from(["cross_entropy", "mse_loss"]))
def test_they_are_positive_semidefinite(seed, loss_name):
    net = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double())
    x = normal(7, 3, seed=seed)
    y = normal(7, 2, seed=seed + 1)
    objective = DataObjective(
        net, (x, y if loss_name == "mse_loss" else (y[:, 0] > 0).long()), loss_name, batch_size=3
    )
    theta = normal(objective.space.size, seed=seed + 2)
    for kind in (GGNOperator, FisherOperator):
        found = matrix(kind(objective, theta))
        torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-12)
        assert float(torch.linalg.eigvalsh(found)[0]) > -1e-10 * float(found.norm())


class Pair(NamedTuple):
    logits: Tensor
    note: str


class ModelOutput(OrderedDict):
    """Fields both as items and as attributes, as the outputs of well-known model libraries."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        object.__setattr__(self, key, value)


@dataclass(frozen=True)
class Frozen:
    logits: Tensor
    count: int = 3


WRAPPINGS = {
    "tuple": lambda z, h: (z, h),
    "mapping": lambda z, h: {"logits": z, "hidden": h, "cache": [h, None]},
    "named": lambda z, h: Pair(z, "x"),
    "namespace": lambda z, h: SimpleNamespace(logits=z, hidden=h, same=z),
    "frozen": lambda z, h: Frozen(z),
    "model output": lambda z, h: ModelOutput(logits=z, hidden=h),
}


def logits_of(output):
    if isinstance(output, tuple) and not hasattr(output, "logits"):
        return output[0]
    return output["logits"] if type(output) is dict else output.logits


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_outputs_of_every_form(kind):
    class Net(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.first, self.last, self.wrap = nn.Linear(4, 3), nn.Linear(3, 3), wrap

        def forward(self, x):
            h = torch.tanh(self.first(x))
            return self.wrap(self.last(h), h)

    def loss(output, y):
        return F.cross_entropy(logits_of(output), y, reduction="none")

    data = (normal(9, 4, seed=1), torch.arange(9) % 3)
    made = [
        matrix(GGNOperator(DataObjective(seeded(lambda w=wrap: Net(w)).double(), data, loss, ())))
        for wrap in (WRAPPINGS[kind], lambda z, h: SimpleNamespace(logits=z))
    ]
    torch.testing.assert_close(*made, rtol=1e-12, atol=1e-14)
    assert float(made[0].norm()) > 0.1


def test_one_output_may_be_a_function_of_another():
    """The loss reads the hidden layer too: outputs are independent coordinates, counted once."""
    objective = objective_of("outputs")
    net, batches = objective.module, objective.batches

    def stacked(theta, batch):
        out = functional_call(net, objective.space.unflatten(theta), (), dict(batch.kwargs))
        return torch.cat([out.logits, out.hidden], 1)

    def loss(z, y):
        return F.cross_entropy(z[:3], y) + z[3:].square().sum()

    total = torch.zeros(35, 35, dtype=torch.float64)
    for batch in batches:
        z = stacked(objective.theta, batch)
        jacobian = jacrev(stacked)(objective.theta, batch)
        bend = vmap(hessian(loss))(z, batch.target)
        total += torch.einsum("nap,nab,nbq->pq", jacobian, bend, jacobian)
    torch.testing.assert_close(matrix(GGNOperator(objective)), total / 8, rtol=1e-9, atol=1e-12)


def test_attention_recurrence_and_unused_parameters_have_one():
    for name in ("sdpa", "encoder", "lstm", "partial", "scalar"):
        found = matrix(GGNOperator(objective_of(name)))
        torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-12)
        assert float(torch.linalg.eigvalsh(found)[0]) > -1e-12


def test_a_loss_linear_in_the_output_has_no_curvature():
    model = nn.Linear(2, 1).double()
    objective = DataObjective(model, (normal(4, 2), normal(4, 1)), lambda z, y: (z * y).sum(1))
    assert not matrix(GGNOperator(objective)).any()
    assert matrix(FisherOperator(objective)).any()


def test_products_cost_four_thirds_of_a_gradient():
    net = seeded(lambda: nn.Sequential(*[nn.Linear(64, 64) for _ in range(6)]))
    data = (torch.ones(32, 64), torch.zeros(32, dtype=torch.int64))
    objective = DataObjective(net, data)
    v = objective.theta

    def flops(work):
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    once = flops(lambda: objective.gradient(objective.theta))
    for kind in (GGNOperator, FisherOperator):
        kept, anew = (kind(objective, keep_graph=keep) for keep in (True, False))
        kept @ v
        for operator in (kept, anew):
            cost = flops(lambda operator=operator: operator @ v) / once
            assert cost == pytest.approx(operator.product_cost, rel=0.1)


def test_what_has_none_is_refused():
    with pytest.raises(ValueError, match="FunctionObjective does not tell a network's output"):
        GGNOperator(quadratic(symmetric([1.0, 2.0]))) @ torch.ones(2)
    with pytest.raises(ValueError, match="one scalar for 5 examples; the empirical Fisher needs"):
        objective = objective_of("scalar")
        FisherOperator(objective) @ objective.theta


def test_they_are_known_by_name():
    objective = conv_objective()
    assert set(KINDS) == {"hessian", "ggn", "fisher"}
    for name, kind in KINDS.items():
        made = operator_of(objective, kind=name, params="head.*")
        assert type(made) is kind and made.kind == made.settings["operator"] == name


def test_copies_of_outputs_leave_the_original():
    output = SimpleNamespace(logits=torch.ones(2), other={"a": [torch.zeros(1)]}, name="x")
    output.itself = output  # cycles too
    made = with_tensors(output, lambda t: t + 1)
    assert made.logits.tolist() == [2, 2] and made.other["a"][0].tolist() == [1]
    assert output.logits.tolist() == [1, 1] and output.other["a"][0].tolist() == [0]
    assert made.itself is made and made.name == "x"


def test_a_mean_of_its_batch_counts_for_all_examples_of_it():
    each = DataObjective(model_of("scalar"), ZOO["scalar"][1](), "cross_entropy")
    torch.testing.assert_close(
        matrix(GGNOperator(objective_of("scalar"))),
        matrix(GGNOperator(each)),
        rtol=1e-9,
        atol=1e-12,
    )
