"""Analysis commands killed, interrupted and starved of disk; resumed; compared with a run that was left alone."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fault_runs
import numpy as np
import torch
from fault_tools import Ended, Server

MODULES = ("fault_warm", "fault_runs")
_NET = "torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))"
_FILES = {"surface": "s.nc", "refined": "s.nc", "hessian": "h.html", "sharpness": "r.json"}
_OPTIONS = {
    "surface": ("surface", "--points", "15", "--executor", "repeatable", "--keep-terms"),
    "refined": ("surface", "--points", "15", "--executor", "plain", "--tolerance", "0.02"),
    "hessian": ("hessian", "-k", "2", "--trace", "--json", "--quiet"),
    "sharpness": (
        "sharpness", "--measures", "gradient_norm,sam,lambda_max,average,worst_l2,trace",
        "--no-invariance",
    ),
}  # fmt: skip
KINDS = tuple(_OPTIONS)


@dataclass
class Tally:
    """What a number of faults came to.

    Attributes:
        faults: processes that were ended by the fault.
        untouched: those that were done before it.
        runs: runs brought to their end by resuming.
        told_lost: units that had been told as done and were not there, the most after one fault.
        begun_lost: units that had been begun and were not there, the most after one fault.
        different: runs whose result is not that of the run left alone, bit for bit.
        unreadable: files that could not be read.
        complaints: everything that is not as it must be.
        slowest: seconds from the fault to the end of the process, at most.
    """

    faults: int = 0
    untouched: int = 0
    runs: int = 0
    told_lost: int = 0
    begun_lost: int = 0
    different: int = 0
    unreadable: int = 0
    slowest: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            *(getattr(self, n) + getattr(other, n) for n in ("faults", "untouched", "runs")),
            *(max(getattr(self, n), getattr(other, n)) for n in ("told_lost", "begun_lost")),
            *(getattr(self, n) + getattr(other, n) for n in ("different", "unreadable")),
            max(self.slowest, other.slowest),
            self.complaints + other.complaints,
        )


def problem(folder: Path) -> list[str]:
    """A network, its weights and its data on disk; the arguments that name them."""
    (folder / "net.py").write_text(f"import torch\n\n\ndef make():\n    return {_NET}\n")
    torch.manual_seed(0)
    net = eval(_NET, {"torch": torch})
    torch.save(net.state_dict(), folder / "w.pt")
    draw = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=draw.normal(size=(64, 3)), y=draw.integers(0, 2, 64))
    return [
        str(folder / "w.pt"), "--model", f"{folder / 'net.py'}:make", "--data", str(folder / "d.npz"),
        "--dtype", "float64", "--device", "cpu",
    ]  # fmt: skip


class Campaign:
    """One command, run in processes that meet faults.

    Args:
        server: forks them.
        folder: a folder of its own.
        kind: one of `KINDS`.
    """

    def __init__(self, server: Server, folder: Path, kind: str) -> None:
        self.server, self.kind = server, kind
        self.source = problem(folder)
        self.out, self.counter = folder / f"out-{kind}", folder / f"counter-{kind}"
        self.clean()
        alone = self.run()
        assert alone.status == 0, alone.stderr
        self.operations, self.seconds = alone.seen, alone.seconds
        self.units = self.begun
        self.expected = fault_runs.results(kind, self.out, alone.stdout)
        self.target = self.out / _FILES[kind]

    def run(self, *, kind: str = "none", at: int = 0, act: str = "", **options: float) -> Ended:
        """The command, once, in whatever the folder holds."""
        self.counter.unlink(missing_ok=True)
        head, *rest = _OPTIONS[self.kind]
        arguments = [head, *self.source, *rest, "--out", str(self.out / _FILES[self.kind])]
        return self.server.run(
            "fault_runs:command", arguments, str(self.counter), act,
            kind=kind, at=at, path=f"{self.out}/", limit=180.0, **options,
        )  # fmt: skip

    def killed(self, draw: random.Random, how: str, most: int = 3) -> Tally:
        """One run killed up to ``most`` times, then left alone to its end.

        Args:
            draw: of the moments.
            how: ``time`` for any moment of the work, or of the process,
                ``kill`` for before an operation on a file, ``torn`` for within one.
            most: kills.
        """
        self.clean()
        found = Tally(runs=1)
        for _ in range(draw.randint(1, most)):
            before = self._kept(found)
            if how == "time" and draw.random() < 0.2:  # while it starts, or writes its results
                ended = self.run(after=draw.uniform(0.0, self.seconds), number=signal.SIGKILL)
            elif how == "time":
                unit = draw.randint(1, max(self.units - before, 1))
                delay = draw.uniform(0.0, 0.5 * self.seconds / self.units)
                ended = self.run(act=f"kill {unit} {delay:.6f}")
            else:
                ended = self.run(kind=how, at=draw.randint(1, self.operations))
            if ended.status == 0:
                found.untouched += 1
                break
            found.faults += 1
            if ended.status != -signal.SIGKILL:
                found.complaints.append(f"{how}: status {ended.status}: {ended.stderr[-300:]}")
            self._account(found, before)
        self._resumed(found, how)
        return found

    def signalled(self, draw: random.Random, number: int) -> Tally:
        """One run ended by SIGINT or SIGTERM, then left alone to its end."""
        self.clean()
        found = Tally(runs=1)
        ended = self.run(after=draw.uniform(0.0, self.seconds), number=number)
        early = ended.status == -number or f"{fault_runs.__name__}.py" in ended.stderr
        if ended.status == 0 or (early and not self.begun):
            found.untouched += 1  # over already, or sent before the command itself had begun
        else:
            found.faults += 1
            name = signal.Signals(number).name
            if ended.status != 128 + number or len(ended.lines) != 1:
                found.complaints.append(f"{name}: status {ended.status}, said {ended.lines[-3:]}")
            self._account(found, 0, told_only=True)
        self._resumed(found, "signal")
        return found

    def starved(self, at: int, how: str) -> Tally:
        """One run that the disk refuses something from operation ``at`` on, then left alone to its end."""
        self.clean()
        found = Tally(runs=1)
        ended = self.run(kind=how, at=at)
        if ended.status == 0:  # nothing that matters was refused, such as a leftover's removal
            found.untouched += 1
        else:
            found.faults += 1
            found.slowest = max(found.slowest, ended.seconds - self.seconds)
            said = [line for line in ended.lines if line.startswith("error: ")]
            if ended.status != 1 or len(said) != 1 or said != ended.lines[-1:]:
                found.complaints.append(f"{how} at {at}: {ended.status}, {ended.lines[-3:]}")
            elif "cannot" not in said[0]:
                found.complaints.append(f"{how} at {at}: unclear: {said[0]}")
            self._account(found, 0, told_only=True)
        self._resumed(found, f"{how} at {at}")
        return found

    def removed(self, what: str) -> Tally:
        """The file, or its folder, is removed in the middle of a run, which is then killed, and resumed."""
        self.clean()
        found = Tally(runs=1)
        ended = self.run(act=f"remove {what}")
        found.faults += 1
        found.slowest = max(0.0, ended.seconds - self.seconds)
        if ended.status not in (0, 1) or (ended.status == 1 and len(ended.lines) != 1):
            found.complaints.append(f"{what} removed: {ended.status}, {ended.lines[-3:]}")
        self.out.mkdir(exist_ok=True)
        self._resumed(found, f"{what} removed")
        return found

    def clock(self, jump: float) -> Tally:
        """The wall clock is set back, or on, in the middle of a run."""
        self.clean()
        found = Tally(runs=1, faults=1)
        ended = self.run(clock=(2, jump))
        if ended.status != 0:
            found.complaints.append(f"clock: {ended.status}, {ended.lines[-3:]}")
        self._resumed(found, f"clock by {jump}")
        return found

    @property
    def begun(self) -> int:
        """Units of work that the last run began."""
        return fault_runs.counted(self.counter)[0]

    def clean(self) -> None:
        """An empty folder for the next run."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def _kept(self, found: Tally) -> int:
        try:
            return fault_runs.kept(self.kind, self.out)
        except (ValueError, AssertionError, OSError) as error:
            found.unreadable += 1
            found.complaints.append(f"unreadable: {error}")
            return 0

    def _account(self, found: Tally, before: int, told_only: bool = False) -> None:
        begun, told, _ = fault_runs.counted(self.counter)
        after = self._kept(found)
        found.told_lost = max(found.told_lost, told - after)
        if not told_only and before <= self.units:  # else: it was done, and is made anew
            found.begun_lost = max(found.begun_lost, before + begun - after)

    def _resumed(self, found: Tally, what: str) -> None:
        ended = self.run()
        if ended.status != 0:
            found.complaints.append(f"after {what}: {ended.status}: {ended.stderr[-300:]}")
            found.different += 1
            return
        if fault_runs.results(self.kind, self.out, ended.stdout) != self.expected:
            found.different += 1
            found.complaints.append(f"after {what}: another result")


def evenly(count: int, most: int) -> Sequence[int]:
    """At most ``most`` numbers from 1 to ``count``, the ends among them."""
    return sorted({round(1 + i * (count - 1) / max(most - 1, 1)) for i in range(most)})
