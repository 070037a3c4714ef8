import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import conv_objective, normal, quadratic, symmetric
from scipy.sparse.linalg import eigsh
from torch import nn

from landscape.operators import operator_of
from landscape.operators.hessian import HessianOperator
from landscape.operators.symmetric import MatrixOperator, SymmetricOperator, select
from landscape.space import ParameterSpace


def test_products_of_vectors_rows_and_columns_agree():
    matrix = symmetric([3.0, 1.0, -2.0, 0.5])
    operator, v = MatrixOperator(matrix), normal(4, 3, seed=1)
    torch.testing.assert_close(operator @ v, matrix @ v)
    torch.testing.assert_close(operator.rows(v.T), (matrix @ v).T)
    torch.testing.assert_close(operator.matvec(v[:, 0]), matrix @ v[:, 0])
    assert operator.products == 7 and operator.shape == (4, 4)
    assert (operator.kind, operator.dtype) == ("matrix", torch.float64)
    assert operator.settings == {"operator": "matrix"}


def test_vectors_take_the_dtype_of_the_operator_and_lose_their_graph():
    operator = MatrixOperator(symmetric([2.0, 1.0]).float())
    v = torch.ones(2, dtype=torch.float64, requires_grad=True)
    made = operator @ v
    assert made.dtype == torch.float32 and not made.requires_grad


def test_scipy_sees_vectors_columns_and_blocks():
    matrix = symmetric([5.0, 2.0, 1.0, 0.1, -3.0])
    operator = MatrixOperator(matrix)
    seen, v = operator.to_scipy(), normal(5, 2, seed=2).numpy()
    for x in (v[:, 0], v[:, :1], v):
        np.testing.assert_allclose(seen @ x, matrix.numpy() @ x, rtol=1e-12)
    np.testing.assert_allclose(seen.T @ v, matrix.numpy() @ v, rtol=1e-12)
    assert operator.products == 1 + 1 + 2 + 2
    both = eigsh(seen, k=2, which="BE")[0]
    np.testing.assert_allclose(both, [-3, 5], rtol=1e-10)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 1), ()])
def test_shapes_are_checked(shape):
    operator = MatrixOperator(symmetric([2.0, 1.0]))
    with pytest.raises(ValueError, match=r"expected \(2,\)|expected \(count, 2\)"):
        operator.matvec(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"expected \(count, 2\)"):
        operator.rows(torch.zeros(3, 3))


def test_released_graphs_are_built_again():
    objective = conv_objective()
    operator = HessianOperator(objective, objective.theta, keep_graph=True)
    v = normal(operator.shape[0], seed=3)
    before, cost = operator @ v, operator.cost
    operator @ v
    again = operator.cost - cost
    operator.release()
    torch.testing.assert_close(operator @ v, before, rtol=0, atol=0)
    assert operator.cost - cost - again == pytest.approx(cost)  # as the first product


def test_products_that_are_not_finite_are_an_error():
    operator = MatrixOperator(torch.tensor([[1.0, torch.inf], [torch.inf, 1.0]]))
    with pytest.raises(ValueError, match="the matrix is not finite at this point"):
        operator @ torch.ones(2)


def test_an_operator_is_taken_as_it_is_and_options_are_not():
    operator = HessianOperator(quadratic(symmetric([1.0, 2.0])))
    assert operator_of(operator) is operator
    for options in ({"theta": operator.theta}, {"kind": "ggn"}, {"params": "*"}):
        with pytest.raises(ValueError, match="its point and options are its own"):
            operator_of(operator, **options)
    with pytest.raises(ValueError, match="unknown operator 'kfac': expected one of hessian, ggn"):
        operator_of(quadratic(symmetric([1.0])), kind="kfac")
    assert isinstance(operator_of(conv_objective(), params="head.*"), SymmetricOperator)


NAMES = ParameterSpace.from_module(
    nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)))
)


def test_patterns_are_globs_roles_and_exceptions():
    def chosen(params):
        return ",".join(select(NAMES, params))

    assert chosen(None) == ",".join(NAMES.names) == chosen("*")
    assert chosen("2.*") == "2.0.weight,2.0.bias,2.1.weight,2.1.bias"
    assert chosen("2.*.weight, 0.bias") == "0.bias,2.0.weight,2.1.weight"
    assert chosen("norm") == "1.weight,1.bias"
    assert chosen("-norm,-bias") == "0.weight,2.0.weight,2.1.weight"
    assert chosen(["2.*", "-2.0.*"]) == "2.1.weight,2.1.bias"
    for params, message in (
        ("3.*", "'3.*' matches no parameter; there are 0.weight, .*, ..."),
        ("-3.*", "'-3.*' matches no parameter"),
        ("", "leave no parameter"),
        ("0.*,-0.*", "leave no parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            select(NAMES, params)


@given(st.sets(st.sampled_from(NAMES.names), min_size=1))
def test_names_choose_themselves_in_the_order_of_the_space(names):
    assert select(NAMES, sorted(names)) == tuple(n for n in NAMES.names if n in names)
