import copy
import random

import numpy as np
import pytest
import torch
from problems import conv_net, conv_objective, images, normal
from torch import nn
from zoo import ZOO, dense_hessian, model_of, objective_of

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.operators.gauss_newton import FisherOperator, GGNOperator
from landscape.operators.hessian import HessianOperator
from landscape.operators.summed import PartsOperator, graph_bytes, parts_of, saved_bytes
from landscape.operators.symmetric import MatrixOperator, select
from landscape.space import ParameterSpace


def matrix(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


MODES = {
    "kept": {"keep_graph": True},
    "anew": {"keep_graph": False},
    "forward": {"mode": "forward"},
    "chunked": {"keep_graph": True, "chunk": 2},
    "forward, chunked": {"mode": "forward", "chunk": 2},
}


@pytest.mark.parametrize("name", ZOO)
def test_products_are_those_of_the_dense_hessian(name):
    expected = dense_hessian(name)
    assert float(expected.norm()) > 0.01
    vectors = normal(3, len(expected), seed=8)
    for mode, options in MODES.items():
        found = HessianOperator(objective_of(name), **options).rows(vectors) - vectors @ expected
        assert float(found.norm()) < 1e-9 * float(expected.norm()), mode


@pytest.mark.parametrize("name", ["sdpa", "lstm", "partial", "outputs", "norms"])
def test_gradient_and_hvp_of_the_objective_itself(name):
    objective, expected = objective_of(name), dense_hessian(name)
    v = normal(len(expected), seed=8)
    torch.testing.assert_close(
        objective.hvp(objective.theta, v), expected @ v, rtol=1e-8, atol=1e-10
    )
    step = 1e-6 * v
    slope = objective.gradient(objective.theta + step) - objective.gradient(objective.theta - step)
    torch.testing.assert_close(slope / 2e-6, expected @ v, rtol=1e-5, atol=1e-7)


def state_of(model):
    return {
        "tensors": {n: (t.clone(), t.requires_grad) for n, t in model.state_dict().items()},
        "trained": [(p.requires_grad, p.grad) for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "flags": flags(),
    }


def flags():
    backends = torch.backends
    return (
        backends.cudnn.enabled,
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        backends.cudnn.allow_tf32,
        backends.mkldnn.enabled,
        backends.mkldnn.deterministic,
        backends.mkldnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
        backends.cuda.flash_sdp_enabled(),
        backends.cuda.mem_efficient_sdp_enabled(),
        backends.cuda.math_sdp_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
    )


def same(before, after):
    tensors = before.pop("tensors"), after.pop("tensors")
    assert before == after
    for name, (value, wanted) in tensors[0].items():
        assert torch.equal(value, tensors[1][name][0]) and wanted == tensors[1][name][1], name


@pytest.mark.parametrize("name", ["sdpa", "multihead", "lstm", "partial", "keywords"])
@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
def test_nothing_of_the_caller_is_touched(name, kind):
    model = model_of(name)
    before = state_of(model)
    objective = objective_of(name, model=model)
    v = normal(objective.space.size, seed=9)
    kind(objective) @ v
    objective.hvp(objective.theta, v)
    if kind is HessianOperator:
        kind(objective, mode="forward") @ v
    same(before, state_of(model))


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.fails = nn.LSTM(2, 2, batch_first=True), False

    def forward(self, x):
        if self.fails:
            raise RuntimeError("broken on purpose")
        return self.cell(x)[0][:, -1]


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_after_an_exception_too(mode):
    model = Failing().double().train()
    objective = DataObjective(model, (normal(4, 3, 2), torch.tensor([0, 1, 1, 0])))
    before = state_of(model)
    objective.module.fails = True
    for work in (
        lambda: HessianOperator(objective, mode=mode) @ objective.theta,
        lambda: objective.gradient(objective.theta),
        lambda: objective.hvp(objective.theta, objective.theta),
    ):
        with pytest.raises(RuntimeError, match="on purpose"):
            work()
    with pytest.raises(ValueError, match="not finite"):
        objective.module.fails = False
        HessianOperator(objective, torch.full_like(objective.theta, torch.nan), mode=mode) @ (
            objective.theta
        )
    same(before, state_of(model))


def test_convolutions_keep_their_fast_kernels():
    seen = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    net.register_forward_hook(lambda *_: seen.append(torch.backends.mkldnn.enabled))
    plain = DataObjective(net, images())
    HessianOperator(plain) @ plain.theta
    recurrent = objective_of("lstm")
    recurrent.module.register_forward_hook(lambda *_: seen.append(torch.backends.mkldnn.enabled))
    HessianOperator(recurrent) @ recurrent.theta
    assert seen[0] == torch.backends.mkldnn.enabled and seen[-1] is False


def test_bfloat16_products_are_those_of_the_rounded_network():
    objective = conv_objective(torch.float32, precision="bfloat16")
    full = matrix(HessianOperator(conv_objective(torch.float64)))
    found = matrix(HessianOperator(objective)).double()
    error = float((found - full).norm() / full.norm())
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator, FisherOperator])
@pytest.mark.parametrize("params", ["conv.*", "-bias", "head.weight, conv.bias", "norm"])
def test_some_parameters_give_the_block_of_the_whole(kind, params):
    objective = conv_objective(batch_size=8)
    whole, part = matrix(kind(objective)), kind(objective, params=params)
    ends = np.cumsum([0, *objective.space.sizes])
    rows = np.concatenate(
        [
            np.arange(a, b)
            for name, a, b in zip(objective.space.names, ends[:-1], ends[1:], strict=True)
            if name in part.space.names
        ]
    )
    assert part.shape[0] == len(rows) < len(whole) and part.settings["params"] == params
    torch.testing.assert_close(matrix(part), whole[rows][:, rows], rtol=1e-9, atol=1e-12)


