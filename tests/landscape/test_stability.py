"""Thresholds of optimizers, verified by running them; states of checkpoints mapped to coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from problems import conv_net, full_hessian, images, quadratic, seeded, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.operators.symmetric import MatrixOperator
from landscape.space import ParameterSpace
from landscape.spectra.dynamics import dynamics
from landscape.spectra.stability import Preconditioned, from_checkpoint, read_optimizer, stability

F64 = torch.float64
KINDS = {
    "gd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "heavy ball": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "dampened": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.6, dampening=0.3),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "decay": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.5, weight_decay=3.0),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.9, 1 - 1e-9), eps=0.3),
    "adam, coupled decay": lambda p, lr: torch.optim.Adam(
        p, lr=lr, betas=(0.8, 1 - 1e-9), eps=0.3, weight_decay=2.0
    ),
    "amsgrad": lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.5, 1 - 1e-9), amsgrad=True),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr, alpha=1 - 1e-12, eps=0.2),
    "rmsprop, all": lambda p, lr: torch.optim.RMSprop(
        p, lr=lr, alpha=1 - 1e-12, momentum=0.7, centered=True, weight_decay=1.0
    ),
}


def frozen_state(optimizer, p: torch.Tensor) -> None:
    """Second moments that stay as they are: the preconditioner of the theory."""
    v = torch.linspace(0.25, 4.0, p.numel(), dtype=F64)
    state = {"step": torch.tensor(1e12, dtype=F64), "exp_avg": torch.zeros_like(p)}
    if isinstance(optimizer, torch.optim.Adam):
        state |= {"exp_avg_sq": v, "max_exp_avg_sq": 2 * v}
    elif isinstance(optimizer, torch.optim.RMSprop):
        state |= {
            "square_avg": v,
            "momentum_buffer": torch.zeros_like(p),
            "grad_avg": torch.full_like(p, 0.45),
        }
    else:
        return
    optimizer.state[p] = state


def growth(make, matrix: torch.Tensor, rate: float, steps: int = 300) -> float:
    """Length of the iterate after ``steps`` of the optimizer itself on ``½ xᵀ A x``."""
    p = nn.Parameter(torch.full((len(matrix),), 1e-6, dtype=F64))
    optimizer = make([p], rate)
    frozen_state(optimizer, p)
    for _ in range(steps):
        p.grad = matrix @ p.detach()
        optimizer.step()
        if float(p.detach().norm()) > 1e-3:  # far outside: before the moments move
            break
    return float(p.detach().norm())


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_diverges_above_its_threshold_and_not_below(kind):
    matrix = symmetric([6.0, 2.0, 0.5])
    objective, make = quadratic(matrix), KINDS[kind]

    def ratio(rate: float) -> float:
        p = nn.Parameter(torch.zeros(3, dtype=F64))
        optimizer = make([p], rate)
        frozen_state(optimizer, p)
        return stability(objective, optimizer, tol=1e-10).ratio

    edge = 0.01 / ratio(0.01)  # the ratio is proportional to the learning rate
    assert ratio(edge) == pytest.approx(1, abs=1e-9)
    assert growth(make, matrix, 0.97 * edge) < 1e-5
    assert growth(make, matrix, 1.03 * edge) > 1e-3


@pytest.mark.parametrize(
    ("settings", "eta_lambda"),
    [
        ({}, 2.0),
        ({"momentum": 0.9}, 3.8),
        ({"momentum": 0.9, "nesterov": True}, 1.357142857142857),
    ],
)
def test_thresholds_of_the_literature(settings, eta_lambda):
    space = ParameterSpace.of_vector(1)
    made = dynamics({"lr": 0.25, **settings}, space)
    assert made.threshold * 0.25 == pytest.approx(eta_lambda, rel=1e-12)


def test_adam_at_its_default_momentum_bears_38_over_the_learning_rate():
    p = nn.Parameter(torch.zeros(3, dtype=F64))
    optimizer = torch.optim.Adam([p], lr=0.02)
    frozen_state(optimizer, p)
    assert stability(quadratic(torch.eye(3)), optimizer).threshold == pytest.approx(38 / 0.02)


def test_bias_correction_is_that_of_the_step_that_torch_took():
    """The step of torch's Adam is ``m / P``: P is read off one of its own steps."""
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=F64))
    optimizer = torch.optim.Adam([p], lr=0.1, betas=(0.7, 0.9), eps=0.05)
    for t in range(3):
        p.grad = torch.tensor([1.0, 2.0, -0.5], dtype=F64) * (t + 1)
        before = p.detach().clone()
        optimizer.step()
    taken = (before - p.detach()) / (0.1 * optimizer.state[p]["exp_avg"])  # 1 / P
    found = dynamics(optimizer.state_dict(), ParameterSpace.of_vector(3))
    torch.testing.assert_close(found.scale.square(), taken)


