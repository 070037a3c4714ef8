"""`sharpmaml evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from landscape import console

if TYPE_CHECKING:
    from sharpmaml.evaluation import Evaluation, Standings


def evaluate(
    checkpoint: Path,
    /,
    *others: Path,
    episodes: int = 600,
    split: str = "test",
    seed: int = 0,
    steps: int | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    norm: str = "query",
    shots: int | None = None,
    queries: int | None = None,
    shift: str = "none",
    label_noise: float = 0.0,
    all_pairs: Annotated[bool, Parameter(negative="")] = False,
    audit: Annotated[bool, Parameter(negative="")] = False,
    permutations: int = 0,
    curve: int = 0,
    calibration: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    csv: Path | None = None,
    latex: Path | None = None,
) -> None:
    """Score checkpoints on the same seeded episodes, with 95 % confidence intervals.

    One checkpoint: its score. Several: a table of all, with paired differences from the first.

    Args:
        checkpoint: folder of a checkpoint, or of a run (then its best checkpoint).
        others: more of them, to compare with the first.
        episodes: number of tasks.
        split: classes of the tasks: train, val or test.
        seed: of the tasks: the same seed gives every checkpoint the same ones.
        steps: adaptation steps; the run's own test_steps when left out.
        data: another data set than the one trained on.
        data_root: where the data set lies, when it has moved since training.
        device: auto, cpu, cuda or cuda:N.
        norm: whose statistics normalize the queries: query (all queries as one batch), support, or
            one-by-one (each query with the support set).
        shots: support examples a class; the run's own when left out.
        queries: query examples a class; the run's own when left out.
        shift: change of the data's domain: rotate90, rotate180, rotate270 or invert of images; amplitude,
            phase or frequency of sinusoids.
        label_noise: share of support labels that are wrong.
        all_pairs: differences of all pairs, not only from the first.
        audit: score with each norm, and the gaps between them.
        permutations: score under so many numberings of the classes of every episode.
        curve: loss and accuracy after each of so many adaptation steps.
        calibration: expected calibration error, likelihood, Brier score and reliability.
        json: print one JSON document instead.
        csv: file to write the scores and differences to.
        latex: file to write the table to, for a paper (booktabs).
    """
    import numpy as np

    from sharpmaml import evaluation
    from sharpmaml.trainer.divergence import failure_of

    for file in (csv, latex):
        if file is not None and not file.absolute().parent.is_dir():
            raise ValueError(
                f"{file.parent} is not a folder: make it, or write {file.name} elsewhere"
            )
    for name, count in (("permutations", permutations), ("curve", curve)):
        if count < 0:
            raise ValueError(f"{name} is {count}: expected at least 1, or leave it out")
    conditions: Any = {
        "episodes": episodes, "split": split, "seed": seed, "steps": steps, "data": data,
        "data_root": data_root, "device": device, "norm": norm, "shots": shots, "queries": queries,
        "shift": shift, "label_noise": label_noise,
    }  # fmt: skip
    paths = [checkpoint, *others]
    standings: Standings | None = None
    if others or csv or latex:
        standings = evaluation.compare(paths, all_pairs=all_pairs, **conditions)
        first = standings.evaluations[0]
    else:
        first = evaluation.evaluate(checkpoint, **conditions)
    asked = {
        "audit": (lambda path: evaluation.audit(path, **conditions)) if audit else None,
        "permutations": (
            (lambda path: evaluation.permutations(path, permutations, **conditions))
            if permutations
            else None
        ),
        "curve": (lambda path: evaluation.curve(path, **{**conditions, "steps": curve}))
        if curve
        else None,
        "calibration": (
            (lambda path: evaluation.calibration(path, **conditions)) if calibration else None
        ),
    }
    found = [{name: ask(path) for name, ask in asked.items() if ask} for path in paths]
    for path in paths:
        if why := failure_of(path):
            print(f"warning: the training of {path} failed: {why}", file=sys.stderr)
    if standings is not None:
        _write(csv, standings.to_csv())
        _write(latex, standings.to_latex())
    scores = [first] if standings is None else standings.evaluations
    lost = [
        f"{path}: {count} of {len(one.scores)} scores are not finite; its adaptation diverged there"
        for path, one in zip(paths, scores, strict=False)
        if (count := int((~np.isfinite(one.scores)).sum()))
    ]
    _show(json, first, standings, others, paths, found)
    if lost:
        raise console.Untrusted("; ".join(lost))


def _show(
    json: bool,
    first: Evaluation,
    standings: Standings | None,
    others: Sequence[Path],
    paths: Sequence[Path],
    found: Sequence[Mapping[str, Any]],
) -> None:
    """Print what was found."""
    if json:
        details = [{name: part.to_dict() for name, part in parts.items()} for parts in found]
        if standings is None or not others:
            console.print_json({**first.to_dict(), **details[0]})
            return
        document = standings.to_dict()
        for entry, detail in zip(document["checkpoints"], details, strict=True):
            entry.update(detail)
        console.print_json(document)
        return
    if standings is None or not others:
        _print_one(first)
    else:
        print(standings.table())
    for path, parts in zip(paths, found, strict=True):
        for part in parts.values():
            print(f"\n{path}: {part.table()}" if others else f"\n{part.table()}")


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text, encoding="utf-8")


def _print_one(result: Evaluation) -> None:
    from sharpmaml.evaluating.scores import protocol, shown

    s = result.settings
    print(
        f"{result.metric} {shown(result.mean, result.ci95, result.metric)}   "
        f"(mean and 95 % interval over {s['episodes']} episodes)"
    )
    print(
        f"{s['method']} step {s['step']}, weights {s['checkpoint']}, adapted by {s['inner_steps']} "
        f"steps of {s['inner_rate']}; {protocol(result)}"
    )
