"""Parts of the training loop by themselves: schedule, limits, optimizers, guard, selection, log, ranks."""

import itertools
import json
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.config import TrainConfig
from sharpmaml.data import make_source
from sharpmaml.execution.loop import Loop
from sharpmaml.plan import Pass
from sharpmaml.plans import ascent_of, plan_of
from sharpmaml.tasks import NetworkTasks
from sharpmaml.trainer import log
from sharpmaml.trainer.guard import Guard
from sharpmaml.trainer.optimizer import SGD, Adam
from sharpmaml.trainer.precision import Autocast, compare, executor_for
from sharpmaml.trainer.ranks import ElsewhereError, Ranked, Ranks, join
from sharpmaml.trainer.schedule import clipped, rate_at
from sharpmaml.trainer.selection import Selection


def test_the_cosine_is_the_closed_form_and_needs_no_history():
    rates = [rate_at(i, 10, 0.2, "cosine") for i in range(11)]
    assert rates[0] == 0.2 and rates[5] == pytest.approx(0.1, abs=1e-15)
    assert rates[10] == pytest.approx(0, abs=1e-15)
    assert all(a > b for a, b in itertools.pairwise(rates))
    # cos² of half the angle, another way to write it
    assert rates[3] == pytest.approx(0.2 * math.cos(math.pi * 0.3 / 2) ** 2, rel=1e-14)
    assert rate_at(7, 10, 0.2, "constant") == 0.2
    with pytest.raises(ValueError, match="linear"):
        rate_at(0, 1, 1.0, "linear")


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_limits_hold_for_entries_and_for_the_norm_of_all(entries, value, norm):
    whole = torch.tensor(entries, dtype=torch.float64)
    parts = [whole[:1], whole[1:]]
    assert all(float(p.abs().max()) <= value for p in clipped(parts, value, 0))
    bounded = torch.cat(clipped(parts, 0, norm))
    assert float(bounded.norm()) <= norm * (1 + 1e-12)
    if float(whole.norm()) <= norm * (1 - 1e-12):
        assert torch.equal(bounded, whole)
    else:  # the direction stays
        assert torch.allclose(bounded, whole * (norm / whole.norm()), rtol=1e-12)
    both = torch.cat(clipped(parts, value, norm))
    entrywise = torch.cat(clipped(parts, value, 0))
    assert torch.equal(both, torch.cat(clipped([entrywise[:1], entrywise[1:]], 0, norm)))
    assert all(map(torch.equal, clipped(parts, 0, 0), parts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_and_sgd_are_those_of_torch_bit_for_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    for ours, theirs in ((Adam, torch.optim.Adam), (SGD, torch.optim.SGD)):
        mine = [torch.randn(n, generator=generator, dtype=dtype) for n in (7, 3)]
        other = [t.clone().requires_grad_() for t in mine]
        made, peer = ours(mine), theirs(other, lr=1.0)
        for step in range(20):
            gradients = [torch.randn(t.shape, generator=generator, dtype=dtype) for t in mine]
            rate = 0.1 / (step + 1)
            made.step(gradients, rate)
            peer.param_groups[0]["lr"] = rate
            for tensor, gradient in zip(other, gradients, strict=True):
                tensor.grad = gradient.clone()
            peer.step()
            if step == 9:  # the state of either goes on in a new one of ours
                state = peer.state_dict()
                made = ours(mine)
                made.load_state_dict(state)
        assert all(torch.equal(a, b.detach()) for a, b in zip(mine, other, strict=True))


def test_states_of_other_tensors_are_refused():
    state = Adam([torch.zeros(2)]).state_dict()
    with pytest.raises(ValueError, match="shape"):
        Adam([torch.zeros(3)]).load_state_dict(state)
    with pytest.raises(KeyError):
        Adam([torch.zeros(2), torch.zeros(2)]).load_state_dict(state)


def looks(losses, accuracies, ways=5, tasks=4, **sizes) -> list[int]:
    guard = Guard(ways, tasks, **sizes)
    return [
        i for i, pair in enumerate(zip(losses, accuracies, strict=True), 1) if guard.stuck(*pair)
    ]


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count)


def test_stuck_at_chance_is_seen_after_the_warmup_and_only_then():
    losses, accuracies = math.log(5) + 0.02 * noise(1200, 5), 0.2 + 0.05 * noise(1200, 1)
    assert looks(losses, accuracies) == [1000, 1100, 1200]
    assert looks(losses[:999], accuracies[:999]) == []
    # a loss far above ln N without learning is chance too
    assert looks(losses + 3, accuracies) == [1000, 1100, 1200]


def test_a_collapse_after_learning_is_seen():
    good, bad = 1.0 + 0.05 * noise(1500), 1.61 + 0.02 * noise(500, 2)
    accuracies = np.concatenate([0.6 + 0 * good, 0.2 + 0.05 * noise(500, 3)])
    found = looks(np.concatenate([good, bad]), accuracies)
    assert found[0] in (1600, 1700) and found[-1] == 2000


@pytest.mark.parametrize(
    ("losses", "accuracies"),
    [
        (np.linspace(3.0, 1.62, 2000), 0.2 + 0.02 * noise(2000)),  # at chance, but the loss falls
        (
            np.full(2000, 1.62),
            0.24 + 0.02 * noise(2000),
        ),  # slow: a loss of ln 5, and not by guessing
        (np.full(2000, 1.55), 0.2 + 0.02 * noise(2000)),  # below ln 5 by more than 2 %
        (1.2 + 0.1 * noise(2000), 0.5 + 0.1 * noise(2000)),
        (np.linspace(1.7, 1.5, 2000) + 0.02 * noise(2000), np.linspace(0.2, 0.45, 2000)),
    ],
    ids=["falling", "above chance", "below ln N", "healthy", "slow start"],
)
def test_healthy_and_slow_training_is_left_alone(losses, accuracies):
    assert looks(losses, accuracies) == []


def test_twenty_ways_have_a_chance_of_their_own():
    losses, flat = np.full(1000, math.log(20)), np.full(1000, 0.05)
    assert looks(losses, flat, ways=20, tasks=16) == [1000]
    assert looks(losses, flat + 0.02, ways=20, tasks=16) == []
    assert looks(losses, np.full(1000, 0.2), ways=20, tasks=16) == []


def test_the_guard_decides_the_same_after_a_resumption():
    losses, accuracies = math.log(5) + 0.02 * noise(1200, 5), 0.2 + 0.05 * noise(1200, 1)
    first = Guard(5, 4)
    for pair in zip(losses[:950], accuracies[:950], strict=True):
        first.stuck(*pair)
    second = Guard(5, 4)
    second.load_state_dict(first.state_dict())
    rest = list(zip(losses[950:], accuracies[950:], strict=True))
    assert [first.stuck(*pair) for pair in rest] == [second.stuck(*pair) for pair in rest]
    assert (first.loss, first.accuracy, first.seen) == (second.loss, second.accuracy, second.seen)


def test_selection_prefers_accuracy_up_and_error_down_and_never_what_is_not_finite():
    up, down = Selection(), Selection()
    for step, mean in enumerate([math.nan, 0.5, math.inf, 0.4, 0.6]):
        up.take(step, {"metric": "accuracy", "mean": mean})
        down.take(step, {"metric": "mse", "mean": mean})
    # An accuracy cannot be infinite, but if it were it would be a fault, not a record.
    assert up.best["step"] == 4 and down.best["step"] == 3
    assert not up.exhausted and down.waited == 1


def test_a_log_survives_a_cut_line_and_holds_only_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = log.Log(path, 0)
    for step in (1, 2, 3):
        first.write({"iteration": step, "loss": 0.5})
    assert len(path.read_text()) > 0  # the first record is there at once
    with pytest.raises(ValueError, match="JSON"):
        first.write({"iteration": 4, "loss": math.nan})
    first.close()
    with path.open("a") as file:
        file.write('{"iteration": 4, "lo')
    assert [r["iteration"] for r in log.read(path)] == [1, 2, 3]
    log.Log(path, 2).close()
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [1, 2]
    assert log.read(tmp_path / "none") == []


# Ranks: the same arithmetic with threads in place of processes.


class Threads(Ranks):
    """Ranks that meet at a barrier of one process."""

    def __init__(self, rank: int, size: int, desk: dict, barrier: threading.Barrier) -> None:
        super().__init__(rank, size)
        self._desk, self._barrier = desk, barrier

    def sum(self, tensor):
        self._desk[self.rank] = tensor
        self._barrier.wait(20)
        total = torch.stack([self._desk[r] for r in range(self.size)]).sum(0)
        self._barrier.wait(20)
        return total


def by_ranks(size: int, work) -> list:
    desk, barrier, results = {}, threading.Barrier(size), [None] * size
    threads = [
        threading.Thread(
            target=lambda r=r: results.__setitem__(r, work(Threads(r, size, desk, barrier)))
        )
        for r in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def sinusoids(config: TrainConfig, first: int, count: int):
    model = models.build("mlp", {"hidden": 5}, 0).double()
    space = ParameterSpace.from_module(model)
    source = make_source("sinusoid", shots=4, queries=4, seed=1)
    episodes = tuple(source.episode(i).to(dtype=torch.float64) for i in range(first, first + count))
    theta = space.flatten(dict(model.named_parameters())).detach()
    return NetworkTasks(model, space, episodes, "regression"), space, theta


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "maml"},
        {"method": "sharp-both", "eps_m": "reuse", "reduction": "sum"},
        {"method": "sharp-both", "ascent_gradient": "first-order", "eps_m": "recompute"},
        {"method": "imaml"},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_of_a_batch_give_the_meta_gradient_of_the_whole(settings, size):
    config = TrainConfig(
        data="sinusoid", meta_batch=5, inner_rate=0.01, inner_steps=2, dtype="float64", **settings
    )
    whole, space, theta = sinusoids(config, 0, 5)
    plan = plan_of(config, space, None, 0, "cpu")
    expected = ascent_of(config, space)(whole, theta, plan, Loop(), 0)

    def work(ranks):
        first, count = ranks.share(5)
        own = sinusoids(config, first, count)[0]
        executor = Ranked(Loop(), ranks, 5)
        if ranks.rank == size - 1:
            ranks.noted.append(15)  # SIGTERM
        return ascent_of(config, space)(own, theta, plan, executor, 0), ranks.stop

    results = by_ranks(size, work)
    for found, stop in results:
        assert torch.allclose(found.gradient, expected.gradient, rtol=1e-12, atol=1e-14)
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        assert found.rise == pytest.approx(expected.rise, rel=1e-9, abs=1e-12)
        assert torch.equal(found.gradient, results[0][0].gradient)  # all hold the same bits
        assert stop == 15  # one was told to stop, all of them know


def test_losses_by_products_and_rates_come_back_of_all_tasks_in_order():
    def work(ranks):
        first, count = ranks.share(4)
        numbers = torch.arange(first, first + count, dtype=torch.float64)

        def executor(batch, theta, plan, ascents=None):
            mean = numbers.mean() * torch.ones(2, dtype=torch.float64)
            return Pass(mean, numbers, {"accuracy": -numbers}, mean.expand(3, 2), numbers)

        executor.name = "fake"
        return Ranked(executor, ranks, 4)(None, torch.zeros(2), None), numbers

    for found, own in by_ranks(3, work):
        assert found.losses.tolist() == [0, 1, 2, 3]
        assert found.aux["accuracy"].tolist() == [0, -1, -2, -3]
        assert found.gradient.tolist() == [1.5, 1.5]
        assert found.rates.shape == (3, 2) and bool((found.rates == 1.5).all())
        assert torch.equal(found.ascents, own)  # stay with their tasks


@given(st.integers(1, 40), st.integers(1, 9))
def test_shares_are_the_whole_and_even(count, size):
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert [i for first, n in shares for i in range(first, first + n)] == list(range(count))
    sizes = [n for _, n in shares]
    assert max(sizes) - min(sizes) <= 1


def test_alone_nothing_is_exchanged(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join()
    assert alone.leads and alone.size == 1 and alone.stop is None
    assert alone.agree("x") == "x" and alone.together(lambda: 3) == 3
    with pytest.raises(ValueError, match="mine") as raised:
        alone.together(lambda: exec("raise ValueError('mine')"))
    assert not isinstance(raised.value, ElsewhereError)


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Ranks(1, 2).device(n) for n in ("auto", "cuda", "cpu", "cuda:0")] == [
        "cuda:1", "cuda:1", "cpu", "cuda:0"
    ]  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Ranks(1, 2).device("cuda") == "cuda"


def test_bfloat16_passes_are_near_and_not_equal_and_keep_float32():
    config = TrainConfig(data="sinusoid", inner_rate=0.01, precision="bfloat16", method="sharp-low")
    batch, space, theta = sinusoids(config, 0, 3)
    model = batch.model.float()
    episodes = tuple(e.to(dtype=torch.float32) for e in batch.episodes)
    batch, theta = NetworkTasks(model, space, episodes, "regression"), theta.float()
    plan = plan_of(config, space, None, 0, "cpu")
    full, low = Loop()(batch, theta, plan), Autocast(Loop())(batch, theta, plan)
    assert low.gradient.dtype == torch.float32
    found = compare(full, low)
    assert 1e-4 < found.error < 0.1 and found.cosine > 0.995
    assert found.error == pytest.approx(
        float((low.gradient - full.gradient).norm() / full.gradient.norm()), rel=1e-5
    )
    assert not torch.is_autocast_enabled("cpu")
    seen = []

    def asked(*_):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))

    asked.name = "asked"
    Autocast(asked)(batch, theta, plan)
    assert seen == [(True, torch.bfloat16)]


@pytest.mark.parametrize(
    ("settings", "executor", "says"),
    [
        ({"dtype": "float64"}, "auto", "dtype float64"),
        ({}, "stacked", "executor 'stacked'"),
        ({}, "adjoint", "executor 'adjoint'"),
    ],
)
def test_bfloat16_refuses_what_it_does_not_go_with(settings, executor, says):
    config = TrainConfig(precision="bfloat16", **settings)
    with pytest.raises(ValueError, match=says):
        executor_for(config, executor, torch.device("cpu"))
    assert executor_for(TrainConfig(), "auto", torch.device("cpu")) == "loop"
    assert executor_for(TrainConfig(), "auto", torch.device("cuda")) == "vmap"
    assert executor_for(TrainConfig(), "vmap", torch.device("cpu")) == "vmap"
