"""Continuing a report: the same run goes on, another one is refused with the difference named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape.objective import Objective
from landscape.sharpness.report import SharpnessReport
from landscape.store import writable
from landscape.wording import printable
from landscape.writing import write_text


def plain_settings(objective: Objective) -> dict[str, Any]:
    """Settings of an objective as they come back from JSON."""
    found: dict[str, Any] = json.loads(json.dumps(dict(objective.settings), default=str))
    return found


def continued(
    path: Path, settings: Mapping[str, Any], theta_sha256: str, seed: int, loss: float
) -> SharpnessReport | None:
    """The report in ``path``, ``None`` where there is no file yet.

    Raises:
        ValueError: the file is something else, or the report of another objective, point or seed.
    """
    target = writable(path)
    if not target.exists():
        return None
    try:
        found = SharpnessReport.from_json(target.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is {error}; give another name, or delete the file") from None
    here = {**settings, "seed": seed, "theta_sha256": theta_sha256}
    there = {**found.objective, "seed": found.seed, "theta_sha256": found.theta_sha256}
    for name in sorted({*here, *there}, key=lambda name: (name.endswith("sha256"), name)):
        if here.get(name) != there.get(name):
            _refuse(path, name, there.get(name), here.get(name))
    # Settings need not tell two functions apart; their values at the point do.
    earlier = found.context.get("loss", loss)
    if not np.isclose(earlier, loss, rtol=1e-4, atol=1e-12, equal_nan=True):
        _refuse(path, "loss", earlier, loss)
    return found


def save(report: SharpnessReport, path: Path) -> None:
    """Write a report: the file appears whole or not at all.

    Raises:
        ValueError: the folder does not exist, or ``path`` is a folder.
        WriteError: the disk refuses; the report that was there is as it was.
    """
    write_text(writable(path), report.to_json() + "\n")


def _refuse(path: Path, name: str, theirs: Any, ours: Any) -> None:
    raise ValueError(
        f"{path} holds another report: {printable(name)} is {printable(theirs)} there and {printable(ours)} here; "
        "give another name, or delete the file"
    )
