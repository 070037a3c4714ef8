"""Which executor is taken, and the memory that is foretold."""

import dataclasses
import shutil

import pytest
import torch
from execution_problems import F64, episode, kind, network_tasks, normal64
from torch import nn

from landscape.space import ParameterSpace
from sharpmaml.execution import choice, memory
from sharpmaml.execution.adjoint import Adjoint
from sharpmaml.execution.compiled import Compiled
from sharpmaml.execution.loop import Loop
from sharpmaml.execution.named import MAKERS, made
from sharpmaml.execution.vectorized import Vectorized
from sharpmaml.inner import InnerLoop
from sharpmaml.plan import Plan
from sharpmaml.tasks import NetworkTasks

PLAN = Plan(InnerLoop(1, 0.1))


def other_network(name, *layers):
    """A network that has no stacked form, for the episodes of ``name``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(*(layer() for layer in layers)).double()
    space = ParameterSpace.from_module(model)
    episodes = tuple(episode(name, i) for i in range(3))
    theta = space.flatten(dict(model.named_parameters()))
    return NetworkTasks(model, space, episodes, kind(name)), theta


TANH = ("mlp", lambda: nn.Linear(1, 3), nn.Tanh, lambda: nn.Linear(3, 1))
CONVOLVED = ("block", lambda: nn.Conv2d(1, 2, 3), nn.Tanh, nn.Flatten, lambda: nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("batch", "name", "tasks_at_once"),
    [
        (network_tasks("max"), "stacked", 0),
        (network_tasks("mlp"), "stacked", 0),
        (other_network(*TANH), "vmap", 3),
        (other_network(*CONVOLVED), "loop", 1),
    ],
)
def test_auto_is_a_rule_on_a_cpu(batch, name, tasks_at_once, monkeypatch):
    monkeypatch.setattr(choice, "_seconds", None)  # no clock decides
    found = choice.choose("auto", *batch, PLAN)
    assert (found.name, found.executor.name, found.tasks_at_once) == (name, name, tasks_at_once)
    assert found.table == () and found.reason
    want = Loop()(*batch, PLAN).gradient
    torch.testing.assert_close(found.executor(*batch, PLAN).gradient, want, rtol=1e-9, atol=1e-12)


def test_tasks_that_differ_in_size_go_through_the_loop():
    batch, theta = network_tasks("mlp")
    first, second = batch.episodes
    short = dataclasses.replace(second, query_x=second.query_x[:2], query_y=second.query_y[:2])
    uneven = dataclasses.replace(batch, episodes=(first, short))
    for name in ("auto", "measure"):
        found = choice.choose(name, uneven, theta, PLAN)
        assert found.name in ("loop", "adjoint") and (name == "measure" or found.name == "loop")
        found.executor(uneven, theta, PLAN)


def test_measuring_takes_the_fastest_and_keeps_the_table(monkeypatch):
    batch, theta = other_network(*TANH)
    clock = iter([5.0, 4.0, 6.0, 3.0, 9.0, 9.0, 7.0, 8.0, 3.5])
    monkeypatch.setattr(choice, "_seconds", lambda call, device: next(clock))
    found = choice.choose("measure", batch, theta, PLAN)
    assert [(one.name, one.seconds) for one in found.table] == [
        ("loop", 4.0),
        ("adjoint", 3.0),
        ("vmap", 3.5),
    ]
    assert found.name == found.executor.name == "adjoint"
    assert found.tasks_at_once == found.executor.tasks_at_once == 3
    assert all(one.bytes > 0 and one.why == "" for one in found.table)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_what_runs_out_of_memory_is_left_out(error, monkeypatch):
    batch, theta = other_network(*TANH)

    def fails(*_):
        raise error

    monkeypatch.setattr(Loop, "__call__", fails)
    monkeypatch.setattr(Adjoint, "__call__", fails)
    found = choice.choose("measure", batch, theta, PLAN)
    assert found.name == "vmap"
    assert [one.why for one in found.table] == ["out of memory", "out of memory", ""]
    monkeypatch.setattr(Vectorized, "__call__", fails)
    with pytest.raises(ValueError, match="3 tasks: loop: out of memory; adjoint.*; vmap"):
        choice.choose("measure", batch, theta, PLAN)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def fails(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Loop, "__call__", fails)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        choice.choose("measure", *other_network(*TANH), PLAN)


def test_a_named_executor_is_taken_as_asked():
    batch, theta = network_tasks("mlp")
    for name in MAKERS:
        found = choice.choose(name, batch, theta, PLAN, 2)
        assert found.executor.name == name and found.tasks_at_once == 2
    assert choice.choose("vmap", batch, theta, PLAN).tasks_at_once == 2
    assert choice.choose("adjoint", *network_tasks("max"), PLAN).tasks_at_once == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda b: choice.choose("fast", *b, PLAN), "unknown executor 'fast'.*auto, measure, loop"),
        (lambda b: made("auto"), "unknown executor 'auto'.*loop, vmap"),
        (lambda b: choice.choose("vmap", *b, PLAN, -2), "tasks_at_once is -2"),
    ],
)
def test_bad_choices_say_what_is_expected(call, says):
    with pytest.raises(ValueError, match=says):
        call(network_tasks("mlp"))


def test_live_bytes_of_known_operations():
    with memory.LiveBytes() as live:
        a = torch.zeros(1000, dtype=F64)
        a.add_(1)
        assert (live.now, live.peak) == (8000, 8000)
        b = a + 1
        view = b[:10]
        assert (live.now, live.peak) == (16000, 16000)
        del a
        assert (live.now, live.peak) == (8000, 16000)
        del b
        assert live.now == 8000  # the view holds it
        del view
        assert (live.now, live.peak) == (0, 16000)


LEARNED = Plan(
    InnerLoop(3, 0.1, 0.05, "through"),
    (0.2, 0.3, 0.5),
    learns_rates=True,
    keeps_ascents=True,
)


@pytest.mark.parametrize(
    ("name", "at_once", "plan"),
    [
        ("loop", 1, Plan(InnerLoop(5, 0.1))),
        ("loop", 1, LEARNED),
        ("vmap", 2, LEARNED),
        ("adjoint", 1, LEARNED),
        ("stacked", 2, Plan(InnerLoop(5, 0.1))),
    ],
)
def test_the_estimate_is_the_measured_peak(name, at_once, plan):
    batch, theta = network_tasks("max", 3)
    told = memory.estimate(batch, theta, plan, name, at_once, 3)
    seen = memory.peak_bytes(lambda: made(name, at_once)(batch, theta, plan), theta.device)
    assert told == pytest.approx(seen, rel=0.15)


def test_the_memory_of_the_adjoint_does_not_grow_with_the_steps():
    batch, theta = network_tasks("max", 1)
    few, many = (
        memory.peak_bytes(
            lambda k=k: Adjoint()(batch, theta, Plan(InnerLoop(k, 0.1))), theta.device
        )
        for k in (1, 9)
    )
    assert many <= 1.15 * few
    unrolled = memory.peak_bytes(
        lambda: Loop()(batch, theta, Plan(InnerLoop(9, 0.1))), theta.device
    )
    assert unrolled > 1.5 * many


def test_a_plan_without_its_first_steps():
    shorter = memory.with_steps(LEARNED, 1)
    assert (shorter.inner.steps, shorter.weights, shorter.learns_rates) == (1, (0.5,), True)
    assert memory.with_steps(LEARNED, 0).weights == ()


def linear_tasks():
    batch, theta = other_network("mlp", lambda: nn.Linear(1, 1))
    return batch, theta + 0.1 * normal64(2, seed=1)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_is_the_loop():
    batch, theta = linear_tasks()
    compiled, state = Compiled(), torch.get_rng_state()
    assert compiled.first_call_seconds is None
    want = Loop()(batch, theta, PLAN)
    found = compiled(batch, theta, PLAN)
    first = compiled.first_call_seconds
    again = compiled(batch, 2 * theta, PLAN)
    torch.testing.assert_close(found.gradient, want.gradient, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.losses, want.losses, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        again.gradient, Loop()(batch, 2 * theta, PLAN).gradient, rtol=1e-10, atol=0
    )
    assert first > 0 and compiled.first_call_seconds == first  # compiled once
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_compiler_another_executor_is_named(monkeypatch):
    from torch._inductor.exc import InvalidCxxCompiler

    def compile_(compute, **_):
        def fails(*_):
            raise InvalidCxxCompiler()

        return fails

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(ValueError, match="'compile' needs a working C\\+\\+ compiler.*'vmap'"):
        Compiled()(*linear_tasks(), PLAN)


def test_other_errors_of_the_compiled_code_stay_what_they_are(monkeypatch):
    def compile_(compute, **_):
        def fails(*_):
            raise KeyError("a fault")

        return fails

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(KeyError, match="a fault"):
        Compiled()(*linear_tasks(), PLAN)


def test_what_changes_in_training_does_not_compile_again(monkeypatch):
    made_of = []
    monkeypatch.setattr(torch, "compile", lambda compute, **_: made_of.append(1) or compute)
    batch, theta = network_tasks("mlp")
    compiled = Compiled()
    for scale in (0.1, 0.2):
        rate = torch.full((2, len(theta)), scale, dtype=F64)
        adapted = torch.arange(len(theta)) % 2 == int(10 * scale) % 2
        inner = InnerLoop(2, rate, adapted=adapted)
        plan = Plan(inner, (scale, 1 - scale), learns_rates=True)
        want = Loop()(batch, theta, plan)
        found = compiled(batch, theta, plan)
        torch.testing.assert_close(found.gradient, want.gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.rates, want.rates, rtol=1e-9, atol=1e-12)
    assert len(made_of) == 1
    for other in (InnerLoop(2, 0.1), InnerLoop(2, 0.2), InnerLoop(2, 0.2, 0.1)):
        want = Loop()(batch, theta, Plan(other)).gradient
        got = compiled(batch, theta, Plan(other)).gradient
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert len(made_of) == 4
