"""The command `landscape trajectory`."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, Source, Where, require_suffix

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.directions import Plane
    from landscape.objective import Objective

NORM_NOTE = (
    "norm layers: the surface uses the running statistics of the last checkpoint everywhere, the checkpoints' own "
    "losses use their own; --norm recalibrate removes the difference"
)


@dataclass(frozen=True)
class Request:
    """Which plane, and what is computed over it.

    Attributes:
        plane: pca, the plane that holds most of the path; or random, as in landscape surface, which holds
            almost nothing of it.
        points: points on each axis of the surface.
        span: half-width of each axis, in units of the direction; just enough for the path when left out.
        measures: names of sharpness measures to follow along training, separated by commas.
        every: take every so many-th checkpoint; the last one always.
        ignore: roles of tensors that stay fixed: bias, norm, weight, separated by commas; none for none.
            When left out none for pca, bias,norm for random.
        normalize: rule of random directions: filter, layer, weight or none.
        seed: of random directions, and of the measures' draws.
    """

    plane: str = "pca"
    points: int = 25
    span: float | None = None
    measures: str = ""
    every: int = 1
    ignore: str | None = None
    normalize: str = "filter"
    seed: int = 0

    def check(self) -> None:
        """ValueError for what no path can be asked for."""
        if self.plane not in ("pca", "random"):
            raise ValueError(f"--plane is {self.plane!r}: expected pca or random")
        if self.every < 1:
            raise ValueError(f"--every is {self.every}: expected at least 1")

    def names(self) -> list[str]:
        """The measures."""
        return [name.strip() for name in self.measures.split(",") if name.strip()]

    def made(self, objective: Objective, thetas: Sequence[Tensor]) -> Plane:
        """The plane."""
        from landscape.directions import random_plane
        from landscape.pca import pca_plane

        default = "none" if self.plane == "pca" else "bias,norm"
        words = (default if self.ignore is None else self.ignore).split(",")
        roles = [word.strip() for word in words if word.strip() not in ("", "none")]
        if self.plane == "pca":
            return pca_plane(objective, thetas, ignore=roles)
        last = thetas[-1].to(objective.theta)
        return random_plane(objective, self.normalize, roles, self.seed, theta=last)


_REQUEST = Request()
_SOURCE = Source()


def trajectory(
    *checkpoints: Path,
    out: Path = Path("trajectory.html"),
    quiet: Flag = False,
    request: Annotated[Request, Parameter(name="*")] = _REQUEST,
    source: Where = _SOURCE,
) -> None:
    """Draw the path of training over a plane, with what the plane hides; continues its files when they are there.

    Args:
        checkpoints: a run folder of ours; or three or more checkpoints in the order of training, sorted by the
            number in their names where they differ in one number only.
        out: the page. Beside it lie OUT-surface.nc and OUT-path.nc.
        quiet: no progress on standard error.
        request: which plane, and what is computed over it.
        source: what the loss is a loss of.
    """
    from landscape import trajectory_page
    from landscape.projection import project, window
    from landscape.soundness import refusals, troubles
    from landscape.spectra.eigenpairs import ConvergenceWarning
    from landscape.surface import evaluate
    from landscape.trajectory import follow

    require_suffix(out, ".html")
    request.check()
    objective, found = _found(checkpoints, request.every, source)
    steps, thetas = [step for step, _ in found], [theta for _, theta in found]
    plane = request.made(objective, thetas)
    span = request.span or window(project(plane, thetas).coordinates, request.points)
    label = (checkpoints[0] if len(checkpoints) == 1 else checkpoints[0].parent).resolve().name
    files = [out.with_name(f"{out.stem}-{part}.nc") for part in ("surface", "path")]
    with console.progress_bar("surface", quiet) as advance:
        surface = evaluate(
            objective, plane, span, request.points, files[0], label, advance, executor="repeatable"
        )
    own = len(checkpoints) > 1 and _has_running_statistics(objective)
    points = _reopened(steps, checkpoints, source) if own else found
    with warnings.catch_warnings(), console.progress_bar("path", quiet) as advance:
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # told below, for all checkpoints at once
        done = itertools.count(1)
        path = follow(
            objective, points, plane, request.names(), seed=request.seed, label=label, out=files[1],
            progress=lambda step: advance(next(done), len(steps), f"step {step}"),
        )  # fmt: skip
    notes = [NORM_NOTE] if _has_running_statistics(objective) else []
    group = str(objective.settings.get("split", "")) if len(checkpoints) == 1 else ""
    trajectory_page.write(out, surface, path, notes, f"{group} episodes" if group else "")
    print(f"{out}, {files[0]} and {files[1]}: {trajectory_page.lead(path)}")
    for caution in dict.fromkeys([*notes, *trajectory_page.cautions(path), *troubles(surface)]):
        print(f"  beware: {caution}")
    if doubts := [*refusals(surface), *trajectory_page.unconverged(path)]:
        raise console.Untrusted("; ".join(doubts))


def _found(
    checkpoints: Sequence[Path], every: int, source: Source
) -> tuple[Objective, list[tuple[int, Tensor]]]:
    """The objective, and every checkpoint's step and weights."""
    from landscape.source import describes_itself
    from landscape.spectra.along_training import run_checkpoints, run_points

    if len(checkpoints) == 1 and describes_itself(checkpoints[0]) is not None:
        (run,) = checkpoints
        taken = {step for step, _ in run_checkpoints(run)[::-1][::every]}
        objective = source.objective(run)
        return objective, [p for p in run_points(run, objective.space) if p[0] in taken]
    if len(checkpoints) < 3:
        raise ValueError(
            f"{len(checkpoints)} checkpoints given: expected a run folder of ours, or at least three "
            "checkpoints in the order of training"
        )
    chosen = in_order(checkpoints)[::-1][::every][::-1]
    objective = source.objective(chosen[-1][1])
    return objective, [(step, _weights(path, objective, source)) for step, path in chosen]


