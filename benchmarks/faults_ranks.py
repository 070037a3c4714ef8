"""A rank of torchrun that is killed or stopped: how soon it is told, how soon all is over, and what a resumption gives.

    python benchmarks/faults_ranks.py

Three ranks train, two evaluate a surface; one of them is sent SIGKILL or SIGSTOP in the middle. Markdown on
standard output; the exit status is 1 if an error took over a minute, was not clear, or the resumed result differs by
a bit.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the ranks
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import torch
from fault_campaign import problem
from run_files import unlike, unreadable
from training_faults import SINE

from landscape.store import load
from sharpmaml.config import TrainConfig

LIMIT = 60.0  # seconds to a clear error
TOO_LONG = 180.0


@dataclass(frozen=True)
class Job:
    """What the ranks do.

    Attributes:
        name: in the table.
        ranks: how many.
        words: of the command, but for its output.
        begun: whether the output shows that the work is under way.
        again: words more when it is resumed.
        differs: what of a finished output is not as in the other, to the bit.
    """

    name: str
    ranks: int
    words: list[str]
    begun: Callable[[Path], bool]
    again: list[str]
    differs: Callable[[Path, Path], list[str]]


def jobs(folder: Path) -> list[Job]:
    """Training and a surface, some seconds of work each."""
    changes = {
        "method": "sharp-both",
        "iterations": 1500,
        "meta_batch": 3,
        "checkpoint_every": 50,
        "validate_every": 500,
    }
    settings = folder / "settings.toml"
    settings.write_text(TrainConfig.from_dict({**SINE.to_dict(), **changes}).to_toml())

    def lines(out: Path) -> bool:
        log = out / "metrics.jsonl"
        return log.exists() and log.read_bytes().count(b"\n") > 120

    def points(out: Path) -> bool:
        journal = out.with_name(f".{out.name}.points")
        return journal.exists() and journal.stat().st_size > 4000

    def values(out: Path, whole: Path) -> list[str]:
        a, b = load(out), load(whole)
        return [
            str(n)
            for n in b.variables
            if not np.array_equal(a[n].values, b[n].values, equal_nan=b[n].dtype.kind == "f")
        ]

    return [
        Job("train", 3, ["sharpmaml", "train", "--config", str(settings), "--quiet", "--out"], lines, ["--resume"],
            lambda out, whole: unreadable(out) + list(unlike(out, whole, "nothing"))),
        Job("surface", 2, ["landscape", "surface", *problem(folder), "--points", "201", "--executor", "plain",
                           "--quiet", "--out"], points, [], values),
    ]  # fmt: skip


def launched(job: Job, out: Path, log: Path, more: list[str]) -> subprocess.Popen[bytes]:
    """Start torchrun with the job in its ranks."""
    module, *words = job.words
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.ranks}",
               "-m", module, *words, str(out), *more]  # fmt: skip
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


def pid_of(launcher: int, rank: int) -> int:
    """The process of a rank."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (place / "environ").read_text(
                errors="replace"
            ):
                return int(place.name)
        except (OSError, ValueError):
            continue
    raise LookupError(f"torchrun has no rank {rank}")


def struck(
    job: Job, folder: Path, whole: Path, rank: int, number: signal.Signals
) -> tuple[str, bool]:
    """One strike: a row of the table, and whether all was as it should be."""
    out = folder / f"{job.name}-{rank}-{number.name}{whole.suffix}"
    log = folder / f"{out.name}.log"
    process = launched(job, out, log, [])
    while not job.begun(out):
        if process.poll() is not None:
            raise RuntimeError(f"{job.name} ended before it was struck: {log.read_text()[-2000:]}")
        time.sleep(0.01)
    os.kill(pid_of(process.pid, rank), number)
    began, told = time.monotonic(), None
    while process.poll() is None and time.monotonic() < began + TOO_LONG:
        if told is None and b"error: " in log.read_bytes():
            told = time.monotonic() - began
        time.sleep(0.05)
    over = time.monotonic() - began
    process.kill()
    process.wait()
    said = [
        line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")
    ]
    # Upon a rank that is gone torchrun names it, and sends the others SIGTERM, which may come first.
    clear = len(said) >= 1 and (
        f"lost another rank: rank {rank} " in said[0] or "ended by SIGTERM" in said[0]
    )
    again = launched(job, out, log, job.again)
    resumed = again.wait(600) == 0
    found = job.differs(out, whole) if resumed else [log.read_text()[-300:]]
    well = clear and told is not None and told <= LIMIT and not found
    words = said[0] if said else "nothing"
    first = "never" if told is None else f"{told:.0f}"
    return (
        f"| {job.name}, {job.ranks} ranks | {number.name} to rank {rank} | {first} | {over:.0f} "
        f"| {words.replace(str(folder), 'FOLDER')} | {'; '.join(found) or 'the same bits'} |"
    ), well


def main() -> int:
    """Every job, every signal, the first and the last rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        "| command | what | seconds to the error | to the end of torchrun | its words | resumed |",
        "|:--|:--|--:|--:|:--|:--|",
    ]
    right = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for job in jobs(folder):
            whole = folder / ("whole.nc" if job.name == "surface" else "whole")
            log = folder / "whole.log"
            if launched(job, whole, log, []).wait(900):
                raise RuntimeError(f"{job.name}: {log.read_text()[-2000:]}")
            for number in (signal.SIGKILL, signal.SIGSTOP):
                for rank in (0, job.ranks - 1):
                    row, well = struck(job, folder, whole, rank, number)
                    print(row, file=sys.stderr, flush=True)
                    rows.append(row)
                    right &= well
    print("\n".join(rows))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
