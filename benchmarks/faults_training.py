"""Training runs that are killed, and runs whose disk refuses: what is lost, and whether the rest is the same bits.

    python benchmarks/faults_training.py [--count 200] [--turns] [--folder /dev/shm] [--json FILE]

Four small runs (Adam, SGD with a cosine, learned rates, early stopping, an ascent that remembers) are killed with
SIGKILL ``--count`` times each way: after a random time, before a random operation on a file, and within a random
write. Each is resumed, and killed again, until it comes to its end, and is then held against one that was
left alone. ``--turns`` takes every operation of one run in turn, and every way to fail. Then signals, two processes on
one folder, files that are removed, a wall clock that is set back.
Markdown on standard output; the exit status is 1 if anything was not as it should be.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from fault_tools import Server, server
from training_campaign import Tally, killed, killed_in_turn, refused, scenes
from training_faults import MODULES, RUNS, Lab

WAYS = {
    "time": "after a random time",
    "operation": "before a random operation on a file",
    "torn": "within a random write",
}
FAILURES = {
    "enospc": "disk full (half of a write, then ENOSPC)",
    "eio": "one operation fails (EIO)",
    "erofs": "disk turns read-only (EROFS)",
}
SEED = 0


def main(arguments: list[str] | None = None) -> int:
    """Everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="kills of each way")
    parser.add_argument("--turns", action="store_true", help="every operation of a run in turn")
    parser.add_argument("--folder", help="where the runs are made; a disk in memory is faster")
    parser.add_argument("--json", type=Path, help="keep the numbers here too")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"kills": {}, "failures": {}, "scenes": {}}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, server(*MODULES) as forks:
        labs = _labs(forks, Path(folder))
        for kind, words in WAYS.items() if asked.count else ():
            found["kills"][words] = _summed(
                [killed(lab, kind, count, SEED) for lab, count in _shared(labs, asked.count)], words
            )
        every = 1 if asked.turns else 25
        lab = labs[1]
        if asked.turns:
            for kind, words in (
                ("kill", "before every operation in turn"),
                ("torn", "within every write in turn"),
            ):
                found["kills"][words] = _summed([killed_in_turn(lab, kind)], words)
        for kind, words in FAILURES.items():
            found["failures"][words] = _summed([refused(lab, kind, every)], words)
        found["scenes"] = scenes(lab)
    print(_tables(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    counts = [*found["kills"].values(), *found["failures"].values()]
    wrong = [
        row["unreadable"] + row["unlike"] for row in counts if row["unreadable"] or row["unlike"]
    ]
    wrong += [[what] for what, said in found["scenes"].items() if not said["right"]]
    for lines in wrong:
        print("\n".join(lines), file=sys.stderr)
    return 1 if wrong else 0


def _labs(forks: Server, folder: Path) -> list[Lab]:
    return [Lab(forks, folder / str(i), config) for i, config in enumerate(RUNS.values())]


def _shared(labs: list[Lab], count: int) -> list[tuple[Lab, int]]:
    return [
        (lab, (count + i) // len(labs)) for i, lab in enumerate(labs) if (count + i) // len(labs)
    ]


def _summed(tallies: list[Tally], words: str) -> dict[str, Any]:
    moments: dict[str, int] = {}
    for tally in tallies:
        for what, count in tally.moments.items():
            moments[what] = moments.get(what, 0) + count
    restarts = [seconds for tally in tallies for seconds in tally.restarts]
    row = {
        "count": sum(t.kills for t in tallies),
        "moments": dict(sorted(moments.items(), key=lambda item: -item[1])),
        "finished": sum(t.finished for t in tallies),
        "unreadable": [line for t in tallies for line in t.unreadable],
        "unlike": [line for t in tallies for line in t.unlike],
        "lost": max(t.lost for t in tallies),
        "restart": statistics.median(restarts) if restarts else None,
    }
    print(f"{words}: {row}", file=sys.stderr, flush=True)
    return row


def _tables(found: dict[str, Any]) -> str:
    lines = [
        "| SIGKILL | kills | met | runs finished | unreadable files | not bitwise equal | worst loss, meta-updates | "
        "seconds to the first meta-update |",
        "|:--|--:|:--|--:|--:|--:|--:|--:|",
    ]
    for words, row in found["kills"].items():
        restart = "" if row["restart"] is None else f"{row['restart']:.1f}"
        lines.append(
            f"| {words} | {row['count']} | {_moments(row)} | {row['finished']} | {len(row['unreadable'])} | "
            f"{len(row['unlike'])} | {row['lost']} | {restart} |"
        )
    lines += [
        "",
        "| the disk | operations failed | met | unreadable files | no clear line, or not resumed to the same bits |",
        "|:--|--:|:--|--:|--:|",
    ]
    for words, row in found["failures"].items():
        lines.append(
            f"| {words} | {row['count']} | {_moments(row)} | {len(row['unreadable'])} | {len(row['unlike'])} |"
        )
    lines += ["", "| what happens | what the run does | as it should |", "|:--|:--|:--|"]
    for what, row in found["scenes"].items():
        lines.append(f"| {what} | {row['said']} | {'yes' if row['right'] else '**no**'} |")
    every = {config.checkpoint_every for config in RUNS.values()}
    lines += [
        "",
        f"Checkpoints every {' or '.join(map(str, sorted(every)))} meta-updates, and at every best validation.",
    ]
    return "\n".join(lines)


def _moments(row: dict[str, Any]) -> str:
    return ", ".join(f"{what} {count}" for what, count in row["moments"].items())


if __name__ == "__main__":
    sys.exit(main())
