"""One run from end to end: trained, scored, and its landscape measured, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from landscape import json_text
from landscape.directions import random_plane
from landscape.sharpness.registry import available
from landscape.sharpness.running import sharpness
from landscape.surface import evaluate as evaluate_surface
from sharpmaml.checkpoint import Checkpoint, read
from sharpmaml.config import TrainConfig
from sharpmaml.evaluation import evaluate
from sharpmaml.objective import MetaObjective, meta_objective
from sharpmaml.reproduction.depth import ADAPTED, HEADLINE, Depth
from sharpmaml.reproduction.keeping import SKIPPED, kept, piece_folder, run_folder
from sharpmaml.reproduction.protocols import Condition, Experiment
from sharpmaml.training import DivergedError, train

Progress = Callable[[int, int, str], None]

SEED = 0
"""Of test episodes, tasks, directions and draws: the same for every run."""


@dataclass(frozen=True)
class Work:
    """One run that is asked for.

    Attributes:
        out: folder of the reproduction.
        experiment: which one.
        config: settings of the run.
        depth: how much is measured.
    """

    out: Path
    experiment: Experiment
    config: TrainConfig
    depth: Depth

    @property
    def label(self) -> str:
        """Name for progress."""
        return f"{self.experiment.key} {self.config.method} seed {self.config.seed}"


@dataclass(frozen=True)
class RunResult:
    """What was found of a run.

    Attributes:
        experiment: key of the experiment.
        method: name of the method.
        seed: of the run.
        failure: why there are no numbers; empty where there are.
        step: meta-update of the checkpoint that was chosen by validation.
        fingerprint: of its weights.
        metric: ``"accuracy"`` or ``"mse"``.
        scores: ``"test, 3 steps"`` -> one score an episode.
        conditions: label of a condition -> one score an episode.
        skipped: condition or measure -> why it could not be had.
        reports: ``"initialization"`` and ``"adapted"`` -> file of a sharpness report.
        task_scores: scores of the tasks of the adapted report.
        surfaces: ``"line"`` and ``"surface"`` -> file, for seed 0.
        updates: meta-updates done.
        update_seconds: median seconds of a meta-update.
        fastest_seconds: of the fastest hundredth of them, which other work on the machine hardly moves.
        total_seconds: of all meta-updates.
    """

    experiment: str
    method: str
    seed: int
    failure: str = ""
    step: int = 0
    fingerprint: str = ""
    metric: str = ""
    scores: Mapping[str, list[float]] = field(default_factory=dict)
    conditions: Mapping[str, list[float]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, Path] = field(default_factory=dict)
    task_scores: list[float] = field(default_factory=list)
    surfaces: Mapping[str, Path] = field(default_factory=dict)
    updates: int = 0
    update_seconds: float = math.nan
    fastest_seconds: float = math.nan
    total_seconds: float = math.nan


def one_run(work: Work, tell: Progress) -> RunResult:
    """Train and measure one run; what is on disk already is not made again.

    Args:
        work: the run.
        tell: called as ``tell(done, total, what)``.

    Raises:
        KeyboardInterrupt: interrupted; everything finished is kept.
        DataError, CheckpointError, ValueError: as training and evaluation.
    """
    config, experiment = work.config, work.experiment
    place = run_folder(work.out, experiment.key, config.method, config.seed)
    try:
        train(
            config,
            place,
            resume=True,
            progress=lambda record: tell(
                record["iteration"], config.iterations, f"training, loss {record['loss']:.3g}"
            ),
        )
    except DivergedError as error:
        return RunResult(experiment.key, config.method, config.seed, failure=str(error))
    given = read(place)
    folder = piece_folder(work.out, experiment.key, config.method, config.seed)
    pieces = _Pieces(work, given, folder, tell)
    scores = {
        named(split, steps): pieces.scores(split, steps)
        for split, steps in [
            ("train", experiment.steps[0]),
            *(("test", s) for s in experiment.steps),
        ]
    }
    conditions = {c.label: pieces.condition(c) for c in experiment.conditions}
    tasks = pieces.objective("test", work.depth.adapted_tasks)
    reports = {
        "initialization": pieces.report(
            "initialization",
            pieces.objective("train", work.depth.ledger_tasks),
            "all" if work.depth.everything and config.seed == 0 else HEADLINE,
        ),
        "adapted": pieces.report("adapted", tasks, ADAPTED),
    }
    record = next(iter(scores.values()))
    return RunResult(
        experiment.key,
        config.method,
        config.seed,
        step=given.step,
        fingerprint=given.fingerprint,
        metric=record["metric"],
        scores={name: found["scores"] for name, found in scores.items()},
        conditions={n: f["scores"] for n, f in conditions.items() if SKIPPED not in f},
        skipped={n: f[SKIPPED] for n, f in conditions.items() if SKIPPED in f} | pieces.failed,
        reports=reports,
        task_scores=pieces.task_scores(tasks, record["metric"]),
        surfaces=pieces.surfaces() if config.seed == 0 else {},
        **timings(place / "metrics.jsonl"),
    )


_LONGEST = 1e9  # seconds of an update


def named(split: str, steps: int) -> str:
    """Name of a score.

    >>> named("test", 3)
    'test, 3 steps'
    """
    return f"{split}, {steps} step" + "s" * (steps != 1)


def timings(log: Path) -> dict[str, Any]:
    """Updates, median, fastest and total seconds from a run's ``metrics.jsonl``; a line cut short is left out."""
    seconds: list[float] = []
    if log.exists():
        for line in log.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found = float(json_text.parsed(line)["seconds"])
                seconds += [found] if 0 <= found < _LONGEST else []
            except (ValueError, LookupError, TypeError, OverflowError):
                continue
    if not seconds:
        return {}
    return {
        "updates": len(seconds),
        "update_seconds": float(np.median(seconds)),
        "fastest_seconds": float(np.quantile(seconds, 0.01)),
        "total_seconds": float(np.sum(seconds)),
    }


