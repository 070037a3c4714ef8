import json
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net, conv_objective, images, normal, quadratic, seeded, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.directions import RULES, Plane, generator, interpolation, random_plane
from landscape.grouping import Grouping, whole
from landscape.normalization import orthogonalized
from landscape.objective import FunctionObjective
from landscape.space import ParameterSpace


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
    stays = torch.cat([by_name(objective, theta)[name] for name in ("conv.bias", "head.bias")])
    share = math.sqrt(1 - float(stays.norm() / theta.norm()) ** 2)
    assert 0.1 < share < 0.999
    assert dict(plane.settings) == {
        "kind": "random",
        "normalize": "layer",
        "ignore": ["bias"],
        "seed": 3,
        "axes": 1,
        "orthogonal": False,
        "moved_share": pytest.approx(share, abs=1e-6),
        "ignored": ["conv.bias", "head.bias"],
        "groupings": {"row": 1, "slice0": 1, "whole": 2},
    }
    assert json.loads(json.dumps(dict(plane.settings))) == dict(plane.settings)
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


def function_on(theta, *names_and_groupings):
    """An objective whose space is these tensors one after another."""
    names, groupings = zip(*names_and_groupings, strict=True)
    shapes = tuple(grouping.view for grouping in groupings)
    space = ParameterSpace(names, shapes, ("weight",) * len(names), groupings)
    return FunctionObjective(lambda t: (t * t).sum(), theta, space)


def test_the_share_that_moves_is_one_where_there_is_no_weight():
    objective = quadratic(symmetric([1.0, 2.0]))
    assert random_plane(objective, "none").settings["moved_share"] == 1.0
    assert random_plane(conv_objective(), ignore=()).settings["moved_share"] == 1.0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ignore", [(), ("bias", "norm")])
def test_orthogonal_directions_of_a_network(rule, ignore):
    objective = conv_objective()
    plain = random_plane(objective, rule, ignore)
    plane = random_plane(objective, rule, ignore, orthogonal=True)
    assert plane.settings["orthogonal"] is True
    assert abs(plain.cosine) > 1e-3 and abs(plane.cosine) < 1e-12
    assert torch.equal(plane.basis[0], plain.basis[0])
    if rule in ("filter", "layer"):
        assert plane.norms == pytest.approx(plain.norms, rel=1e-8)
    x, y = (by_name(objective, row) for row in plane.basis)
    for name, grouping in zip(objective.space.names, objective.space.groupings, strict=True):
        dots = (x[name] * y[name]).view(grouping.view)
        if rule == "filter" and not grouping.is_whole:
            dots = dots.sum(dim=grouping.within)
            weights = by_name(objective, objective.theta)[name].flatten(1).norm(dim=1)
            torch.testing.assert_close(y[name].flatten(1).norm(dim=1), weights)
        else:
            dots = dots.sum()
        assert float(dots.abs().max()) < 1e-12 * float(objective.theta.norm() ** 2)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.sets(st.integers(0, 2)),
    st.sampled_from(RULES),
    st.integers(0, 50),
)
def test_orthogonal_directions_of_any_shape(shape, within, rule, seed):
    grouping = Grouping("any", shape, tuple(sorted(within & set(range(len(shape))))))
    size = math.prod(shape)
    theta = normal(size + 2, seed=1)
    objective = function_on(theta, ("t", grouping), ("pair", whole((2,))))
    plane = random_plane(objective, rule, seed=seed, orthogonal=True)
    assert abs(plane.cosine) < 1e-12
    for part in plane.basis.split([size, 2], dim=1):
        x, y = part
        assert abs(float(x @ y)) <= 1e-12 * float(x.norm() * y.norm())
        assert x.all() and y.any() == (len(x) > 1)
    if rule == "filter" and size > 1 and grouping.entries == 1:  # one filter together
        for row in plane.basis:
            assert float(row[:size].norm()) == pytest.approx(float(theta[:size].norm()))


def test_a_single_entry_moves_along_the_first_axis_only():
    objective = function_on(torch.tensor([2.0, 3.0, 4.0]), ("s", whole(())), ("v", whole((2,))))
    plane = random_plane(objective, orthogonal=True)
    assert abs(float(plane.basis[0, 0])) == 2 and plane.basis[1, 0] == 0
    assert plane.basis[1, 1:].norm() == pytest.approx(5.0)
    assert random_plane(objective).basis[:, 0].all()


def test_where_nothing_is_orthogonal_it_says_so():
    scalar = function_on(torch.tensor([2.0]), ("s", whole(())))
    with pytest.raises(ValueError, match="nothing is orthogonal to the first"):
        random_plane(scalar, orthogonal=True)
    sparse = function_on(torch.tensor([2.0, 0.0, 0.0]), ("v", whole((3,))))
    with pytest.raises(ValueError, match="nothing is orthogonal to the first"):
        random_plane(sparse, "weight", orthogonal=True)
    assert random_plane(scalar, orthogonal=True, axes=1).settings["orthogonal"] is True


def test_nothing_is_left_of_groups_of_one_entry():
    each, (x, y) = Grouping("slice0", (3,), ()), normal(2, 3)
    assert not orthogonalized(x, y, x, "filter", each).any()
    assert orthogonalized(x, y, x, "layer", each).all()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.up = nn.ConvTranspose1d(4, 4, 2, groups=2)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_the_dtype_of_the_model_only_rounds(orthogonal):
    bases = []
    for dtype in (torch.float32, torch.float64):
        net = seeded(Attention).to(dtype)
        space = ParameterSpace.from_module(net)
        theta = space.flatten(dict(net.named_parameters()))
        objective = FunctionObjective(lambda t: t.sum(), theta, space)
        bases.append(random_plane(objective, orthogonal=orthogonal).basis)
    assert bases[0].dtype == torch.float32
    torch.testing.assert_close(bases[0].double(), bases[1], rtol=1e-6, atol=1e-7)


def test_the_numbers_of_earlier_versions_stay():
    """Directions are re-drawn from their seeds: another stream would orphan every saved surface."""
    theta = torch.tensor([3.0, 4.0, 0.0, 2.0, 1.0, 2.0]).double()
    objective = function_on(theta, ("weight", Grouping("row", (2, 2), (1,))), ("b", whole((2,))))
    rows = random_plane(objective, seed=7).basis
    pinned = [  # computed by version 0.1.0, before filters became groups
        *(-0.4503080178925868, -4.979680981817326, -1.9914839772104271, 0.18436801698495148),
        *(0.9130326802158217, -2.0411691073641873),
        *(1.274776293524388, -4.834764254718927, 0.1815553892995548, 1.9917423629024158),
        *(2.230609473204244, 0.15614537473613124),
    ]
    assert rows.flatten().tolist() == pytest.approx(pinned, rel=1e-12)


def test_the_model_and_the_random_state_stay():
    net = conv_net()
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    random_plane(DataObjective(net, images()), ignore=())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
