"""Spaces and lines at their edges: two tensors joined, names that contain others, what moves with batch norm."""

import torch
from torch import nn

from landscape import DataObjective, FunctionObjective, ParameterSpace, interpolation

F64 = torch.float64


def test_join_is_flatten_with_a_gradient():
    for sizes in ((3,), (3, 2), (3, 2, 4)):
        net = nn.Sequential(*(nn.Linear(size, 1, bias=False) for size in sizes)).double()
        space, tensors = ParameterSpace.from_module(net), dict(net.named_parameters())
        joined = space.join(tensors)
        assert torch.equal(joined, space.flatten(tensors)) and joined.shape == (sum(sizes),)
        (joined @ torch.arange(sum(sizes), dtype=F64)).backward()
        got = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
        assert got.tolist() == list(range(sum(sizes)))


def test_a_role_is_by_the_last_part_of_the_name():
    net = nn.ModuleDict({"outer": nn.ModuleDict({"bias_net": nn.Linear(3, 2)})})
    space = ParameterSpace.from_module(net)
    assert dict(zip(space.names, space.roles, strict=True)) == {
        "outer.bias_net.weight": "weight",
        "outer.bias_net.bias": "bias",
    }


def normed(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    net[1].running_mean += seed + 1.0
    return net.eval()


def test_only_floating_buffers_move_on_a_line():
    a, b = normed(0), normed(1)
    data = (torch.ones(4, 2, dtype=F64), torch.ones(4, 1, dtype=F64))
    objective = DataObjective(a, data, loss="mse_loss", norm="interpolated")
    ends = [objective.space.flatten(dict(net.named_parameters())) for net in (a, b)]
    line = interpolation(objective, *ends, buffers=(a.state_dict(), b.state_dict()))
    assert set(line.buffers) == {"1.running_mean", "1.running_var"}
    assert line.statistics(0.5)["1.running_mean"].tolist() == [1.5] * 3
    assert line.statistics(1.0)["1.running_mean"].tolist() == [2.0] * 3


def test_stale_statistics_name_the_other_end():
    a, b = normed(0), normed(1)
    data = (torch.ones(4, 2, dtype=F64), torch.ones(4, 1, dtype=F64))
    objective = DataObjective(a, data, loss="mse_loss", norm="eval")
    ends = [objective.space.flatten(dict(net.named_parameters())) for net in (a, b)]
    (refusal,) = interpolation(objective, *ends, labels=("start", "far end")).settings["refusals"]
    assert "the weights move to far end" in refusal


def test_the_ends_of_a_line_are_named_points_on_it():
    objective = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2, dtype=F64))
    ends = torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)
    mark = {"beta": 0.0, "loss": None, "residual": 0.0}
    marks = [{"label": "A", "alpha": 0.0, **mark}, {"label": "B", "alpha": 1.0, **mark}]
    assert interpolation(objective, *ends).settings["marks"] == marks
