"""All executors compute the numbers of the loop."""

import dataclasses

import pytest
import torch
from execution_problems import F64, network_tasks, normal64, plans

from sharpmaml.execution.adjoint import Adjoint
from sharpmaml.execution.loop import Loop
from sharpmaml.execution.vectorized import Vectorized
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, Upper, meta_gradient_of
from sharpmaml.plan import PlainTasks, Plan

EXECUTORS = (Vectorized(), Adjoint(), Adjoint(2))


def assert_same(got, want):
    for field in dataclasses.fields(want):
        one, other = getattr(got, field.name), getattr(want, field.name)
        if isinstance(other, dict):
            assert one.keys() == other.keys()
            one, other = [one[k] for k in other], list(other.values())
        if other is None:
            assert one is None, field.name
            continue
        torch.testing.assert_close(
            one, other, rtol=1e-9, atol=1e-11, msg=lambda m, f=field.name: f"{f}: {m}"
        )


@pytest.mark.parametrize(
    ("network", "kinds"),
    [
        ("block", ""),
        ("max", ("asam-masked",)),
        ("stride", ("through-3",)),
        ("mlp", ("maml-1", "through-masked", "asam-rates", "implicit")),
    ],
)
def test_every_executor_gives_the_passes_of_the_loop(network, kinds):
    batch, theta = network_tasks(network)
    for name, plan in plans(len(theta)):
        if name.endswith(kinds):
            compare(name, batch, theta, plan, None)
            if name in ("through-3", "asam-masked", "asam-reptile"):
                given = 0.1 * normal64(2, plan.inner.steps, len(theta), seed=11)
                compare(f"{name} with given ascents", batch, theta, plan, given)


def compare(name, batch, theta, plan, ascents):
    want = Loop()(batch, theta, plan, ascents)
    assert torch.isfinite(want.gradient).all()
    for executor in EXECUTORS:
        if executor.tasks_at_once == 1 and not name.startswith("asam"):
            continue  # the same chain on other rows
        try:
            assert_same(executor(batch, theta, plan, ascents), want)
        except AssertionError as error:
            raise AssertionError(f"{name} by {executor.name}: {error}") from None


@pytest.mark.parametrize("make", [Vectorized, Adjoint])
@pytest.mark.parametrize("at_once", [0, 2, 3, 7])
def test_chunks_that_do_not_divide_the_tasks_change_nothing(make, at_once):
    batch, theta = network_tasks("mlp", 5)
    plan = Plan(InnerLoop(1, 0.1, 0.05, "through"), learns_rates=True, keeps_ascents=True)
    assert_same(make(at_once)(batch, theta, plan), Loop()(batch, theta, plan))


def quadratic(A, a, B, b) -> Task:
    A, a, B, b = (torch.tensor(x, dtype=F64) for x in (A, a, B, b))

    def value(M, c, t):
        return 0.5 * (t - c) @ M @ (t - c)

    return Task(lambda t: value(A, a, t), lambda t: (value(B, b, t), {}))


WORKED = PlainTasks(
    (
        quadratic([[1, 0], [0, 3]], [0, 0], [[1, 0], [0, 3]], [2, 0]),
        quadratic([[2, 1], [1, 2]], [1, -1], [[1, 0], [0, 1]], [0, 1]),
    )
)


@pytest.mark.parametrize(
    ("inner", "upper", "want"),
    [
        (InnerLoop(1, 0.1), Upper(), (-0.155, 0.535)),
        (InnerLoop(5, 0.1), Upper(), (-0.17551623755, -0.25405073015)),
        (InnerLoop(1, 0.1, first_order=True), Upper(), (-0.15, 0.85)),
        (InnerLoop(5, 0.1, first_order=True), Upper(), (-0.415965, -0.368615)),
        (InnerLoop(1, 0.1, 0.05, "through"), Upper(), (-0.157278598800, 0.513785725781)),
        (InnerLoop(1, 0.1, 0.05), Upper(), (-0.158730204243, 0.516033315696)),
        (InnerLoop(1, 0.1), Upper(0.05), (-0.168999079773, 0.587019664818)),
        (InnerLoop(1, 0.1, 0.05, "through"), Upper(0.05), (-0.171788375032, 0.565746016461)),
        (InnerLoop(1, 0.1, 0.05), Upper(0.05), (-0.173234331443, 0.567778344135)),
        (InnerLoop(1, 0.1, 0.05), Upper(0.05, eps_m="reuse"), (-0.173284513003, 0.567866972556)),
    ],
)
def test_adjoint_gives_the_closed_forms_of_quadratics(inner, upper, want):
    found = meta_gradient_of(WORKED, torch.ones(2, dtype=F64), Plan(inner), upper, Adjoint())
    torch.testing.assert_close(found.gradient, torch.tensor(want, dtype=F64), rtol=0, atol=6e-12)


def test_nothing_of_the_caller_is_touched():
    batch, theta = network_tasks("block")
    theta = theta.clone().requires_grad_()
    plan = Plan(InnerLoop(1, 0.1, 0.05, "through"), learns_rates=True, keeps_ascents=True)
    before = [p.clone() for p in batch.model.parameters()]
    kept, state = theta.detach().clone(), torch.get_rng_state()
    for executor in EXECUTORS:
        found = executor(batch, theta, plan)
        for tensor in (
            found.gradient,
            found.losses,
            found.rates,
            found.ascents,
            *found.aux.values(),
        ):
            assert not tensor.requires_grad and tensor.grad_fn is None
        with torch.no_grad():
            assert_same(executor(batch, theta, plan), found)
    assert torch.equal(torch.get_rng_state(), state)
    assert theta.requires_grad and theta.grad is None and torch.equal(theta.detach(), kept)
    for was, parameter in zip(before, batch.model.parameters(), strict=True):
        assert torch.equal(was, parameter) and parameter.grad is None and parameter.requires_grad


def test_the_adjoint_of_a_number_costs_three_derivatives_a_step():
    """Support losses are evaluated once on the way there and once on the way back."""
    calls = []

    def support(t):
        calls.append(1)
        return t.square().sum()

    tasks = PlainTasks((Task(support, lambda t: (t.sum(), {})),))
    Adjoint()(tasks, torch.ones(2, dtype=F64), Plan(InnerLoop(4, 0.1)))
    assert len(calls) == 8


def uneven():
    batch, theta = network_tasks("mlp")
    first, second = batch.episodes
    short = dataclasses.replace(
        second, support_x=second.support_x[:2], support_y=second.support_y[:2]
    )
    return dataclasses.replace(batch, episodes=(first, short)), theta


def test_tasks_of_different_sizes_go_one_by_one():
    batch, theta = uneven()
    plan = Plan(InnerLoop(2, 0.1))
    assert_same(Adjoint(1)(batch, theta, plan), Loop()(batch, theta, plan))
    for executor in (Vectorized(), Adjoint(2)):
        with pytest.raises(ValueError, match="differ in their numbers of examples.*'loop'"):
            executor(batch, theta, plan)


@pytest.mark.parametrize("executor", [Vectorized(), Adjoint(2)])
def test_formulas_are_refused_where_they_cannot_be_taken_together(executor):
    with pytest.raises(ValueError, match=f"'{executor.name}'.*PlainTasks.*'loop'"):
        executor(WORKED, torch.ones(2, dtype=F64), Plan(InnerLoop()))


@pytest.mark.parametrize("make", [Vectorized, Adjoint])
def test_a_negative_number_of_tasks_at_once(make):
    with pytest.raises(ValueError, match="tasks_at_once is -1"):
        make(-1)