def two_layers() -> tuple[nn.Module, DataObjective]:
    net = conv_net()
    return net, DataObjective(net, images(), norm="eval")


def trained(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = images()
    net.eval()
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()


def dense_sharpness(objective, scale: torch.Tensor, decay: torch.Tensor | float = 0.0) -> float:
    """λ₁ of the unsymmetric ``R² (H + W)``, by a dense solver."""
    hessian = full_hessian(objective)
    hessian = hessian + torch.diag(torch.zeros_like(scale) + decay)
    return float(torch.linalg.eigvals(torch.diag(scale**2) @ hessian).real.max())


def test_adam_of_a_network_against_the_dense_unsymmetric_matrix():
    net = conv_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    trained(net, optimizer)
    objective = DataObjective(net, images(), norm="eval")
    found = stability(objective, optimizer, tol=1e-8)
    v = torch.cat([optimizer.state[p]["exp_avg_sq"].reshape(-1) for p in net.parameters()])
    inverse = 1 / ((1 - 0.9**4) * ((v / (1 - 0.999**4)).sqrt() + 1e-8))
    expected = dense_sharpness(objective, inverse.sqrt())
    assert found.sharpness == pytest.approx(expected, rel=1e-6)
    assert found.ratio == pytest.approx(expected * 1e-2 / 38, rel=1e-6)
    assert found.interval[0] <= found.ratio <= found.interval[1]
    assert found.converged


def grouped(net: nn.Module) -> torch.optim.Optimizer:
    """Weights last, with a rate of their own; the norm layer is left out."""
    named = dict(net.named_parameters())
    return torch.optim.SGD(
        [
            {"params": [named["head.bias"], named["conv.bias"]], "lr": 0.1, "weight_decay": 0.0},
            {"params": [named["head.weight"], named["conv.weight"]], "lr": 0.4},
        ],
        momentum=0.9,
        weight_decay=0.5,
    )


def test_groups_with_learning_rates_and_decay_of_their_own():
    net = conv_net()
    optimizer = grouped(net)
    trained(net, optimizer)
    objective = DataObjective(net, images(), norm="eval")
    names = ["head.bias", "conv.bias", "head.weight", "conv.weight"]
    found = stability(objective, optimizer, param_names=names, tol=1e-8)
    rates = {"head.bias": 0.1, "conv.bias": 0.1, "head.weight": 0.4, "conv.weight": 0.4}
    space = objective.space
    rate = torch.cat(
        [
            torch.full((n,), rates.get(k, 0.0), dtype=F64)
            for k, n in zip(space.names, space.sizes, strict=True)
        ]
    )
    decay = torch.where(rate == 0.4, 0.5, 0.0)
    expected = dense_sharpness(objective, rate.sqrt(), decay)
    assert found.ratio == pytest.approx(expected / 3.8, rel=1e-6)
    assert "2 of 6 tensors" in found.text
    assert "down to 0.1" in found.text


def test_names_in_the_state_are_used():
    net = conv_net()
    named = list(net.named_parameters())
    optimizer = torch.optim.Adam(reversed(named), lr=0.01)  # not the order of the space
    trained(net, optimizer)
    plain = torch.optim.Adam(conv_net().parameters(), lr=0.01)
    objective = DataObjective(net, images(), norm="eval")
    moved = optimizer.state_dict()
    state = {len(named) - 1 - i: s for i, s in moved["state"].items()}
    same = {"param_groups": plain.state_dict()["param_groups"], "state": state}
    scales = [dynamics(s, objective.space).scale for s in (moved, same)]
    torch.testing.assert_close(*scales, rtol=0, atol=0)


def test_parameters_that_never_had_a_gradient_stay():
    p, q = (nn.Parameter(torch.ones(2, dtype=F64)) for _ in range(2))
    optimizer = torch.optim.Adam([p, q])
    p.grad = torch.ones_like(p)
    optimizer.step()
    space = ParameterSpace.from_module(nn.ParameterList([p, q]))
    assert dynamics(optimizer.state_dict(), space).scale.tolist()[2:] == [0.0, 0.0]


def test_a_flat_vector_of_parameters_as_our_trainer_keeps_it(tmp_path):
    _, objective = two_layers()
    p = objective.theta.clone().requires_grad_()
    optimizer = torch.optim.Adam([p], lr=1e-3)
    for t in range(3):
        p.grad = objective.gradient(p.detach() + 0.01 * t)
        optimizer.step()
    torch.save({"optimizer": optimizer.state_dict(), "best": {}}, tmp_path / "trainer.pt")
    found = from_checkpoint(tmp_path, objective, tol=1e-8)
    v = optimizer.state[p]["exp_avg_sq"]
    inverse = 1 / ((1 - 0.9**3) * ((v / (1 - 0.999**3)).sqrt() + 1e-8))
    assert found.sharpness == pytest.approx(dense_sharpness(objective, inverse.sqrt()), rel=1e-6)
    assert found.rule == "adam"


@pytest.mark.parametrize("entry", [None, "optimizer", "optimizer_state_dict", "optimizer_states"])
def test_usual_checkpoint_files(tmp_path, entry):
    state = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.5, momentum=0.9).state_dict()
    wrapped = [state] if entry == "optimizer_states" else state
    path = tmp_path / "last.ckpt"
    torch.save(state if entry is None else {"epoch": 3, "model": {}, entry: wrapped}, path)
    assert read_optimizer(path)["param_groups"][0]["momentum"] == 0.9
    bowl = quadratic(torch.diag(torch.tensor([1.9, 1.0])))
    assert from_checkpoint(path, bowl, tol=1e-8).ratio == pytest.approx(0.25)


