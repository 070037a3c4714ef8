"""A process that has collected the tests, and forks for each fault: nothing is imported twice."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import coverage
import pytest
import torch
from hypothesis import Phase, settings
from mutants import Functions, Mutant, functions_of, plant

SLOWEST = 10.0  # seconds of a test, traced; slower ones are left out
_MEMORY = 12 * 2**30  # bytes of address space for a mutant
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG
Say = Callable[[str], None]


@dataclass(eq=False)
class Test:
    """What one test costs and touches: seconds of processor, and lines of the mutated files."""

    name: str
    file: str
    seconds: float
    lines: dict[str, set[int]] = field(repr=False)


@dataclass(eq=False)
class Watch:
    """The part of pytest that runs in a forked process and tells what happens."""

    tell: Callable[[dict[str, Any]], None]
    stop: bool = True
    tracer: coverage.Coverage | None = None
    started: float = 0.0
    outcomes: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        if self.tracer:
            self.tracer.switch_context(nodeid)
        self.started = time.process_time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One of its three parts is over; the first failure ends the process."""
        worst = (
            report.outcome
            if report.outcome != "passed"
            else self.outcomes.get(report.nodeid, "passed")
        )
        self.outcomes[report.nodeid] = worst
        if self.stop and report.outcome == "failed":
            self.tell({"status": "killed", "killer": report.nodeid})
            os._exit(0)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """It is over."""
        if not self.stop:
            seconds = time.process_time() - self.started
            self.tell({"test": nodeid, "seconds": seconds, "outcome": self.outcomes[nodeid]})


