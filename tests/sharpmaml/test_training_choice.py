"""The executor of a run, chosen once and told; validation; episodes that are cut out when asked for."""

import dataclasses
import json
import sys
import threading
from contextlib import ExitStack

import pytest
import torch
from execution_problems import F64, network_tasks
from interruption import Stop, stop_at

from sharpmaml import checkpoint as checkpoints
from sharpmaml import training
from sharpmaml.config import TrainConfig
from sharpmaml.evaluation import score
from sharpmaml.execution import choice, memory
from sharpmaml.execution import stacked as stacked_module
from sharpmaml.execution.loop import mean_of
from sharpmaml.execution.named import made
from sharpmaml.execution.stacked import Stacked
from sharpmaml.inner import InnerLoop
from sharpmaml.plan import Pass, Plan
from sharpmaml.tasks import EpisodeStack, NetworkTasks
from sharpmaml.trainer import choosing, ranks, validation
from sharpmaml.trainer.ranks import ElsewhereError, Ranks

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=8, meta_batch=2, checkpoint_every=3, validate_every=20,
    validation_episodes=3, inner_rate=0.01, inner_steps=2, test_steps=2, channels=6, dtype="float64", device="cpu",
)  # fmt: skip
IMAGES = TrainConfig(
    data="strokes", data_options={"alphabets": 4}, ways=3, shots=1, queries=2, model="mlp", channels=8,
    device="cpu", dtype="float64", validation_episodes=5, inner_rate=0.1, test_steps=2,
)  # fmt: skip
MEASURED = dataclasses.replace(SINE, executor="measure")


def recorded(run) -> dict:
    return checkpoints.read(run.locate("last")).meta["executor"]


def measured_once(tmp_path, monkeypatch, seconds=(3.0, 2.0, 4.0, 1.0)):
    """A run that was cut off, whose candidates took these seconds."""
    clock = iter([s for s in seconds for _ in range(3)])
    monkeypatch.setattr(choice, "_seconds", lambda *_: next(clock))
    said = []
    with pytest.raises(Stop):
        training.train(MEASURED, tmp_path / "run", progress=stop_at(4), tell=said.append)
    assert list(clock) == []
    return tmp_path / "run", said


def test_what_was_measured_is_told_and_kept_and_not_measured_again(tmp_path, monkeypatch):
    path, said = measured_once(tmp_path, monkeypatch)
    assert said[0].startswith("executor stacked (the fastest here)")
    names = ["loop", "adjoint", "vmap", "stacked"]
    for line, name, seconds in zip(said[1:], names, (3, 2, 4, 1), strict=True):
        assert line.startswith(f"  {name}: {seconds} s, ") and line.endswith("MiB a pass")
    # The clock is at its end: another measurement would fail.
    for settings in (dataclasses.replace(MEASURED, executor="auto"), MEASURED):
        said.clear()
        monkeypatch.setattr(choice, "_fastest", None)
        longer = dataclasses.replace(settings, iterations=len(list(path.rglob("step_*"))) + 8)
        run = training.train(longer, path, resume=True, tell=said.append)
        assert [line.split(";")[0] for line in said] == ["executor stacked (the fastest here)"]
        found = recorded(run)
        assert [row["name"] for row in found["table"]] == names
        assert [row["seconds"] for row in found["table"]] == [3, 2, 4, 1]


def test_tasks_at_once_of_a_choice_are_kept_and_may_be_changed(tmp_path, monkeypatch):
    path, _ = measured_once(tmp_path, monkeypatch, (3.0, 2.0, 1.0, 4.0))
    (file,) = path.glob("checkpoints/step_000003/meta.json")
    meta = json.loads(file.read_text())
    assert (meta["executor"]["name"], meta["executor"]["tasks_at_once"]) == ("vmap", 2)
    meta["executor"]["tasks_at_once"] = 1
    file.write_text(json.dumps(meta))
    run = training.train(MEASURED, path, resume=True)
    assert recorded(run)["tasks_at_once"] == 1
    asked = dataclasses.replace(MEASURED, tasks_at_once=2, iterations=10)
    assert recorded(training.train(asked, path, resume=True))["tasks_at_once"] == 2


