import math

import pytest
import torch
from problems import conv_objective, quadratic, symmetric

import landscape.objective as subject
from landscape.objective import FunctionObjective, Objective


def test_both_kinds_satisfy_the_protocol():
    assert isinstance(conv_objective(), Objective)
    assert isinstance(quadratic(symmetric([1.0, 2.0])), Objective)


def test_a_linear_function_has_no_curvature():
    line = FunctionObjective(lambda t: t.sum(), torch.zeros(3))
    assert line.hvp(line.theta, torch.ones(3)).tolist() == [0, 0, 0]
    assert line.metrics(line.theta) == {"loss": 0.0, "loss_stderr": 0.0}
    assert line.values(torch.eye(3)).tolist() == [1, 1, 1]


def test_standard_error():
    assert subject.standard_error(torch.tensor([1.0, 3.0])) == pytest.approx(1.0)
    assert math.isnan(subject.standard_error(torch.tensor([1.0])))
