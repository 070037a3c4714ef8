"""The tables of the page, which are also those of the files beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from landscape.plot.table import Cell, Table
from landscape.sharpness.verdicts import NEITHER, UNDECIDED, percent
from sharpmaml.checkpoint import LABELS
from sharpmaml.reproduction.ledger import Change, Entry
from sharpmaml.reproduction.measuring import named
from sharpmaml.reproduction.protocols import Experiment, Published
from sharpmaml.reproduction.relation import Relation
from sharpmaml.reproduction.results import Findings
from sharpmaml.reproduction.statistics import THESE_RUNS, Mean

_CHANGE_SHOWN_UP_TO = 10.0
BETWEEN_TASKS = ("coherence", "gradient_inner_product")


def label(method: str) -> str:
    """Name of a method for people."""
    return LABELS.get(method, method)


def short(method: str) -> str:
    """The same, without what all variants have in common."""
    return label(method).removeprefix("Sharp-MAML ")


def scores(findings: Findings, experiment: Experiment) -> Table:
    """Scores on training and test classes, and paired differences from the first method."""
    e, scale = experiment, findings.scale(experiment)
    unit = ", %" if scale == 100 else ""
    train = named("train", e.steps[0])
    names = [(train, "training classes" if scale == 100 else "training tasks")]
    names += [(named("test", s), f"unseen, {s} step{'s' * (s != 1)}") for s in e.steps]
    numbers_published = findings.complete and bool(e.published)
    sources = list(dict.fromkeys(p.source for ps in e.published.values() for p in ps))
    columns = [
        "",
        *(title + unit for _, title in names),
        "± seeds",
        f"against {label(findings.base)}",
        "± seeds ",
        "verdict",
    ]
    rows: list[list[Cell | str]] = []
    for method in findings.plan.methods:
        row: list[Cell | str] = [label(method)]
        row += [_interval(findings.score(e, method, name), scale) for name, _ in names]
        row.append(_half(findings.score(e, method, findings.headline(e)), scale))
        gain = findings.gains.get((e.key, method))
        row += [
            _interval(gain.mean if gain else None, scale),
            _half(gain.mean if gain else None, scale),
            "–" if gain is None else gain.verdict + "*" * gain.holm,
        ]
        if numbers_published:
            row.append(_published(e.published.get(method, ()), sources))
        rows.append(row)
    if numbers_published:
        columns.append("published, %")
    config = e.config(findings.base, size=findings.plan.size)
    stage = findings.plan.stages[e.key]
    ways = "" if scale == 1 else f"{config.ways}-way "
    caption = (
        f"{findings.plan.set_name}, {ways}{config.shots}-shot, {config.queries} queries"
        f"{' a class' if scale == 100 else ''}; means over {findings.plan.seeds} seed"
        f"{'s' * (findings.plan.seeds != 1)} and {stage.depth.episodes} episodes, the same ones for every row. "
        "Brackets: 95 % interval over episodes; “± seeds”: half width of the 95 % interval over seeds (Student’s t). "
        "Differences are paired by episode. A verdict needs both intervals to leave out 0; one that stands over "
        "episodes alone says “in these runs”. *: it also stands after Holm’s correction for all verdicts of this kind. "
    )
    return Table(
        f"{e.title}: {metric_words(findings, e)}",
        columns,
        rows,
        caption + _listed(sources) * numbers_published + why_no_published(findings, e),
    )


def why_no_published(findings: Findings, experiment: Experiment) -> str:
    """Why there is no published number beside ours, or how far ours can be compared."""
    if not experiment.published:
        return "No table of these numbers was published."
    if not findings.complete:
        return f"Published numbers are left out: {findings.plan.set_name} is not the data set that they are of."
    done = findings.plan.stages[experiment.key].iterations
    if findings.whole:
        return ""
    small = ", and of a larger network, meta-batch or image" * (findings.plan.size == "small")
    return (
        f"Published numbers are of {experiment.iterations:,} meta-updates{small}; ours of {done:,}: "
        "not comparable."
    )


def metric_words(findings: Findings, experiment: Experiment) -> str:
    """The score in words."""
    if findings.metric(experiment) == "accuracy":
        return "accuracy"
    return "mean squared error (less is better)"


def ledger(findings: Findings, experiment: Experiment) -> Table:
    """Every measure of every method against the first."""
    others, entries = findings.others, findings.ledgers[experiment.key]
    seeds = {c.seeds for entry in entries for c in entry.changes.values()}
    most = max(seeds, default=1)
    rows: list[list[Cell | str]] = []
    for entry in entries:
        rows.append(
            [
                entry.name.removeprefix("adapted_").replace("_", " "),
                _place(entry),
                Cell(entry.base, note=entry.doubt, flag=bool(entry.doubt)),
                *(_changed(entry, entry.changes.get(m), most) for m in others),
                Cell(round(entry.cost, 1)),
            ]
        )
    depth = findings.plan.stages[experiment.key].depth
    unseen = "unseen classes" if findings.scale(experiment) == 100 else "unseen tasks"
    return Table(
        f"{experiment.title}: sharpness ledger",
        ["measure", "at", label(findings.base), *(short(m) for m in others), "cost, FB"],
        rows,
        f"Start: of the plain MAML meta loss at the initialization, over {depth.ledger_tasks} training tasks. "
        "Adapted: of each task’s query loss after its own adaptation, mean over "
        f"{depth.adapted_tasks} tasks ({unseen}). Tasks: of the gradients of these same tasks at the initialization. "
        f"All methods on the same tasks and draws; changes from {label(findings.base)} are paired, in percent, means "
        f"over {_seeds(seeds)}, with 95 % intervals over tasks and draws; where a share says nothing, the value, "
        "after “=”. “Flatter” and “sharper” need the intervals over tasks and over seeds to leave out 0; †: that over "
        "tasks alone does, or there is one seed; no word: cannot tell. *: it also stands after Holm’s correction for "
        "the whole ledger. Cost: of the measure on its own, in gradients (FB) of the meta loss over the same tasks.",
    )  # fmt: skip


def _seeds(counts: set[int]) -> str:
    most = max(counts, default=1)
    told = f"{most} seed{'s' * (most != 1)}"
    return told + " (¹: of seed 0 alone)" * (len(counts) > 1)


def conditions(findings: Findings, experiment: Experiment) -> Table | None:
    """Scores under shifts and label noise; ``None`` where there are none."""
    e, scale = experiment, findings.scale(experiment)
    unit = ", %" if scale == 100 else ""
    rows: list[list[Cell | str]] = []
    for c in e.conditions:
        if findings.under(e, findings.base, c) is None:
            continue
        rows.append(
            [
                c.label + (" wrong labels" if c.label_noise else ""),
                _interval(findings.under(e, findings.base, c), scale),
                *(_interval(findings.difference_under(e, m, c), scale) for m in findings.others),
            ]
        )
    if not rows:
        return None
    count = findings.plan.stages[e.key].depth.condition_episodes
    base = label(findings.base)
    return Table(
        f"{e.title}: under other conditions",
        ["", base + unit, *(f"{label(m)} − {base}" for m in findings.others)],
        rows,
        f"The networks as trained, tested on {count} episodes under each condition; differences are paired by episode, "
        "means over seeds, with 95 % intervals over episodes. “Wrong labels”: that share of the support labels "
        "is exchanged; queries keep theirs." if scale == 100 else
        f"The networks as trained, tested on {count} tasks of other sinusoids; differences are paired by task.",
    )  # fmt: skip


def relations(findings: Findings, experiment: Experiment) -> Table:
    """Flatness against generalization, by measure."""
    found = findings.relations[experiment.key]
    rows = [_relation(r) for r in found]
    n = found[0].test.n if found else 0
    exact = any(c.exact for r in found for c in (r.test, r.gap) if c is not None)
    return Table(
        f"{experiment.title}: sharpness against generalization",
        ["measure", "at", "ρ, test score", "p", "τ", "ρ, gap", "p ", "ρ within runs, over tasks"],
        rows,
        f"Spearman’s ρ over {n} runs (methods and seeds) of sharpness and the score on unseen classes, larger being "
        "better, and of sharpness and the gap between training and unseen classes, larger being worse; with 95 % "
        f"intervals (Bonett & Wright 2000), p over {'all' if exact else '10,000 random'} permutations, Kendall’s τ. "
        "“Flatter generalizes better” would be a negative ρ with the score and a positive one with the gap. Runs of "
        "one method are alike, so that n runs say less than n independent ones. Over tasks: of a task’s sharpness and "
        "its score, mean over runs, with a bootstrap interval over tasks; both are read off the same query loss, so "
        "that this is no cause.",
    )


def costs(findings: Findings, experiment: Experiment) -> Table:
    """What a meta-update took."""
    found = {m: findings.of(experiment, m) for m in findings.plan.methods}
    unit = _mean([r.fastest_seconds for r in found[findings.base]])
    rows: list[list[Cell | str]] = []
    for method, runs in found.items():
        if not runs:
            continue
        config = experiment.config(method, size=findings.plan.size)
        fastest = _mean([r.fastest_seconds for r in runs])
        rows.append(
            [
                label(method),
                Cell(2 if config.upper else 1),
                Cell((2 if config.lower else 1) * config.inner_steps),
                "no" if method == "fomaml" else "yes",
                _rounded(1000 * _mean([r.update_seconds for r in runs]), 4),
                _rounded(1000 * fastest, 4),
                _rounded(fastest / unit, 3),
                _rounded(sum(r.total_seconds for r in runs) / 60, 3),
            ]
        )
    return Table(
        f"{experiment.title}: cost of training",
        [
            "", "meta-gradients", "inner gradients", "second order", "ms an update", "fastest, ms", "in MAML’s",
            "minutes in all",
        ],
        rows,
        "Of one meta-update, as measured in these runs: the median and the fastest hundredth, means over seeds; inner "
        "gradients are of each task. Runs were made one after another, not interleaved, so that other work on the "
        "machine moves the median; the ratio to MAML is of the fastest. Minutes: of training, all seeds.",
    )  # fmt: skip


def _mean(seconds: Sequence[float]) -> float:
    return sum(seconds) / len(seconds) if seconds else math.nan


def _rounded(value: float, digits: int) -> Cell:
    return Cell(None if math.isnan(value) else float(f"{value:.{digits}g}"))


def _relation(r: Relation) -> list[Cell | str]:
    return [
        r.name.removeprefix("adapted_").replace("_", " "),
        "adapted" if r.place == "adapted" else "start",
        _rho(r.test.spearman, r.test.low, r.test.high),
        _probability(r.test.p),
        Cell(None if math.isnan(r.test.kendall) else round(r.test.kendall, 2)),
        Cell(None) if r.gap is None else _rho(r.gap.spearman, r.gap.low, r.gap.high),
        Cell(None) if r.gap is None else _probability(r.gap.p),
        Cell(None) if r.tasks is None else _rho(r.tasks.value, r.tasks.low, r.tasks.high),
    ]


def _rho(value: float, low: float, high: float) -> Cell:
    if math.isnan(value):
        return Cell(None)
    known = not math.isnan(low)
    return Cell(round(value, 3), low=low if known else None, high=high if known else None)


def _probability(p: float) -> Cell:
    return Cell(None if math.isnan(p) else float(f"{p:.2g}"))


def _place(entry: Entry) -> str:
    if entry.name.startswith("adapted_"):
        return "adapted"
    return "tasks" if entry.name in BETWEEN_TASKS else "start"


def _changed(entry: Entry, change: Change | None, most: int) -> str:
    """``"−35 [−50, −20] flatter*"``, in percent, and plain values where a share says nothing."""
    if change is None or not math.isfinite(change.value):
        return "–"
    word = "" if change.verdict in (UNDECIDED, NEITHER) else " " + change.verdict
    word = word.replace(THESE_RUNS, "†") + "*" * (change.holm and bool(word))
    share = change.mean.value / abs(entry.base) if entry.base else math.inf
    half = change.mean.episodes / abs(entry.base) if entry.base else math.nan
    one = " ¹" * (change.seeds < most)
    if math.isfinite(half) and abs(share) < _CHANGE_SHOWN_UP_TO and entry.base > 0:
        told = percent((share, share - half, share + half)).replace(" %", "")
        return f"{told}{word}{one}"
    return f"= {Cell(change.value)}{word}{one}"


def _interval(mean: Mean | None, scale: float) -> Cell:
    if mean is None:
        return Cell(None)
    value, half = scale * mean.value, scale * mean.episodes
    return Cell(value, low=value - half, high=value + half)


def _half(mean: Mean | None, scale: float) -> Cell:
    if mean is None or math.isnan(mean.seeds):
        return Cell(None)
    return Cell(float(f"{scale * mean.seeds:.2g}"))


def _listed(sources: Sequence[str]) -> str:
    return "Published: " + "; ".join(f"[{i}] {s}" for i, s in enumerate(sources, 1)) + ". "


def _published(found: tuple[Published, ...], sources: Sequence[str]) -> str:
    return (
        "; ".join(
            f"{p.value:.2f}".rstrip("0").rstrip(".")
            + (f" ± {p.ci95:g}" if p.ci95 is not None else "")
            + f" [{sources.index(p.source) + 1}]"
            for p in found
        )
        or "–"
    )