@dataclass(eq=False)
class Server:
    """The plugin whose main loop calls ``work`` once all tests are collected."""

    work: Callable[[Server], None]
    root: Path
    say: Say
    items: dict[str, pytest.Item] = field(default_factory=dict)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        self.items = {item.nodeid: item for item in session.items}
        warm()
        gc.collect()
        gc.freeze()
        self.work(self)
        return True

    def functions(self, files: Iterable[str]) -> dict[str, Functions]:
        """The loaded functions of each file."""
        gc.unfreeze()
        everything = gc.get_objects()
        found = {file: functions_of(self.root / file, everything) for file in files}
        del everything
        gc.freeze()
        return found

    def fork(self, act: Callable[[Callable[[dict[str, Any]], None]], None]) -> Child:
        """A child that calls ``act`` with a function that sends mappings to the parent."""
        reader, writer = os.pipe()
        place = tempfile.mkdtemp(prefix="mutation-")
        if pid := os.fork():
            os.close(writer)
            return Child(pid, reader, Path(place))
        try:
            os.setsid()
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
            os.close(reader)
            os.environ["TMPDIR"] = tempfile.tempdir = place
            config = next(iter(self.items.values())).config
            config._tmp_path_factory._basetemp = Path(place) / "tests"  # type: ignore[attr-defined]
            config._tmp_path_factory._basetemp.mkdir()  # type: ignore[attr-defined]
            act(lambda message: _send(writer, message))
        except BaseException as problem:
            _send(writer, {"status": "broken", "killer": repr(problem)[:200]})
        finally:
            os._exit(0)

    def run(self, names: Sequence[str], watch: Watch) -> None:
        """Run tests here; fixtures live as long as neighbours share them."""
        items = [self.items[name] for name in names]
        items[0].config.pluginmanager.register(watch)
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

    def mapped(self, files: Sequence[str], cache: Path) -> list[Test]:
        """What each test touches; known from ``cache`` where neither it nor what it touches has changed."""
        known: dict[str, Any] = json.loads(cache.read_text()) if cache.exists() else {}
        names: dict[str, list[str]] = {}
        for name in self.items:
            names.setdefault(name.partition("::")[0], []).append(name)
        hashes = {file: digest(self.root / file) for file in {*files, *names}}
        tests = []
        for file, listed in sorted(names.items()):
            entry = known.get(file)
            if not entry or any(hashes.get(at, "") != old for at, old in entry["hashes"].items()):
                entry = self._map(listed, files)
                touched = {at for test in entry["tests"] for at in test["lines"]}
                entry["hashes"] = {at: hashes[at] for at in {*touched, file}}
                known[file] = entry
                cache.write_text(json.dumps(known))
            for test in entry["tests"]:
                if test["name"] in self.items:
                    lines = {at: set(numbers) for at, numbers in test["lines"].items()}
                    tests.append(Test(test["name"], file, test["seconds"], lines))
        return tests

    def _map(self, names: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
        started = time.monotonic()

        def act(tell: Callable[[dict[str, Any]], None]) -> None:
            inside = [str(self.root / file) for file in files]
            tracer = coverage.Coverage(data_file=None, include=inside, config_file=False)
            tracer.set_option("run:disable_warnings", ["no-data-collected"])
            tracer.start()
            self.run(names, Watch(tell, stop=False, tracer=tracer))
            tracer.stop()
            data = tracer.get_data()
            for file, path in zip(files, inside, strict=True):
                for line, contexts in data.contexts_by_lineno(path).items():
                    tell({"file": file, "line": line, "contexts": contexts})

        child = self.fork(act)
        messages = child.wait(900.0)
        for message in messages:
            if message.get("status") == "broken":
                raise RuntimeError(f"{names[0]}: {message['killer']}")
        tests = {
            m["test"]: {"name": m["test"], "seconds": m["seconds"], "lines": {}}
            for m in messages
            if m.get("outcome") == "passed" and m["seconds"] <= SLOWEST
        }
        for m in messages:
            for context in m.get("contexts", ()):
                if context in tests:
                    tests[context]["lines"].setdefault(m["file"], []).append(m["line"])
        useful = [test for test in tests.values() if test["lines"]]
        total = sum("test" in m for m in messages)
        self.say(
            f"{names[0].partition('::')[0]}: {total} of {len(names)} tests ran, "
            f"{len(useful)} are of use, {time.monotonic() - started:.0f} s"
        )
        return {"tests": useful}

    def try_mutant(
        self, mutant: Mutant | None, tests: Sequence[Test], functions: Functions
    ) -> Child:
        """A child that plants the fault and runs the tests up to the first that fails."""
        expected = sum(test.seconds for test in tests)

        def act(tell: Callable[[dict[str, Any]], None]) -> None:
            limit = int(3 * expected + 10)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            if mutant is not None:
                try:
                    plant(mutant, self.root, functions)
                except (SyntaxError, ValueError, LookupError) as problem:
                    tell({"status": "invalid", "killer": repr(problem)[:200]})
                    return
            self.run([test.name for test in tests], Watch(tell))
            tell({"status": "survived", "killer": ""})

        child = self.fork(act)
        child.deadline = time.monotonic() + 30 * expected + 120
        return child


@dataclass(eq=False)
class Child:
    """A forked process, and what it has sent."""

    pid: int
    reader: int
    place: Path
    deadline: float = 0.0
    received: bytes = b""
    code: int | None = None

    def __post_init__(self) -> None:
        os.set_blocking(self.reader, False)
        self.started = time.monotonic()

    def poll(self) -> bool:
        """Read what there is; whether the child has ended."""
        self._read()
        pid, code = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.code = code
            self._read()
            self._end()
        return bool(pid)

    def kill(self) -> None:
        """End it."""
        os.killpg(self.pid, signal.SIGKILL)
        _, self.code = os.waitpid(self.pid, 0)
        self._read()
        self._end()

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """What it sends until it ends, or the time is up."""
        limit = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > limit:
                self.kill()
                break
            time.sleep(0.05)
        return self.messages()

    def messages(self) -> list[dict[str, Any]]:
        """What it has sent."""
        return [json.loads(line) for line in self.received.splitlines() if line.endswith(b"}")]

    def outcome(self) -> dict[str, Any]:
        """Of a mutant: ``status`` and ``killer``."""
        for message in self.messages():
            return message
        if self.code in (signal.SIGXCPU, signal.SIGKILL):
            return {"status": "timeout", "killer": ""}
        return {"status": "killed", "killer": f"the process ended with {self.code}"}

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self.reader, 1 << 16):
                self.received += block

    def _end(self) -> None:
        os.close(self.reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what a test may have left running
        shutil.rmtree(self.place, ignore_errors=True)


def warm() -> None:
    """Have torch load what it loads at the first use of each derivative: seconds, for every fork."""
    x = torch.ones(2)

    def f(t: torch.Tensor) -> torch.Tensor:
        return (t * t).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.vmap(torch.func.grad(f))(x[None])
        torch.func.jvp(torch.func.grad(f), (x,), (x,))
        torch.func.linearize(f, x)
        torch.optim.SGD([x], 0.1).step()


def serve(work: Callable[[Server], None], root: Path, arguments: Sequence[str], log: Path) -> int:
    """Collect tests and call ``work``; what pytest prints goes to ``log``."""
    settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )  # fmt: skip
    settings.load_profile("mutation")
    screen = os.fdopen(os.dup(2), "w", buffering=1)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    server = Server(work, root, lambda text: print(text, file=screen))
    os.chdir(root)
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "timeout=0",
        f"--rootdir={root}",
    ]
    options += [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]  # hypothesis is imported before pytest runs
    return int(pytest.main([*options, *arguments], plugins=[server]))


def best_first(tests: Iterable[Test], kills: Counter[str], budget: float) -> list[Test]:
    """The tests in the order of kills a second, as many as the budget (in seconds) has room for."""
    ordered = sorted(tests, key=lambda test: -(kills[test.name] + 0.3) / (test.seconds + 0.02))
    chosen, spent = [], 0.0
    for test in ordered:
        if not chosen or spent + test.seconds <= budget:
            chosen.append(test)
            spent += test.seconds
    return chosen


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def _send(writer: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(writer, data) :]
