"""The upper ascent at the ends of its settings, and what a kept state of another dtype does."""

import pytest
import torch
from quadratic_tasks import ALPHA, BATCH, BETA, THETA, Spy, maml, unit, vector

from sharpmaml.ascent import UpperAscent
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Upper
from sharpmaml.plan import PlainTasks, Plan, Task

PLAN, UP = Plan(InnerLoop(2, BETA)), Upper(ALPHA)
BOWL = PlainTasks((Task(lambda t: t.square().sum(), lambda t: ((t - 1).square().sum(), {})),))


def test_momentum_of_nothing_climbs_along_the_last_gradient():
    ascent, spy = UpperAscent(UP, gradient="momentum", momentum=0.0), Spy()
    first = ascent(BATCH, THETA, PLAN, spy, 0).gradient
    ascent(BATCH, 2 * THETA, PLAN, spy, 1)
    torch.testing.assert_close(spy.points[1], 2 * THETA + ALPHA * unit(first), rtol=1e-14, atol=0)


def test_reuse_of_one_turns_by_the_whole_length():
    ascent = UpperAscent(UP, every=2, reuse=1.0)
    ascent(BATCH, THETA, PLAN, Spy(), 0)
    there = 0.5 * THETA
    plain, got = maml(there, 2), ascent(BATCH, there, PLAN, Spy(), 1).gradient
    assert float((got - plain).norm()) == pytest.approx(float(plain.norm()), rel=1e-12)


@pytest.mark.parametrize("form", [{"every": 1}, {"every": 2, "gradient": "first-order"}])
def test_reuse_without_a_radius_says_nothing(form):
    got = UpperAscent(Upper(0.0), reuse=0.5, **form)(BATCH, THETA, PLAN, Spy(), 0).gradient
    torch.testing.assert_close(got, maml(THETA, 2), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "form, kept",
    [
        ({}, set()),
        ({"every": 2, "reuse": 0.5}, {"orthogonal"}),
        ({"gradient": "momentum"}, {"mean"}),
    ],
)
def test_only_what_is_needed_is_kept(form, kept):
    ascent = UpperAscent(UP, **form)
    ascent(BATCH, THETA, PLAN, Spy(), 0)
    assert set(ascent.state_dict()) == kept


@pytest.mark.parametrize(
    "form, name",
    [({"gradient": "momentum"}, "mean"), ({"every": 2, "reuse": 0.5}, "orthogonal")],
)
def test_a_kept_state_follows_the_parameters_dtype(form, name):
    ascent, spy = UpperAscent(UP, **form), Spy()
    ascent.load_state_dict({name: vector(3.0, 4.0)})
    result = ascent(BOWL, THETA.float(), PLAN, spy, 1)
    assert {point.dtype for point in spy.points} == {torch.float32}
    assert result.gradient.dtype == torch.float32


def test_the_running_mean_is_in_the_dtype_of_the_gradients():
    ascent = UpperAscent(UP, gradient="momentum")
    ascent.load_state_dict({"mean": vector(3.0, 4.0)})
    ascent(BOWL, THETA.float(), PLAN, Spy(), 0)
    assert ascent.state_dict()["mean"].dtype == torch.float32
