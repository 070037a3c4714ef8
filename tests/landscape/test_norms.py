import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from problems import conv_net, images, normal
from torch import nn
from torch.func import grad, hessian, jacfwd, jacrev
from zoo import dense

from landscape.data_objective import DataObjective
from landscape.norms import native_norms, recording, with_primitive_norms
from landscape.operators.gauss_newton import FisherOperator, GGNOperator
from landscape.operators.hessian import HessianOperator
from landscape.space import ParameterSpace, table

LAYERS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (5, 3)),
    "BatchNorm1d of sequences": (lambda: nn.BatchNorm1d(3), (2, 3, 4)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 2)),
    "BatchNorm2d, cumulative": (lambda: nn.BatchNorm2d(3, momentum=None), (4, 3, 2, 2)),
    "BatchNorm2d, plain": (lambda: nn.BatchNorm2d(3, affine=False), (4, 3, 2, 2)),
    "BatchNorm2d, untracked": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 2, 2)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(2, eps=0.1), (3, 2, 2, 2, 2)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(3, affine=True), (4, 3, 5)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3), (4, 3, 2, 2)),
    "InstanceNorm2d, tracked": (
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        (4, 3, 2, 2),
    ),
    "InstanceNorm2d, one image": (lambda: nn.InstanceNorm2d(3), (3, 2, 2)),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(2), (3, 2, 2, 2, 2)),
    "LayerNorm": (lambda: nn.LayerNorm(3), (4, 3)),
    "LayerNorm, two axes": (lambda: nn.LayerNorm((3, 2), bias=False), (4, 3, 2)),
    "LayerNorm, plain": (lambda: nn.LayerNorm(3, elementwise_affine=False), (4, 5, 3)),
}


def layer_of(name, training=True, dtype=torch.float64):
    layer = LAYERS[name][0]().to(dtype).train(training)
    with torch.no_grad():
        for i, (key, tensor) in enumerate(layer.state_dict().items()):
            if tensor.is_floating_point():
                drawn = normal(*tensor.shape, seed=i)
                tensor.copy_(drawn.exp() if "var" in key else drawn)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_values_derivatives_and_statistics_are_those_of_the_native_layer(name, training):
    native = layer_of(name, training)
    primitive = with_primitive_norms(native)
    assert type(primitive) is not type(native) and isinstance(primitive, type(native))
    x = [normal(*LAYERS[name][1], seed=9).requires_grad_() for _ in range(2)]
    for _ in range(2):  # running statistics move twice
        outputs = [layer(x) for layer, x in zip((native, primitive), x, strict=True)]
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        slopes = [
            torch.autograd.grad(torch.sin(o).sum(), [t, *m.parameters()])
            for o, t, m in zip(outputs, x, (native, primitive), strict=True)
        ]
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    for one, other in zip(native.buffers(), primitive.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
        assert not other.requires_grad


@pytest.mark.parametrize("name", LAYERS)
def test_state_dicts_load_both_ways(name):
    native = layer_of(name)
    primitive = with_primitive_norms(LAYERS[name][0]().double())
    primitive.load_state_dict(native.state_dict())
    LAYERS[name][0]().double().load_state_dict(primitive.state_dict())
    x = normal(*LAYERS[name][1], seed=9)
    torch.testing.assert_close(primitive(x), native(x))
    again = pickle.loads(pickle.dumps(copy.deepcopy(primitive)))
    assert torch.equal(again.eval()(x), primitive.eval()(x))


def along(function, v):
    """The slope of a scalar function along ``v``, as a function, by reverse mode."""
    return lambda t: (grad(function)(t) * v).sum()


def second(layer, shape):
    a, b, c = (normal(*shape, seed=seed) for seed in (11, 12, 13))
    return along(along(lambda t: torch.sin(layer(t) * 1.3).sum(), a), b), c


def third(layer, x, mode):
    """A third derivative along fixed directions, the last one in ``mode``."""
    bend, c = second(layer, x.shape)
    if mode == "reverse":
        return along(bend, c)(x).item()
    return torch.func.jvp(bend, (x,), (c,))[1].item()


def third_by_difference(layer, x):
    bend, c = second(layer, x.shape)
    return (bend(x + 1e-5 * c) - bend(x - 1e-5 * c)).item() / 2e-5


WRONG = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "LayerNorm",
]


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("name", [n for n in LAYERS if "one image" not in n])
def test_third_derivatives_are_right(name, mode):
    layer = with_primitive_norms(layer_of(name))
    for module in layer.modules():
        module.track_running_stats = False  # in training mode running statistics would move
    x = normal(*LAYERS[name][1], seed=9)
    expected = third_by_difference(layer, x)
    assert third(layer, x, mode) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", WRONG)
