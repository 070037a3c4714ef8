"""Processes of torchrun train one run: the numbers of one process, one writer, and nobody is left waiting."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from sharpmaml import checkpoint as checkpoints
from sharpmaml import training
from sharpmaml.config import TrainConfig
from sharpmaml.trainer.ranks import Ranks
from sharpmaml.training import train

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=6, meta_batch=5, checkpoint_every=2, validate_every=2,
    validation_episodes=5, inner_rate=0.01, test_steps=2, channels=8, dtype="float64", device="cpu",
)  # fmt: skip
RUNS = {
    "both": dataclasses.replace(SINE, method="sharp-both", eps_m="reuse"),
    "rates": dataclasses.replace(SINE, method="meta-sgd", executor="loop"),
    "images": TrainConfig(
        data="strokes", data_options={"alphabets": 4}, ways=3, queries=2, iterations=3, meta_batch=4,
        checkpoint_every=2, validate_every=3, validation_episodes=3, channels=4, downsample="stride",
        device="cpu", dtype="float64", method="sharp-up",
    ),
}  # fmt: skip

SCRIPT = """
import hashlib, sys, torch
sys.path.insert(0, {tests!r})
from test_training_ranks import RUNS
from pathlib import Path
from landscape.parallel import leave
from sharpmaml.training import train
import torch.distributed as dist
folder = Path(sys.argv[1])
calls = []
for name, config in RUNS.items():
    run = train(config, folder / name, progress=calls.append)
rank = dist.get_rank()
(folder / f"rank{{rank}}").write_text(f"{{len(calls)}} {{run.step}} {{run.checkpoint.name}}")
run = train(RUNS["both"], folder / "both", resume=True)
try:
    train(RUNS["both"], folder / "both")
except ValueError as error:
    (folder / f"refused{{rank}}").write_text(f"{{type(error).__name__}}: {{error}}")
leave()
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
(folder / f"threads{{rank}}").write_text(" ".join(name for name in threads if "gloo" in name))
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_of_torchrun_agree_with_one_process(tmp_path, ranks):
    tests = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT.format(tests=tests))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [*command, str(ranks), str(script), str(tmp_path)],
        env=ENVIRONMENT, timeout=280, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    for name, config in RUNS.items():
        alone = train(config, tmp_path / f"alone-{name}")
        found = checkpoints.read(checkpoints.steps(tmp_path / name)[-1])
        expected = alone.read("last")
        assert float((found.theta - expected.theta).abs().max()) < 1e-12
        if expected.rates is not None:
            assert float((found.rates - expected.rates).abs().max()) < 1e-12
        lines = [(tmp_path / n / "metrics.jsonl").read_text() for n in (name, f"alone-{name}")]
        for one, other in zip(*(map(json.loads, text.splitlines()) for text in lines), strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
            if "validation" in one:
                means = [record["validation"]["mean"] for record in (one, other)]
                assert means[0] == pytest.approx(means[1], rel=1e-9)
    assert (tmp_path / "rank0").read_text().split()[0] == "15"
    for rank in range(1, ranks):  # they write nothing, and know how it went
        calls, *rest = (tmp_path / f"rank{rank}").read_text().split()
        assert calls == "0" and rest == (tmp_path / "rank0").read_text().split()[1:]
    # A thread of gloo that outlives the interpreter can abort the process.
    assert [(tmp_path / f"threads{rank}").read_text() for rank in range(ranks)] == [""] * ranks
    # One says why, the others that it did.
    assert (tmp_path / "refused0").read_text().startswith("ValueError: ")
    assert "ElsewhereError: rank 0: " in (tmp_path / "refused1").read_text()


def launch(size: int, arguments: list[str], **each: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "sharpmaml", "train", *arguments],
            env={**ENVIRONMENT, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip


TINY = ["--data", "sinusoid", "--channels", "4", "--validation-episodes", "2", "--device", "cpu"]


def test_more_processes_than_tasks_are_refused(tmp_path, monkeypatch):
    class Third(Ranks):
        def together(self, work):
            return work()

    monkeypatch.setattr(training, "join", lambda: Third(2, 3))
    with pytest.raises(ValueError, match="3 processes for a meta-batch of 2"):
        train(dataclasses.replace(SINE, meta_batch=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def two_at_work(out):
    """Two processes in the middle of a run without an end, and the log that they write."""
    never = [
        w
        for name in ("iterations", "checkpoint-every", "validate-every")
        for w in (f"--{name}", "1000000")
    ]
    processes = launch(2, [*TINY, *never, "--out", str(out), "--quiet"])
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes, metrics


def test_an_interruption_of_one_stops_all_and_keeps_the_work(tmp_path):
    out = tmp_path / "run"
    processes, metrics = two_at_work(out)
    processes[1].send_signal(signal.SIGINT)
    ended = [(p.communicate(timeout=120)[1], p.returncode) for p in processes]
    assert [code for _, code in ended] == [130, 130], ended
    assert "Traceback" not in ended[0][0] + ended[1][0]
    (kept,) = checkpoints.steps(out)
    last = json.loads(metrics.read_text().splitlines()[-1])["iteration"]
    assert checkpoints.read(kept).step == last > 0
    assert bool(torch.isfinite(checkpoints.read(kept).theta).all())


def test_a_process_that_dies_leaves_nobody_waiting(tmp_path):
    processes, _ = two_at_work(tmp_path / "run")
    processes[1].kill()
    _, stderr = processes[0].communicate(timeout=60)
    processes[1].communicate(timeout=60)
    assert processes[0].returncode == 1
    assert "lost another rank" in stderr and len(stderr.strip().splitlines()) == 1