def test_an_executor_asked_for_is_no_measurement_and_the_name_asked_for_wins(tmp_path, monkeypatch):
    config = dataclasses.replace(SINE, executor="loop", iterations=2)
    run = training.train(config, tmp_path / "run")
    monkeypatch.setattr(choice, "_seconds", lambda *_: 1.0)
    said = []
    again = dataclasses.replace(MEASURED, iterations=4)
    training.train(again, run.path, resume=True, tell=said.append)
    assert "the fastest here" in said[0] and len(said) == 5
    named = dataclasses.replace(SINE, executor="adjoint", iterations=6)
    found = recorded(training.train(named, run.path, resume=True, tell=said.append))
    assert found["name"] == "adjoint" and "table" not in found


def test_on_another_device_it_is_chosen_anew_and_said(tmp_path):
    run = training.train(dataclasses.replace(SINE, iterations=4), tmp_path / "run")
    file = run.locate("last") / "meta.json"
    meta = json.loads(file.read_text())
    meta["executor"] |= {"name": "vmap", "device": "cuda"}
    file.write_text(json.dumps(meta))
    said = []
    found = recorded(training.train(SINE, run.path, resume=True, tell=said.append))
    assert (found["name"], found["device"]) == ("stacked", "cpu")
    assert said[1] == "chosen anew: it was vmap on cuda before, and this is cpu"


def test_lines_of_candidates():
    assert choosing._line(choice.Candidate("loop", 1, 0.01234567, 3 * 2**19)) == (
        "  loop: 0.01235 s, 1.5 MiB a pass"
    )
    lacking = choice.Candidate("vmap", 3, why="out of memory")
    assert choosing._line(lacking) == "  vmap: out of memory"


class Desk:
    """`torch.distributed` for threads: two exchanges, at a barrier."""

    def __init__(self, size):
        self.box, self.barrier = {}, threading.Barrier(size)

    def exchange(self, value):
        rank = int(threading.current_thread().name)
        self.box[rank] = value
        self.barrier.wait(20)
        found = dict(self.box)
        self.barrier.wait(20)
        return found

    def all_gather_object(self, words, own):
        for rank, said in self.exchange(own).items():
            words[rank] = said

    def broadcast_object_list(self, box, src):
        box[0] = self.exchange(box[0])[src]


