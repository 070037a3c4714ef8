"""Laws of Hessians, Gauss-Newton and Fisher matrices of networks: symmetry, closed forms, units, homogeneity."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import SCALES, SEEDS, classifiers, close, examples, layers_of, relu_stack
from problems import conv_net, full_hessian, images, normal
from torch import nn

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.operators.gauss_newton import FisherOperator, GGNOperator
from landscape.operators.hessian import HessianOperator
from landscape.sharpness.layers import fisher_rao
from landscape.sharpness.point import Point

OPERATORS = st.sampled_from([HessianOperator, GGNOperator, FisherOperator])


def dense(operator):
    return operator.rows(torch.eye(operator.shape[0], dtype=torch.float64))


@examples(30)
@given(classifiers(nn.Tanh), OPERATORS, SEEDS, SCALES)
def test_products_are_symmetric_and_linear(objective, kind, seed, scale):
    operator = kind(objective)
    u, v = normal(2, len(objective.theta), seed=seed)
    images = operator.rows(torch.stack([u, v]))
    size = float(images.norm() * u.norm() * v.norm())
    assert abs(float(u @ images[1] - v @ images[0])) <= 1e-12 * size
    mixed = operator @ (scale * u - 3 * v)
    close(
        mixed, scale * images[0] - 3 * images[1], 1e-11, 1e-11 * (scale + 3) * float(images.norm())
    )
    assert not (operator @ torch.zeros_like(u)).any()


@examples(25)
@given(classifiers(nn.Tanh), SEEDS)
def test_the_hessian_is_that_of_another_program(objective, seed):
    """And it is symmetric as a matrix, and the derivative of the gradient along a line."""
    objective.theta = objective.theta + normal(len(objective.theta), seed=seed)
    found = dense(HessianOperator(objective))
    close(found, full_hessian(objective), 1e-11, 1e-15)
    h, v = 1e-5, normal(len(objective.theta), seed=seed + 1)
    ends = [objective.gradient(objective.theta + s * h * v) for s in (1, -1)]
    close(found @ v, (ends[0] - ends[1]) / (2 * h), 1e-6, 1e-8)


@examples(30)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), SEEDS, st.integers(1, 9))
def test_linear_regression(n, d, outputs, seed, batch):
    """``H = 2/(n m) XᵀX ⊗ I`` with m outputs, wherever the weights are; the Gauss-Newton matrix is the same."""
    x, y = normal(n, d, seed=seed), normal(n, outputs, seed=seed + 1)
    model = nn.Linear(d, outputs, bias=False, dtype=torch.float64)
    objective = DataObjective(model, (x, y), loss="mse_loss", batch_size=batch)
    exact = torch.kron(torch.eye(outputs).double(), 2 / (n * outputs) * x.T @ x)
    for kind in (HessianOperator, GGNOperator):
        close(dense(kind(objective)), exact, 1e-12, 1e-15)


@examples(30)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(2, 4), SEEDS, st.integers(1, 9))
def test_softmax_regression(n, d, classes, seed, batch):
    """``H = mean (diag p − ppᵀ) ⊗ xxᵀ``, its trace ``mean ‖x‖² (1 − Σp²)``, and GGN = H."""
    x = normal(n, d, seed=seed)
    y = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, n))
    objective = DataObjective(relu_stack([d, classes], seed, nn.ReLU), (x, y), batch_size=batch)
    p = torch.softmax(x @ objective.theta.view(classes, d).T, 1)
    each = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    exact = torch.einsum("nab,nd,ne->adbe", each, x, x).reshape(classes * d, -1) / n
    found = dense(HessianOperator(objective))
    close(found, exact, 1e-11, 1e-15)
    assert float(found.trace()) == pytest.approx(
        float((x.square().sum(1) * (1 - p.square().sum(1))).mean()), rel=1e-10
    )
    close(dense(GGNOperator(objective)), exact, 1e-11, 1e-15)
    # A softmax model has its labels' expectation as Fisher matrix: the Gauss-Newton matrix.
    fisher = torch.zeros_like(exact)
    for k in range(classes):
        slopes = (
            (p - nn.functional.one_hot(torch.tensor(k), classes))[:, :, None] * x[:, None, :]
        ).flatten(1)
        fisher += (p[:, k, None] * slopes).T @ slopes / n
    close(fisher, exact, 1e-11, 1e-15)


@examples(30)
@given(classifiers())
def test_the_fisher_is_the_mean_of_squared_slopes(objective):
    """Of the true labels; positive semidefinite like the Gauss-Newton matrix, of no more rank than examples."""
    slopes = torch.func.jacrev(objective.losses)(objective.theta)
    exact = slopes.T @ slopes / len(slopes)
    found = dense(FisherOperator(objective))
    close(found, exact, 1e-11, 1e-15)
    for matrix in (found, dense(GGNOperator(objective))):
        assert float(torch.linalg.eigvalsh(matrix)[0]) >= -1e-12 * float(matrix.norm())
    assert torch.linalg.matrix_rank(found) <= objective.examples


@examples(20)
@given(classifiers())
def test_blocks_of_a_relu_network_are_those_of_the_gauss_newton_matrix(objective):
    """A ReLU network is linear in the weights of any one layer, almost everywhere."""
    hessian, ggn = (dense(kind(objective)) for kind in (HessianOperator, GGNOperator))
    start = 0
    for layer in layers_of(objective, objective.theta):
        block = slice(start, start + layer.numel())
        close(hessian[block, block], ggn[block, block], 1e-10, 1e-13)
        start += layer.numel()


@examples(30)
@given(classifiers(nn.Tanh), SCALES, st.sampled_from([1e-4, 0.5, 1e3]), SEEDS)
def test_derivatives_follow_the_units(objective, loss_unit, weight_unit, seed):
    """``L'(w) = a L(w / c)`` has ``a g / c`` and ``a H / c²``."""
    c = weight_unit
    other = FunctionObjective(lambda t: loss_unit * objective.value(t / c), c * objective.theta)
    v = normal(len(objective.theta), seed=seed)
    unit = loss_unit / c
    close(
        other.gradient(other.theta), unit * objective.gradient(objective.theta), 1e-10, 1e-15 * unit
    )
    expected = unit / c * (HessianOperator(objective) @ v)
    close(HessianOperator(other) @ v, expected, 1e-9, 1e-14 * unit / c)