def test_some_parts_and_the_quotients_of_each():
    objective = conv_objective(batch_size=8)
    operator = HessianOperator(objective)
    v = normal(3, objective.space.size, seed=4)
    v /= v.norm(dim=1, keepdim=True)
    quotients = operator.quotients(v)
    assert quotients.shape == (4, 3) and operator.parts == 4
    for i, batch in enumerate(images()[0].split(8)):
        alone = HessianOperator(objective, subset=[i])
        assert alone.settings["parts"] == "1 of 4" and alone.examples == len(batch)
        expected = ((alone.rows(v)) * v).sum(1)
        torch.testing.assert_close(quotients[i], expected, rtol=1e-9, atol=1e-12)
    mean = (operator.weights[:, None] * quotients).sum(0)
    torch.testing.assert_close(mean, (operator.rows(v) * v).sum(1), rtol=1e-9, atol=1e-12)


def test_the_cost_is_two_with_kept_graphs_and_three_without():
    objective = conv_objective(batch_size=8)
    v = objective.theta
    kept, anew = (HessianOperator(objective, keep_graph=k) for k in (True, False))
    for operator in (kept, anew):
        operator @ v
        operator @ v
    assert kept.cost == pytest.approx(1 + 2 * 2) and anew.cost == pytest.approx(2 * 3)
    assert (kept.product_cost, anew.product_cost) == (2.0, 3.0)
    assert kept.products == anew.products == 2
    forward = HessianOperator(objective, mode="forward")
    forward.rows(torch.stack([v, v]))
    assert forward.cost == pytest.approx(6) and forward.product_cost == 3
    ggn = GGNOperator(objective, keep_graph=True)
    ggn @ v
    assert ggn.cost == pytest.approx(1 + 4 / 3) and ggn.product_cost == pytest.approx(4 / 3)


def test_graphs_are_kept_as_far_as_memory_allows(monkeypatch):
    objective = conv_objective(batch_size=8)
    other = HessianOperator(objective, keep_graph=False)
    other @ objective.theta  # the first call of a network copies its inputs
    with saved_bytes() as saved:
        made = other._linearize(0, other._leaves())
    assert made is not None
    room = saved() * 2.5 / 0.5  # two and a half batches of 8 examples in half of it
    monkeypatch.setattr("landscape.device.free_memory", lambda device: int(room))
    operator = HessianOperator(objective)
    assert operator.kept == 2 and operator.settings["kept_graphs"] == "2 of 4"
    full = HessianOperator(objective, keep_graph=True)
    torch.testing.assert_close(operator @ objective.theta, full @ objective.theta)
    assert len(operator._maps) == 2


