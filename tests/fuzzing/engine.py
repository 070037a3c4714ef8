"""Runs of inputs in children: a crash or a hang costs one child, and is seen."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzzing.target import Files, Target, changed
from fuzzing.watch import Watch, verdict, where

SECONDS = 10  # of computing for one input
MEMORY = 1 << 30  # bytes beyond what the process had before
_BLOCKED = 300  # seconds without computing
_STATE = struct.Struct(
    "<qqqdd"
)  # input at work, accepted, refused, slowest seconds, baseline of memory
_BAD = ("accepted", "refused")


@dataclass
class Counts:
    """What came of the inputs of one reader.

    Attributes:
        inputs: how many were read.
        accepted: of them, without a complaint.
        refused: with one line of our own.
        failures: everything else, by kind and place: the numbers of the inputs, and one message.
        slowest_ms: of computing, for one input.
        peak_mib: of memory beyond the start, resident.
        following: number of the first input that was not tried.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    failures: dict[str, Any] = field(default_factory=dict)
    slowest_ms: float = 0.0
    peak_mib: float = 0.0
    following: int = 0

    @property
    def failed(self) -> int:
        """Inputs that came to neither."""
        return sum(len(one["inputs"]) for one in self.failures.values())

    def failure(self, kind: str, index: int, text: str = "") -> None:
        """Note one."""
        self.failures.setdefault(kind, {"inputs": [], "text": text[:300]})["inputs"].append(index)

    def add(self, more: Counts) -> None:
        """Put another run's counts on these."""
        self.inputs += more.inputs
        self.accepted += more.accepted
        self.refused += more.refused
        self.slowest_ms = max(self.slowest_ms, more.slowest_ms)
        self.peak_mib = max(self.peak_mib, more.peak_mib)
        self.following = max(self.following, more.following)
        for kind, one in more.failures.items():
            mine = self.failures.setdefault(kind, {"inputs": [], "text": one["text"]})
            mine["inputs"] += one["inputs"]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """A folder in memory with the seeds of a target laid out."""

    def __init__(self, target: Target, root: Path) -> None:
        self.target = target
        self.root = root
        self.seeds: Sequence[Files] = target.seeds()
        self.folders = [
            root / f"{target.name.replace(' ', '_')}_{i}" for i in range(len(self.seeds))
        ]
        for folder, files in zip(self.folders, self.seeds, strict=True):
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

    def laid(self, index: int) -> tuple[Path, int, list[str]]:
        """Write input ``index``; its folder, its seed and the names that are not as in the seed."""
        which, files = changed(self.target, self.seeds, index)
        folder = self.folders[which]
        for name, content in files.items():
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content)
        return folder, which, list(files)

    def restored(self, which: int, names: Iterable[str]) -> None:
        for name in names:
            (self.folders[which] / name).write_bytes(self.seeds[which][name])


def run(target: Target, indices: Sequence[int], whole: bool = True) -> Counts:
    """Try inputs by number.

    Args:
        target: the reader.
        indices: numbers of inputs.
        whole: whether the seeds themselves are tried first; they must be accepted.
    """
    root = Path(
        tempfile.mkdtemp(prefix="fuzz_", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    counts = Counts()
    try:
        os.environ["SHARP_LANDSCAPE_CACHE"] = str(root / "no_folder")  # a file: nothing is kept
        (root / "no_folder").touch()
        bench = Bench(target, root)
        shared = mmap.mmap(-1, _STATE.size)
        todo = [*(range(-len(bench.seeds), 0) if whole else ()), *indices]
        while todo:
            shared[:] = _STATE.pack(0, 0, 0, 0.0, 0.0)
            log = root / "failures.jsonl"
            log.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                faulthandler.disable()  # the status tells of a crash
                gc.freeze()  # what the parent has dropped is not the child's to collect
                _child(bench, todo, shared, log)
            status = _waited(child, shared)
            done, accepted, refused, slowest, peak = _STATE.unpack(shared[:])
            counts.accepted += accepted
            counts.refused += refused
            counts.slowest_ms = max(counts.slowest_ms, 1000 * slowest)
            counts.peak_mib = max(counts.peak_mib, peak)
            for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
                counts.failure(**json.loads(line))
            if os.WIFSIGNALED(status) or os.WEXITSTATUS(status):
                number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                told = {signal.SIGPROF: f"over {SECONDS} s", signal.SIGKILL: "blocked"}
                name = signal.Signals(number).name if number else f"exit {os.WEXITSTATUS(status)}"
                counts.failure(told.get(number, f"crash {name}"), todo[done])  # type: ignore[call-overload]
                if number == signal.SIGPROF:
                    counts.slowest_ms = max(counts.slowest_ms, 1000.0 * SECONDS)
                done += 1
            counts.inputs += done
            todo = todo[done:]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    counts.following = max(indices, default=-1) + 1
    return counts


def _waited(child: int, shared: mmap.mmap) -> int:
    """The exit status; a child that neither computes nor advances is killed."""
    last, since = -1, time.monotonic()
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        now = _STATE.unpack(shared[:])[0]
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > _BLOCKED:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _child(bench: Bench, todo: Sequence[int], shared: mmap.mmap, log: Path) -> None:
    """Try the inputs and never return."""
    status = 3
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(devnull, stream)
        _tried(bench, todo, shared, log)
        status = 0
    except BaseException as error:  # a defect of ours: the parent notes the input
        with (log.parent / "harness.txt").open("a", encoding="utf-8") as file:
            file.write(f"{where(error)} {error!r}\n")
    finally:
        os._exit(status)


def _tried(bench: Bench, todo: Sequence[int], shared: mmap.mmap, log: Path) -> None:
    target, accepted, refused, slowest = bench.target, 0, 0, 0.0
    watch = Watch(bench.root)
    with contextlib.suppress(Exception):
        target.read(bench.folders[0])  # what is imported late is imported now
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # also where no Python runs any more
    start = _resident()
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for done, index in enumerate(todo):
        shared[:] = _STATE.pack(
            done, accepted, refused, slowest, max(0.0, (_resident() - start) / 1024)
        )
        names: list[str] = []
        if index >= 0:
            folder, which, names = bench.laid(index)
        else:
            folder, which = bench.folders[index], len(bench.seeds) + index
        error: BaseException | None = None
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        began = time.process_time()
        with watch.reading():
            try:
                target.read(folder)
            except BaseException as caught:
                error = caught
        slowest = max(slowest, time.process_time() - began)
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = verdict(error, folder, target.names_file)
        if watch.events:
            found = f"{watch.events[0]}"
        elif index < 0 and found == "refused":
            found = "refuses a whole file"
        place, text = where(error), str(error)
        error = None
        bench.restored(which, names)
        accepted += found == "accepted"
        refused += found == "refused"
        if found not in _BAD:
            with log.open("a", encoding="utf-8") as file:
                kind = f"{found} at {place}" if place else found
                file.write(json.dumps({"kind": kind, "index": index, "text": text[:300]}) + "\n")
        if _resident() - start > MEMORY >> 10:
            with log.open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"kind": "memory over 1 GiB", "index": index, "text": ""}) + "\n"
                )
    shared[:] = _STATE.pack(
        len(todo), accepted, refused, slowest, max(0.0, (_resident() - start) / 1024)
    )


def _resident() -> int:
    """The most that was ever resident, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
