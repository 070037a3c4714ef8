"""Paired differences of scores, and what may be said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.plot.table import Cell
from sharpmaml.evaluating.intervals import LEVEL, Mean, holm, student_mean

BETTER, WORSE, UNDECIDED = "better", "worse", "cannot tell"


@dataclass(frozen=True)
class Gap:
    """A score of ``second`` minus that of ``first``, value by value on the same things.

    Attributes:
        first: name of what is subtracted.
        second: name of what it is subtracted from.
        mean: of the paired differences, with Student's 95 % interval.
        verdict: what the second is, compared with the first: ``"better"``, ``"worse"`` or
            ``"cannot tell"``, where the interval holds 0.
        holm: whether the verdict also stands after Holm's correction for all verdicts of its table.
    """

    first: str
    second: str
    mean: Mean
    verdict: str
    holm: bool = False

    @property
    def marked(self) -> str:
        """The verdict, with a star where it stands after Holm's correction."""
        return self.verdict + ("*" if self.holm else "")

    def cell(self, metric: str) -> Cell:
        """For a table: accuracies in percentage points."""
        unit = 100 if metric == "accuracy" else 1
        return Cell(unit * self.mean.value, low=unit * self.mean.low, high=unit * self.mean.high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {"first": self.first, "second": self.second}
        return {**about, **self.mean.to_dict(), "verdict": self.verdict, "holm": self.holm}


def gap(
    first: str,
    second: str,
    a: Sequence[float] | NDArray[np.float64],
    b: Sequence[float] | NDArray[np.float64],
    metric: str,
) -> Gap:
    """``b − a`` with its verdict.

    Args:
        first: name of ``a``.
        second: name of ``b``.
        a: values of the first, one an episode (or a seed).
        b: values of the second on the same ones.
        metric: ``"accuracy"``: more is better; ``"mse"``: less is.

    Raises:
        ValueError: other numbers of values, or fewer than two.

    >>> gap("A", "B", [0.5, 0.6, 0.7], [0.6, 0.69, 0.81], "accuracy").verdict
    'better'
    """
    if len(a) != len(b):
        raise ValueError(f"{first} has {len(a)} values and {second} {len(b)}: they are not pairs")
    mean = student_mean(np.subtract(b, a))
    if not (mean.low > 0 or mean.high < 0):  # NaN as well decides nothing
        return Gap(first, second, mean, UNDECIDED)
    return Gap(first, second, mean, BETTER if (mean.low > 0) == (metric == "accuracy") else WORSE)


def corrected(gaps: Sequence[Gap]) -> tuple[Gap, ...]:
    """The same with Holm's correction for all of them together."""
    passed = holm([1.0 if np.isnan(g.mean.p) else g.mean.p for g in gaps])
    return tuple(
        replace(g, holm=ok and g.verdict != UNDECIDED) for g, ok in zip(gaps, passed, strict=True)
    )


def by_chance(gaps: Sequence[Gap]) -> str:
    """What chance alone would make of so many verdicts, in one sentence; empty without any."""
    if not gaps:
        return ""
    decided = sum(g.verdict != UNDECIDED for g in gaps)
    after = sum(g.holm for g in gaps)
    count = "1 verdict" if len(gaps) == 1 else f"{len(gaps)} verdicts"
    return (
        f"Were nothing different, about {LEVEL * len(gaps):.2g} of {count} would be better or worse by "
        f"chance; here {decided} {'is' if decided == 1 else 'are'}, {after} also after Holm's correction (*)."
    )
