import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import conv_net, conv_objective, images, normal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape.data_objective import DataObjective


def loader(sizes=(16, 12, 2)):
    x, y = images()
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def test_value_is_the_mean_over_examples():
    net = conv_net().eval()
    x, y = images()
    objective = DataObjective(net, loader())
    expected = F.cross_entropy(net(x), y)
    terms = F.cross_entropy(net(x), y, reduction="none").detach()
    assert float(objective.value(objective.theta)) == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(objective.losses(objective.theta), terms, rtol=1e-12, atol=0)
    metrics = objective.metrics(objective.theta)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-12)
    assert metrics["loss_stderr"] == pytest.approx(float(terms.std()) / math.sqrt(30), rel=1e-12)
    assert metrics["accuracy"] == pytest.approx(float((net(x).argmax(1) == y).double().mean()))


def test_a_pair_of_tensors_a_loader_and_a_cut_pair_agree():
    reference = conv_objective()
    others = [
        DataObjective(conv_net(), loader()),
        DataObjective(conv_net(), DataLoader(TensorDataset(*images()), batch_size=7)),
        conv_objective(batch_size=8),
    ]
    theta = reference.theta + 0.1
    v = normal(theta.numel(), seed=9)
    for other in others:
        torch.testing.assert_close(other.value(theta), reference.value(theta))
        torch.testing.assert_close(other.gradient(theta), reference.gradient(theta))
        torch.testing.assert_close(other.hvp(theta, v), reference.hvp(theta, v))


def test_gradient_and_hvp_against_functional_torch():
    objective = DataObjective(conv_net(), loader())
    theta, v = objective.theta, normal(objective.theta.numel(), seed=9)
    gradient = torch.func.grad(objective.value)
    torch.testing.assert_close(objective.gradient(theta), gradient(theta))
    product = torch.func.jvp(gradient, (theta,), (v,))[1]
    torch.testing.assert_close(objective.hvp(theta, v), product)
    with torch.no_grad():  # the caller's switch does not matter
        torch.testing.assert_close(objective.hvp(theta, v), product)


def test_eval_mode_uses_the_stored_statistics():
    net, (x, y) = conv_net(), images()
    objective = conv_objective(norm="eval")
    assert float(objective.value(objective.theta)) == pytest.approx(
        F.cross_entropy(net.eval()(x), y).item(), rel=1e-12
    )


def test_batch_mode_uses_those_of_each_batch():
    net = conv_net().train()
    sums = [F.cross_entropy(net(x), y, reduction="sum") for x, y in loader()]
    objective = DataObjective(conv_net(), loader(), norm="batch")
    expected = sum(sums).item() / 30
    assert float(objective.value(objective.theta)) == pytest.approx(expected, rel=1e-12)
    whole = F.cross_entropy(conv_net().train()(images()[0]), images()[1])
    paired = conv_objective(norm="batch")  # a pair of tensors is one batch
    assert float(paired.value(paired.theta)) == pytest.approx(whole.item(), rel=1e-12)
    assert abs(whole.item() - expected) > 1e-4


def test_recalibrate_recomputes_the_statistics_at_each_point():
    objective = DataObjective(conv_net(), loader(), norm="recalibrate")
    theta = objective.theta * 1.5
    net = conv_net()
    with torch.no_grad():
        for name, value in objective.space.unflatten(theta).items():
            net.get_parameter(name).copy_(value)
    torch.optim.swa_utils.update_bn([x for x, _ in loader()], net)
    expected = F.cross_entropy(net.eval()(images()[0]), images()[1])
    assert float(objective.value(theta)) == pytest.approx(expected.item(), rel=1e-12)
    first = float(objective.value(objective.theta))
    objective.value(theta)
    assert float(objective.value(objective.theta)) == first


