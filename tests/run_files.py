"""Whether the files of a training run are whole, and whether two runs are the same to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sharpmaml import checkpoint as checkpoints
from sharpmaml.config import TrainConfig


def unreadable(out: Path) -> list[str]:
    """Files of a run, however it ended, that are not whole."""
    return list(_unreadable(out)) if out.exists() else []


def _unreadable(out: Path) -> Iterator[str]:
    for name in ("config.toml", "best.json"):
        try:
            if (out / name).exists():
                if name == "config.toml":
                    TrainConfig.from_toml(out / name)
                else:
                    checkpoint = json.loads((out / name).read_text())["checkpoint"]
                    checkpoints.read(out / "checkpoints" / checkpoint)
        except (ValueError, OSError) as error:
            yield f"{name}: {error}"
    for folder in (out / "checkpoints").glob("step_*"):
        try:
            checkpoints.read(folder)
            checkpoints.read_trainer(folder)
        except (ValueError, OSError) as error:
            yield f"{folder.name}: {error}"
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["iteration"] != number:
                yield f"metrics.jsonl: line {number} is of another meta-update"
        except ValueError:
            if number < len(lines) or line.endswith("\n"):
                yield f"metrics.jsonl: line {number} of {len(lines)}"


def unlike(out: Path, whole: Path, saved: str) -> Iterator[str]:
    found, wanted = _names(out), _names(whole)
    found -= {name for name in found - wanted if name.startswith(saved)}
    if found != wanted:
        yield f"files: {sorted(found ^ wanted)}"
        return
    for name in ("config.toml", "best.json"):
        if (out / name).read_bytes() != (whole / name).read_bytes():
            yield name
    if _records(out) != _records(whole):
        yield "metrics.jsonl"
    for folder in checkpoints.steps(whole):
        folder, twin = out / "checkpoints" / folder.name, folder
        for name in ("model.safetensors", "rates.safetensors"):
            if (folder / name).exists() and (folder / name).read_bytes() != (
                twin / name
            ).read_bytes():
                yield f"{folder.name}/{name}"
        if not same(checkpoints.read_trainer(folder), checkpoints.read_trainer(twin)):
            yield f"{folder.name}/trainer.pt"


def _names(run: Path) -> set[str]:
    return {str(p.relative_to(run)) for p in run.rglob("*")}


def _records(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def same(a: Any, b: Any) -> bool:
    """Whether two trees of values and tensors have the same bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def kept(out: Path) -> int:
    """Meta-updates in the last checkpoint."""
    found = checkpoints.steps(out)
    return int(found[-1].name.removeprefix("step_")) if found else 0
