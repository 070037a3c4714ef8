"""Runs that add up: what was counted is kept on disk, and failures are tried again first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzzing.engine import Counts, run
from fuzzing.target import Target

CHUNK = 1000  # inputs between two writes


def targets() -> tuple[Target, ...]:
    """All readers."""
    from fuzzing import ours, theirs

    return (*ours.TARGETS, *theirs.TARGETS)


def kept(folder: Path, target: Target) -> Counts:
    """What was counted of a reader before."""
    file = folder / f"{_slug(target)}.json"
    return Counts(**json.loads(file.read_text())) if file.exists() else Counts()


def advance(
    target: Target,
    folder: Path,
    count: int,
    told: Callable[[str], None],
    only_failures: bool = False,
) -> Counts:
    """Try inputs until there are ``count``; those that failed before are tried again first."""
    counts = kept(folder, target)
    failed = sorted({i for one in counts.failures.values() for i in one["inputs"] if i >= 0})
    if failed:
        counts.inputs -= counts.failed
        counts.failures = {}
        again = run(target, failed, whole=False)
        again.following = 0
        counts.add(again)
        _keep(folder, target, counts)
    while counts.following < count and not only_failures:
        step = range(counts.following, min(count, counts.following + CHUNK))
        counts.add(run(target, step, whole=counts.following == 0))
        _keep(folder, target, counts)
        told(f"{target.name}: {counts.inputs} inputs, {counts.failed} failures")
    return counts


def table(found: Sequence[tuple[Target, Counts]]) -> str:
    """Markdown, a row for each reader."""
    lines = [
        "| reader | inputs | accepted | refused | failures | slowest, ms | memory, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for target, c in found:
        lines.append(
            f"| {target.name} | {c.inputs:,} | {c.accepted:,} | {c.refused:,} | {c.failed:,} "
            f"| {c.slowest_ms:.0f} | {c.peak_mib:.0f} |"
        )
    return "\n".join(lines)


def _slug(target: Target) -> str:
    return "".join(c if c.isalnum() else "_" for c in target.name)


def _keep(folder: Path, target: Target, counts: Counts) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_slug(target)}.json"
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(counts.as_dict()))
    temporary.replace(file)