def test_recalibrate_leaves_other_layers_statistics():
    net = nn.Sequential(nn.Conv1d(1, 2, 2), nn.InstanceNorm1d(2, track_running_stats=True))
    net = nn.Sequential(net, nn.Flatten(), nn.Linear(6, 2)).double().eval()
    net[0][1].running_mean.fill_(0.7)
    data = (normal(5, 1, 4, seed=1), torch.tensor([0, 1, 0, 1, 1]))
    plain, again = DataObjective(net, data), DataObjective(net, data, norm="recalibrate")
    assert torch.equal(plain.value(plain.theta), again.value(again.theta))


@pytest.mark.parametrize("norm", ["eval", "batch", "recalibrate"])
def test_nothing_of_the_caller_is_touched(norm):
    net = conv_net().train()
    before, mode = copy.deepcopy(net.state_dict()), net.training
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    shuffled = DataLoader(TensorDataset(*images()), batch_size=7, shuffle=True)
    objective = DataObjective(net, shuffled, norm=norm)
    objective.metrics(objective.theta + 1)
    if norm != "recalibrate":
        objective.hvp(objective.theta, objective.theta)
    objective.theta.zero_()
    assert net.training == mode
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002


def test_later_changes_of_the_model_do_not_reach_the_objective():
    net = conv_net()
    objective = DataObjective(net, images())
    before = objective.value(objective.theta)
    with torch.no_grad():
        net.norm.running_mean.add_(1)
        net.head.weight.zero_()
    assert torch.equal(before, objective.value(objective.theta))


def test_a_scalar_loss_has_no_standard_error_and_no_terms():
    net = conv_net().eval()
    objective = DataObjective(net, loader(), loss=lambda output, y: F.cross_entropy(output, y))
    metrics = objective.metrics(objective.theta)
    reference = DataObjective(net, loader())
    assert metrics["loss"] == pytest.approx(float(reference.value(reference.theta)), rel=1e-12)
    assert math.isnan(metrics["loss_stderr"])
    with pytest.raises(ValueError, match="one loss an example"):
        objective.losses(objective.theta)


def test_metrics_cost_one_forward_pass_a_batch():
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    objective = DataObjective(Counted(36, 3).double(), [(x.flatten(1), y) for x, y in loader()])
    calls.clear()
    objective.metrics(objective.theta)
    assert calls == [16, 12, 2]


def test_the_data_and_the_fixed_tensors_are_part_of_the_settings():
    x, y = images()
    net = conv_net()
    other_data = DataObjective(net, (x + 1e-9, y)).settings
    net_settings = DataObjective(net, (x, y)).settings
    net.norm.running_mean.add_(1)
    other_net = DataObjective(net, (x, y)).settings
    assert {k for k in net_settings if net_settings[k] != other_data[k]} == {"data_sha256"}
    assert {k for k in net_settings if net_settings[k] != other_net[k]} == {"fixed_sha256"}


def test_inputs_follow_the_model_and_labels_do_not():
    objective = conv_objective(torch.float32)
    assert objective.theta.dtype == torch.float32
    assert objective.value(objective.theta).dtype == torch.float32
    assert float(objective.value(objective.theta)) == pytest.approx(
        float(conv_objective().value(conv_objective().theta)), rel=1e-5
    )


def test_dropout_is_off():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    objective = DataObjective(net, (torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)))
    assert objective.value(objective.theta) == objective.value(objective.theta)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "train"}, "unknown norm mode 'train': expected one of eval, batch, recalibrate"),
        ({"loss": "cross"}, "unknown loss 'cross'"),
        ({"metrics": ("f1",)}, "unknown metric 'f1'"),
    ],
)
def test_unknown_names_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        conv_objective(**options)


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="no example"):
        DataObjective(conv_net(), [])


