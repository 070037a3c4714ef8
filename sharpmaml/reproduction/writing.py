"""The page, and the same numbers as JSON, CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from landscape.console import jsonable
from landscape.plot.page import Section, write_page
from landscape.plot.table import Cell, Table
from sharpmaml.checkpoint import LABELS
from sharpmaml.reproduction import figures, tables
from sharpmaml.reproduction.answers import answers
from sharpmaml.reproduction.keeping import write_text
from sharpmaml.reproduction.measuring import SEED
from sharpmaml.reproduction.protocols import Experiment
from sharpmaml.reproduction.results import Findings

SCHEMA = "sharpmaml.reproduction.results/1"


def write_all(out: Path, findings: Findings, commands: Sequence[str]) -> Path:
    """Write ``index.html``, ``results.json``, ``table.csv``, ``table.tex`` and ``summary.md``.

    Args:
        out: the folder.
        findings: every number.
        commands: what continues to the whole protocol.

    Returns:
        The page.
    """
    write_text(out / "results.json", json.dumps(document(findings), indent=1) + "\n")
    write_text(out / "table.csv", _csv(findings))
    write_text(out / "table.tex", "\n".join(t.to_latex() for t in _score_tables(findings)))
    write_text(out / "summary.md", summary(findings, commands))
    experiments = findings.protocol.experiments
    shown = [e for e in experiments if findings.of(e)]
    overview = figures.gains(findings, shown)
    sections = [
        Section(
            "Scores",
            figures=[overview] if overview is not None else [],
            tables=_score_tables(findings),
        ),
        *(_section(findings, e) for e in shown),
        Section("How to go on", tables=[_next_steps(findings, commands)]),
    ]
    return write_page(
        out / "index.html",
        title(findings),
        "\n\n".join(answers(findings)),
        sections,
        _settings(findings, commands),
        warnings(findings),
    )


def title(findings: Findings) -> str:
    """Of the page."""
    return f"MAML and Sharp-MAML on {findings.plan.set_name}, reproduced"


def warnings(findings: Findings) -> list[str]:
    """What to distrust."""
    told = findings.failures()
    if findings.plan.seeds < 3:
        count = {1: "One seed", 2: "Two seeds"}[findings.plan.seeds]
        told.append(f"{count}: what is said of methods needs at least three.")
    if not findings.whole:
        told.append(
            "Training was cut short or scaled down: part of what looks like flatness may be an earlier stage of "
            "training, and the order of methods may change."
        )
    return told + findings.unconverged()


def document(findings: Findings) -> dict[str, Any]:
    """``results.json``: everything; what the clock said is under ``times`` alone."""
    plan = findings.plan
    return {
        "schema": SCHEMA,
        "protocol": findings.protocol.name,
        "set": plan.set_name,
        "comparable_with_published": findings.complete and findings.whole,
        "size": plan.size,
        "seeds": plan.seeds,
        "methods": list(plan.methods),
        "answers": answers(findings),
        "not_done": findings.failures(),
        "experiments": {e.key: _experiment(findings, e) for e in findings.protocol.experiments},
        "versions": {"torch": torch.__version__},
        "times": {
            f"{r.experiment}, {r.method}, seed {r.seed}": {
                "updates": r.updates,
                "seconds an update": r.update_seconds,
                "seconds an update, fastest hundredth": r.fastest_seconds,
                "seconds": r.total_seconds,
            }
            for r in findings.runs
            if r.updates
        },
    }


def summary(findings: Findings, commands: Sequence[str]) -> str:
    """``summary.md``: what ``docs/results`` can quote."""
    lines = [f"# {title(findings)}", ""]
    for answer in answers(findings):
        lines += [answer, ""]
    for table in _score_tables(findings):
        lines += [*_markdown(table), ""]
    for e in findings.protocol.experiments:
        if findings.of(e):
            lines += [line for t in _details(findings, e) for line in (*_markdown(t), "")]
    told = warnings(findings)
    if told:
        lines += ["## What to distrust", "", *(f"- {w}" for w in told), ""]
    lines += [
        "## How to go on",
        "",
        "```sh",
        *(
            line
            for what, command in _next_steps(findings, commands).rows
            for line in (f"# {what}", str(command))
        ),
        "```",
        "",
    ]
    return "\n".join(lines)


def _next_steps(findings: Findings, commands: Sequence[str]) -> Table:
    """The commands that made this, or go on from here."""
    told = (
        ["made by"]
        if findings.whole
        else ["the whole protocol from here", "published size, on a GPU"]
    )
    rows = [list(pair) for pair in zip(told, commands, strict=False)]
    return Table("Commands", ["", "command"], rows, "What is finished already is found again.")


def _section(findings: Findings, e: Experiment) -> Section:
    drawn = [
        *figures.surfaces(findings, e),
        *figures.curves(findings, [e]),
        figures.scatter(findings, e),
        figures.sixths(findings, e),
    ]
    return Section(
        e.title, figures=[f for f in drawn if f is not None], tables=_details(findings, e)
    )


def _score_tables(findings: Findings) -> list[Table]:
    return [tables.scores(findings, e) for e in findings.protocol.experiments if findings.of(e)]


def _details(findings: Findings, e: Experiment) -> list[Table]:
    found = [
        tables.ledger(findings, e),
        tables.relations(findings, e),
        tables.conditions(findings, e),
        tables.costs(findings, e),
    ]
    return [t for t in found if t is not None]


def _experiment(findings: Findings, e: Experiment) -> dict[str, Any]:
    plan, stage = findings.plan, findings.plan.stages[e.key]
    return {
        "iterations": stage.iterations,
        "iterations_published": e.iterations,
        "depth": dataclasses.asdict(stage.depth),
        "config": _config(findings, e, plan.methods[0]),
        "metric": findings.metric(e),
        "runs": [
            {
                "method": r.method,
                "seed": r.seed,
                "step": r.step,
                "weights": r.fingerprint,
                "scores": {name: sum(s) / len(s) for name, s in r.scores.items()},
                "conditions": {name: sum(s) / len(s) for name, s in r.conditions.items()},
            }
            for r in findings.of(e)
        ],
        "scores": {
            m: {name: _plain(findings.score(e, m, name)) for name in r.scores}
            for m in plan.methods
            for r in findings.of(e, m)[:1]
        },
        "gains": {m: _plain(gain) for (key, m), gain in findings.gains.items() if key == e.key},
        "gap": {m: _plain(findings.gap(e, m)) for m in plan.methods},
        "conditions": {
            c.label: {
                m: {
                    "score": _plain(findings.under(e, m, c)),
                    "difference": _plain(findings.difference_under(e, m, c)),
                }
                for m in plan.methods
            }
            for c in e.conditions
        },
        "ledger": [_plain(entry) for entry in findings.ledgers[e.key]],
        "relations": [_plain(r) for r in findings.relations[e.key]],
        "published": {m: [_plain(p) for p in ps] for m, ps in e.published.items()}
        if findings.complete
        else {},
    }


def _config(findings: Findings, e: Experiment, method: str) -> dict[str, Any]:
    config = e.config(
        method,
        size=findings.plan.size,
        iterations=findings.plan.stages[e.key].iterations,
        alpha=findings.plan.alpha,
    )
    # Where a data set lies is nobody's business but this machine's.
    hidden = ("data_root", "device", "seed", "method")
    return {k: v for k, v in config.to_dict().items() if k not in hidden}


def _settings(findings: Findings, commands: Sequence[str]) -> Mapping[str, Any]:
    plan = findings.plan
    return {
        "command": commands[0],
        "protocol": findings.protocol.source,
        "size": plan.size,
        "methods": list(plan.methods),
        "seeds": plan.seeds,
        "seed of episodes, tasks and draws": SEED,
        "budget, minutes": plan.budget if plan.budget is not None else "none: the whole protocol",
        "torch": torch.__version__,
        "experiments": {
            e.title: {
                "training": _config(findings, e, findings.base),
                "measured": dataclasses.asdict(plan.stages[e.key].depth),
                "measures": plan.stages[e.key].depth.settings(),
                "checkpoints, chosen by validation": {
                    f"{LABELS.get(r.method, r.method)}, seed {r.seed}": f"{r.fingerprint}, step {r.step}"
                    for r in findings.of(e)
                },
            }
            for e in findings.protocol.experiments
        },
    }


def _plain(value: Any) -> Any:
    """A record as JSON takes it; numbers that are not finite become null."""
    return None if value is None else jsonable(dataclasses.asdict(value))


def _csv(findings: Findings) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["experiment", "method", "what", "mean", "ci95_episodes", "ci95_seeds", "verdict", "holm"]
    )
    for e in findings.protocol.experiments:
        for m in findings.plan.methods:
            for name in dict.fromkeys(n for r in findings.of(e, m) for n in r.scores):
                score = findings.score(e, m, name)
                if score is not None:
                    writer.writerow(
                        [
                            e.key,
                            m,
                            f"{findings.metric(e)}, {name}",
                            score.value,
                            score.episodes,
                            score.seeds,
                            "",
                            "",
                        ]
                    )
            gain = findings.gains.get((e.key, m))
            if gain is not None:
                mean = gain.mean
                what = f"paired difference from {findings.base}, {findings.headline(e)}"
                writer.writerow(
                    [e.key, m, what, mean.value, mean.episodes, mean.seeds, gain.verdict, gain.holm]
                )
    return text.getvalue()


def _markdown(table: Table) -> list[str]:
    def text(entry: Cell | str) -> str:
        return str(entry).replace("|", "\\|").replace("*", "\\*")

    return [
        f"### {table.title}",
        "",
        "| " + " | ".join(text(c.strip()) for c in table.columns) + " |",
        "|" + " --- |" * len(table.columns),
        *("| " + " | ".join(text(entry) for entry in row) + " |" for row in table.rows),
        "",
        table.caption,
    ]
