import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net
from torch import nn

from landscape.grouping import whole
from landscape.space import ParameterSpace, table


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=6), st.integers(0, 9))
def test_flatten_and_unflatten_are_inverse(shapes, seed):
    names = tuple(f"t{i}" for i in range(len(shapes)))
    shapes = tuple(map(tuple, shapes))
    space = ParameterSpace(names, shapes, ("weight",) * len(names), tuple(map(whole, shapes)))
    theta = torch.randn(space.size, generator=torch.Generator().manual_seed(seed))
    tensors = space.unflatten(theta)
    assert torch.equal(space.flatten(tensors), theta)
    assert [tuple(tensors[n].shape) for n in names] == list(shapes)
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
    assert [(row.rule, row.groups) for row in table(space)] == [
        ("slice0", 3),
        *[("whole", 1)] * 3,
        ("row", 3),
        ("whole", 1),
    ]
    assert [row[:3] for row in table(space)] == list(
        zip(space.names, space.shapes, space.roles, strict=True)
    )


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.token = nn.Parameter(torch.ones(1, 1, 4))
        self.gamma = nn.Parameter(torch.ones(4))


def test_roles_of_attention_scalars_and_vectors():
    space = ParameterSpace.from_module(Odd())
    assert dict(zip(space.names, space.roles, strict=True)) == {
        "temperature": "weight",
        "token": "weight",
        "gamma": "bias",
        "attention.in_proj_weight": "weight",
        "attention.in_proj_bias": "bias",
        "attention.bias_k": "bias",
        "attention.bias_v": "bias",
        "attention.out_proj.weight": "weight",
        "attention.out_proj.bias": "bias",
    }


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


def test_a_language_model_head_tied_to_the_embedding_is_one_tensor_by_tokens():
    net = nn.ModuleDict({"wte": nn.Embedding(7, 4), "lm_head": nn.Linear(4, 7, bias=False)})
    net["lm_head"].weight = net["wte"].weight
    assert table(ParameterSpace.from_module(net)) == [("wte.weight", (7, 4), "weight", "row", 7)]


def test_a_module_used_twice_counts_once():
    block = nn.Linear(3, 3)
    space = ParameterSpace.from_module(nn.Sequential(block, nn.ReLU(), block))
    assert space.names == ("0.weight", "0.bias")


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
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 2\) names, shapes, roles and groupings"):
        ParameterSpace(("a",), ((2,),), ("weight",), (whole((2,)),) * 2)
    with pytest.raises(
        ValueError, match=r"'a' has shape \(2,\), but its grouping sees it as \(3,\)"
    ):
        ParameterSpace(("a",), ((2,),), ("weight",), (whole((3,)),))