class Code:
    pass


def test_files_without_an_optimizer_or_with_code_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(ValueError, match="does not exist"):
        read_optimizer(path)
    torch.save({"model": {"w": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="holds no optimizer state"):
        read_optimizer(path)
    torch.save({"optimizer": Code()}, path)
    with pytest.raises(ValueError, match=r"is refused: it holds .*Code, which could run code"):
        read_optimizer(path)
    path.write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="cannot be read"):
        read_optimizer(path)
    state = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.5).state_dict()
    torch.save({"optimizer_states": [state, state]}, path)
    with pytest.raises(ValueError, match="2 optimizers"):
        read_optimizer(path)


STRANGERS = (
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "ASGD",
    "Rprop",
    "Adafactor",
    "LBFGS",
)


@pytest.mark.parametrize("name", [*STRANGERS, "Muon"])
def test_unknown_optimizers_are_refused(name):
    p = nn.Parameter(torch.zeros(2, 2))
    state = getattr(torch.optim, name)([p]).state_dict()
    with pytest.raises(ValueError, match="is not known; known are sgd, adam, adamw, rmsprop"):
        dynamics(state, ParameterSpace.of_vector(4))


def test_adamw_is_told_from_adam_and_its_decay_neglected():
    def made(kind, **options):
        p = nn.Parameter(torch.ones(3, dtype=F64))
        optimizer = kind([p], lr=0.1, weight_decay=0.4, **options)
        p.grad = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
        optimizer.step()
        return optimizer.state_dict()

    space = ParameterSpace.of_vector(3)
    coupled, apart = (dynamics(made(kind), space) for kind in (torch.optim.Adam, torch.optim.AdamW))
    assert (coupled.rule, coupled.decay) == ("adam", 0.4)
    assert (apart.rule, apart.decay) == ("adamw", 0.0)
    assert "neglected" in apart.text
    assert "part of the curvature" in coupled.text
    old = made(torch.optim.Adam)
    del old["param_groups"][0]["decoupled_weight_decay"]
    with pytest.raises(ValueError, match="rule='adam' or rule='adamw'"):
        dynamics(old, space)
    assert dynamics(old, space, rule="adamw").decay == 0.0


