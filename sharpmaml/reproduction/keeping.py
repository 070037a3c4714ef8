"""Where the pieces of a reproduction lie, and how what is done is found again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from landscape import json_text, writing

SKIPPED = "skipped"
"""Key of a piece that could not be made, with the reason; it is tried again."""


def run_folder(out: Path, experiment: str, method: str, seed: int) -> Path:
    """Folder of a training run."""
    return out / "runs" / experiment / f"{method}-seed{seed}"


def piece_folder(out: Path, experiment: str, method: str, seed: int) -> Path:
    """Folder of what was measured of a run; made when missing."""
    folder = out / "measurements" / experiment / f"{method}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kept(
    file: Path, asked: Mapping[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What ``file`` holds, where it answers the same question; else what ``make`` gives, which is kept.

    Args:
        file: JSON with ``asked`` and ``found``.
        asked: everything that decides the answer, as JSON takes it.
        make: finds the answer.
    """
    question = json.loads(json.dumps(asked))
    try:
        record = json_text.read(file)
        found: dict[str, Any] = record["found"]
        if record["asked"] == question and isinstance(found, dict) and SKIPPED not in found:
            return found
    except (OSError, ValueError, LookupError, TypeError):
        pass  # missing or damaged: made again
    found = make()
    write_text(file, json.dumps({"asked": question, "found": found}) + "\n")
    return found


def write_text(file: Path, text: str) -> Path:
    """Write a file so that a reader sees all of it or nothing.

    Raises:
        WriteError: the disk refuses.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing.write_error(file, error) from None
    return writing.write_text(file, text)