def on_threads(size, work, monkeypatch):
    desk, results = Desk(size), [None] * size
    monkeypatch.setattr(ranks.dist, "all_gather_object", desk.all_gather_object)
    monkeypatch.setattr(ranks.dist, "broadcast_object_list", desk.broadcast_object_list)

    def one(rank):
        try:
            results[rank] = work(Ranks(rank, size))
        except Exception as error:  # what a rank raises is a result here
            results[rank] = error

    threads = [threading.Thread(target=one, args=(r,), name=str(r)) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.parametrize("error", [ValueError("no executor fits"), RuntimeError("CUDA is gone")])
@pytest.mark.parametrize("broken", [0, 1])
def test_all_ranks_learn_why_one_could_not_choose(error, broken, monkeypatch):
    batch, theta = network_tasks("mlp")
    config = dataclasses.replace(SINE, meta_batch=4)
    real = choosing.choose

    def choose(*arguments):
        if threading.current_thread().name == str(broken):
            raise error
        return real(*arguments)

    def work(own):
        return choosing.executor_of(config, batch, theta, Plan(InnerLoop(1, 0.1)), own)

    alike = on_threads(2, work, monkeypatch)
    assert [(one.name, one.executor.name) for one in alike] == [("stacked", "stacked")] * 2
    monkeypatch.setattr(choosing, "choose", choose)
    found = on_threads(2, work, monkeypatch)
    assert found[broken] is error
    other = found[1 - broken]
    assert isinstance(other, ElsewhereError) and str(other) == f"rank {broken}: {error}"


def test_where_all_fail_the_first_speaks_for_all(monkeypatch):
    def fails(own):
        raise ValueError(f"mine, {own.rank}")

    found = on_threads(3, lambda own: own.together(lambda: fails(own)), monkeypatch)
    assert [type(error) for error in found] == [ValueError, ElsewhereError, ElsewhereError]
    assert [str(error) for error in found] == ["mine, 0"] + ["rank 0: mine, 0"] * 2


def test_an_error_without_words_has_its_name(monkeypatch):
    def work(own):
        if own.leads:
            raise MemoryError
        return own.together(lambda: 1)

    found = on_threads(
        2, lambda own: own.together(lambda: work(own) if own.leads else 1), monkeypatch
    )
    assert str(found[1]) == "rank 0: MemoryError"


VALIDATED = {
    "sine": dataclasses.replace(
        SINE,
        inner_steps=1,
        test_steps=3,
        validation_episodes=7,
        method="sharp-both",
        alpha_low=0.05,
    ),
    "rates": dataclasses.replace(SINE, method="meta-sgd", validation_episodes=7),
    "images": IMAGES,
    "conv": dataclasses.replace(IMAGES, model="conv4", channels=2),
}


@pytest.mark.parametrize("config", VALIDATED.values(), ids=VALIDATED)
def test_validation_is_the_mean_of_the_tasks_one_by_one(config, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_TOGETHER", 3)
    trainer = training._Trainer(config, tmp_path / "run", False, Ranks(), ExitStack())
    stream, learner = trainer.stream, trainer.learner

    def task(index):
        return stream("val", index, 1).tasks()[0]

    count = config.validation_episodes
    metric, each = score(task, learner.theta, learner.inner(), count)
    found = training._validate(stream, learner, config, Ranks())
    assert (found["metric"], found["episodes"]) == (metric, count)
    assert found["mean"] == pytest.approx(each.mean(), rel=1e-12)

    class Two(Ranks):
        def sum(self, tensor):
            sums.append(tensor)
            return tensor

    sums = []
    for rank in (0, 1):
        training._validate(stream, learner, config, Two(rank, 2))
    first = -(-count // 2)
    assert not sums[0][first:].any() and not sums[1][:first].any()
    assert torch.allclose(sums[0] + sums[1], torch.from_numpy(each), rtol=1e-12, atol=0)


def test_without_steps_there_are_no_rates_and_every_executor_says_so():
    for name in ("mlp", "block"):
        batch, theta = network_tasks(name)
        rates = torch.full((2, len(theta)), 0.1, dtype=F64)
        for inner in (InnerLoop(0, 0.1), InnerLoop(0, rates, 0.1, "through")):
            plan = Plan(inner, (), learns_rates=True, keeps_ascents=True)
            want = made("loop")(batch, theta, plan)
            assert want.rates.shape == (0, len(theta)) and want.ascents is None
            plain = made("loop")(batch, theta, Plan(InnerLoop(0, 0.1)))
            assert torch.equal(want.gradient, plain.gradient)
            for other in ("vmap", "adjoint", "stacked"):
                if (name, other) == ("block", "stacked"):
                    continue  # it has no stacked form
                found = made(other)(batch, theta, plan)
                assert found.rates.shape == want.rates.shape and found.ascents is None
                torch.testing.assert_close(found.gradient, want.gradient, rtol=1e-9, atol=1e-12)
                torch.testing.assert_close(found.losses, want.losses, rtol=1e-9, atol=1e-12)


def test_the_mean_of_passes_weighs_their_tasks():
    def made_of(value, count):
        tensor = torch.full((2,), value, dtype=F64)
        return Pass(tensor, torch.full((count,), value), {}, tensor[None])

    found = mean_of([made_of(1.0, 3), made_of(5.0, 1)])
    assert found.gradient.tolist() == [2.0, 2.0] and found.rates.tolist() == [[2.0, 2.0]]
    assert found.losses.tolist() == [1, 1, 1, 5]


def test_a_stack_of_episodes_is_cut_without_copies():
    batch, theta = network_tasks("mlp", 3)
    whole = batch.stacked()
    stack = NetworkTasks.of_stack(batch.model, batch.space, whole, batch.kind)
    assert stack.stacked() is whole and len(stack.episodes) == 3
    for one, other in zip(stack.episodes, batch.episodes, strict=True):
        for field in dataclasses.fields(one):
            mine = getattr(one, field.name)
            assert torch.equal(mine, getattr(other, field.name))
            column = getattr(whole, field.name).untyped_storage()
            assert mine.untyped_storage().data_ptr() == column.data_ptr()
    fewer = dataclasses.replace(stack, episodes=stack.episodes[1:])
    assert isinstance(fewer.episodes, EpisodeStack) and len(fewer.episodes) == 2
    assert torch.equal(fewer.stacked().query_y, whole.query_y[1:])
    assert torch.equal(stack.episodes[-1].support_x, whole.support_x[2])
    with pytest.raises(IndexError):
        stack.episodes[3]
    want, got = (made("loop")(tasks, theta, Plan(InnerLoop(1, 0.1))) for tasks in (batch, stack))
    assert torch.equal(got.gradient, want.gradient)
    again = stack.double()
    assert torch.equal(again.stacked().support_x, whole.support_x)


@pytest.mark.parametrize(("room", "steps"), [(2**28, 6), (150_000, 5), (0, 1)])
def test_the_estimate_knows_the_chunks_and_the_room_of_stacked(room, steps, monkeypatch):
    batch, theta = network_tasks("max", 5)
    widest = Stacked()._network(batch)[1].activations(batch.episodes[0].query_x)
    monkeypatch.setattr(stacked_module, "_ACTIVATIONS", 2 * widest + 1)
    monkeypatch.setattr(stacked_module, "_HELD_BYTES", room)
    plan = Plan(InnerLoop(steps, 0.1))
    told = memory.estimate(batch, theta, plan, "stacked", 0, 5)
    batch = NetworkTasks.of_stack(batch.model, batch.space, batch.stacked(), batch.kind)
    seen = memory.peak_bytes(lambda: Stacked()(batch, theta, plan), theta.device)
    assert Stacked().together(batch) == 2
    assert told == pytest.approx(seen, rel=0.2)


def test_the_room_of_stacked_goes_by_plan_and_device(monkeypatch):
    class Card:
        total_memory = 80 * 2**30

    plan, gpu, cpu = Plan(InnerLoop(5, 0.1)), torch.device("cuda", 1), torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    assert Stacked().room(plan, gpu) == 20 * 2**30 and Stacked().room(plan, cpu) == 2**28
    assert Stacked(0, 7).room(plan, gpu) == Stacked(0, 7).room(plan, cpu) == 7
    assert Stacked().room(Plan(InnerLoop(5, 0.1, first_order=True)), gpu) == 0
    assert Stacked().room(Plan(InnerLoop(5, 0.1), estimator="reptile"), cpu) == 0


def test_memory_is_given_back_after_the_error_is_gone(monkeypatch):
    """While it is handled, its frames hold the tensors of the pass."""
    batch, _ = network_tasks("mlp")
    seen = []

    class Cuda:
        is_cuda, device = True, torch.device("cpu")

    def fails(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(memory, "peak_bytes", fails)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append(sys.exc_info()[0]))
    found = choice._tried("loop", batch, Cuda(), Plan(InnerLoop(1, 0.1)), 1)
    assert found.why == "out of memory" and seen == [None]