def test_forward_where_no_graph_fits(monkeypatch):
    objective = conv_objective(batch_size=8)
    full = HessianOperator(objective, keep_graph=True)
    monkeypatch.setattr("landscape.device.free_memory", lambda device: 1000)
    operator = HessianOperator(objective)
    torch.testing.assert_close(operator @ objective.theta, full @ objective.theta)
    assert operator.mode == operator.settings["mode"] == "forward" and not operator._maps
    assert (operator.kept, operator.product_cost, operator.start()) == (0, 3.0, None)
    held = HessianOperator(objective, mode="reverse")
    assert (held @ objective.theta).isfinite().all() and held.mode == "reverse"


def test_the_walk_over_a_graph_sees_what_the_hooks_see():
    objective = conv_objective(batch_size=15)
    operator = HessianOperator(objective, keep_graph=False)
    with saved_bytes() as saved:
        made = operator._linearize(0, operator._leaves())
    assert made is not None
    assert graph_bytes(operator._heads) == pytest.approx(saved(), rel=0.5)


def test_the_gradient_of_the_parts():
    objective = conv_objective(batch_size=8)
    whole = HessianOperator(objective)
    torch.testing.assert_close(whole.gradient(), objective.gradient(objective.theta))
    moved = objective.theta + 0.1
    torch.testing.assert_close(whole.gradient(moved), objective.gradient(moved))
    head = HessianOperator(objective, params="head.weight", subset=[3])
    alone = DataObjective(conv_net(), [tuple(t[24:] for t in images())])
    expected = alone.space.unflatten(alone.gradient(alone.theta))["head.weight"].flatten()
    torch.testing.assert_close(head.gradient(), expected)


def test_an_operator_anew_counts_for_itself():
    objective = conv_objective(batch_size=8)
    operator = HessianOperator(objective, params="head.*", keep_graph=True, subset=[1, 3])
    made = operator @ operator.theta
    again = operator.anew()
    assert (again.products, again.cost, again.kept) == (0, 0.0, 0)
    torch.testing.assert_close(again @ operator.theta, made, rtol=1e-12, atol=0)
    assert operator.products == 1 and len(operator._maps) == 2
    single = HessianOperator(
        conv_objective(torch.float32, batch_size=8), params="head.*", subset=[1, 3]
    )
    double = single.anew(single.objective.double())
    assert double.dtype == torch.float64 and single.dtype == torch.float32
    torch.testing.assert_close(double @ operator.theta, made, rtol=1e-5, atol=1e-7)


def test_a_formula_is_one_part_and_a_linear_one_has_no_curvature():
    class Plain:
        """An objective that cannot be taken apart."""

        def __init__(self, inner):
            self.space, self.theta, self.value = inner.space, inner.theta, inner.value

    cubic = FunctionObjective(lambda t: (t**3).sum() / 6, torch.tensor([1.0, 2.0]))
    assert len(parts_of(Plain(cubic))) == 1
    assert (HessianOperator(Plain(cubic)) @ torch.eye(2)).tolist() == [[1, 0], [0, 2]]
    line = FunctionObjective(lambda t: 3 * t.sum(), torch.zeros(2))
    for mode in MODES.values():
        assert (HessianOperator(line, **mode) @ torch.eye(2)).tolist() == [[0, 0], [0, 0]]


def test_bad_options_are_refused():
    objective = conv_objective()
    for options, message in (
        ({"keep_graph": "always"}, "keep_graph is 'always': expected True, False or 'auto'"),
        ({"subset": [7]}, r"subset \[7\]: expected some of the 1 parts"),
        ({"params": "body.*"}, "'body.*' matches no parameter; there are conv.weight"),
        ({"mode": "backward"}, "mode is 'backward': expected one of auto, reverse, forward"),
    ):
        with pytest.raises(ValueError, match=message):
            HessianOperator(objective, **options)
    with pytest.raises(TypeError):
        PartsOperator(objective)
    with pytest.raises(ValueError, match="expected a square"):
        MatrixOperator(torch.zeros(2, 3))


def test_patterns_choose_in_the_order_of_the_space():
    space = ParameterSpace.from_module(conv_net())
    assert select(space, "head.*,conv.*") == (
        "conv.weight",
        "conv.bias",
        "head.weight",
        "head.bias",
    )
    assert select(space, ["*", "-norm"]) == select(space, "-norm.*")
    with pytest.raises(ValueError, match="leave no parameter"):
        select(space, "*,-*")
    assert copy.copy(space) == space
