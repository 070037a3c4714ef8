"""Commands that are run in a process which is about to be killed (`fault_tools.Server`), and what they leave behind.

Each returns its exit status. What it has begun and what it has told is written to a small file beside the
output, which faults leave alone, so that a test can tell how much a kill has cost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

_PAIR = struct.Struct("<qqq")
_DATES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


class Counter:
    """Work begun, work told to the user as done, and the first that was told; survives the process."""

    def __init__(self, path: str, fatal: float = 0, delay: float = 0.0) -> None:
        self._fatal, self._delay = fatal, delay
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.begun = self.told = 0
        self.first = -1

    def begin(self, count: int = 1) -> None:
        before, self.begun = self.begun, self.begun + count
        self._write()
        if before < self._fatal <= self.begun:
            end = threading.Timer(self._delay, os.kill, (os.getpid(), signal.SIGKILL))
            end.daemon = True
            end.start()

    def tell(self, done: int) -> None:
        self.first = done if self.first < 0 else self.first
        self.told = done
        self._write()

    def _write(self) -> None:
        os.pwrite(self._file, _PAIR.pack(self.begun, self.told, self.first), 0)


def counted(path: Path) -> tuple[int, int, int]:
    """Begun, told, first told by the process that wrote the counter; zeros where it came to nothing."""
    data = path.read_bytes() if path.exists() else b""
    return _PAIR.unpack(data) if len(data) == _PAIR.size else (0, 0, -1)


def command(arguments: list[str], counter: str, act: str = "") -> NoReturn:
    """One of `landscape`'s commands, its work counted.

    Args:
        arguments: of the command, the output last.
        counter: file of the `Counter`.
        act: ``remove file`` or ``remove folder``: what goes when a few units are done; ``kill N SECONDS``: the
            process is killed so long after it has begun its N-th unit.
    """
    from landscape import console
    from landscape.interruptions import whole_process
    from landscape.operators.recording import Recording
    from landscape.operators.summed import PartsOperator
    from landscape.sharpness import running
    from landscape.surface import _Run

    count = Counter(counter, *map(float, act.split()[1:] if act.startswith("kill") else ()))
    target = Path(arguments[-1])

    def tell(done: int) -> None:
        count.tell(done)
        if act.startswith("remove") and done == 3:
            _remove(target, act)

    rows, keep, measure = _Run._rows, Recording.keep, running._Run.measure
    products = PartsOperator._products

    @contextmanager
    def progress_bar(title: str, quiet: bool = False) -> Any:
        yield lambda done, total, note="": tell(done)

    def counted_rows(self: Any, evaluator: Any, indices: Any) -> Any:
        count.begin(len(indices))
        return rows(self, evaluator, indices)

    def counted_products(self: Any, vectors: Any) -> Any:
        if self.record is not None and self.watch is None:
            count.begin()
        return products(self, vectors)

    def counted_keep(self: Any, vectors: Any, made: Any, cost: float) -> None:
        keep(self, vectors, made, cost)
        tell(count.told + 1)

    def counted_measure(self: Any, name: str) -> None:
        count.begin()
        measure(self, name)

    console.progress_bar = progress_bar  # type: ignore[assignment]
    _Run._rows = counted_rows  # type: ignore[method-assign]
    Recording.keep = counted_keep  # type: ignore[method-assign]
    PartsOperator._products = counted_products  # type: ignore[method-assign]
    running._Run.measure = counted_measure  # type: ignore[method-assign]
    whole_process("landscape.cli", arguments)


def _remove(target: Path, act: str) -> None:
    for path in target.parent.glob(f"*{target.name}*") if act == "remove file" else ():
        path.unlink()
    for path in target.parent.glob(f".{target.name}*") if act == "remove file" else ():
        path.unlink(missing_ok=True)
    if act == "remove folder":
        shutil.rmtree(target.parent)


def kept(kind: str, out: Path) -> int:
    """Units of work in the files that are there; every file that a user sees must be readable."""
    found = 0
    for path in sorted(out.iterdir()):
        if path.name.startswith("."):
            continue  # locks, journals, what a killed write left: no user reads them
        if path.suffix == ".nc":
            found = _points(path)
        elif path.suffix == ".json":
            from landscape.sharpness import SharpnessReport

            found = len(SharpnessReport.from_json(path.read_text(encoding="utf-8")))
        elif path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            assert text.rstrip().endswith("</html>"), f"{path} is cut short"
            if kind == "hessian" and not path.with_name(f"{path.name}.products").exists():
                return sys.maxsize  # it is done: page and words were there before the products went
        elif path.suffix == ".products":
            found = max(0, _entries(path) - 1)  # the first tells the loss
        else:
            raise AssertionError(f"{path}: what is this?")
    return found


def _points(path: Path) -> int:
    from landscape.journal import Journal
    from landscape.store import load
    from landscape.surface_file import _identity

    surface = load(path)
    there = surface["evaluated"].values.astype(bool)
    journal = Journal(path.with_name(f".{path.name}.points"), _identity(surface))
    for number in range(len(journal)):
        for index in journal[number][0]["points"]:
            there[tuple(index)] = True
    return int(there.sum())


def _entries(path: Path) -> int:
    from landscape.journal import _MAGIC, _next

    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC or _next(file) is None:
            return 0
        return sum(1 for _ in iter(lambda: _next(file), None))


def results(kind: str, out: Path, stdout: str) -> dict[str, Any]:
    """What must agree to the bit: everything but the time, and what this very process paid."""
    told: dict[str, Any] = {"files": sorted(p.name for p in out.iterdir())}
    for path in sorted(out.iterdir()):
        if path.suffix == ".nc":
            from landscape.store import load

            surface = load(path)
            told["attrs"] = {k: str(v) for k, v in surface.attrs.items() if k != "created_at"}
            told["values"] = {
                str(k): v.values.tobytes().hex() for k, v in surface.variables.items()
            }
        elif path.suffix == ".json":
            told["report"] = _unpaid(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix == ".html":
            told["page"] = _DATES.sub("", path.read_text(encoding="utf-8"))
    told["stdout"] = stdout if kind == "hessian" else ""  # the others print paths only
    return told


def _unpaid(document: Any) -> Any:
    if isinstance(document, dict):
        return {k: _unpaid(v) for k, v in document.items() if k not in ("paid", "overhead")}
    return [_unpaid(v) for v in document] if isinstance(document, list) else document
