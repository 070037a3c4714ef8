"""The path of an adaptation against steps written out: which ascents it takes, and which it tells of."""

import pytest
import torch

from sharpmaml.adapt import adapt, path
from sharpmaml.inner import InnerLoop

F64 = torch.float64
A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=F64)
THETA = torch.tensor([3.0, -4.0], dtype=F64)
BETA, RHO = 0.1, 0.2


def loss(theta):
    return 0.5 * theta @ A @ theta


def ascent(rule, theta):
    g, scale = A @ theta, theta.abs() if rule == "asam" else torch.ones(2, dtype=F64)
    return RHO * scale**2 * g / (scale * g).norm()


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


def test_without_a_radius_there_are_no_ascents():
    walked = path(loss, THETA, InnerLoop(steps=2, rate=BETA))
    assert walked.ascents == [] and len(walked.points) == 3
    close(walked.points[1], THETA - BETA * A @ THETA)


@pytest.mark.parametrize("rule", ["sam", "asam"])
def test_each_step_ascends_anew(rule):
    walked = path(loss, THETA, InnerLoop(2, BETA, RHO, perturbation=rule))
    at = THETA
    for epsilon, after in zip(walked.ascents, walked.points[1:], strict=True):
        close(epsilon, ascent(rule, at))
        at = at - BETA * A @ (at + epsilon)
        close(after, at)


def test_given_ascents_are_taken_one_a_step():
    given = [torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([0.0, 2.0], dtype=F64)]
    walked = path(loss, THETA, InnerLoop(2, BETA, RHO), given)
    middle = THETA - BETA * A @ (THETA + given[0])
    close(walked.points[2], middle - BETA * A @ (middle + given[1]))
    assert all(a is b for a, b in zip(walked.ascents, given, strict=True))


@pytest.mark.parametrize("lower", [0.0, RHO])
@pytest.mark.parametrize("mask", [None, torch.tensor([True, False])])
def test_a_proximal_step_is_pulled_to_the_start(lower, mask):
    inner = InnerLoop(2, BETA, lower, adapted=mask, proximal=0.5)
    kept = torch.ones(2, dtype=F64) if mask is None else mask.to(F64)
    at = THETA
    for _ in range(2):
        g = kept * (A @ at)
        epsilon = lower * g / g.norm()
        at = at - BETA * kept * (A @ (at + epsilon) + 0.5 * (at - THETA))
    close(adapt(loss, THETA, inner), at)


@pytest.mark.parametrize("eps_grad", ["detach", "through"])
def test_first_order_holds_everything_constant(eps_grad):
    inner = InnerLoop(2, BETA, RHO, eps_grad, first_order=True)
    jacobian = torch.func.jacrev(lambda t: adapt(loss, t, inner))(THETA)
    close(jacobian, torch.eye(2, dtype=F64))


@pytest.mark.parametrize("eps_grad", ["detach", "through"])
def test_the_ascent_is_differentiated_or_not(eps_grad):
    inner = InnerLoop(1, BETA, RHO, eps_grad)
    eye, g = torch.eye(2, dtype=F64), A @ THETA
    unit = g / g.norm()
    bend = RHO / g.norm() * (eye - torch.outer(unit, unit)) @ A  # d epsilon / d theta
    expected = eye - BETA * A @ (eye + (bend if eps_grad == "through" else 0))
    close(torch.func.jacrev(lambda t: adapt(loss, t, inner))(THETA), expected)
