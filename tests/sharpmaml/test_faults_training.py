"""Training that is killed, denied the disk or interrupted goes on to the same bits, and no file is ever in pieces.

The same with 200 kills of each kind: benchmarks/faults_training.py.
"""

import json
import os
import shutil
import signal
import time

import pytest
from fault_tools import needs_shim, server, shim
from run_files import kept, unreadable
from training_campaign import killed, refused, scenes
from training_faults import RUNS, SINE, Lab

from landscape.writing import WriteError
from sharpmaml import checkpoint as checkpoints
from sharpmaml import folders, training
from sharpmaml.trainer import best, log
from sharpmaml.trainer.signals import interruptible

pytestmark = needs_shim


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with server("sharpmaml.cli", "training_faults:warm_one") as forks:
        config = RUNS["Meta-SGD, learned rates, early stop"]
        yield Lab(forks, tmp_path_factory.mktemp("lab") / "run", config)


@pytest.mark.parametrize("kind", ["time", "operation", "torn"])
def test_a_killed_run_goes_on_to_the_same_bits(lab, kind):
    tally = killed(lab, kind, 2, seed=1)
    assert tally.kills == 2 and tally.finished >= 1
    assert tally.unreadable == [] and tally.unlike == []
    assert tally.lost <= lab.config.checkpoint_every


@pytest.mark.parametrize(
    "at", ["model.safetensors", "trainer.pt", "meta.json", "step_000004", "best.json"]
)
def test_a_kill_at_each_step_of_a_save(lab, at):
    """The moments that random ones may miss: each file of a checkpoint, its name, and the choice of the best."""
    moments = [i for i, what in enumerate(lab.ended.operations, 1) if what.endswith(at)]
    out = lab.folder / f"at-{at}"
    assert lab.train(out, kind="torn", at=moments[-1]).status == -signal.SIGKILL
    assert unreadable(out) == []
    assert lab.train(out, resume=True).status == 0
    assert lab.unlike(out) == []


@pytest.mark.parametrize("kind", ["enospc", "eio", "erofs"])
def test_a_disk_that_refuses_is_told_in_a_line(lab, kind):
    tally = refused(lab, kind, every=47, first=9)
    assert tally.kills >= 3
    assert tally.unreadable == [] and tally.unlike == []


def test_what_else_happens_to_runs(lab):
    found = scenes(lab)
    assert len(found) == 11
    assert {
        what: row["wrong"] or row["said"] for what, row in found.items() if not row["right"]
    } == {}


