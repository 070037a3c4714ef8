"""What must come to the same bits, under conditions that must not matter; how that is computed and compared.

A subject computes numbers; :func:`compute` does it in a process of its own, or in those of ``torchrun``. The
subjects are in `determinism.functions` and `determinism.learning`.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Numbers = dict[str, Any]
"""Name -> array, number, text or bytes."""

Work = Callable[["Conditions", Any, Path], Numbers]
"""``(conditions, the team of ranks, a folder of its own) -> numbers``."""


@dataclass(frozen=True)
class Conditions:
    """What must not matter.

    Attributes:
        threads: of torch.
        ranks: processes of ``torchrun``.
        few: points, tasks or vectors go through one or two at a time, and not as many as fit.
        stopped: interrupted half way, and continued from its file.
    """

    threads: int = 1
    ranks: int = 1
    few: bool = False
    stopped: bool = False


CONDITIONS: Mapping[str, Conditions] = {
    "again": Conditions(),
    "few at a time": Conditions(few=True),
    "resumed": Conditions(stopped=True),
    "2 ranks": Conditions(ranks=2),
    "3 ranks": Conditions(ranks=3),
    "2 threads": Conditions(threads=2),
}
"""The columns of the table; all are compared with one process of one thread."""

TOLERANCE = 1e-3
"""Of a number that is promised to rounding: float32 in, searches to 0.1 % in between."""


@dataclass(frozen=True)
class Subject:
    """Something that is computed.

    Attributes:
        work: computes it.
        exact: conditions under which the bits are promised to be the same, ``"again"`` among them always.
        near: conditions under which the numbers are promised to a tolerance.
        main: parts of the names of the numbers that a reader looks at, for the size of a difference.
        tolerance: of the numbers that are near.
    """

    work: Work
    exact: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    main: tuple[str, ...] = ("",)
    tolerance: float = TOLERANCE

    @property
    def conditions(self) -> tuple[str, ...]:
        """All that concern it, in the order of the table."""
        return tuple(c for c in CONDITIONS if c in ("again", *self.exact, *self.near))


SUBJECTS: dict[str, Subject] = {}
RANKS = ("2 ranks", "3 ranks")


class Stop(Exception):
    """What cuts a computation off."""


def stopping(after: int) -> Callable[..., None]:
    """A progress callback that ends what it listens to at its ``after``-th call."""
    calls = [0]

    def listen(*_: Any, **__: Any) -> None:
        calls[0] += 1
        if calls[0] == after:
            raise Stop

    return listen


def perhaps_stopped(given: Conditions, after: int, work: Callable[..., Any]) -> Any:
    """``work(progress)``, first cut off where the conditions say so."""
    if given.stopped:
        try:
            work(stopping(after))
        except Stop:
            return work(None)
        raise AssertionError("it was over before it was stopped")
    return work(None)


def compute(
    folder: Path, given: Conditions, names: Sequence[str], timeout: float = 1800
) -> dict[str, Numbers]:
    """The numbers of some subjects under conditions, from processes of their own.

    Raises:
        RuntimeError: such a process failed.
    """
    folder.mkdir(parents=True)
    command = [sys.executable, "-m"]
    if given.ranks > 1:
        count = str(given.ranks)
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", count, "-m"]
    tests = Path(__file__).parent.parent
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(given.threads), "PYTHONPATH": os.pathsep.join(paths),
        "SOURCE_DATE_EPOCH": "1700000000",
    }  # fmt: skip
    done = subprocess.run(
        [*command, "determinism", str(folder), json.dumps(asdict(given)), *names],
        env=environment, timeout=timeout, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Numbers] = pickle.loads((folder / "rank0.pkl").read_bytes())
    return found


def difference(one: Numbers, other: Numbers, main: Sequence[str] = ("",)) -> tuple[float, str]:
    """The largest relative difference of any number, and where; 0 for the same bits, infinite for other words.

    Relative to the largest entry of the array that a number stands in. Only names that hold a part of ``main``.
    """
    worst, where = 0.0, ""
    for name in sorted({*one, *other}):
        if not any(part in name for part in main):
            continue
        found = math.inf if name not in one or name not in other else _off(one[name], other[name])
        if found > worst:
            worst, where = found, name
    return worst, where


def _off(a: Any, b: Any) -> float:
    if not isinstance(a, np.ndarray | float) or not isinstance(b, np.ndarray | float):
        return 0.0 if type(a) is type(b) and a == b else math.inf
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return math.inf
    if a.tobytes() == b.tobytes():
        return 0.0
    if a.dtype.kind != "f":
        return math.inf
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return math.inf
    some = np.isfinite(a)
    scale = max(float(np.abs(a[some]).max(initial=0)), 1e-300)
    return float(np.abs(a[some] - b[some]).max(initial=0)) / scale or 5e-324


def verdict(subject: Subject, condition: str, one: Numbers, other: Numbers) -> tuple[str, bool]:
    """A cell of the table, and whether it is as promised."""
    for found in (one, other):
        if "error" in found:
            return str(found["error"]).splitlines()[0], False
    off, where = difference(one, other)
    if off == 0:
        return "same bits", True
    size, name = difference(one, other, subject.main)
    text = f"{size:.0e}" if math.isfinite(size) else f"other {name}"
    if condition in subject.near:
        return text, size <= subject.tolerance
    return f"{text} (promised: same bits; {where})", False


def columns(dataset: Any) -> Numbers:
    """Variables and attributes of a Dataset, without the times that a trial took."""
    found = {str(name): values.values for name, values in dataset.variables.items()}
    return found | {f"@{n}": repr(v) for n, v in dataset.attrs.items() if n != "executor_trial"}


def tree(value: Any, path: str = "") -> Numbers:
    """A nested document as flat numbers."""
    if isinstance(value, Mapping):
        return {k: v for n, item in value.items() for k, v in tree(item, f"{path}/{n}").items()}
    if (
        isinstance(value, list | tuple)
        and value
        and not all(isinstance(v, int | float) for v in value)
    ):
        return {k: v for n, item in enumerate(value) for k, v in tree(item, f"{path}/{n}").items()}
    if isinstance(value, list | tuple) and value:
        return {path: np.asarray(value, np.float64)}
    return {path: value}
