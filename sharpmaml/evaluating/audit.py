"""How much of a score is transduction: the same weights with three ways to normalize the queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landscape.plot.table import Table
from sharpmaml.evaluating.conditions import NORM_WORDS, Trial
from sharpmaml.evaluating.gaps import Gap, by_chance, corrected, gap
from sharpmaml.evaluating.norms import NORMS
from sharpmaml.evaluating.scores import Evaluation, shown


@dataclass(frozen=True)
class Audit:
    """Scores of one checkpoint on the same episodes, by whose statistics normalize the queries.

    Attributes:
        evaluations: by name, see `sharpmaml.evaluating.norms`.
        gaps: of the inductive ones against ``"query"``, paired by episode.
    """

    evaluations: Mapping[str, Evaluation]
    gaps: tuple[Gap, ...]

    def table(self) -> str:
        """Aligned text."""
        rows = []
        for name, found in self.evaluations.items():
            against = [g for g in self.gaps if g.second == name]
            rows.append(
                [
                    name,
                    shown(found.mean, found.ci95, found.metric),
                    str(against[0].cell(found.metric)) if against else "-",
                    against[0].marked if against else "-",
                    NORM_WORDS[name],
                ]
            )
        metric = self.evaluations["query"].metric
        columns = ["norm", metric, f"minus query{_unit(metric)}", "it is", "the queries see"]
        return Table("Transduction audit", columns, rows).to_text().lstrip("\n") + (
            f"\n{by_chance(self.gaps)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "norms": {name: found.to_dict() for name, found in self.evaluations.items()},
            "gaps": [g.to_dict() for g in self.gaps],
        }


def _unit(metric: str) -> str:
    return " (points)" if metric == "accuracy" else ""


def audit_of(trial: Trial) -> Audit:
    """Adapt once, and score three times."""
    found = trial.score(*NORMS)
    base = found["query"]
    gaps = [gap("query", name, base.scores, found[name].scores, base.metric) for name in NORMS[1:]]
    return Audit(found, corrected(gaps))
