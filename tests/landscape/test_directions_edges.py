"""Planes and their orthogonal axes at the edges: lengths that are not one, what is left of a projection, digits."""

import pytest
import torch
from torch import nn

from landscape import DataObjective, FunctionObjective, Plane, interpolation, random_plane
from landscape.grouping import Grouping, whole
from landscape.normalization import orthogonalized, units

F64 = torch.float64


def vector(*numbers):
    return torch.tensor(numbers, dtype=F64)


def test_the_cosine_does_not_depend_on_lengths():
    plane = Plane(vector(0, 0), torch.stack([vector(3, 0), vector(4, 4)]))
    assert plane.cosine == pytest.approx(0.5**0.5, rel=1e-14)
    assert plane.norms == pytest.approx((3, 32**0.5), rel=1e-14)


def test_statistics_move_along_each_axis():
    values = torch.stack([vector(1, 2), vector(10, 0), vector(0, 100)])
    plane = Plane(vector(0, 0), torch.eye(2, dtype=F64), buffers={"mean": values})
    assert plane.statistics(0.5)["mean"].tolist() == [6.0, 2.0]
    assert plane.statistics(0.5, 0.25)["mean"].tolist() == [6.0, 27.0]
    line = Plane(vector(0, 0), vector(1, 0)[None], buffers={"mean": values[:2]})
    assert line.statistics(2.0)["mean"].tolist() == [21.0, 2.0]


@pytest.mark.parametrize("left, kept", [(1e-6, True), (2e-8, True), (1e-9, False)])
def test_what_is_left_of_a_projection_is_rounding_below_1e_8(left, kept):
    got = orthogonalized(vector(1, 0), vector(1, left), vector(1, 1), "none", whole((2,)))
    assert got.tolist() == [0.0, left if kept else 0.0]


def test_weights_of_any_size_leave_the_same_directions():
    for size in (1e-5, 1.0, 1e5):
        weights = size * vector(1, 1)
        got = orthogonalized(vector(1, 0), vector(1, 1), weights, "weight", whole((2,)))
        assert got.tolist() == [0.0, 1.0]


def test_groups_of_one_entry_count_together_and_keep_their_rule():
    single = Grouping("row", view=(4, 1), within=(1,))
    together = units(single, "filter")
    assert together.is_whole and together.rule == "row" and together.view == (4, 1)
    assert units(single, "layer") is single


def test_the_share_that_moves_to_six_digits():
    net = nn.Linear(2, 1).double()
    net.weight.data, net.bias.data = vector(1, 1)[None], vector(1)
    data = (torch.ones(1, 2, dtype=F64), torch.ones(1, 1, dtype=F64))
    plane = random_plane(DataObjective(net, data, loss="mse_loss"), axes=1)
    assert plane.settings["moved_share"] == 0.816497  # sqrt(2/3)
    assert plane.settings["ignored"] == ["bias"] and plane.settings["groupings"] == {"row": 1}


def test_a_plane_is_in_the_dtype_of_its_origin():
    bowl = FunctionObjective(lambda t: (t * t).sum(), torch.ones(4, dtype=torch.float32))
    plane = random_plane(bowl)
    assert plane.origin.dtype == plane.basis.dtype == torch.float32
    assert plane.origin.data_ptr() != bowl.theta.data_ptr()


def test_a_line_is_in_the_dtype_of_the_objective():
    bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2, dtype=torch.float32))
    line = interpolation(bowl, vector(1, 2), vector(3, 5))
    assert line.origin.dtype == line.basis.dtype == torch.float32
    assert line.basis.tolist() == [[2.0, 3.0]] and line.settings["axes"] == line.axes == 1


@pytest.mark.parametrize("name", ["theta_a", "theta_b"])
def test_both_ends_of_a_line_are_of_the_objective(name):
    objective = FunctionObjective(lambda t: t.sum(), vector(0, 0))
    ends = {"theta_a": vector(0, 1), "theta_b": vector(1, 0), name: vector(1, 2, 3)}
    with pytest.raises(ValueError, match=rf"{name} has shape \(3,\), expected \(2,\)"):
        interpolation(objective, **ends)


def test_moving_statistics_are_of_the_objectives_precision():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    objective = DataObjective(model, (torch.ones(3, 2, dtype=F64), torch.zeros(3).long()))
    single = {
        name: t.float() if t.is_floating_point() else t for name, t in model.state_dict().items()
    }
    plane = interpolation(objective, objective.theta, objective.theta + 1, buffers=(single, single))
    assert {t.dtype for t in plane.buffers.values()} == {F64} and plane.buffers
