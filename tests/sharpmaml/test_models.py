"""The primitive batch norm is torch's in value and gradient, and right where torch's is wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from landscape.objective import hvp_of
from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_gradient, meta_loss

F64 = torch.float64


def network(norm) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        norm(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(48, 4),
    ).double()


def small_task(model: nn.Module) -> tuple[Task, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    xs, xq = (torch.randn(6, 1, 4, 4, dtype=F64, generator=g) for _ in range(2))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))

    def loss(t, x):
        return F.cross_entropy(functional_call(model, space.unflatten(t), (x,)), y)

    return Task(lambda t: loss(t, xs), lambda t: (loss(t, xq), {})), theta


def native(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, track_running_stats=False)


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (2, 1, 1, 1), (7, 4, 3, 3)])
def test_batch_stat_norm_is_native_batch_norm(shape):
    torch.manual_seed(0)
    ours, theirs = models.BatchStatNorm(shape[1]).double(), nn.BatchNorm2d(shape[1]).double()
    with torch.no_grad():
        for p in ("weight", "bias"):
            getattr(ours, p).normal_()
            getattr(theirs, p).copy_(getattr(ours, p))
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    one, other = ours(x), theirs.train()(x)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    weights = torch.randn(shape, dtype=F64)
    got = torch.autograd.grad((one * weights).sum(), [x, ours.weight, ours.bias])
    want = torch.autograd.grad((other * weights).sum(), [x, theirs.weight, theirs.bias])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_and_meta_hessian_against_central_differences(steps):
    task, theta = small_task(network(models.BatchStatNorm))
    inner = InnerLoop(steps, 0.3)
    g = torch.Generator().manual_seed(2)
    v = torch.randn(theta.shape, dtype=F64, generator=g)
    v /= v.norm()
    h = 1e-4

    def loss(t):
        return meta_loss(task, t, inner)[0]

    slope = (loss(theta + h * v) - loss(theta - h * v)) / (2 * h)
    gradient = meta_gradient([task], theta, inner).gradient
    assert float(gradient @ v) == pytest.approx(float(slope), rel=1e-6)
    numeric = (
        meta_gradient([task], theta + h * v, inner).gradient
        - meta_gradient([task], theta - h * v, inner).gradient
    ) / (2 * h)
    torch.testing.assert_close(hvp_of(loss, theta, v), numeric, rtol=1e-5, atol=1e-6)


def test_third_derivatives_of_native_batch_norm_are_the_trap_we_avoid():
    """The Hessian product of the meta loss through torch's own layer is wrong, or refused.

    The day this fails, torch has been mended and `BatchStatNorm` may go.
    """
    inner = InnerLoop(1, 0.3)
    error = {}
    for name, norm in (("ours", models.BatchStatNorm), ("native", native)):
        task, theta = small_task(network(norm))
        v = torch.ones_like(theta) / theta.numel() ** 0.5
        h = 1e-4
        numeric = (
            meta_gradient([task], theta + h * v, inner).gradient
            - meta_gradient([task], theta - h * v, inner).gradient
        ) / (2 * h)
        try:
            product = hvp_of(lambda t, task=task: meta_loss(task, t, inner)[0], theta, v)
        except RuntimeError:
            error[name] = float("inf")  # newer versions of torch refuse
            continue
        error[name] = float((product - numeric).norm() / numeric.norm())
    assert error["ours"] < 1e-6
    assert error["native"] > 1e-4


@pytest.mark.parametrize(
    "norm", [native, lambda c: nn.InstanceNorm2d(c, affine=True), lambda c: nn.LayerNorm((c, 4, 4))]
)
def test_converted_layers_have_the_same_values_and_right_third_derivatives(norm):
    model = network(norm)
    converted = models.with_primitive_norms(model)
    assert models.native_norms(model) == ["1"] and models.native_norms(converted) == []
    inner = InnerLoop(1, 0.3)
    (task, theta), (old, same) = small_task(converted), small_task(model)
    assert torch.equal(theta, same)
    torch.testing.assert_close(
        meta_loss(task, theta, inner)[0], meta_loss(old, theta, inner)[0], rtol=1e-12, atol=0
    )
    v = torch.ones_like(theta) / theta.numel() ** 0.5
    h = 1e-4
    numeric = (
        meta_gradient([task], theta + h * v, inner).gradient
        - meta_gradient([task], theta - h * v, inner).gradient
    ) / (2 * h)
    product = hvp_of(lambda t: meta_loss(task, t, inner)[0], theta, v)
    assert float((product - numeric).norm() / numeric.norm()) < 1e-6


def test_conv4_of_the_papers():
    pooled = models.conv4(5)
    x = torch.rand(10, 1, 28, 28)
    assert pooled(x).shape == (10, 5)
    convolutions = [m for m in pooled.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 4 and all(c.bias is None for c in convolutions)
    assert (
        sum(p.numel() for p in pooled.parameters())
        == 9 * 32 + 3 * 9 * 32 * 32 + 8 * 32 + 32 * 5 + 5
    )
    strided = models.conv4(5, downsample="stride")
    assert strided(x).shape == (10, 5)
    assert models.conv4(5, image_size=84, in_channels=3)(torch.rand(2, 3, 84, 84)).shape == (2, 5)


def test_pooling_before_relu_is_pooling_after_it():
    torch.manual_seed(0)
    block = models.ConvBlock(1, 4, "max").double()
    x = torch.randn(3, 1, 8, 8, dtype=F64)
    torch.testing.assert_close(
        block(x), F.max_pool2d(F.relu(block.norm(block.conv(x))), 2), rtol=0, atol=0
    )


def test_build_is_seeded_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    one, same, other = (models.build("conv4", {"ways": 5}, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    first = [next(iter(m.parameters())) for m in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("os.system", {}, "unknown model 'os.system'.*conv4, mlp"),
        ("conv4", {"wayz": 5}, "cannot take"),
        ("conv4", {"ways": 5, "downsample": "avg"}, "'max' or 'stride'"),
        ("conv4", {"ways": 5, "image_size": 8}, "16 or more"),
    ],
)
def test_bad_models_say_what_is_expected(name, arguments, says):
    with pytest.raises(ValueError, match=says):
        models.build(name, arguments)