def _weights(path: Path, objective: Objective, source: Source) -> Tensor:
    """The weights of one checkpoint, ``(params,)``."""
    from landscape.checkpoint import read_weights

    if path.is_dir():
        return source.objective(path).theta
    weights = read_weights(
        path, key=source.key, allow=source.allow, trust_pickle=source.trust_pickle
    )
    return objective.space.flatten(weights.named_as(objective.space.names))


def _reopened(
    steps: Sequence[int], checkpoints: Sequence[Path], source: Source
) -> Iterable[tuple[int, Objective]]:
    """Each checkpoint as an objective of its own, with its own norm statistics; one at a time."""
    places = dict(in_order(checkpoints))
    return ((step, source.objective(places[step])) for step in steps)


def _has_running_statistics(objective: Objective) -> bool:
    """Whether the loss reads norm statistics that were stored with the weights."""
    module = getattr(objective, "module", None)
    if module is None or getattr(objective, "norm", None) != "eval":
        return False
    return any("running_" in name for name, _ in module.named_buffers())


def in_order(checkpoints: Sequence[Path]) -> list[tuple[int, Path]]:
    """Checkpoints with their steps, in the order of training.

    Where names differ in one number only, that is the step, and they are sorted by it: a shell puts epoch10
    before epoch9. Otherwise they stay as given, and the step is a number in their names that grows, or else
    their place.

    >>> [step for step, _ in in_order([Path("epoch10.pt"), Path("epoch2.pt"), Path("epoch9.pt")])]
    [2, 9, 10]
    >>> [step for step, _ in in_order([Path("a3_acc91.pt"), Path("b4_acc90.pt")])]
    [3, 4]
    >>> [step for step, _ in in_order([Path("first.pt"), Path("second.pt")])]
    [0, 1]
    """
    names = [re.sub(r"\d+", "#", path.stem) for path in checkpoints]
    numbers = [[int(n) for n in re.findall(r"\d+", path.stem)] for path in checkpoints]
    if len({len(row) for row in numbers}) > 1:
        return list(enumerate(checkpoints))
    columns = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(set(names)) == 1 and len(columns) == 1 and len(set(columns[0])) == len(names):
        return sorted(zip(columns[0], checkpoints, strict=True))
    for column in columns:
        if all(a < b for a, b in itertools.pairwise(column)):
            return list(zip(column, checkpoints, strict=True))
    return list(enumerate(checkpoints))
