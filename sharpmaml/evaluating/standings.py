"""Several checkpoints on the same episodes: scores, paired differences, verdicts; as text, CSV, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from landscape.plot.table import Cell, Table, latex_escape
from sharpmaml.evaluating.gaps import Gap, by_chance, corrected, gap
from sharpmaml.evaluating.scores import Evaluation, protocol, shown
from sharpmaml.evaluating.seeds import OverSeeds, over_seeds, seed_gaps

_WIDTH = 140
_LEGEND = (
    "±: half the 95 % interval of the mean over episodes. difference: of the same episodes, second minus first, "
    "with its 95 % interval, which is narrower than the two ± suggest. These verdicts are about these very weights "
    "on other episodes; what another training seed would give, only several seeds can tell."
)
_LATEX_LEGEND = (
    "+-: half the 95 \\% interval over episodes; differences: paired by episode, with 95 \\% intervals; "
    "*: also after Holm's correction"
)
_SEED_LEGEND = (
    "over seeds: mean of the runs' scores with Student's 95 % interval, the episodes being the same for all; "
    "differences are paired by seed."
)


@dataclass(frozen=True)
class Standings:
    """Checkpoints scored on the same episodes.

    Attributes:
        labels: a name for each.
        methods: what was trained; runs that differ in their seed alone share it.
        seeds: of the training runs.
        evaluations: scores of each.
        gaps: paired differences, all against the first checkpoint or of all pairs, with verdicts.
        groups: methods over the seeds of their runs.
        seed_gaps: differences between those methods, paired by seed.
    """

    labels: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    evaluations: tuple[Evaluation, ...]
    gaps: tuple[Gap, ...]
    groups: tuple[OverSeeds, ...] = ()
    seed_gaps: tuple[Gap, ...] = ()

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        methods: Sequence[str],
        seeds: Sequence[int],
        evaluations: Sequence[Evaluation],
        all_pairs: bool = False,
    ) -> Standings:
        """From scores on the same episodes.

        Raises:
            ValueError: scores of other numbers of episodes.
        """
        n = len(labels)
        pairs = itertools.combinations(range(n), 2) if all_pairs else ((0, i) for i in range(1, n))
        metric = evaluations[0].metric
        gaps = [
            gap(labels[i], labels[j], evaluations[i].scores, evaluations[j].scores, metric)
            for i, j in pairs
        ]
        groups = over_seeds(methods, seeds, [e.mean for e in evaluations])
        return cls(
            tuple(labels), tuple(methods), tuple(seeds), tuple(evaluations), corrected(gaps), groups,
            seed_gaps(groups, metric, all_pairs),
        )  # fmt: skip

    @property
    def metric(self) -> str:
        """``"accuracy"`` or ``"mse"``."""
        return self.evaluations[0].metric

    @property
    def protocol(self) -> str:
        """What all scores have in common, in words."""
        return protocol(self.evaluations[0])

    def table(self) -> str:
        """Aligned text with everything a reader must know."""
        parts = [self._scores(self.protocol).to_text().lstrip("\n")]
        others = [g for g in self.gaps if g.first != self.labels[0]]
        if others:
            parts.append(self._pairs("Other pairs", others).to_text())
        parts += _wrapped(by_chance(self.gaps))
        if self.groups:
            parts.append(self._over_seeds().to_text())
            if self.seed_gaps:
                parts.append(self._pairs("Methods, paired by seed", self.seed_gaps).to_text())
                parts += _wrapped(by_chance(self.seed_gaps))
            parts += _wrapped(_SEED_LEGEND)
        return "\n".join([*parts, *_wrapped(_LEGEND)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single episodes."""
        about = zip(self.labels, self.methods, self.seeds, self.evaluations, strict=True)
        return {
            "metric": self.metric,
            "checkpoints": [
                # "method" is in the settings too, in the words of the run
                {"label": label, "seed": seed, **e.to_dict(), "group": method}
                for label, method, seed, e in about
            ],
            "differences": [g.to_dict() for g in self.gaps],
            "expected_by_chance": 0.05 * len(self.gaps),
            "over_seeds": [g.to_dict() for g in self.groups],
            "seed_differences": [g.to_dict() for g in self.seed_gaps],
        }

    def to_csv(self) -> str:
        """Comma-separated values: a line a checkpoint, difference, method, and difference of methods.

        Accuracies are shares, not percent.
        """
        file = io.StringIO()
        columns = (
            "kind", "name", "against", "metric", "value", "low", "high", "over", "n", "p", "verdict", "holm",
            "method", "seed", "step", "checkpoint", "data", "split", "ways", "shots", "queries", "episode_seed",
            "inner_steps", "inner_rate", "norm", "shift", "label_noise",
        )  # fmt: skip
        rows = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        for label, seed, e in zip(self.labels, self.seeds, self.evaluations, strict=True):
            ends = {"low": e.mean - e.ci95, "high": e.mean + e.ci95}
            rows.writerow(
                {**e.settings, "kind": "checkpoint", "name": label, "metric": e.metric, "value": e.mean, **ends,
                 "over": "episodes", "n": len(e.scores), "seed": seed}
            )  # fmt: skip
        for kind, over, gaps in (
            ("difference", "episodes", self.gaps),
            ("difference of methods", "seeds", self.seed_gaps),
        ):
            for g in gaps:
                rows.writerow({**g.mean._asdict(), "kind": kind, "name": g.second, "against": g.first,
                               "metric": self.metric, "over": over, "verdict": g.verdict, "holm": g.holm})  # fmt: skip
        for group in self.groups:
            rows.writerow({**group.mean._asdict(), "p": "", "kind": "method", "name": group.method,
                           "metric": self.metric, "over": "seeds"})  # fmt: skip
        return file.getvalue()

    def to_latex(self, *, environment: bool = True) -> str:
        """The scores and their differences from the first, for a paper.

        Args:
            environment: in a ``tabular`` of the booktabs package; ``False``: the rows alone.
        """
        rows = self._scores("", details=False).to_latex(environment=environment)
        return f"{rows}% {latex_escape(self.protocol)}\n% {_LATEX_LEGEND}\n"

    def _scores(self, title: str, details: bool = True) -> Table:
        against = {g.second: g for g in self.gaps if g.first == self.labels[0]}
        percent = self.metric == "accuracy"
        rows: list[list[Cell | str]] = []
        for label, e in zip(self.labels, self.evaluations, strict=True):
            value: Cell | str = (
                shown(e.mean, e.ci95, e.metric)
                if details
                else Cell((100 if percent else 1) * e.mean, (100 if percent else 1) * e.ci95)
            )
            found = against.get(label)
            rows.append(
                [
                    label,
                    value,
                    found.cell(self.metric) if found else "-",
                    found.marked if found else "-",
                    *([_adaptation(e), str(e.settings["step"])] if details else []),
                ]
            )
        unit = " (points)" if percent else ""
        score = self.metric + (" (%)" if percent and not details else "")
        columns = ["", score, f"minus {self.labels[0]}{unit}", "it is"]
        return Table(title, [*columns, *(["adapted by", "iteration"] if details else [])], rows)

    def _pairs(self, title: str, gaps: Sequence[Gap]) -> Table:
        rows: list[list[Cell | str]] = [
            [g.second, g.first, g.cell(self.metric), g.marked] for g in gaps
        ]
        unit = " (points)" if self.metric == "accuracy" else ""
        return Table(title, ["", "minus", f"difference{unit}", "it is"], rows)

    def _over_seeds(self) -> Table:
        rows: list[list[Cell | str]] = []
        for group in self.groups:
            half = group.mean.high - group.mean.value
            told = ", ".join(map(str, group.seeds))
            rows.append([group.method, shown(group.mean.value, half, self.metric), told])
        return Table("Over seeds", ["", self.metric, "seeds"], rows)


def _adaptation(e: Evaluation) -> str:
    steps, rate = e.settings["inner_steps"], e.settings["inner_rate"]
    return f"{steps} step{'' if steps == 1 else 's'} of {rate}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)