def test_the_shim_counts_and_strikes_by_its_environment(tmp_path):
    """As documented, in a process that is not forked; `tests/faulty_io.c`."""
    import subprocess
    import sys

    words = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text('abcd'); p.unlink()"
    count, said, file = tmp_path / "count", tmp_path / "log", tmp_path / "made"
    asked = {"path": str(file), "count_file": count, "log_file": said}

    def run(kind, at):
        environment = {**os.environ, **shim().environment(kind, at, **asked)}
        done = subprocess.run(
            [sys.executable, "-c", words, str(file)], env=environment, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stderr.splitlines()[-1:]

    assert run("none", 0) == (0, [])
    assert count.read_text() == "4\n"
    assert [line.split()[:2] for line in said.read_text().splitlines()] == [
        ["1", "open"], ["2", "write"], ["3", "close"], ["4", "unlink"],
    ]  # fmt: skip
    assert run("torn", 2) == (-signal.SIGKILL, [])
    assert file.read_text() == "ab"
    for kind, number in (("eio", 5), ("erofs", 30), ("enospc", 28)):
        status, last = run(kind, 1)
        assert status == 1 and f"[Errno {number}]" in last[0]


# A damaged checkpoint, a folder in the way


@pytest.fixture
def copy(sine_run, tmp_path):
    return shutil.copytree(sine_run, tmp_path / "run")


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt", "meta.json", "best"])
def test_a_damaged_last_checkpoint_is_told_in_a_line_and_the_one_before_goes_on(
    copy, sine_run, name
):
    from sharpmaml.config import TrainConfig

    config = TrainConfig.from_toml(copy / "config.toml")
    last = checkpoints.steps(copy)[-1]
    if name != "best":
        data = bytearray((last / name).read_bytes())
        # A bit of a weight, of the state of the optimizer, of the description.
        data[-3 if name == "model.safetensors" else len(data) // 2] ^= 4
        (last / name).write_bytes(data)
        says = rf"{name}.*: delete .*{last.name} to resume from the one before$"
        with pytest.raises(checkpoints.CheckpointError, match=says) as caught:
            training.train(config, copy, resume=True)
        assert "\n" not in str(caught.value)
    shutil.rmtree(last)
    training.train(config, copy, resume=True)
    for step in ("step_000002", "step_000004"):
        one, other = (checkpoints.read(run / "checkpoints" / step) for run in (copy, sine_run))
        assert one.fingerprint == other.fingerprint
    assert (copy / "best.json").read_text() == (sine_run / "best.json").read_text()


def test_learned_rates_are_checked_against_their_sum(tmp_path):
    import dataclasses

    run = training.train(
        dataclasses.replace(SINE, method="meta-sgd", iterations=2), tmp_path / "run"
    )
    file = run.locate("last") / "rates.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(checkpoints.CheckpointError, match="not the file that meta.json describes"):
        run.read("last")


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path):
    for step in (1_000_000, 999_999, 20):
        folder = tmp_path / "checkpoints" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text("{}")
    assert [p.name for p in checkpoints.steps(tmp_path)] == [
        "step_000020",
        "step_999999",
        "step_1000000",
    ]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "step"
    for text in ("old", "new"):
        with folders.replacing_folder(target) as partial:
            (partial / "file").write_text(text)
            assert not target.exists() or (target / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["step"] and (
        target / "file"
    ).read_text() == "new"
    with pytest.raises(KeyError), folders.replacing_folder(target) as partial:
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["step"]
    # Killed after the old one was moved aside: it is put back. After the new one was in place: it goes.
    target.rename(tmp_path / ".step.before")
    (tmp_path / ".step.partial").mkdir()
    folders.sweep(tmp_path)
    assert (target / "file").read_text() == "new"
    (tmp_path / ".step.before").mkdir()
    with monkeypatch.context() as killed_there, pytest.raises(OSError, match="half removed"):
        killed_there.setattr(
            shutil, "rmtree", lambda _: (_ for _ in ()).throw(OSError("half removed"))
        )
        folders.sweep(tmp_path)
    assert not (tmp_path / ".step.before").exists()  # it could be put back
    folders.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step"]


def test_a_start_that_was_killed_may_be_repeated_without_resume(tmp_path):
    """Hidden files alone are what a process that was killed left, not a run."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints").rmdir()
    (run / ".metrics.jsonl.lock").write_text("")
    (run / ".config.toml.elsewhere-1.tmp").write_text("")
    import dataclasses

    training.train(dataclasses.replace(SINE, iterations=1), run)
    assert kept(run) == 1


# The choice of the best checkpoint


def named(run):
    return (
        json.loads((run / "best.json").read_text())["checkpoint"]
        if (run / "best.json").exists()
        else None
    )


def chosen(step):
    return {"step": step, "validation": {"metric": "mse", "mean": 1.0, "episodes": 2}}


def test_best_json_names_what_is_there_at_any_time(tmp_path):
    with best.chosen(tmp_path, chosen(2)):
        assert named(tmp_path) is None  # the checkpoint is being written
    assert named(tmp_path) == "step_000002"
    with pytest.raises(KeyError), best.chosen(tmp_path, chosen(4)):
        raise KeyError
    assert named(tmp_path) == "step_000002"
    best.settle(tmp_path, chosen(2))  # killed before the checkpoint was whole
    assert named(tmp_path) == "step_000002" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyError), best.chosen(tmp_path, chosen(4)):
        raise KeyError
    best.settle(tmp_path, chosen(4))  # killed after
    assert named(tmp_path) == "step_000004" and len(list(tmp_path.iterdir())) == 1
    best.settle(tmp_path, chosen(2))  # the last checkpoint was removed
    assert named(tmp_path) == "step_000002"
    best.settle(tmp_path, {})
    assert named(tmp_path) is None
    best.settle(tmp_path, chosen(2))  # somebody removed best.json: that is a choice too
    assert named(tmp_path) is None


# Log and signals


def test_a_clock_that_is_set_back_holds_no_record_up(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    written = log.Log(tmp_path / "metrics.jsonl", 0)
    for step, clock in enumerate((100.0, 100.5, 3.0, 3.5), 1):
        now[0] = clock
        written.write({"iteration": step})
    assert (
        len(log.read(tmp_path / "metrics.jsonl")) == 3
    )  # those of the first second, and of the new time
    written.close()
    assert len(log.read(tmp_path / "metrics.jsonl")) == 4


def test_another_file_in_the_place_of_the_log_is_noticed(tmp_path):
    written = log.Log(tmp_path / "metrics.jsonl", 0)
    (tmp_path / "other").write_text("")
    (tmp_path / "other").replace(tmp_path / "metrics.jsonl")
    with pytest.raises(WriteError, match="another file has taken its place"):
        written.write({"iteration": 1})
    written.close()


def test_a_signal_goes_on_as_it_would_have_gone():
    class Ended(BaseException):
        pass

    def end(number, frame):
        raise Ended(number)

    before = signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as noted:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            assert noted == [signal.SIGTERM, signal.SIGINT]  # nohup stays nohup
            assert isinstance(noted.interruption(signal.SIGTERM), Ended)
            assert type(noted.interruption(signal.SIGINT)) is KeyboardInterrupt
        assert signal.getsignal(signal.SIGTERM) is end
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with interruptible() as noted:
            assert noted.interruption(signal.SIGTERM).code == 143
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])