class _Pieces:
    """The measurements of one checkpoint."""

    def __init__(self, work: Work, given: Checkpoint, folder: Path, tell: Progress) -> None:
        self.work, self.given, self.folder, self.tell = work, given, folder, tell
        self.config, self.depth = work.config, work.depth
        self.failed: dict[str, str] = {}

    def scores(self, split: str, steps: int) -> dict[str, Any]:
        """Scores of the episodes of ``split`` after ``steps`` plain steps."""
        asked = {
            "weights": self.given.fingerprint, "split": split, "steps": steps,
            "episodes": self.depth.episodes, "seed": SEED,
        }  # fmt: skip
        file = self.folder / f"scores-{split}-{steps}.json"
        self.tell(0, self.depth.episodes, f"scores, {named(split, steps)}")
        return kept(file, asked, lambda: self._scored(split, steps, self.depth.episodes, {}))

    def condition(self, condition: Condition) -> dict[str, Any]:
        """Scores under a shift or label noise; ``{"skipped": reason}`` where it cannot be had."""
        episodes, steps = self.depth.condition_episodes, self.config.test_steps
        other = {
            name: value
            for name, value, plain in (
                ("shift", condition.shift, "none"),
                ("label_noise", condition.label_noise, 0.0),
                ("data", condition.data, None),
            )
            if value != plain
        }
        asked = {
            "weights": self.given.fingerprint, "steps": steps, "episodes": episodes, "seed": SEED, **other,
        }  # fmt: skip
        name = "-".join(str(value).replace(".", "") for value in other.values())
        self.tell(0, episodes, f"scores, {condition.label}")

        def make() -> dict[str, Any]:
            try:
                return self._scored("test", steps, episodes, other)
            except (ValueError, RuntimeError) as error:
                return {SKIPPED: " ".join(str(error).split())}

        return kept(self.folder / f"condition-{name}.json", asked, make)

    def objective(self, split: str, tasks: int) -> MetaObjective:
        """The plain MAML meta loss of the checkpoint."""
        return meta_objective(
            self.given, episodes=tasks, seed=SEED, split=split,
            data_root=self.config.data_root, device=self.config.device,
        )  # fmt: skip

    def report(self, name: str, objective: MetaObjective, measures: Any) -> Path:
        """File of a sharpness report, which is continued where it is not complete."""
        tasks, kind = len(objective.tasks), "all" if measures == "all" else "some"
        file = self.folder / f"{name}-{self.given.fingerprint}-{tasks}-{kind}.json"
        names = list(available(objective)) if measures == "all" else list(measures)

        def run(some: Any) -> None:
            sharpness(
                objective,
                some,
                seed=SEED,
                settings=self.depth.settings(),
                out=file,
                announce=lambda done, total, what: self.tell(
                    done, total, f"sharpness, {name}: {what}"
                ),
            )

        def one_by_one() -> dict[str, Any]:
            failed = {}
            for each in names:
                try:
                    run([each])
                except (ValueError, RuntimeError) as error:
                    failed[each] = " ".join(str(error).split())
            return failed

        # One measure that this network does not allow must not cost the run all others, nor be tried
        # again, minutes each time, whenever the reproduction is continued.
        failures = self.folder / f"{name}-failures.json"
        if not failures.exists():
            try:
                run(measures)
                return file
            except (ValueError, RuntimeError):
                pass
        asked = {"weights": self.given.fingerprint, "tasks": tasks, "measures": kind, "seed": SEED}
        failed = kept(failures, asked, one_by_one)
        run([each for each in names if each not in failed])
        self.failed.update({f"{each} ({name})": reason for each, reason in failed.items()})
        return file

    def task_scores(self, objective: MetaObjective, metric: str) -> list[float]:
        """Accuracy, or the query loss, of each task after adaptation."""
        asked = {"weights": self.given.fingerprint, "tasks": len(objective.tasks), "seed": SEED}

        def make() -> dict[str, Any]:
            found = objective.scores(objective.theta)
            values = found["accuracy" if metric == "accuracy" else "loss"]
            return {"scores": values.double().tolist()}

        scores: list[float] = kept(self.folder / "task-scores.json", asked, make)["scores"]
        return scores

    def surfaces(self) -> dict[str, Path]:
        """Files of the line and the plane through the initialization."""
        made = {}
        objective = self.objective("train", self.depth.ledger_tasks)
        wanted = (("line", 1, self.depth.line_points), ("surface", 2, self.depth.points))
        for name, axes, points in wanted:
            if points:
                stem = f"{name}-{self.given.fingerprint}-{len(objective.tasks)}-{points}"
                made[name] = self.folder / f"{stem}.nc"
                evaluate_surface(
                    objective,
                    random_plane(objective, seed=SEED, axes=axes),
                    points=points,
                    out=made[name],
                    executor="repeatable",
                    progress=lambda done, total, name=name: self.tell(done, total, name),  # type: ignore[misc]
                )
        return made

    def _scored(
        self, split: str, steps: int, episodes: int, other: Mapping[str, Any]
    ) -> dict[str, Any]:
        found = evaluate(
            self.given, episodes=episodes, split=split, seed=SEED, steps=steps,
            data_root=None if "data" in other else self.config.data_root,
            device=self.config.device, **other,
        )  # fmt: skip
        return {"metric": found.metric, "scores": found.scores.tolist()}