@examples(30)
@given(
    st.integers(1, 4), st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(1, 9), SEEDS
)
def test_homogeneous_networks_obey_euler(inputs, hidden, n, seed):
    """``w · ∂f/∂w = ℓ f`` at depth ℓ, hence the Fisher-Rao norm ``ℓ² E⟨∂loss/∂f, f⟩²``, to two computations."""
    net = relu_stack([inputs, *hidden, 3], seed, nn.ReLU)
    depth = len(hidden) + 1
    x, y = normal(n, inputs, seed=seed + 7), torch.arange(seed, seed + n) % 3
    objective = DataObjective(net, (x, y))
    f = net(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(f, y, reduction="sum"), f)
    along = (slope * f.detach()).sum(1)
    exact = depth**2 * float(along.square().mean())
    assert fisher_rao(Point(objective)).value == pytest.approx(exact, rel=1e-9, abs=1e-20)
    slopes = torch.func.jacrev(objective.losses)(objective.theta) @ objective.theta
    close(slopes, depth * along, 1e-10, 1e-14)


@examples(15)
@given(st.floats(-3, 3), SEEDS, st.integers(2, 20))
def test_scaling_a_convolution_before_batch_statistics(exponent, seed, n):
    """The loss stays, gradients of that layer go with 1/a, its block of the Hessian with 1/a²; not in eval mode."""
    a = math.exp(exponent)
    assume(abs(a - 1) > 0.05)
    net = conv_net()
    net.norm.eps = 1e-13  # torch takes no zero
    x, y = images(n)
    objective = DataObjective(net, (x, y), norm="batch")
    size = net.conv.weight.numel()
    moved = objective.theta.clone()
    moved[:size] *= a
    assert float(objective.value(moved)) == pytest.approx(
        float(objective.value(objective.theta)), rel=1e-9
    )
    there, here = (objective.gradient(t)[:size] for t in (moved, objective.theta))
    close(a * there, here, 1e-7, 1e-12)
    v = torch.zeros_like(moved)
    v[:size] = normal(size, seed=seed)
    blocks = [(HessianOperator(objective, t) @ v)[:size] for t in (moved, objective.theta)]
    close(a**2 * blocks[0], blocks[1], 1e-6, 1e-11)
    stored = DataObjective(net, (x, y))
    assert float(stored.value(moved)) != pytest.approx(float(stored.value(stored.theta)), rel=1e-9)
