import numpy as np
import pytest
import torch
from problems import (
    conv_net,
    conv_objective,
    full_hessian,
    images,
    linear_regression,
    normal,
    quadratic,
    softmax_regression,
    symmetric,
)
from scipy.sparse.linalg import eigsh

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.operators.hessian import HessianOperator


def dense(objective):
    return HessianOperator(objective) @ torch.eye(objective.space.size, dtype=objective.theta.dtype)


def test_linear_regression_has_the_closed_form():
    objective, x = linear_regression()
    torch.testing.assert_close(dense(objective), 2 / len(x) * x.T @ x, rtol=1e-12, atol=1e-12)
    objective, x = linear_regression(outputs=2)
    expected = torch.kron(torch.eye(2).double(), x.T @ x / len(x))
    torch.testing.assert_close(dense(objective), expected, rtol=1e-12, atol=1e-12)


def test_softmax_regression_has_the_closed_form():
    objective, x = softmax_regression()
    p = torch.softmax(x @ objective.theta.view(3, 4).T, dim=1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("nab,ni,nj->aibj", middle, x, x).reshape(12, 12) / len(x)
    torch.testing.assert_close(dense(objective), expected, rtol=1e-10, atol=1e-12)
    trace = float((x.square().sum(1) * (1 - p.square().sum(1))).mean())
    assert float(dense(objective).trace()) == pytest.approx(trace, rel=1e-10)


@pytest.mark.parametrize("norm", ["eval", "batch"])
def test_a_network_against_functional_torch(norm):
    objective = conv_objective(norm=norm)
    torch.testing.assert_close(dense(objective), full_hessian(objective), rtol=1e-8, atol=1e-10)


def test_a_short_last_batch_weighs_what_it_should():
    x, y = images(130)
    x[128:] *= 5
    batches = list(zip(x.split(64), y.split(64), strict=True))
    assert [len(b) for _, b in batches] == [64, 64, 2]
    ragged, whole = DataObjective(conv_net(), batches), DataObjective(conv_net(), [(x, y)])
    torch.testing.assert_close(dense(ragged), dense(whole), rtol=1e-9, atol=1e-11)
    wrong = sum(dense(DataObjective(conv_net(), [batch])) for batch in batches) / 3
    assert float((wrong - dense(whole)).norm() / dense(whole).norm()) > 0.1


@pytest.mark.parametrize("norm", ["eval", "batch"])
def test_a_network_against_differences_of_its_gradient(norm):
    objective = conv_objective(norm=norm)
    theta, v = objective.theta, normal(objective.space.size, seed=7)
    step = 1e-5 * v
    slope = (objective.gradient(theta + step) - objective.gradient(theta - step)) / 2e-5
    torch.testing.assert_close(HessianOperator(objective) @ v, slope, rtol=1e-6, atol=1e-8)


def test_products_are_counted_and_the_point_is_chosen():
    cubic = FunctionObjective(lambda t: (t**3).sum() / 6, torch.tensor([1.0, 2.0]))
    operator = HessianOperator(cubic, torch.tensor([3.0, 5.0]))
    assert operator.shape == (2, 2) and operator.dtype == torch.float32
    assert (operator @ torch.eye(2)).tolist() == [[3, 0], [0, 5]]
    assert operator.products == 2


def test_scipy_sees_the_same_operator():
    matrix = symmetric([5.0, 2.0, 1.0, 0.1, -3.0])
    operator = HessianOperator(quadratic(matrix, dtype=torch.float32)).to_scipy()
    assert operator.dtype == np.float64
    assert eigsh(operator, k=1, which="LA")[0][0] == pytest.approx(5.0, rel=1e-5)


def test_a_hessian_that_is_not_finite_is_an_error():
    broken = FunctionObjective(lambda t: torch.sqrt(t).sum(), torch.zeros(2))
    with pytest.raises(ValueError, match="not finite at this point"):
        HessianOperator(broken) @ torch.ones(2)


def test_shapes_are_checked():
    operator = HessianOperator(quadratic(symmetric([1.0, 2.0])))
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        operator.matvec(normal(3))
    with pytest.raises(ValueError, match="theta has shape"):
        HessianOperator(quadratic(symmetric([1.0, 2.0])), torch.zeros(3))


def test_scaling_a_convolution_before_batch_statistics():
    """The loss stays, gradients shrink by 1/a and the block of the Hessian by 1/a²; stored ones change the loss."""
    a = 4.0

    def at(scale, norm):
        net = conv_net()
        net.norm.eps = 1e-12  # torch takes no zero
        with torch.no_grad():
            net.conv.weight *= scale
            net.conv.bias *= scale
        return DataObjective(net, images(), norm=norm)

    one, scaled = at(1.0, "batch"), at(a, "batch")
    torch.testing.assert_close(scaled.value(scaled.theta), one.value(one.theta))
    blocks = [HessianOperator(o, params="conv.*") for o in (one, scaled)]
    v = normal(blocks[0].shape[0])
    torch.testing.assert_close(a**2 * (blocks[1] @ v), blocks[0] @ v, rtol=1e-8, atol=1e-10)
    gradients = [o.space.unflatten(o.gradient(o.theta))["conv.weight"] for o in (one, scaled)]
    torch.testing.assert_close(a * gradients[1], gradients[0], rtol=1e-8, atol=1e-10)
    before, after = at(1.0, "eval"), at(a, "eval")
    assert abs(float(after.value(after.theta) - before.value(before.theta))) > 0.01
