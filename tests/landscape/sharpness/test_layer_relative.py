"""The worst case of layer_relative."""

import pytest
import torch
from problems import ball_maximum, normal, quadratic, symmetric
from torch import nn

from landscape.objective import FunctionObjective
from landscape.sharpness.average import layer_relative
from landscape.sharpness.draws import perturbation
from landscape.sharpness.point import Point
from landscape.space import ParameterSpace

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5]


def bowl():
    matrix = symmetric(SPECTRUM)
    return quadratic(matrix, normal(len(SPECTRUM), seed=8)), matrix


def test_the_worst_case_in_one_layer():
    objective, matrix = bowl()
    exact = ball_maximum(matrix, matrix @ objective.theta, 0.5 * float(objective.theta.norm()))
    worst = layer_relative(Point(objective), worst=0.5, steps=200).variants[0]
    assert worst.settings == {"case": "worst", "xi": 0.5, "steps": 200}
    assert worst.value == pytest.approx(exact, rel=1e-6)
    default = layer_relative(Point(objective), worst=0.5).variants[0]
    assert 0.95 * exact < default.value <= exact


def test_the_worst_case_at_a_minimum():
    matrix, centre = symmetric([4.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 2.0]).double()
    objective = FunctionObjective(lambda t: 0.5 * (t - centre) @ matrix @ (t - centre), centre)
    worst = layer_relative(Point(objective), worst=0.1, steps=100).variants[0]
    assert worst.value == pytest.approx(0.5 * 0.3**2 * 4, rel=1e-6)
    top = FunctionObjective(lambda t: -0.5 * (t - centre) @ matrix @ (t - centre), centre - 0)
    assert layer_relative(Point(top), worst=0.1).variants[0].value == 0


def test_the_worst_case_within_the_ball_is_found_by_smaller_steps():
    w = torch.tensor([3.0, 4.0]).double()
    hill = FunctionObjective(lambda t: -(t - 1.03 * w) @ (t - 1.03 * w), w)
    worst = layer_relative(Point(hill), worst=0.1).variants[0]
    assert worst.value == pytest.approx((0.03 * 5) ** 2, rel=1e-3)


def test_the_worst_case_of_a_line_moves_each_layer_to_its_edge():
    layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1, bias=False))
    space = ParameterSpace.from_module(layers)
    w, g = normal(space.size, seed=1), normal(space.size, seed=2)
    point = Point(FunctionObjective(lambda t: t @ g, w, space))
    ws, gs = space.unflatten(w), space.unflatten(g)
    lengths = {
        name: float(ws[name].norm() * gs[name].norm())
        for name, role in zip(space.names, space.roles, strict=True)
        if role != "norm"
    }
    assert sorted(lengths) == ["0.bias", "0.weight", "2.weight"]
    worst = layer_relative(point, worst=0.03).variants[0]
    assert worst.value == pytest.approx(0.03 * sum(lengths.values()), rel=1e-12)
    step = space.unflatten(perturbation(point, "layer", 0.5, 0))
    assert step["0.bias"].norm() == pytest.approx(0.5 * float(ws["0.bias"].norm()))
    assert not step["1.weight"].any() and not step["1.bias"].any()
    step = space.unflatten(perturbation(point, "filter", 0.5, 0))
    assert not step["0.bias"].any() and not step["1.weight"].any() and step["0.weight"].all()
