import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net, conv_objective, images, quadratic, seeded, symmetric
from torch import nn

from landscape.directions import RULES, Plane, generator, interpolation, random_plane
from landscape.objective import DataObjective


def by_name(objective, row):
    return objective.space.unflatten(row)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filters_have_the_norms_of_the_weights(dtype):
    objective = conv_objective(dtype)
    plane = random_plane(objective)
    weights = by_name(objective, objective.theta)
    for row in plane.basis:
        parts = by_name(objective, row)
        for name in ("conv.weight", "head.weight"):
            torch.testing.assert_close(
                parts[name].flatten(1).norm(dim=1), weights[name].flatten(1).norm(dim=1)
            )
        for name in ("conv.bias", "norm.weight", "norm.bias", "head.bias"):
            assert not parts[name].any()
    assert plane.basis.dtype == dtype
    assert abs(plane.cosine) < 0.5


def test_filters_of_a_transposed_convolution_lie_along_axis_one():
    net = seeded(lambda: nn.ConvTranspose2d(2, 3, 2, bias=False))
    objective = DataObjective(
        nn.Sequential(net, nn.Flatten()), (torch.ones(1, 2, 1, 1), torch.zeros(1).long())
    )
    parts = random_plane(objective).basis[0].view(2, 3, 2, 2)
    lengths = torch.linalg.vector_norm(net.weight.detach(), dim=(0, 2, 3))
    torch.testing.assert_close(torch.linalg.vector_norm(parts, dim=(0, 2, 3)), lengths)


def test_the_other_rules():
    objective = conv_objective()
    weights = by_name(objective, objective.theta)
    rows = {
        rule: by_name(objective, random_plane(objective, rule, ignore=()).basis[0])
        for rule in RULES
    }
    for name in weights:
        drawn = generator(0, 0, name).standard_normal(tuple(weights[name].shape))
        np.testing.assert_array_equal(rows["none"][name].numpy(), drawn)
        torch.testing.assert_close(rows["weight"][name], rows["none"][name] * weights[name])
        assert float(rows["layer"][name].norm()) == pytest.approx(float(weights[name].norm()))
        if weights[name].dim() < 2:
            torch.testing.assert_close(rows["filter"][name], rows["layer"][name])


def test_one_dimensional_tensors_that_move_are_not_copies_of_the_weights():
    plane = random_plane(conv_objective(), ignore=())
    x, y = (by_name(conv_objective(), row)["head.bias"] for row in plane.basis)
    assert abs(float(x @ y / (x.norm() * y.norm()))) < 0.999


def test_a_direction_depends_on_seed_axis_and_name_only():
    objective = conv_objective()
    plane, again = random_plane(objective), random_plane(objective)
    assert torch.equal(plane.basis, again.basis)
    assert not torch.equal(plane.basis[0], plane.basis[1])
    assert torch.equal(plane.basis[:1], random_plane(objective, axes=1).basis)
    assert not torch.equal(plane.basis, random_plane(objective, seed=1).basis)
    low = random_plane(conv_objective(torch.float32))
    torch.testing.assert_close(low.basis.double(), plane.basis, rtol=1e-6, atol=1e-7)


def test_the_order_of_the_layers_does_not_matter():
    layers = {"a": seeded(lambda: nn.Linear(4, 4)), "b": seeded(lambda: nn.Linear(4, 4))}
    data = (torch.ones(2, 4), torch.zeros(2).long())
    forth = DataObjective(nn.Sequential(OrderedDict(layers)), data)
    back = DataObjective(nn.Sequential(OrderedDict(reversed(layers.items()))), data)
    assert forth.space.names != back.space.names
    for one, two in zip(random_plane(forth).basis, random_plane(back).basis, strict=True):
        left, right = by_name(forth, one), by_name(back, two)
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_settings_and_origin():
    objective = conv_objective()
    theta = objective.theta * 2
    plane = random_plane(objective, "layer", ignore="bias", seed=3, axes=1, theta=theta)
    assert dict(plane.settings) == {
        "kind": "random",
        "normalize": "layer",
        "ignore": ["bias"],
        "seed": 3,
        "axes": 1,
    }
    assert torch.equal(plane.origin, theta)
    theta.zero_()
    assert plane.origin.any()
    assert math.isnan(plane.cosine)


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_points_are_placed_directly(alpha, beta):
    plane = Plane(torch.tensor([1.0, 2.0]).double(), torch.tensor([[3.0, 0], [0, 5]]).double())
    assert plane.point(alpha, beta).tolist() == [1 + alpha * 3, 2 + beta * 5]


def test_interpolation_meets_both_ends():
    objective = conv_objective()
    a, b = objective.theta, objective.theta.flip(0)
    line = interpolation(objective, a, b)
    assert torch.equal(line.point(0.0), a)
    torch.testing.assert_close(line.point(1.0), b, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(line.point(0.5), (a + b) / 2)
    assert line.settings["kind"] == "interpolation"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "filtre"}, "expected one of filter, layer, weight, none"),
        ({"ignore": ("biases",)}, "expected any of weight, bias, norm"),
        ({"axes": 3}, "axes is 3"),
        ({"ignore": ("weight", "bias", "norm")}, "the direction is zero"),
        ({"theta": torch.zeros(2)}, "shape"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        random_plane(conv_objective(), **options)


def test_bad_planes_and_lines():
    bowl = quadratic(symmetric([1.0, 2.0]))
    with pytest.raises(ValueError, match="are equal"):
        interpolation(bowl, bowl.theta, bowl.theta)
    with pytest.raises(ValueError, match="theta_b has shape"):
        interpolation(bowl, bowl.theta, torch.zeros(3))
    with pytest.raises(ValueError, match="the direction is zero"):
        random_plane(bowl)  # at the origin there is no weight norm to scale with
    with pytest.raises(ValueError, match="basis"):
        Plane(torch.zeros(2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="is a line"):
        Plane(torch.zeros(2), torch.ones(1, 2)).point(1.0, 1.0)


def test_the_model_and_the_random_state_stay():
    net = conv_net()
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    random_plane(DataObjective(net, images()), ignore=())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
