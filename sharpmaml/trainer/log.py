"""``metrics.jsonl``: one record a meta-update, written in bursts, read back as a table."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_EVERY = (
    1.0  # seconds between bursts: a write for each of 1,000 meta-updates a second would slow them
)


class Log:
    """Append-only ``metrics.jsonl``; records after the checkpoint that is resumed from are dropped.

    Args:
        path: the file.
        keep: the last meta-update whose record stays.
    """

    def __init__(self, path: Path, keep: int) -> None:
        lines = [json.dumps(record) + "\n" for record in read(path, keep)] if keep else []
        replace(path, "".join(lines))
        self._file = path.open("a", encoding="utf-8")
        self._due = 0.0

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; it is in the file within a second, while more follow."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        now = time.monotonic()
        if now >= self._due:
            self.flush()
            self._due = now + _EVERY

    def flush(self) -> None:
        """Put everything into the file now."""
        self._file.flush()

    def close(self) -> None:
        """Put everything into the file; there will be no more."""
        self._file.close()


def read(path: Path, until: float = math.inf) -> list[dict[str, Any]]:
    """Records of meta-updates up to ``until``; none where there is no file.

    A line that a crash cut short ends them: its meta-update is repeated.
    """
    records: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return records
    for line in lines:
        try:
            record = json.loads(line)
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
        elif isinstance(value, int | float):
            numbers[name] = value
    return numbers


def replace(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