@pytest.mark.parametrize(
    "names", [("loss",), ("terms",), ("hits", "hits"), ("accuracy", "accuracy")]
)
def test_two_numbers_of_one_name_are_refused(names):
    def metric(name):
        def score(output, y):
            return output.argmax(1) == y

        score.__name__ = name
        return score

    with pytest.raises(ValueError, match=f"two numbers would be called '{names[-1]}'"):
        conv_objective(metrics=tuple(n if n == "accuracy" else metric(n) for n in names))


def test_metrics_of_their_own_are_averaged_over_examples():
    def width(output, y):
        return output.amax(1) - output.amin(1)

    def first_weight(output, y):
        return torch.tensor(float(len(y)))

    objective = DataObjective(conv_net(), loader(), metrics=(width, first_weight))
    found = objective.metrics(objective.theta)
    output = conv_net().eval()(images()[0]).detach()
    assert set(found) == {"loss", "loss_stderr", "width", "first_weight"}
    assert found["width"] == pytest.approx(float(width(output, None).mean()), rel=1e-12)
    assert found["first_weight"] == pytest.approx((16**2 + 12**2 + 2**2) / 30, rel=1e-12)


def test_accuracy_is_reported_for_classes_only():
    regression = DataObjective(nn.Linear(3, 1).double(), (normal(4, 3), normal(4, 1)), "mse_loss")
    assert set(regression.metrics(regression.theta)) == {"loss", "loss_stderr"}
    x, y = images()
    scores = DataObjective(conv_net(), (x, F.one_hot(y, 3)), loss=lambda o, y: (o * y).sum(1))
    assert set(scores.metrics(scores.theta)) == {"loss", "loss_stderr"}


def test_a_loader_that_fills_one_tensor_again_and_again():
    class Reused:
        def __iter__(self):
            x, y = (t[:10].clone() for t in images())
            for a, b in zip(*(t.split(10) for t in images()), strict=True):
                x.copy_(a), y.copy_(b)
                yield x, y

    objective, expected = DataObjective(conv_net(), Reused()), conv_objective()
    assert float(objective.value(expected.theta)) == pytest.approx(
        float(expected.value(expected.theta)), rel=1e-12
    )


def test_later_changes_of_the_data_do_not_reach_the_objective():
    data = images()
    objective = DataObjective(conv_net(), data)
    before = objective.value(objective.theta)
    for tensor in data:
        tensor.zero_()
    assert torch.equal(before, objective.value(objective.theta))


def test_in_inference_mode_too():
    reference = conv_objective()
    with torch.inference_mode():
        objective = conv_objective()
        found = objective.value(reference.theta.clone())
    assert found == reference.value(reference.theta)


def test_a_network_may_write_into_its_input_when_it_is_differentiated():
    class Doubling(nn.Linear):
        def forward(self, x):
            return super().forward(x.mul_(2))

    x, y = normal(5, 4, seed=1), normal(5, 2, seed=2)
    objective = DataObjective(Doubling(4, 2).double(), (x, y), "mse_loss")
    plain = DataObjective(nn.Linear(4, 2).double(), (2 * x, y), "mse_loss")
    v = normal(10, seed=3)
    for _ in range(2):
        torch.testing.assert_close(objective.gradient(v), plain.gradient(v))
        torch.testing.assert_close(objective.hvp(v, v), plain.hvp(v, v))
    assert objective.changes_inputs and not plain.changes_inputs


def test_bfloat16_rounds_the_network_and_not_theta():
    full, half = conv_objective(torch.float32), conv_objective(torch.float32, precision="bfloat16")
    theta = full.theta + 0.01
    assert half.theta.dtype == torch.float32
    assert half.settings == full.settings | {"precision": "bfloat16"}
    assert full.settings["precision"] == "float32"
    losses = half.losses(theta)
    assert losses.dtype == torch.float32 and not torch.equal(losses, full.losses(theta))
    torch.testing.assert_close(losses, full.losses(theta), rtol=0.03, atol=0.03)
    with pytest.raises(ValueError, match="unknown precision 'half': expected 'bfloat16'"):
        conv_objective(precision="half")
