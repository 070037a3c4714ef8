"""The command `landscape compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, Source, Where, require_suffix

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.objective import Objective

MOST_CHECKPOINTS = 12
"""Checkpoints of a run whose way is drawn, evenly taken; the last one always."""


@dataclass(frozen=True)
class Shown:
    """What is on the page.

    Attributes:
        points: points on each axis of the surfaces; 0 leaves them out.
        span: half-width of each axis, in units of the direction.
        seed: of directions and random draws.
        eigenvalues: largest eigenvalues of each Hessian; 0 leaves them and the density out.
        probes: random start vectors of the density of the spectrum, at least 2; 0 leaves it out.
        no_path: leave out where training went (runs of ours that kept two checkpoints or more, on one plane).
    """

    points: int = 25
    span: float = 1.0
    seed: int = 0
    eigenvalues: int = 3
    probes: int = 3
    no_path: Flag = False


_SOURCE = Source()
_SHOWN = Shown()


def compare(
    *checkpoints: Path,
    out: Path = Path("compare.html"),
    quiet: Flag = False,
    shown: Annotated[Shown, Parameter(name="*")] = _SHOWN,
    source: Where = _SOURCE,
) -> None:
    """Compare checkpoints on one page: surfaces on one scale, differences, eigenvalues, flatness, paired verdicts.

    Args:
        checkpoints: checkpoint folders or run folders of ours, or weights files of one network.
        out: the page; everything measured is kept in the folder of the same name, and reused.
        quiet: no progress on standard error.
        shown: what is on the page.
        source: what the loss is a loss of.
    """
    from landscape.compare import Comparison, short_label
    from landscape.compared_spectra import Asked
    from landscape.holding import held

    if len(checkpoints) < 2:
        raise ValueError(f"{len(checkpoints)} checkpoint given: a comparison needs two or more")
    require_suffix(out, ".html")  # the folder beside it has the same name without it
    asked = Asked(k=shown.eigenvalues, probes=shown.probes) if shown.eigenvalues else None
    study = Comparison(
        out.with_suffix(""), span=shown.span, points=shown.points, seed=shown.seed, spectrum=asked
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with held(study.folder):
        objectives: dict[str, Objective] = {}
        group = _group(source, checkpoints[0])
        for checkpoint in checkpoints:
            label = short_label(checkpoint, checkpoints)
            objectives[label] = source.objective(checkpoint)
            with console.progress_bar(str(checkpoint), quiet) as advance:
                study.add(label, {_group(source, checkpoint): objectives[label]}, advance)
        ways = (
            {}
            if shown.no_path
            else _ways(dict(zip(objectives, checkpoints, strict=True)), objectives)
        )
        if ways:
            with console.progress_bar("paths", quiet) as advance:
                study.follow(group, next(iter(objectives.values())), ways, advance)
        print(study.write(out, lead="\n\n".join(study.verdict())))
    if study.doubts:
        raise console.Untrusted("; ".join(study.doubts))


def _group(source: Source, checkpoint: Path) -> str:
    return f"{source.split} episodes" if checkpoint.is_dir() else "data"


def _ways(
    checkpoints: Mapping[str, Path], objectives: Mapping[str, Objective]
) -> dict[str, list[tuple[int, Tensor]]]:
    """The checkpoints of each run; empty unless all are runs of ours, of one network, measured on one function."""
    from landscape.sharpness.paired import same_data
    from landscape.spectra.along_training import run_checkpoints, run_points

    base = next(iter(objectives.values()))
    ways = {}
    for label, objective in objectives.items():
        alike = (
            objective.space.names == base.space.names
            and objective.space.shapes == base.space.shapes
        )
        if not alike or same_data(base.settings, objective.settings):
            return {}
        try:
            steps = [step for step, _ in run_checkpoints(checkpoints[label])]
        except ValueError:  # a file, or a single checkpoint
            return {}
        if len(steps) < 2:
            return {}
        taken = set(steps[::-1][:: -(-len(steps) // MOST_CHECKPOINTS)])
        points = run_points(checkpoints[label], objective.space)
        ways[label] = [(step, theta.to(base.theta)) for step, theta in points if step in taken]
    return ways
