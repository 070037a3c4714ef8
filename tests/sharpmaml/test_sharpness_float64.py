"""The loss around adapted weights brings its float64 self, so that its Hessian is tested sharply."""

import pytest
import torch
from problems import normal
from torch import nn

from landscape.operators.hessian import HessianOperator
from landscape.operators.selftest import SMOOTH_LIMIT, check
from landscape.sharpness.point import Point
from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task
from sharpmaml.objective import MetaObjective
from sharpmaml.sharpness import adapted_points
from sharpmaml.tasks import NetworkTasks


def queries():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
    space = ParameterSpace.from_module(net)
    episodes = tuple(
        Episode(*(normal(5, 1, seed=10 * i + j).float() for j in range(4))) for i in range(3)
    )
    network = NetworkTasks(net, space, episodes, "regression")
    theta = space.flatten(dict(net.named_parameters())).detach()
    meta = MetaObjective(network.tasks(), theta, space, InnerLoop(1, 0.1), network=network)
    return meta, [point.objective for point in adapted_points(Point(meta))]


def test_each_loss_is_itself_in_float64():
    _, losses = queries()
    for loss in losses:
        made = loss.double()
        assert loss.theta.dtype == torch.float32 and made.theta.dtype == torch.float64
        assert torch.equal(made.theta.float(), loss.theta)
        exact = float(made.value(made.theta))
        assert exact == pytest.approx(float(loss.value(loss.theta)), rel=1e-5)
    assert len({float(loss.value(loss.theta)) for loss in losses}) == 3


def test_its_hessian_is_held_to_a_percent():
    _, losses = queries()
    found = check(HessianOperator(losses[1], losses[1].theta))
    assert found.passed and found.limits[3] == SMOOTH_LIMIT


def test_a_hessian_that_is_wrong_by_a_tenth_is_seen():
    _, losses = queries()

    class Wrong(HessianOperator):
        def rows(self, vectors):
            return 1.1 * super().rows(vectors)

    found = check(Wrong(losses[0], losses[0].theta))
    assert not found.passed and found.difference == pytest.approx(0.1 / 1.1, rel=0.01)


def test_plain_functions_have_no_float64_and_are_tested_all_the_same():
    bowl = torch.diag(torch.tensor([1.0, 2.0]))
    task = Task(lambda t: 0.5 * t @ bowl @ t, lambda t: (0.5 * t @ bowl @ t, {}))
    theta = torch.ones(2)
    meta = MetaObjective([task], theta, ParameterSpace.of_vector(2), InnerLoop(1, 0.1))
    loss = adapted_points(Point(meta))[0].objective
    with pytest.raises(ValueError, match="plain functions"):
        loss.double()
    assert check(HessianOperator(loss, loss.theta)).passed
