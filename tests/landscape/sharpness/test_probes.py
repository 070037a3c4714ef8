"""Traces by probes and deflated eigenvectors, held against dense matrices of the parts."""

import pytest
import torch
from problems import full_hessian, normal
from torch import nn

from landscape.data_objective import DataObjective
from landscape.sharpness.curvature import top
from landscape.sharpness.point import Point
from landscape.sharpness.probes import probed


def test_parts_of_both_traces_are_those_of_dense_matrices():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    pairs = [(normal(n, 3, seed=n), torch.arange(n) % 2) for n in (5, 4, 2)]
    objective = DataObjective(net, pairs)
    dense = full_hessian(objective)
    each = [full_hessian(DataObjective(net, pair)) for pair in pairs]
    point = Point(objective)
    eigenpairs = top(point, 3, 1e-8)
    found = probed(point, point.hessian, eigenpairs, 40, "hessian")
    assert found.exact and found.deflated == 3
    assert float(found.traces) == pytest.approx(float(dense.trace()), rel=1e-9)
    assert float(found.squares) == pytest.approx(float(dense.square().sum()), rel=1e-9)
    assert found.parts.tolist() == pytest.approx([float(b.trace()) for b in each], rel=1e-6)
    products = [float((dense * b).sum()) for b in each]
    assert found.square_parts.tolist() == pytest.approx(products, rel=1e-6)
