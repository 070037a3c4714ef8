"""Three sentences: does it help, is it flatter, does flatter generalize better; and how far the budget went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from landscape.plot.table import Cell
from landscape.sharpness.verdicts import FLATTER, SHARPER
from sharpmaml.reproduction.protocols import Experiment
from sharpmaml.reproduction.relation import PRIMARY, Relation
from sharpmaml.reproduction.results import Findings
from sharpmaml.reproduction.statistics import THESE_RUNS, UNDECIDED
from sharpmaml.reproduction.tables import label, short


def answers(findings: Findings) -> list[str]:
    """The three answers, from the intervals alone, then the sentence about the budget."""
    experiments = findings.protocol.experiments
    return [
        "Does it help? "
        + "; ".join(_help(findings, e) for e in experiments)
        + " (brackets: the wider of the 95 % intervals over episodes and over seeds; the correction is "
        "Holm’s, for all verdicts of this kind).",
        f"Is it flatter than {label(findings.base)}? "
        + "; ".join(_flat(findings, e) for e in experiments)
        + ".",
        "Does flatter generalize better? "
        + "; ".join(_relation(findings, e) for e in experiments)
        + ".",
        budget(findings),
    ]


def budget(findings: Findings) -> str:
    """How far training went, and whether the scores can be held against published ones."""
    parts = []
    for e in findings.protocol.experiments:
        done = findings.plan.stages[e.key].iterations
        parts.append(f"{done:,} of {e.iterations:,} meta-updates ({e.title})")
    seeds = findings.plan.seeds
    told = f"Budget: {', '.join(parts)}, {seeds} seed{'s' * (seeds != 1)}"
    if findings.plan.size == "small" and any(e.small for e in findings.protocol.experiments):
        told += ", at the small size for a CPU"
    if not any(e.published for e in findings.protocol.experiments):
        return told + "; no table of these numbers was published."
    if not findings.complete:
        return (
            f"{told}, on {findings.plan.set_name}, which is not the published data set: "
            "not comparable with published accuracies."
        )
    return told + ("." if findings.whole else ": not comparable with published accuracies.")


def _sharp(findings: Findings) -> list[str]:
    return [m for m in findings.others if m.startswith("sharp-")] or list(findings.others)


def _help(findings: Findings, experiment: Experiment) -> str:
    scale, told = findings.scale(experiment), []
    unit = " points" if scale == 100 else ""
    for method in _sharp(findings):
        gain = findings.gains.get((experiment.key, method))
        if gain is None:
            told.append(f"{short(method)} has no result")
            continue
        value, half = scale * gain.mean.value, scale * gain.mean.half
        size = f"({Cell(value, low=value - half, high=value + half)}{unit})"
        word = f"is {gain.verdict}" + ("" if gain.holm else ", but not after correction,")
        if gain.verdict == UNDECIDED:
            word = "cannot be told apart"
        told.append(f"{short(method)} {word} {size}")
    base = label(findings.base)
    return f"{experiment.title}, against {base}: {', '.join(told) or 'there is nothing to compare'}"


def _flat(findings: Findings, experiment: Experiment) -> str:
    entries = [e for e in findings.ledgers[experiment.key] if e.orientation]
    told: dict[str, list[str]] = {}
    for method in _sharp(findings):
        words = [e.changes[method].told for e in entries if method in e.changes]
        told.setdefault(_counted(words), []).append(short(method))
    said = "; ".join(f"{' and '.join(methods)} {phrase}" for phrase, methods in told.items())
    return f"{experiment.title}: {said or 'there is nothing to compare'}"


def _counted(words: Sequence[str]) -> str:
    if not words:
        return "without a result"
    flatter, sharper = (sum(w.startswith(kind) for w in words) for kind in (FLATTER, SHARPER))
    if not flatter + sharper:
        return f"cannot be told from it by any of {len(words)} measures"
    weak = sum(w.endswith(THESE_RUNS) for w in words)
    told = f"flatter by {flatter} and sharper by {sharper} of {len(words)} measures"
    if not weak:
        return told
    return told + (f", {weak} of them" if weak < flatter + sharper else "") + THESE_RUNS


def _relation(findings: Findings, experiment: Experiment) -> str:
    found = {r.name: r for r in findings.relations[experiment.key]}
    told = []
    start, adapted = (found.get(name) for name in PRIMARY)
    if start is not None:
        c = start.test
        if math.isnan(c.spearman) or c.n < 5:
            told.append(f"{c.n} runs are too few to tell")
        else:
            word = {
                "negative": "flatter runs are better",
                "positive": "flatter runs are worse",
                UNDECIDED: "cannot tell",
            }[c.verdict]
            told.append(
                f"over {c.n} runs: {word} (λ max of the meta loss and score: ρ = {_signed(c.spearman)} "
                f"[{_signed(c.low)}, {_signed(c.high)}])"
            )
    if adapted is not None and adapted.tasks is not None and not math.isnan(adapted.tasks.low):
        p = adapted.tasks
        word = {
            "negative": "tasks whose adapted weights are flatter are scored better",
            "positive": "tasks whose adapted weights are flatter are scored worse",
            UNDECIDED: "cannot tell",
        }[p.verdict]
        told.append(
            f"over {p.tasks} tasks within runs: {word} (λ max at adapted weights and score: ρ = {_signed(p.value)} "
            f"[{_signed(p.low)}, {_signed(p.high)}]{_other_measures(found.values(), p.verdict)})"
        )
    return f"{experiment.title}: {', and '.join(told) or 'nothing was measured'}"


def _other_measures(found: Iterable[Relation], verdict: str) -> str:
    """Whether other measures over the same tasks say the opposite, or what λ max does not."""
    told = {
        r.name.removeprefix("adapted_"): r.tasks
        for r in found
        if r.tasks is not None
        and r.name not in PRIMARY
        and r.tasks.verdict not in (verdict, UNDECIDED)
    }
    if not told:
        return ""
    listed = ", ".join(f"{name} {_signed(pooled.value)}" for name, pooled in told.items())
    return f"; by others: {listed}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
