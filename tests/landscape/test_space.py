import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net
from torch import nn

from landscape.space import ParameterSpace


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=6), st.integers(0, 9))
def test_flatten_and_unflatten_are_inverse(shapes, seed):
    names = tuple(f"t{i}" for i in range(len(shapes)))
    space = ParameterSpace(
        names, tuple(map(tuple, shapes)), ("weight",) * len(names), (None,) * len(names)
    )
    theta = torch.randn(space.size, generator=torch.Generator().manual_seed(seed))
    tensors = space.unflatten(theta)
    assert torch.equal(space.flatten(tensors), theta)
    assert [tuple(tensors[n].shape) for n in names] == [tuple(s) for s in shapes]
    assert all(
        tensors[n].untyped_storage().data_ptr() == theta.untyped_storage().data_ptr() for n in names
    )


def test_roles_and_filters_of_a_network():
    space = ParameterSpace.from_module(conv_net())
    assert dict(zip(space.names, space.roles, strict=True)) == {
        "conv.weight": "weight",
        "conv.bias": "bias",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "head.weight": "weight",
        "head.bias": "bias",
    }
    assert space.filter_axes == (0, None, None, None, 0, None)
    assert ParameterSpace.from_module(nn.ConvTranspose2d(2, 3, 3)).filter_axes == (1, None)


def test_flatten_copies_and_frozen_parameters_are_left_out():
    net = conv_net()
    net.conv.requires_grad_(False)
    space = ParameterSpace.from_module(net)
    assert "conv.weight" not in space.names
    theta = space.flatten(dict(net.named_parameters()))
    theta.zero_()
    assert net.head.weight.any()


def test_a_tied_tensor_counts_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert ParameterSpace.from_module(net).size == 4 + 2 + 2


def test_errors_say_what_was_given():
    space = ParameterSpace.of_vector(3)
    with pytest.raises(ValueError, match=r"\(4,\), expected \(3,\)"):
        space.unflatten(torch.zeros(4))
    with pytest.raises(ValueError, match="missing, first 'theta'"):
        space.flatten({})
    with pytest.raises(ValueError, match="shape"):
        space.flatten({"theta": torch.zeros(2)})
    with pytest.raises(ValueError, match="no trainable parameter"):
        ParameterSpace.from_module(nn.ReLU())
