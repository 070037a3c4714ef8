"""Every number of a meta-gradient against one written by hand, for both rules and both readings of the ascent."""

import pytest
import torch
from quadratic_tasks import ALPHA, BETA, F64, ONE, PAIR, THETA, Spy, maml, unit, value, vector

from sharpmaml.inner import InnerLoop
from sharpmaml.meta import (
    MetaGradient,
    Upper,
    ascended,
    described,
    meta_gradient,
    meta_gradient_of,
    meta_loss,
    scouting,
)
from sharpmaml.plan import Pass, PlainTasks, Plan, Task

TASKS = [q.task() for q in PAIR]
PLACE = vector(2.0, -0.5)


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


def by_rule(rule, gradient, theta, radius):
    scale = theta.abs() if rule == "asam" else torch.ones_like(theta)
    return radius * scale**2 * gradient / (scale * gradient).norm()


@pytest.mark.parametrize("rule", ["sam", "asam"])
def test_upper_ascent_by_hand(rule):
    got = meta_gradient(TASKS, PLACE, InnerLoop(2, BETA), upper=ALPHA, perturbation=rule)
    plain = maml(PLACE, 2)
    epsilon = by_rule(rule, plain, PLACE, ALPHA)
    close(got.gradient, maml(PLACE + epsilon, 2))
    assert got.loss == pytest.approx(value(PLACE, 2), rel=1e-13)
    assert got.norm == pytest.approx(float(plain.norm()), rel=1e-13)
    assert got.rise == pytest.approx(value(PLACE + epsilon, 2) - value(PLACE, 2), rel=1e-10)
    assert got.predicted_rise == pytest.approx(float(epsilon @ plain), rel=1e-12)
    assert (got.passes, got.tasks, got.rates) == (2, 2, None)


def test_without_a_radius_it_is_one_pass():
    spy = Spy()
    got = meta_gradient_of(PlainTasks(tuple(TASKS)), THETA, Plan(InnerLoop(1, BETA)), Upper(), spy)
    close(got.gradient, maml(THETA))
    assert (got.passes, got.rise, got.predicted_rise, got.tasks) == (1, 0.0, 0.0, 2)
    assert len(spy.points) == 1


@pytest.mark.parametrize("eps_m", ["recompute", "reuse"])
def test_inner_ascents_of_the_second_pass(eps_m):
    """One step: ``J = I − βA`` whatever the ascent; its place is ``θ' = φ − βA(φ + ε − a)``."""
    inner, radius = InnerLoop(1, BETA, 0.2), 0.3

    def ascent(q, at):
        return 0.2 * unit(q.A @ (at - q.a))

    def gradient(at, ascents):
        total = torch.zeros(2, dtype=F64)
        for q, epsilon in zip(PAIR, ascents, strict=True):
            there = at - BETA * q.A @ (at + epsilon - q.a)
            total = total + (torch.eye(2, dtype=F64) - BETA * q.A).T @ q.B @ (there - q.b)
        return total / 2

    first = [ascent(q, PLACE) for q in PAIR]
    moved = PLACE + radius * unit(gradient(PLACE, first))
    second = first if eps_m == "reuse" else [ascent(q, moved) for q in PAIR]
    got = meta_gradient(TASKS, PLACE, inner, upper=radius, eps_m=eps_m)
    close(got.gradient, gradient(moved, second))


@pytest.mark.parametrize("eps_m", ["recompute", "reuse"])
@pytest.mark.parametrize("lower", [0.0, 0.1])
def test_the_scouting_pass_keeps_ascents_only_to_reuse_them(eps_m, lower):
    plan = Plan(InnerLoop(1, BETA, lower), learns_rates=True)
    scout = scouting(plan, Upper(ALPHA, eps_m=eps_m))
    assert scout.keeps_ascents == (eps_m == "reuse" and lower > 0)
    assert not scout.learns_rates and plan.learns_rates


FIRST = Pass(vector(3, 4), vector(1, 3, 5), {"accuracy": vector(0.25, 0.5, 0.75)}, vector(7, 8))
SECOND = Pass(vector(6, 8), vector(2, 4, 9), {"accuracy": vector(0, 0, 0)}, vector(9, 10))


def test_what_one_pass_tells():
    told = described(FIRST)
    assert told == MetaGradient(
        FIRST.gradient, 3.0, {"accuracy": 0.5}, 5.0, 0.0, 0.0, FIRST.rates, 1, 3
    )


def test_what_two_passes_tell():
    told = ascended(FIRST, SECOND, vector(0.5, 0.25))
    assert told == MetaGradient(
        SECOND.gradient, 3.0, {"accuracy": 0.5}, 5.0, 2.0, 2.5, SECOND.rates, 2, 3
    )


def test_the_meta_loss_is_the_query_loss_at_the_adapted_point():
    task = Task(ONE.task().support, lambda t: (t @ t, {"first": t[0]}))
    loss, aux = meta_loss(task, THETA, InnerLoop(1, BETA))
    end = THETA - BETA * ONE.A @ (THETA - ONE.a)
    close(loss, end @ end)
    close(aux["first"], end[0])


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"radius": -1e-9}, "radius -1e-09"),
        ({"radius": float("nan")}, "radius nan"),
        ({"perturbation": "nothing"}, "nothing"),
        ({"eps_m": "nothing"}, "eps_m is 'nothing'"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        Upper(**settings)


def test_no_tasks():
    with pytest.raises(ValueError, match="at least one task"):
        meta_gradient([], THETA, InnerLoop())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "magic"}, "unknown estimator 'magic': expected one of unrolled"),
        ({"estimator": "implicit"}, "needs a proximal weight above 0"),
        ({"weights": (1.0, 1.0, 1.0)}, "3 weights of the multi-step loss for 2 steps"),
        ({"weights": (1.0, 1.0), "estimator": "reptile"}, "expected one a step of the unrolled"),
        ({"learns_rates": True, "estimator": "reptile"}, "does not know the rates"),
    ],
)
def test_plans_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Plan(InnerLoop(2, 0.1), **options)
