"""`landscape sharpness`: every measure of a checkpoint, and paired differences between several."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, Source, Where, require_suffix

if TYPE_CHECKING:
    from landscape.sharpness import SharpnessReport

_EDGE = "edge_of_stability"


@dataclass(frozen=True)
class Request:
    """Which measures, how, and for how much.

    Attributes:
        measures: all, or names separated by commas.
        settings: name.setting=value, such as sam.rho=0.1 or average.ladder=0.05,0.2; once for each.
        budget: what it may cost, such as 60s, 5min or 200FB (forward and backward passes over the data), for
            each checkpoint. What does not fit is skipped; what has begun is finished.
        out: JSON file, written after every measure: the same command continues it. With several
            checkpoints a folder, with one file for each.
        seed: of every random draw.
        no_invariance: do not test which measures change when the network is rescaled without changing its
            function.
        optimizer: checkpoint with the state of the optimizer, for its edge of stability; "own" is the
            checkpoint itself.
    """

    measures: str = "all"
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = ()
    budget: str | None = None
    out: Path | None = None
    seed: int = 0
    no_invariance: Flag = False
    optimizer: str | None = None

    def chosen(self, checkpoint: Path) -> dict[str, dict[str, Any]]:
        """Settings by measure."""
        from landscape.source import describes_itself, locate

        found: dict[str, dict[str, Any]] = {}
        for text in self.settings:
            name, setting, value = _assignment(text)
            found.setdefault(name, {})[setting] = value
        if self.optimizer is not None:
            where = Path(self.optimizer)
            if self.optimizer == "own":
                where = locate(checkpoint) if describes_itself(checkpoint) else checkpoint
            found.setdefault(_EDGE, {})["optimizer"] = str(where)
        return found


_REQUEST = Request()
_SOURCE = Source()


def sharpness(
    *checkpoints: Path,
    json: Flag = False,
    page: Path | None = None,
    quiet: Flag = False,
    request: Annotated[Request, Parameter(name="*")] = _REQUEST,
    source: Where = _SOURCE,
) -> None:
    """Compute sharpness measures, each with its error, cost and what to mind; compare checkpoints.

    With several checkpoints: for each measure the difference to the first, paired over the same data and the
    same draws, and whether it is flatter, sharper, or cannot be told.

    Args:
        checkpoints: checkpoint folders or run folders of ours, weights files, or reports that --out or --json
            wrote (.json).
        json: print one JSON document instead.
        page: page (.html) with the tables, and the radii held against the curvature.
        quiet: no progress on standard error.
        request: which measures, how, and for how much.
        source: what the loss is a loss of.
    """
    from landscape.compare import short_label

    if not checkpoints:
        raise ValueError("no checkpoint given: expected one, or several to compare")
    if page is not None:
        require_suffix(page, ".html", "--page")
    for checkpoint in checkpoints:
        if checkpoint.suffix == ".json" and not checkpoint.is_file():
            raise ValueError(f"report {checkpoint} does not exist")
    labels = [short_label(path, checkpoints) for path in checkpoints]
    if len(set(labels)) < len(labels):
        raise ValueError("one checkpoint is given twice: there is no difference to measure")
    targets = _targets(request.out, checkpoints, labels)
    reports, doubts = [], []
    for checkpoint, label, out in zip(checkpoints, labels, targets, strict=True):
        whose = f"{label}: " if len(labels) > 1 else ""
        report, doubtful = _report(checkpoint, request, source, out, json, quiet, whose)
        reports.append(report)
        doubts += [whose + doubt for doubt in doubtful]
    if len(reports) == 1:
        print(reports[0].to_json() if json else reports[0].table())
    else:
        _compare(reports, labels, json)
    if page is not None:
        from landscape.sharpness_page import write

        names = [label.removesuffix(".json") for label in labels]
        write(dict(zip(names, reports, strict=True)), page)
        if not json:
            print(f"page: {page}")
    if doubts:
        raise console.Untrusted("; ".join(dict.fromkeys(doubts)))


def _report(
    checkpoint: Path,
    request: Request,
    source: Source,
    out: Path | None,
    json: bool,
    quiet: bool,
    whose: str,
) -> tuple[SharpnessReport, list[str]]:
    """The report of one checkpoint, and why it cannot be trusted."""
    from landscape.sharpness import sharpness as run
    from landscape.spectra.eigenpairs import ConvergenceWarning

    if checkpoint.suffix == ".json":
        report = _saved(checkpoint)
        return report, _doubts(report, request)
    chosen = request.chosen(checkpoint)
    names = _names(request.measures)
    objective = source.objective(checkpoint)
    latest: list[SharpnessReport] = []
    with (
        warnings.catch_warnings(record=True) as caught,
        console.progress_bar(f"{whose}sharpness", quiet) as advance,
    ):
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            report = run(
                objective,
                names,
                seed=request.seed,
                settings=chosen,
                budget=request.budget,
                invariance=not request.no_invariance,
                out=out,
                progress=advance,
                announce=advance,
                keep=lambda found: latest.__setitem__(slice(None), [found]),
            )
        except KeyboardInterrupt:
            if latest:  # what is done is not thrown away
                print(latest[0].to_json() if json else latest[0].table(), flush=True)
            raise
    doubts = _doubts(report, request)
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            doubts.append(str(warning.message))
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return report, list(dict.fromkeys(doubts))


def _doubts(report: SharpnessReport, request: Request) -> list[str]:
    from landscape.sharpness.registry import WORST_CASE
    from landscape.sharpness.remarks import label
    from landscape.sharpness.running import FAILED

    each = [(row, variant) for row in report.values() for variant in (row, *row.variants)]
    doubts = [f"{label(row, one)} is {one.value}" for row, one in each if not isfinite(one.value)]
    doubts += [
        one.note or f"{label(row, one)} has not converged"
        for row, one in each
        # A largest rise is a lower bound anyway, whether its search has stalled or not.
        if not one.converged and report.about.get(row.name, {}).get("family") != WORST_CASE
    ]
    doubts += [
        f"{name} {reason}"
        for name, reason in report.skipped.items()
        if reason.startswith(FAILED) or (name == _EDGE and request.optimizer is not None)
    ]
    return doubts


def _compare(reports: Sequence[SharpnessReport], labels: Sequence[str], json: bool) -> None:
    from landscape.sharpness import differences
    from landscape.sharpness.documents import text
    from landscape.sharpness.text import reservations

    found = [
        differences(reports[0], report, labels[0], label)
        for report, label in zip(reports[1:], labels[1:], strict=True)
    ]
    if json:
        document = {
            "schema": "landscape.sharpness-differences/1",
            "labels": list(labels),
            "reports": [report.document() for report in reports],
            "comparisons": [each.document() for each in found],
        }
        print(text(document))
        return
    for each in found:
        print(each.table())
    for report, label in zip(reports, labels, strict=True):
        print(*reservations(report.skipped, report.remarks(), f"{label}: "), sep="\n")


def _targets(
    out: Path | None, checkpoints: Sequence[Path], labels: Sequence[str]
) -> list[Path | None]:
    """Where the report of each checkpoint is kept."""
    if out is None:
        return [None] * len(checkpoints)
    if len(checkpoints) == 1:
        require_suffix(out, ".json")
        return [out]
    if out.suffix == ".json" or out.is_file():
        raise ValueError(f"--out is {str(out)!r}: several checkpoints need the name of a folder")
    out.mkdir(exist_ok=True)
    return [out / f"{label.replace('/', '-')}.json" for label in labels]


def _saved(path: Path) -> SharpnessReport:
    from landscape.sharpness import SharpnessReport

    try:
        return SharpnessReport.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from None


def _names(measures: str) -> str | list[str]:
    names = [name.strip() for name in measures.split(",")]
    return "all" if names == ["all"] else [name for name in names if name]


def _assignment(text: str) -> tuple[str, str, Any]:
    """``"sam.rho=0.1"`` -> ``("sam", "rho", 0.1)``; what is no literal is text."""
    left, equals, right = text.partition("=")
    name, dot, setting = left.strip().partition(".")
    if not (equals and dot and name and setting):
        raise ValueError(f"--set is {text!r}: expected measure.setting=value, such as sam.rho=0.1")
    try:
        value = ast.literal_eval(right.strip()) if right.strip() else ()
    except (ValueError, SyntaxError):
        value = right.strip()
    return name, setting, value
