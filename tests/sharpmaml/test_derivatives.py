"""Second and third derivatives of the installed torch, through all that the networks are made of.

Every way that the package takes a derivative is compared with central differences of the order below. A
version of torch that gets one wrong fails here by name.
"""

import pytest
import torch
import torch.nn.functional as F
from execution_problems import F64, normal64
from torch import nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from landscape.objective import hvp_of
from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.data import Episode
from sharpmaml.execution.adjoint import Adjoint
from sharpmaml.execution.loop import Loop
from sharpmaml.execution.vectorized import Vectorized
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import meta_loss
from sharpmaml.plan import Plan
from sharpmaml.tasks import NetworkTasks

STEP = 1e-4


def norm(module):
    def call(x, weight, bias):
        return functional_call(module, {"weight": weight, "bias": bias}, (x,))

    return call


IMAGES = (3, 2, 4, 4)
PRIMITIVE = norm(models.BatchStatNorm(2))
NATIVE = norm(nn.BatchNorm2d(2, track_running_stats=False))
OPERATIONS = {
    "norm": (PRIMITIVE, (IMAGES, (2,), (2,))),
    "convolution": (lambda x, w: F.conv2d(x, w, padding=1), (IMAGES, (3, 2, 3, 3))),
    "strided": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), (IMAGES, (3, 2, 3, 3))),
    "pooling": (lambda x: F.max_pool2d(x * x.sin(), 2), (IMAGES,)),
    "relu": (lambda x: F.relu(x) ** 3, (IMAGES,)),
    "spatial mean": (lambda x: models.SpatialMean()(x), (IMAGES,)),
    "linear": (F.linear, ((4, 3), (2, 3), (2,))),
    "cross-entropy": (lambda x: F.cross_entropy(x, torch.tensor([0, 2, 1, 0])), ((4, 3),)),
    "square": (lambda x, y: (x - y).square().mean(), ((4, 2), (4, 2))),
}


def scalar_of(operation, shapes):
    """A scalar of all arguments in one vector, with all its derivatives different from zero."""
    sizes = [torch.Size(shape).numel() for shape in shapes]

    def value(t):
        pieces = torch.split(t, sizes)
        out = operation(*(p.reshape(shape) for p, shape in zip(pieces, shapes, strict=True)))
        weights = torch.linspace(0.5, 1.5, out.numel(), dtype=F64).reshape(out.shape)
        return (out.sin() * weights).sum()

    return value, sum(sizes)


def reverse_reverse(f, t, v):
    return vjp(grad(f), t)[1](v)[0]


def forward_reverse(f, t, v):
    return jvp(grad(f), (t,), (v,))[1]


def central(f, t, v):
    return (f(t + STEP * v) - f(t - STEP * v)) / (2 * STEP)


def off(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def errors(operation, shapes):
    """Relative errors of the second and of the third derivatives, by how they are taken."""
    f, size = scalar_of(operation, shapes)
    t, v, u = (normal64(2, size, seed=s) for s in (1, 2, 3))

    def rows(call, *columns):
        return torch.stack([call(*row) for row in zip(*columns, strict=True)])

    second = rows(lambda t, v: central(grad(f), t, v), t, v)
    products = {
        "autograd": lambda: rows(lambda t, v: hvp_of(f, t, v), t, v),
        "vmap of vjp of grad": lambda: vmap(lambda t, v: reverse_reverse(f, t, v))(t, v),
        "vmap of jvp of grad": lambda: vmap(lambda t, v: forward_reverse(f, t, v))(t, v),
        "vmap of grad of grad": lambda: vmap(grad(lambda t, v: grad(f)(t) @ v))(t, v),
    }
    third = rows(lambda t, v, u: central(lambda at: hvp_of(f, at, v), t, u), t, v, u)

    def slope(t, v):
        return grad(f)(t) @ v

    thirds = {
        "autograd": lambda: rows(lambda t, v, u: hvp_of(lambda s: slope(s, v), t, u), t, v, u),
        "vmap of vjp of grad of grad": lambda: vmap(
            lambda t, v, u: reverse_reverse(lambda s: slope(s, v), t, u)
        )(t, v, u),
        "vmap of jvp of grad of grad": lambda: vmap(
            lambda t, v, u: forward_reverse(lambda s: slope(s, v), t, u)
        )(t, v, u),
    }
    found = {f"second, {name}": off(call(), second) for name, call in products.items()}
    for name, call in thirds.items():
        try:
            found[f"third, {name}"] = off(call(), third)
        except RuntimeError:  # newer versions of torch refuse some of them
            found[f"third, {name}"] = float("inf")
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_second_and_third_derivatives_against_central_differences(name):
    for how, error in errors(*OPERATIONS[name]).items():
        assert error < 1e-6, f"{name}: {how} derivative is off by {error:.1e}"


def test_the_comparison_sees_a_wrong_derivative():
    """torch's own batch norm: the day this fails, it has been mended."""
    found = errors(NATIVE, (IMAGES, (2,), (2,)))
    assert max(error for how, error in found.items() if how.startswith("third")) > 1e-4


def whole_network(norm):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 3, 3, padding=1, bias=False), norm(3), nn.Tanh(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(48, 3)).double()
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))
    y = torch.arange(3)
    x = [normal64(3, 1, 4, 4, seed=seed) for seed in range(4)]
    episodes = (Episode(x[0], y, x[1], y), Episode(x[2], y, x[3], y))
    theta += 0.2 * normal64(len(theta), seed=9)
    return NetworkTasks(model, space, episodes, "classification"), theta


@pytest.mark.parametrize("executor", [Loop(), Vectorized(), Adjoint(), Adjoint(0)])
def test_no_gradient_passes_through_vmap(executor):
    """With torch's own affine norm, backward through ``vmap`` is wrong; the executors are not."""
    batch, theta = whole_network(lambda c: nn.BatchNorm2d(c, track_running_stats=False))
    inner = InnerLoop(2, 0.3)

    def mean(t):
        return sum(meta_loss(task, t, inner)[0] for task in batch.tasks()) / 2

    directions = F.normalize(normal64(5, len(theta), seed=4))
    numeric = torch.stack([central(mean, theta, d) for d in directions])
    got = executor(batch, theta, Plan(inner)).gradient
    assert off(directions @ got, numeric) < 1e-7
    whole = batch.stacked()

    def one(t, xs, ys, xq, yq):
        adapted = t
        for _ in range(inner.steps):
            adapted = adapted - inner.rate * grad(batch.support)(adapted, xs, ys)
        return batch.query(adapted, xq, yq)[0]

    point = theta.clone().requires_grad_()
    columns = (whole.support_x, whole.support_y, whole.query_x, whole.query_y)
    vmap(one, (None, 0, 0, 0, 0))(point, *columns).mean().backward()
    assert off(directions @ point.grad, numeric) > 1e-5  # mended upstream the day this fails
