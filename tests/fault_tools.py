"""Faults on purpose in other processes: `faulty_io.c` compiled, its settings, and a server that forks runs.

    environment = shim().environment("enospc", 7, path=str(tmp_path))
    subprocess.run([sys.executable, "-m", "sharpmaml", ...], env={**os.environ, **environment})

Where forking is enough, `Server` spares the seconds that importing torch takes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
COMPILER = shutil.which(os.environ.get("CC", "cc"))

needs_shim = pytest.mark.skipif(
    not sys.platform.startswith("linux") or COMPILER is None,
    reason="faults in other processes need Linux and a C compiler (cc)",
)


class Shim:
    """The compiled library; see `faulty_io.c` for kinds, operations and settings."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "faulty_io.so"
        assert COMPILER is not None, "no C compiler"
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-O1", "-o", self.path, HERE / "faulty_io.c", "-ldl"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip

    def environment(
        self,
        kind: str = "none",
        at: int = 0,
        path: str = "",
        *,
        count_file: Path | None = None,
        log_file: Path | None = None,
        clock: tuple[int, float] | None = None,
    ) -> dict[str, str]:
        """Variables for a new process.

        Args:
            kind: of the fault.
            at: number of the operation, from 1.
            path: only operations on paths with this in them count.
            count_file: where the number of operations seen is written.
            log_file: where a line for each of them is written.
            clock: readings of the wall clock after which it is wrong, and by how many seconds.
        """
        made = {
            "LD_PRELOAD": str(self.path), "FAULT_KIND": kind, "FAULT_AT": str(at), "FAULT_PATH": path,
            "FAULT_COUNT_FILE": str(count_file or ""), "FAULT_LOG_FILE": str(log_file or ""),
        }  # fmt: skip
        return made | ({"FAULT_CLOCK": f"{clock[0]} {clock[1]}"} if clock else {})


@functools.cache
def shim() -> Shim:
    """Compiled once a process."""
    return Shim(Path(tempfile.mkdtemp(prefix="faulty-io-")))


@dataclass(frozen=True)
class Ended:
    """How a forked run ended.

    Attributes:
        status: exit status; the negative number of the signal that killed it.
        stderr: what it said.
        stdout: the same.
        seconds: from fork to end.
        seen: operations that were counted; what was done before a kill too.
        operations: "what path" of each, where they were logged.
    """

    status: int
    stderr: str
    stdout: str
    seconds: float
    seen: int
    operations: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """Lines on standard error."""
        return self.stderr.splitlines()


class Server:
    """A process that has imported what runs need, and forks one for each request.

    Args:
        *modules: to import beforehand, by the server; ``module:function`` calls it too, to import what it
            needs, which must start no thread.
    """

    def __init__(self, *modules: str) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="faulty-runs-"))
        environment = {
            **os.environ, **shim().environment(), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fault_tools.py"), *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(
        self,
        call: str,
        *arguments: Any,
        kind: str = "none",
        at: int = 0,
        path: str = "",
        clock: tuple[int, float] | None = None,
        after: float | None = None,
        number: int = signal.SIGKILL,
        limit: float = 120.0,
        **named: Any,
    ) -> Ended:
        """Call ``module:function`` in a forked process and wait for its end.

        Args:
            call: what to call; what it returns is the exit status.
            *arguments: that JSON can hold.
            kind: of the fault.
            at: number of the operation.
            path: only operations on paths with this in them count.
            clock: see `Shim.environment`.
            after: seconds after which the process is sent a signal.
            number: that signal.
            limit: seconds after which it is killed, as a failure.
            **named: arguments by name.
        """
        request = {
            "call": call, "arguments": arguments, "named": named, "fault": [kind, at, path], "clock": clock,
            "after": after, "number": int(number), "limit": limit, "place": str(self._place),
        }  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["status"] == "late":
            raise TimeoutError(f"{call} {arguments} did not end in {limit} s: {answer}")
        return Ended(**{**answer, "operations": tuple(answer["operations"])})

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        shutil.rmtree(self._place, ignore_errors=True)


@contextlib.contextmanager
def server(*modules: str) -> Iterator[Server]:
    """A `Server` for a block."""
    made = Server(*modules)
    try:
        yield made
    finally:
        made.close()


def _serve(modules: list[str]) -> None:
    library = ctypes.CDLL(shim_in_use := os.environ["LD_PRELOAD"])
    assert shim_in_use
    for module in modules:
        name, _, function = module.partition(":")
        found = importlib.import_module(name)
        if function:
            getattr(found, function)()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_forked(library, json.loads(line))), flush=True)


def _forked(library: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    place = Path(request["place"])
    files = {name: place / name for name in ("stdout", "stderr", "log")}
    for file in files.values():
        file.write_text("")
    begins, tells = os.pipe()
    process = os.fork()
    if process == 0:
        _child(library, request, files, tells)
    os.close(tells)
    os.read(begins, 1)  # what happens before the command itself is no fault of it
    os.close(begins)
    began = time.monotonic()
    status = _waited(process, request["after"], request["number"], request["limit"])
    operations = files["log"].read_text().splitlines()
    return {
        "status": status,
        "stderr": files["stderr"].read_text(errors="replace"),
        "stdout": files["stdout"].read_text(errors="replace"),
        "seconds": time.monotonic() - began,
        "seen": len(operations),
        "operations": [line.partition(" ")[2] for line in operations],
    }


def _waited(process: int, after: float | None, number: int, limit: float) -> int | str:
    handle = os.pidfd_open(process)
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        if after is not None and not selector.select(after):
            os.kill(process, number)
        late = not selector.select(limit)
    os.close(handle)
    if late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return "late" if late else status


def _child(library: Any, request: Mapping[str, Any], files: Mapping[str, Path], tells: int) -> None:
    status = 70
    try:
        os.setsid()
        # A server in the background of a shell ignores Ctrl-C, and what it starts would too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(files[name], os.O_WRONLY | os.O_APPEND), number)
        module, _, function = request["call"].partition(":")
        work = getattr(importlib.import_module(module), function)
        kind, at, path = request["fault"]
        # Children that it starts count for themselves, with the same settings.
        os.environ.update(FAULT_KIND=kind, FAULT_AT=str(at), FAULT_PATH=path)
        library.fault_files(b"", os.fsencode(files["log"]))
        library.fault_set(kind.encode(), ctypes.c_long(at), os.fsencode(path or "//"))
        if request["clock"]:
            after, jump = request["clock"]
            library.fault_clock(ctypes.c_long(after), ctypes.c_double(jump))
        os.close(tells)
        status = int(work(*request["arguments"], **request["named"]) or 0)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1:])
