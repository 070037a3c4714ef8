"""Surface, Hessian and sharpness commands under faults: killed, interrupted, starved of disk, their clock set back.

    python benchmarks/faults_analysis.py --count 200

Every run is resumed, and its result compared bit for bit with that of a run left alone. What is found is kept in
``--state``, so that the same command continues; the table goes to standard output. Linux, with a C compiler.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fault_campaign import KINDS, MODULES, Campaign, Tally, evenly
from fault_tools import server

DISK = ("enospc", "eio", "erofs")
NAMES = {
    "time": "killed at any moment",
    "kill": "killed before a file operation",
    "torn": "killed within a write",
    "SIGINT": "SIGINT at any moment",
    "SIGTERM": "SIGTERM at any moment",
    "enospc": "disk full from an operation on",
    "eio": "one operation fails",
    "erofs": "read-only from an operation on",
    "removed": "file, then folder removed",
    "clock": "clock a day back, a day on",
}


def cells(campaign: Campaign, count: int) -> dict[str, Callable[[random.Random, int], Tally]]:
    """What is done to a command; each takes the draw and the number of the run."""
    places = evenly(campaign.operations, max(count // 4, 2))
    return {
        **{
            how: lambda draw, _, how=how: campaign.killed(draw, how)
            for how in ("time", "kill", "torn")
        },
        **{
            number.name: lambda draw, _, number=number: campaign.signalled(draw, number)
            for number in (signal.SIGINT, signal.SIGTERM)
        },
        **{
            how: lambda _, i, how=how: campaign.starved(places[i % len(places)], how)
            for how in DISK
        },
        "removed": lambda _, i: campaign.removed(("file", "folder")[i % 2]),
        "clock": lambda _, i: campaign.clock((-86400.0, 86400.0)[i % 2]),
    }


def wanted(how: str, count: int, places: int) -> int:
    """Faults of each kind: ``count`` kills in three ways, a quarter of it as signals and disk faults."""
    if how in ("time", "kill", "torn"):
        return -(-count // 3)
    if how in ("removed", "clock"):
        return 2
    return min(max(count // 8, 1), places)


def measure(
    kind: str, count: int, state: dict[str, dict[str, object]], keep: Callable[[], None]
) -> None:
    """Fill in what is missing for one command."""
    with tempfile.TemporaryDirectory() as folder, server(*MODULES) as forks:
        campaign = Campaign(forks, Path(folder), kind)
        for how, work in cells(campaign, count).items():
            found = Tally(**state.get(f"{kind} {how}", {}))
            most = wanted(how, count, campaign.operations)
            while found.faults < most and found.runs < 4 * most:
                draw = random.Random(f"{kind} {how} {found.runs}")
                found = found.add(work(draw, found.runs))
                state[f"{kind} {how}"] = dataclasses.asdict(found)
                keep()
            print(
                f"{kind} {how}: {found.faults} faults, {found.complaints[:3]}",
                file=sys.stderr,
                flush=True,
            )


def table(state: dict[str, dict[str, object]]) -> str:
    """Markdown, a row for each command and fault."""
    rows = [
        "| command | fault | faults | runs | unreadable files | told and lost | begun and lost | "
        "other results | complaints |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, how in itertools.product(KINDS, NAMES):
        if f"{kind} {how}" not in state:
            continue
        t = Tally(**state[f"{kind} {how}"])
        rows.append(
            f"| {kind} | {NAMES[how]} | {t.faults} | {t.runs} | {t.unreadable} | {t.told_lost} | {t.begun_lost} "
            f"| {t.different} | {len(t.complaints)} |"
        )
    return "\n".join(rows)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12, help="kills of each command")
    parser.add_argument("--commands", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--state", type=Path, help="JSON file: continued where it is there")
    asked = parser.parse_args()
    state: dict[str, dict[str, object]] = {}
    if asked.state is not None and asked.state.exists():
        state = json.loads(asked.state.read_text())

    def keep() -> None:
        if asked.state is not None:
            asked.state.write_text(json.dumps(state, indent=1))

    for kind in asked.commands:
        measure(kind, asked.count, state, keep)
    print(table(state))
    return int(any(Tally(**values).complaints for values in state.values()))


if __name__ == "__main__":
    sys.exit(main())
