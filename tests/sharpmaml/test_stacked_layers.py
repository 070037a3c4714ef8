"""Each layer's passes and their tangents are those of autograd, with a direction for everything that can move."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.func import functional_call, jvp, vjp, vmap

from landscape.space import ParameterSpace
from sharpmaml import convolution, models
from sharpmaml.blocks import Block, FirstBlock
from sharpmaml.layers import Gather, Linear, ReLU
from sharpmaml.stacked import StackedNetwork

F64 = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def drawn(g, *shape):
    return torch.randn(*shape, dtype=F64, generator=g)


def assert_tangents(layer, reference, x, entry, weights, seed, *, inward, outward):
    """``reference (x, *weights)`` of all tasks against ``layer``, whose layouts ``inward`` and ``outward`` give."""
    g = torch.Generator().manual_seed(seed + 1)
    directions = [drawn(g, *w.shape) for w in weights]
    moves = not isinstance(layer, FirstBlock) and not getattr(layer, "first", False)
    x_dot = drawn(g, *x.shape) if moves else torch.zeros_like(x)
    expected, expected_dot = jvp(reference, (x, *weights), (x_dot, *directions))
    upstream, upstream_dot = drawn(g, *expected.shape), drawn(g, *expected.shape)

    def reverse(u, *primals):
        return vjp(reference, *primals)[1](u)

    derivatives, derivatives_dot = jvp(
        reverse, (upstream, x, *weights), (upstream_dot, x_dot, *directions)
    )
    output, trace = layer.record(entry, weights)
    inner, found, kept = layer.reverse(trace, weights, outward(upstream))
    output_dot, moving = layer.tangent(trace, weights, directions, inward(x_dot) if moves else None)
    inner_dot, found_dot = layer.reverse_tangent(
        trace, weights, kept, moving, directions, outward(upstream_dot)
    )
    torch.testing.assert_close(output, outward(expected), **CLOSE)
    torch.testing.assert_close(output_dot, outward(expected_dot), **CLOSE)
    for ours, theirs in ((found, derivatives), (found_dot, derivatives_dot)):
        for one, other in zip(ours, theirs[1:], strict=True):
            torch.testing.assert_close(one, other, **CLOSE)
    if moves:
        torch.testing.assert_close(inner, inward(derivatives[0]), **CLOSE)
        torch.testing.assert_close(inner_dot, inward(derivatives_dot[0]), **CLOSE)
    else:
        assert inner is None and inner_dot is None


def maps(x):
    """``(tasks, images, channels, h, w)`` in the layout of the blocks."""
    return x.permute(1, 3, 4, 0, 2)


shapes = st.tuples(
    st.integers(1, 3),  # tasks
    st.integers(1, 3),  # images
    st.integers(1, 3),  # channels in
    st.integers(1, 3),  # channels out
    st.integers(2, 7),  # height
    st.integers(2, 7),  # width
    st.booleans(),  # pooling, or stride 2
)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("first", [False, True])
@given(shape=shapes, seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_blocks(first, large, shape, seed):
    tasks, images, inputs, channels, height, width, pool = shape
    # A single place has variance 0: derivatives of size 1/eps, which compare nothing but rounding.
    assume(pool or images * ((height + 1) // 2) * ((width + 1) // 2) > 1)
    g = torch.Generator().manual_seed(seed)
    x = drawn(g, tasks, images, inputs, height, width)
    x[..., : width // 2] = 0  # ties within pooling windows
    weights = [drawn(g, tasks, channels, *tail) for tail in ((inputs, 3, 3), (), ())]
    module = models.ConvBlock(inputs, channels, "max" if pool else "stride").double()
    names = ("conv.weight", "norm.weight", "norm.bias")

    def reference(x, *weights):
        found = [
            functional_call(module, dict(zip(names, w, strict=True)), (image,))
            for image, *w in zip(x, *weights, strict=True)
        ]
        return torch.stack(found)

    layer = (FirstBlock if first else Block)(1 if pool else 2, pool, module.norm.eps)
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(convolution, "_ENTRIES", 0)
        entry = layer.prepare(x) if first else maps(x)
        assert_tangents(layer, reference, x, entry, weights, seed, inward=maps, outward=maps)


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("first", [False, True])
def test_linear(inputs, first):
    g = torch.Generator().manual_seed(0)
    x, weights = drawn(g, 2, 5, inputs), [drawn(g, 2, 4, inputs), drawn(g, 2, 4)]
    same = lambda t: t  # noqa: E731
    reference = vmap(F.linear)
    assert_tangents(Linear(first), reference, x, x, weights, 0, inward=same, outward=same)


def test_relu_has_no_slope_at_zero():
    g = torch.Generator().manual_seed(0)
    x = drawn(g, 2, 5, 4)
    x[:, 0] = 0
    same = lambda t: t  # noqa: E731
    assert_tangents(ReLU(), torch.relu, x, x, [], 0, inward=same, outward=same)


@pytest.mark.parametrize("mean", [False, True])
def test_gather(mean):
    g = torch.Generator().manual_seed(0)
    x = drawn(g, 2, 3, 4, 2, 3)
    module = models.SpatialMean() if mean else torch.nn.Flatten()
    same = lambda t: t  # noqa: E731
    assert_tangents(Gather(mean), vmap(module), x, maps(x), [], 0, inward=maps, outward=same)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_products_are_symmetric_and_linear(kind):
    model = models.mlp(2, 4, 2, 3).double()
    space = ParameterSpace.from_module(model)
    network, g = StackedNetwork(model, space, kind), torch.Generator().manual_seed(0)
    y = torch.arange(6).reshape(2, 3) % 3 if kind == "classification" else drawn(g, 2, 3, 3)
    thetas = drawn(g, 2, space.size)
    tape = network.tape(thetas, network.prepare(drawn(g, 2, 3, 2)), y)
    u, v = drawn(g, 2, space.size), drawn(g, 2, space.size)
    hu, hv = network.products(tape, u), network.products(tape, v)
    torch.testing.assert_close((hu * v).sum(1), (hv * u).sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        network.products(tape, u - 2 * v), hu - 2 * hv, rtol=1e-11, atol=1e-12
    )
    # Views of the parameters and of one another count once.
    assert 0 < tape.nbytes < 20 * thetas.nbytes
