"""Names that tell checkpoints apart, and which of them are seeds of one method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sharpmaml.checkpoint import Checkpoint

_NOT_THE_METHOD = ("seed", "data_root", "device", "executor", "tasks_at_once", "checkpoint_every")


def methods_of(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """What was trained, seeds apart: the method, and the settings in which runs of it differ.

    Runs whose settings are the same but for the seed get the same name.
    """
    names = []
    for given in checkpoints:
        alike = [_settings(c) for c in checkpoints if c.label == given.label]
        mine = _settings(given)
        telling = [name for name in mine if any(c.get(name) != mine[name] for c in alike)]
        names.append(" ".join([given.label, *(f"{n}={_short(mine[n])}" for n in telling)]))
    return names


def labels_of(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """A name for each: the method, then as much of seed, step and folder as it takes to be the only one."""
    methods = methods_of(checkpoints)
    names = list(methods)
    parts = (
        [f"seed {c.config.seed}" for c in checkpoints],
        [f"step {c.step}" for c in checkpoints],
        [str(c.path) for c in checkpoints],
        [f"({i + 1})" for i in range(len(checkpoints))],
    )
    for words in parts:
        again = {name for name, count in Counter(names).items() if count > 1}
        told = {
            name
            for name in again
            if len({w for n, w in zip(names, words, strict=True) if n == name}) > 1
        }
        names = [f"{n}, {w}" if n in told else n for n, w in zip(names, words, strict=True)]
    return names


def _settings(given: Checkpoint) -> dict[str, Any]:
    values = {k: v for k, v in given.config.to_dict().items() if k not in _NOT_THE_METHOD}
    if given.config.schedule == "constant":
        values.pop("iterations")  # how far a run was to go; its weights up to there do not know it
    return values


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items()) or "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)
