"""What the runs of a reproduction say together: differences that are paired, with both intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpmaml.checkpoint import LABELS
from sharpmaml.reproduction.ledger import Entry, ledger_of, read_report
from sharpmaml.reproduction.measuring import RunResult, named
from sharpmaml.reproduction.planning import Plan
from sharpmaml.reproduction.protocols import Condition, Experiment, Protocol, known_complete
from sharpmaml.reproduction.relation import Relation, relations_of
from sharpmaml.reproduction.statistics import Mean, holm, mean_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """A method against the first one, on the same episodes.

    Attributes:
        mean: paired difference of the scores.
        verdict: ``"better"``, ``"worse"``, either "in these runs", or ``"cannot tell"``.
        holm: whether it also stands after Holm's correction for all methods of all experiments.
    """

    mean: Mean
    verdict: str
    holm: bool


@dataclass(frozen=True)
class Findings:
    """Everything that was found.

    Attributes:
        protocol: what was reproduced.
        plan: how far.
        runs: the results, of all experiments, methods and seeds.
    """

    protocol: Protocol
    plan: Plan
    runs: tuple[RunResult, ...]

    @property
    def base(self) -> str:
        """The method that others are held against."""
        return self.plan.methods[0]

    @property
    def others(self) -> tuple[str, ...]:
        """All other methods."""
        return self.plan.methods[1:]

    @property
    def complete(self) -> bool:
        """Whether the data set is the published one."""
        return known_complete(self.protocol, self.plan.set_name)

    @property
    def whole(self) -> bool:
        """Whether every run was trained as long, and with the settings, that were published."""
        return self.plan.size == "published" and all(
            self.plan.stages[e.key].iterations >= e.iterations for e in self.protocol.experiments
        )

    def of(self, experiment: Experiment, method: str | None = None) -> list[RunResult]:
        """Runs that have numbers, by seed."""
        found = [
            r
            for r in self.runs
            if r.experiment == experiment.key and not r.failure and method in (None, r.method)
        ]
        return sorted(found, key=lambda r: r.seed)

    def metric(self, experiment: Experiment) -> str:
        """``"accuracy"`` or ``"mse"``."""
        return next((r.metric for r in self.of(experiment)), "accuracy")

    def sign(self, experiment: Experiment) -> int:
        """1 where more of the score is better, -1 where less is."""
        return 1 if self.metric(experiment) == "accuracy" else -1

    def scale(self, experiment: Experiment) -> float:
        """Accuracies are shown in percent."""
        return 100.0 if self.metric(experiment) == "accuracy" else 1.0

    def score(self, experiment: Experiment, method: str, name: str) -> Mean | None:
        """Mean score of a method; ``None`` where no run has it."""
        found = [r.scores[name] for r in self.of(experiment, method) if name in r.scores]
        return mean_of(found) if found else None

    def difference(self, experiment: Experiment, method: str, name: str) -> Mean | None:
        """Paired difference of a method's score from the first method's, on seeds that both have."""
        return self._paired(experiment, method, lambda r: r.scores.get(name))

    def under(self, experiment: Experiment, method: str, condition: Condition) -> Mean | None:
        """Mean score under a condition."""
        found = [r.conditions[condition.label] for r in self.of(experiment, method)
                 if condition.label in r.conditions]  # fmt: skip
        return mean_of(found) if found else None

    def difference_under(
        self, experiment: Experiment, method: str, condition: Condition
    ) -> Mean | None:
        """Paired difference under a condition."""
        return self._paired(experiment, method, lambda r: r.conditions.get(condition.label))

    def change_under(
        self, experiment: Experiment, method: str, condition: Condition
    ) -> Mean | None:
        """Paired difference of what a condition costs: the difference under it less that without it."""
        name = self.headline(experiment)

        def cost(run: RunResult) -> list[float] | None:
            found = run.conditions.get(condition.label)
            if found is None:
                return None
            return list(np.subtract(found, run.scores[name][: len(found)]))

        return self._paired(experiment, method, cost)

    def gap(self, experiment: Experiment, method: str) -> Mean | None:
        """How much worse unseen classes are scored than those of training; positive is worse."""
        test, train = self.headline(experiment), named("train", experiment.steps[0])
        sign = self.sign(experiment)
        found = [
            sign * (np.mean(r.scores[train]) - np.mean(r.scores[test]))
            for r in self.of(experiment, method)
        ]
        return mean_of(np.asarray(found)[:, None]) if found else None

    def headline(self, experiment: Experiment) -> str:
        """Name of the score that the tables are about."""
        return named("test", experiment.steps[0])

    @cached_property
    def gains(self) -> dict[tuple[str, str], Gain]:
        """Every method of every experiment against the first, corrected together."""
        means = {
            (e.key, m): (self.difference(e, m, self.headline(e)), self.sign(e))
            for e in self.protocol.experiments
            for m in self.others
        }
        known = {key: (mean, sign) for key, (mean, sign) in means.items() if mean is not None}
        stands = holm([mean.p for mean, _ in known.values()])
        return {
            key: Gain(mean, mean.verdict(sign), passed)
            for (key, (mean, sign)), passed in zip(known.items(), stands, strict=True)
        }

    @cached_property
    def ledgers(self) -> dict[str, list[Entry]]:
        """Every measure of every experiment, against the first method."""
        return {
            e.key: ledger_of(self.plan.methods, self.reports(e)) for e in self.protocol.experiments
        }

    @cached_property
    def relations(self) -> dict[str, list[Relation]]:
        """Flatness against generalization, by experiment."""
        return {
            e.key: relations_of(
                [(r, self.reports_of(r)) for r in self.of(e)],
                self.headline(e),
                named("train", e.steps[0]) if self.metric(e) == "accuracy" else None,
                self.sign(e),
            )
            for e in self.protocol.experiments
        }

    def reports(self, experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
        """Sharpness reports by method, one mapping a seed."""
        return {m: [self.reports_of(r) for r in self.of(experiment, m)] for m in self.plan.methods}

    def reports_of(self, run: RunResult) -> dict[str, Any]:
        """Sharpness reports of a run by place; each file is read once."""
        key = (run.experiment, run.method, run.seed)
        if key not in self._read:
            self._read[key] = {place: read_report(file) for place, file in run.reports.items()}
        return self._read[key]

    @cached_property
    def _read(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        return {}

    def failures(self) -> list[str]:
        """What could not be done, one sentence each."""
        told = [
            f"{r.experiment}, {LABELS.get(r.method, r.method)}, seed {r.seed}: {r.failure}"
            for r in self.runs
            if r.failure
        ]
        reasons = {
            f"{r.experiment}, {LABELS.get(r.method, r.method)}, seed {r.seed}, {label}: left out: {reason}"
            for r in self.runs
            for label, reason in r.skipped.items()
        }
        return told + sorted(reasons)

    def unconverged(self) -> list[str]:
        """Measures that have not converged, one sentence each."""
        return [
            f"{e.title}, {entry.name}: {entry.doubt}"
            for e in self.protocol.experiments
            for entry in self.ledgers[e.key]
            if entry.doubt
        ]

    def _paired(self, experiment: Experiment, method: str, pick: Any) -> Mean | None:
        base = {r.seed: pick(r) for r in self.of(experiment, self.base)}
        pairs = [
            np.subtract(pick(r), base[r.seed])
            for r in self.of(experiment, method)
            if pick(r) is not None and base.get(r.seed) is not None
        ]
        return mean_of(_rows(pairs)) if pairs else None


def _rows(pairs: Sequence[Array]) -> Array:
    return np.stack([np.asarray(p, dtype=np.float64) for p in pairs])
