"""Training runs killed or denied the disk many times, and what it came to; and what else happens to runs."""

from __future__ import annotations

import os
import random
import re
import socket
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_tools import Ended
from run_files import kept, unreadable
from training_faults import Lab

from landscape.holding import held


@dataclass
class Tally:
    """What a campaign of kills came to.

    Attributes:
        kills: how many.
        moments: of them by the operation that they met; ``"between"`` two of them.
        finished: runs that came to their end.
        unreadable: files that were not whole after a kill.
        unlike: what of finished runs was not as in the whole one.
        lost: meta-updates done again after a kill, the worst.
        restarts: seconds from the start of a process to its first meta-update.
    """

    kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    unreadable: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    lost: int = 0
    restarts: list[float] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything was not as it should be."""
        return bool(self.unreadable or self.unlike)


def killed(lab: Lab, kind: str, count: int, seed: int) -> Tally:
    """Kill runs until ``count`` kills are done and the last run has come to its end.

    Args:
        lab: the run.
        kind: ``"time"``: SIGKILL after a random time; ``"operation"``: before a random operation on a file;
            ``"torn"``: in the middle of a random write.
        count: of kills.
        seed: of the moments.
    """
    moments, tally = random.Random(f"{kind} {seed}"), Tally()
    writes = [i for i, what in enumerate(lab.ended.operations, 1) if what.startswith("write")]
    number = 0
    while tally.kills < count:
        out = lab.folder / f"{kind}-{seed}-{number}"
        number += 1
        resume = False
        while True:
            if kind == "time":
                fault: dict[str, Any] = {"after": moments.uniform(0.0, 1.1) * lab.ended.seconds}
            elif kind == "operation":
                fault = {"kind": "kill", "at": moments.randint(1, lab.ended.seen)}
            else:
                fault = {"kind": "torn", "at": moments.choice(writes)}
            if tally.kills >= count:
                fault = {}
            ended = lab.train(out, resume, **fault)
            resume = out.exists()
            step, seconds = lab.reached
            tally.restarts += [seconds] if step else []
            if ended.status == 0:
                break
            if ended.status != -9:
                tally.unlike.append(f"{out.name}: status {ended.status}: {ended.stderr}")
                break
            _count(tally, lab, out, ended, kind, step)
        tally.finished += 1
        tally.unlike += [f"{out.name}: {what}" for what in lab.unlike(out)]
    return tally


def killed_in_turn(lab: Lab, kind: str = "kill", every: int = 1) -> Tally:
    """A run killed at its n-th operation and resumed, for every ``every``-th n that it has."""
    tally = Tally()
    for at in range(1, lab.ended.seen + 1, every):
        out = lab.folder / f"{kind}-{at}"
        ended = lab.train(out, kind=kind, at=at)
        step, _ = lab.reached
        if ended.status != -9:
            tally.unlike.append(f"{out.name}: status {ended.status}: {ended.stderr}")
        _count(tally, lab, out, ended, "operation", step)
        ended = lab.train(out, resume=out.exists())
        tally.restarts += [lab.reached[1]] if lab.reached[0] else []
        tally.finished += 1
        found = lab.unlike(out) if ended.status == 0 else [ended.stderr]
        tally.unlike += [f"{out.name} ({ended.operations[-1:]}): {what}" for what in found]
    return tally


def _count(tally: Tally, lab: Lab, out: Path, ended: Ended, kind: str, step: int) -> None:
    tally.kills += 1
    met = ended.operations[-1].split()[0] if kind != "time" and ended.operations else "between"
    tally.moments[met] += 1
    tally.unreadable += [f"{out.name}: {what}" for what in unreadable(out)]
    if step:
        tally.lost = max(tally.lost, step - kept(out))


def refused(lab: Lab, kind: str, every: int = 1, first: int = 1) -> Tally:
    """A run whose n-th operation fails (full disk, read-only, disk error), and what the same command makes of it then.

    It ends with status 1 and one line, or goes on where the operation was not needed; without the fault it goes on
    to the same bits.
    """
    tally = Tally()
    for at in range(first, lab.ended.seen + 1, every):
        out = lab.folder / f"{kind}-{at}"
        ended = lab.train(out, kind=kind, at=at)
        tally.kills += 1
        what = ended.operations[at - 1].split()[0] if len(ended.operations) >= at else "none"
        tally.moments[what if ended.status else f"{what}, went on"] += 1
        tally.unreadable += [f"{out.name}: {each}" for each in unreadable(out)]
        tally.lost = max(tally.lost, lab.reached[0] - kept(out)) if ended.status else tally.lost
        one_line = len(ended.lines) == 1 and ended.stderr.startswith("error: cannot write ")
        if ended.status not in (0, 1) or (ended.status and not one_line):
            tally.unlike.append(
                f"{out.name}: {ended.operations[at - 1 : at]} {ended.status} {ended.stderr}"
            )
        saved = kept(out)  # what is left of a run that could not go on, at whatever meta-update
        ended = lab.train(out, resume=out.exists() and any(out.iterdir()))
        tally.finished += 1
        found = lab.unlike(out, saved) if ended.status == 0 else [ended.stderr]
        tally.unlike += [f"{out.name}: {each}" for each in found]
    return tally


def scenes(lab: Lab) -> dict[str, dict[str, Any]]:
    """What else happens to runs: what was done, what the run said, and whether all of it was right."""
    found: dict[str, dict[str, Any]] = {}

    def note(
        what: str,
        ended: Ended,
        status: int,
        says: str,
        out: Path,
        resumed: bool = True,
        saves: bool = False,
    ) -> None:
        wrong, saved = unreadable(out), 0
        if saves:
            saved = kept(out)
            wrong += [] if saved == lab.reached[0] > 0 else [f"{saved} saved of {lab.reached[0]}"]
        wrong += [] if ended.status == status else [f"status {ended.status}"]
        wrong += [] if len(ended.lines) == bool(says) and says in ended.stderr else ["its words"]
        if resumed:
            again = lab.train(out, resume=out.exists() and any(out.iterdir()))
            wrong += lab.unlike(out, saved) if again.status == 0 else [again.stderr]
        said = f"status {ended.status}" + f": {ended.stderr.strip()}".rstrip(": ")
        said = said.replace(f"{lab.folder}/", "")
        said = re.sub(
            r"process \d+ on .*\): wait", "process N on HOST since WHEN (COMMAND): wait", said
        )
        found[what] = {"said": said, "right": not wrong, "wrong": wrong}

    saves = [i for i, what in enumerate(lab.ended.operations, 1) if "checkpoints/.step" in what]
    for kind, status in (("int", 130), ("term", 143)):
        for where, at in (("as it starts", 5), ("within a save", saves[len(saves) // 2])):
            out = lab.folder / f"{kind}-{at}"
            says = "interrupted; files" if kind == "int" else "ended by SIGTERM; files"
            note(f"SIG{kind.upper()} {where}", lab.train(out, kind=kind, at=at), status, says, out)
    for number, status, name in ((2, 130, "Ctrl-C"), (15, 143, "SIGTERM")):
        out = lab.folder / f"pressed-{number}"
        says = "interrupted; files" if number == 2 else "ended by SIGTERM; files"
        ended = lab.train(out, press=(number, 2))
        note(f"{name} three times in a meta-update", ended, status, says, out, saves=True)
    out = lab.folder / "removed-log"
    ended = lab.train(out, delete=("metrics.jsonl", 5))
    note(
        "`metrics.jsonl` removed",
        ended,
        1,
        "somebody removed it; the state after",
        out,
        resumed=False,
    )
    out = lab.folder / "removed-run"
    ended = lab.train(out, delete=("", 5))
    note("run folder removed", ended, 1, "somebody removed it; the state after", out, resumed=False)
    out = lab.folder / "removed-checkpoints"
    ended = lab.train(out, delete=("checkpoints", 5))
    right = ended.status == 0 and "step_000003, which is not there; last: " in ended.stdout
    said = f"status {ended.status}: {ended.stdout.splitlines()[0]}".replace(f"{lab.folder}/", "")
    found["`checkpoints/` removed"] = {"said": said, "right": right, "wrong": []}
    out = lab.folder / "clock"
    note("wall clock set back by a year", lab.train(out, clock=(40, -365 * 86400.0)), 0, "", out)
    out = lab.folder / "second"
    with held(lab.whole / "metrics.jsonl"):
        ended = lab.train(lab.whole, resume=True)
    says = (
        f"metrics.jsonl is being written by process {os.getpid()} on {socket.gethostname()} since "
    )
    note("a second process on the folder", ended, 1, says, lab.whole, resumed=False)
    return found