def test_those_of_the_native_layers_are_not(name):
    """What this module is for; when torch mends a layer, this test says so."""
    layer = layer_of(name)
    layer.track_running_stats = False
    x = normal(*LAYERS[name][1], seed=9)
    expected = third_by_difference(with_primitive_norms(layer), x)
    assert native_norms(layer) == [""]
    assert abs(third(layer, x, "forward") / expected - 1) > 1e-3


def test_second_derivatives_by_the_hessian_of_torch_too():
    """It is a forward pass through a ``vmap`` of backward passes; ``jvp(grad)`` is right anyhow."""
    objective = DataObjective(conv_net(), images(), norm="batch")
    (part,) = objective.parts()
    assert native_norms(objective.module, order=2) == ["norm"]

    def mended(theta):
        return part.total(objective.space.unflatten(theta)) / part.size

    def value(theta):
        return objective.value(theta)

    right = jacrev(grad(value))(objective.theta)
    torch.testing.assert_close(hessian(mended)(objective.theta), right, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(jacfwd(grad(value))(objective.theta), right, rtol=1e-8, atol=1e-10)
    wrong = hessian(value)(objective.theta)
    assert ((wrong - right).norm() / right.norm()).item() > 0.01


class Own(nn.LayerNorm):
    def forward(self, x):
        return x


def test_names_of_the_layers_that_are_wrong_and_only_those():
    net = nn.Sequential(
        nn.BatchNorm1d(2),
        nn.Sequential(nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2)),
        nn.InstanceNorm1d(2),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.BatchNorm1d(2, track_running_stats=False),
        Own(2),
    )
    assert native_norms(net) == ["0", "1.0", "2", "3", "4"]
    assert native_norms(net.eval()) == ["1.0", "2", "4"]
    assert native_norms(net, order=2) == ["2", "4"]
    converted = with_primitive_norms(net)
    assert native_norms(converted.train()) == []
    kept = [type(converted[1][1]), type(converted[1][2]), type(converted[5])]
    assert kept == [nn.GroupNorm, nn.RMSNorm, Own]
    with pytest.raises(ValueError, match="order is 4: expected 2 or 3"):
        native_norms(net, order=4)


def test_the_model_given_stays_and_the_copy_is_its_own():
    net = conv_net().train()
    seen = []
    net.norm.register_forward_hook(lambda *_: seen.append(1))
    before = copy.deepcopy(net.state_dict())
    copied = with_primitive_norms(net)
    copied(images()[0])
    assert seen == [1] and type(net.norm) is nn.BatchNorm2d and copied.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert table(ParameterSpace.from_module(net)) == table(ParameterSpace.from_module(copied))


def test_one_value_a_channel_is_refused_as_torch_does():
    for name, shape in (("BatchNorm1d", (1, 3)), ("InstanceNorm2d", (2, 3, 1, 1))):
        for layer in (layer_of(name), with_primitive_norms(layer_of(name))):
            with pytest.raises(ValueError, match=r"[Ee]xpected more than 1|one value a channel"):
                layer(torch.zeros(shape, dtype=torch.float64))


def test_half_precision_is_computed_in_float32():
    for name in ("BatchNorm2d", "LayerNorm", "InstanceNorm2d"):
        native = layer_of(name, dtype=torch.bfloat16)
        x = (normal(*LAYERS[name][1]) + 50).bfloat16()
        found = with_primitive_norms(native)(x)
        exact = native.double()(x.double())  # native layers are less exact here
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), exact, rtol=0.01, atol=0.01)


def batches(sizes=(16, 12, 2)):
    x, y = images()
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def recalibrated_loss(net):
    """The loss with the statistics of a pass in training mode, from torch's functions alone."""
    x, y = images()

    def hidden(x):
        return F.conv2d(x, net.conv.weight, net.conv.bias)

    parts = [hidden(piece).transpose(0, 1).flatten(1) for piece, _ in batches()]
    mean = torch.stack([p.mean(1) for p in parts]).mean(0)
    variance = torch.stack([p.var(1) for p in parts]).mean(0)
    wide = [t.view(1, -1, 1, 1) for t in (mean, variance, net.norm.weight, net.norm.bias)]
    h = torch.tanh((hidden(x) - wide[0]) / (wide[1] + net.norm.eps).sqrt() * wide[2] + wide[3])
    return F.cross_entropy(net.head(F.avg_pool2d(h, 2).flatten(1)), y)


