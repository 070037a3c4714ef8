"""``metrics.jsonl``: one record a meta-update, written in bursts, read back as a table."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from landscape import json_text
from landscape.writing import WriteError, write_error, write_text

_MOST = 1 << 53  # beyond, integers are no float64
_EVERY = 1.0
"""Seconds between bursts: a write for each of 1,000 meta-updates a second would slow them."""


class Log:
    """Append-only ``metrics.jsonl``; records after the checkpoint that is resumed from are dropped.

    Args:
        path: the file.
        keep: the last meta-update whose record stays.

    Attributes:
        found: records that stayed.

    Raises:
        WriteError: the disk refuses; the file is as it was.
    """

    def __init__(self, path: Path, keep: int) -> None:
        records = read(path, keep) if keep else []
        self.found = len(records)
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise write_error(path, error) from None
        self._lines: list[str] = []
        self._size, self._failed = os.fstat(self._file.fileno()).st_size, False
        self._flushed = -_EVERY

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; it is in the file within a second, while more follow.

        Raises:
            WriteError: the disk refuses, or the file is gone.
        """
        self._lines.append(json.dumps(record, allow_nan=False) + "\n")
        now = time.monotonic()
        if not self._flushed <= now < self._flushed + _EVERY:  # a clock may be set back
            self.flush()
            self._flushed = now

    def flush(self, durable: bool = False) -> None:
        """Put everything into the file now.

        Args:
            durable: wait until it is on the disk.

        Raises:
            WriteError: the disk refuses, or the file is gone.
        """
        data = "".join(self._lines).encode()
        view = memoryview(data)
        try:
            if self._failed:
                os.ftruncate(
                    self._file.fileno(), self._size
                )  # what was written in part is written again
            while len(view):
                view = view[os.write(self._file.fileno(), view) :]
            self._lines, self._size, self._failed = [], self._size + len(data), False
            if durable:
                os.fsync(self._file.fileno())
            here, named = os.fstat(self._file.fileno()), self._path.stat()
        except FileNotFoundError:
            self._failed = True
            raise WriteError(f"cannot write {self._path}: somebody removed it") from None
        except OSError as error:
            self._failed = True
            raise write_error(self._path, error) from None
        if (here.st_dev, here.st_ino) != (named.st_dev, named.st_ino):
            raise WriteError(f"cannot write {self._path}: another file has taken its place")

    def close(self) -> None:
        """Put everything into the file; there will be no more."""
        failed = self._failed
        try:
            if self._lines:
                self.flush()
        except WriteError:
            if not failed:  # else the error that was told says more
                raise
        finally:
            with suppress(OSError):  # nothing is left to be written
                self._file.close()


def read(path: Path, until: float = math.inf) -> list[dict[str, Any]]:
    """Records of meta-updates up to ``until``; none where there is no file.

    A line that a crash cut short ends them: its meta-update is repeated.
    """
    records: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return records
    for line in lines:
        try:
            record = json_text.parsed(line)
            if type(record["iteration"]) is not int or not 0 <= record["iteration"] < _MOST:
                break
            if record["iteration"] <= until:
                records.append(record)
        except (ValueError, KeyError, TypeError):
            break
    return records


def known(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without what is unknown: ``None`` and numbers that are not finite, which JSON lacks.

    >>> known({"loss": 1.0, "rise": float("nan"), "step": 3, "note": None})
    {'loss': 1.0, 'step': 3}
    """
    return {
        name: value
        for name, value in record.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def flat(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, those of its parts under ``part_name``.

    >>> flat({"iteration": 2, "validation": {"metric": "mse", "mean": 0.5}})
    {'iteration': 2, 'validation_mean': 0.5}
    """
    numbers: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            numbers.update({f"{name}_{key}": number for key, number in flat(value).items()})
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) < _MOST):
            numbers[name] = value
    return numbers
