"""Methods over the seeds of their training runs: what the checkpoints alone cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharpmaml.evaluating.gaps import Gap, corrected, gap
from sharpmaml.evaluating.intervals import Mean, student_mean


@dataclass(frozen=True)
class OverSeeds:
    """One method, trained several times.

    Attributes:
        method: its name.
        seeds: of its runs.
        scores: mean score of each over the episodes.
        mean: over the seeds, with Student's 95 % interval.
    """

    method: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    mean: Mean

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "method": self.method, "seeds": list(self.seeds), "scores": list(self.scores), **self.mean.to_dict()
        }  # fmt: skip


def over_seeds(
    methods: Sequence[str], seeds: Sequence[int], means: Sequence[float]
) -> tuple[OverSeeds, ...]:
    """Methods of which there are at least two runs, all of another seed.

    Args:
        methods: name of what was trained, one a run.
        seeds: of each run.
        means: score of each run.
    """
    found = []
    for method in dict.fromkeys(methods):
        runs = [(s, m) for name, s, m in zip(methods, seeds, means, strict=True) if name == method]
        numbers = tuple(s for s, _ in runs)
        if len(runs) > 1 and len(set(numbers)) == len(numbers):
            scores = tuple(m for _, m in runs)
            found.append(OverSeeds(method, numbers, scores, student_mean(scores)))
    return tuple(found)


def seed_gaps(groups: Sequence[OverSeeds], metric: str, all_pairs: bool) -> tuple[Gap, ...]:
    """Differences between methods, paired by seed, where they share at least two."""
    found = []
    for i, first in enumerate(groups):
        for second in groups[i + 1 :]:
            shared = [s for s in first.seeds if s in second.seeds]
            if len(shared) < 2:
                continue
            a, b = (
                [dict(zip(g.seeds, g.scores, strict=True))[s] for s in shared]
                for g in (first, second)
            )
            found.append(gap(first.method, second.method, a, b, metric))
        if not all_pairs:
            break
    return corrected(found)
