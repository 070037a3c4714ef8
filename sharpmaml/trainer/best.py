"""``best.json``: which checkpoint is the best one by validation; it names one that is there, whenever a run stops."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from landscape.writing import write_error, write_text

NAME = "best.json"
_NEXT = ".best.next"


@contextmanager
def chosen(run: Path, best: Mapping[str, Any]) -> Iterator[None]:
    """Name a checkpoint the best one; inside the block it is written.

    The choice is on the disk before the checkpoint, under a name that nobody reads: a run that is killed
    between the two knows from it what was left to do.

    Args:
        run: its folder.
        best: ``step`` and ``validation``; empty where this checkpoint is not the best one.

    Raises:
        WriteError: the disk refuses.
    """
    if not best:
        yield
        return
    text = json.dumps({"checkpoint": f"step_{best['step']:06d}", **best}, indent=1) + "\n"
    write_text(run / _NEXT, text)
    yield
    _take(run)


def settle(run: Path, best: Mapping[str, Any]) -> None:
    """Bring ``best.json`` in line with the checkpoint that a run is resumed from.

    Args:
        run: its folder.
        best: what that checkpoint holds to be the best one; may be empty.

    Raises:
        WriteError: the disk refuses.
    """
    step = best.get("step")
    if _step(run / _NEXT) == step is not None:
        _take(run)
    (run / _NEXT).unlink(missing_ok=True)
    named = _step(run / NAME)
    if named is None or named == step:
        return
    # A later checkpoint was removed, perhaps because it could not be read.
    if step is None:
        (run / NAME).unlink()
        return
    with chosen(run, best):
        pass


def _take(run: Path) -> None:
    try:
        (run / _NEXT).replace(run / NAME)
    except OSError as error:
        raise write_error(run / NAME, error) from None


def _step(file: Path) -> int | None:
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