def test_recalibrated_derivatives_go_through_the_statistics():
    objective, net = DataObjective(conv_net(), batches(), norm="recalibrate"), conv_net()
    expected = dense(lambda: recalibrated_loss(net), list(net.parameters()))
    slope = torch.autograd.grad(recalibrated_loss(net), list(net.parameters()))
    theta = objective.theta
    value = float(objective.value(theta))
    assert value == pytest.approx(recalibrated_loss(net).item(), rel=1e-12)
    torch.testing.assert_close(
        objective.gradient(theta), torch.cat([g.flatten() for g in slope]), rtol=1e-9, atol=1e-12
    )
    for options in ({"keep_graph": True}, {"mode": "forward"}):
        found = HessianOperator(objective, **options) @ torch.eye(len(theta)).double()
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-11)
    v = normal(len(theta), seed=3)
    torch.testing.assert_close(objective.hvp(theta, v), expected @ v, rtol=1e-8, atol=1e-10)
    step = 1e-5 * v
    values = [float(objective.value(theta + s)) for s in (step, -step)]
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(
        float(objective.gradient(theta) @ v), rel=1e-6
    )
    assert float(objective.value(theta)) == value


def test_recalibrated_curvatures_of_every_kind():
    objective = DataObjective(conv_net(), batches(), norm="recalibrate")
    assert [part.size for part in objective.parts()] == [30]
    eye = torch.eye(objective.space.size).double()
    ggn, fisher = (kind(objective) @ eye for kind in (GGNOperator, FisherOperator))
    for made in (ggn, fisher):
        assert float(torch.linalg.eigvalsh(made)[0]) > -1e-12
    scalar = DataObjective(conv_net(), batches(), loss=F.cross_entropy, norm="recalibrate")
    expected = HessianOperator(objective) @ eye
    torch.testing.assert_close(HessianOperator(scalar) @ eye, expected, rtol=1e-9, atol=1e-11)


class Renamed(nn.BatchNorm2d):
    pass


def test_statistics_that_cannot_be_followed_are_named():
    net = conv_net()
    net.norm.__class__ = Renamed
    objective = DataObjective(net, images(), norm="recalibrate")
    assert float(objective.value(objective.theta)) > 0
    with pytest.raises(
        ValueError, match=r"statistics of 'norm' \(Renamed\) cannot be differentiated"
    ):
        objective.gradient(objective.theta)


def test_recording_puts_everything_back():
    net = with_primitive_norms(conv_net()).eval()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match="on purpose"), recording(net):
        net(images()[0])
        raise RuntimeError("on purpose")
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not net.norm.training and net.norm.tracker is None
    net(images()[0])


@pytest.mark.parametrize("norm", ["eval", "batch", "recalibrate"])
def test_derivatives_share_the_tensors_and_leave_the_module(norm):
    objective = DataObjective(conv_net(), batches(), norm=norm)
    before = {n: t.clone() for n, t in objective.module.state_dict().items()}
    HessianOperator(objective) @ objective.theta
    objective.double().gradient(objective.theta)
    assert all(torch.equal(before[n], t) for n, t in objective.module.state_dict().items())
    assert type(objective.module.norm) is nn.BatchNorm2d
    smooth = objective._smooth
    assert (smooth is objective.module) == (norm == "eval")
    assert smooth.conv.weight is objective.module.conv.weight


def test_in_forward_mode_batch_statistics_are_right():
    objective = DataObjective(conv_net(), batches(), norm="batch")
    v = normal(2, objective.space.size, seed=3)
    made = [HessianOperator(objective, mode=mode).rows(v) for mode in ("reverse", "forward")]
    torch.testing.assert_close(*made, rtol=1e-9, atol=1e-11)


def test_double_is_the_same_function_in_float64():
    for norm in ("eval", "batch", "recalibrate"):
        single = DataObjective(conv_net(torch.float32), batches(), norm=norm)
        made, double = single.double(), DataObjective(conv_net(), batches(), norm=norm)
        assert made.settings["dtype"] == "float64" and single.settings["dtype"] == "float32"
        assert made.theta.dtype == torch.float64 and single.theta.dtype == torch.float32
        expected = float(double.value(made.theta))
        assert float(made.value(made.theta)) == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(
            made.gradient(made.theta), double.gradient(made.theta), rtol=1e-5, atol=1e-7
        )


def test_double_has_no_reduced_precision():
    half = DataObjective(conv_net(torch.float32), batches(), precision="bfloat16").double()
    exact = DataObjective(conv_net(), batches())
    assert half.settings["precision"] == "float64"
    assert float(half.value(half.theta)) == pytest.approx(float(exact.value(half.theta)), rel=1e-6)