def test_states_that_do_not_fit():
    net, objective = two_layers()
    space = objective.space
    optimizer = torch.optim.Adam(net.parameters())
    with pytest.raises(ValueError, match=r"no exp_avg_sq of 'conv.weight'.*after the first step"):
        dynamics(optimizer.state_dict(), space)
    trained(net, optimizer)
    names = list(space.names)
    names[0], names[1] = names[1], names[0]
    with pytest.raises(ValueError, match=r"of 'conv.bias' has shape \(3, 1, 3, 3\)"):
        dynamics(optimizer.state_dict(), space, param_names=names)
    with pytest.raises(ValueError, match="6 parameters, and 2 names"):
        dynamics(optimizer.state_dict(), space, param_names=["conv.weight", "conv.bias"])
    with pytest.raises(ValueError, match="no parameter of the optimizer is one"):
        dynamics(optimizer.state_dict(), space, param_names=[f"module.{n}" for n in space.names])
    with pytest.raises(ValueError, match="2 groups of parameters and no names"):
        dynamics(grouped(net).state_dict(), space)
    flat = torch.optim.SGD([nn.Parameter(torch.zeros(5))], lr=1.0, momentum=0.5)
    flat.param_groups[0]["params"][0].grad = torch.zeros(5)
    flat.step()
    with pytest.raises(ValueError, match=r"only parameter has shape \(5,\)"):
        dynamics(flat.state_dict(), space)


def test_settings_out_of_range():
    space = ParameterSpace.of_vector(2)
    with pytest.raises(ValueError, match="no learning rate"):
        dynamics({"momentum": 0.9}, space)
    with pytest.raises(ValueError, match="learning rate is 0"):
        dynamics({"lr": 0.0}, space)
    with pytest.raises(ValueError, match="dampening is 1"):
        dynamics({"lr": 0.1, "momentum": 0.5, "dampening": 1.0}, space)
    with pytest.raises(ValueError, match="maximizes"):
        dynamics({"lr": 0.1, "maximize": True}, space)
    with pytest.raises(ValueError, match="unknown optimizer 'lion'"):
        dynamics({"lr": 0.1}, space, rule="lion")
    groups = [{"lr": 0.1, "momentum": m, "params": [i]} for i, m in enumerate((0.9, 0.5))]
    with pytest.raises(ValueError, match="different momentum"):
        dynamics({"param_groups": groups}, space)


def test_the_preconditioned_operator_counts_and_is_symmetric():
    inner = MatrixOperator(symmetric([5.0, 1.0, -2.0, 0.3]))
    scale, decay = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=F64), torch.arange(4, dtype=F64)
    operator = Preconditioned(inner, scale, decay)
    dense = operator.rows(torch.eye(4, dtype=F64))
    torch.testing.assert_close(dense, dense.T)
    rooted = torch.diag(scale) @ (inner.rows(torch.eye(4, dtype=F64)) + torch.diag(decay))
    torch.testing.assert_close(dense, rooted @ torch.diag(scale))
    assert (operator.products, inner.products) == (4, 8)
    with pytest.raises(ValueError, match="scale has shape"):
        Preconditioned(inner, torch.ones(3))


def test_at_a_maximum_nothing_is_near_the_edge():
    cap = FunctionObjective(lambda t: -(t * t).sum(), torch.zeros(3, dtype=F64))
    found = stability(cap, {"lr": 0.1})
    assert found.ratio == pytest.approx(-0.1)
    assert found.gauge()["low"] <= found.ratio <= found.gauge()["high"]


def test_the_network_is_left_as_it_was():
    net, objective = two_layers()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    stability(objective, seeded(lambda: torch.optim.SGD(net.parameters(), lr=0.1)))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert math.isclose(stability(objective, {"lr": 0.1}).threshold, 20)
