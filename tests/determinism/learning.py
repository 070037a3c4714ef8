"""Subjects about learning to learn: training by every method and executor, evaluation, meta objectives."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from determinism.functions import hessian_of, sharpness_of, surface_of
from determinism.lab import RANKS, SUBJECTS, Conditions, Numbers, Stop, Subject, Work, stopping
from sharpmaml import checkpoint as checkpoints
from sharpmaml.config import METHODS, TrainConfig
from sharpmaml.evaluation import evaluate
from sharpmaml.objective import meta_objective
from sharpmaml.training import train

_IMAGES = {
    "data": "strokes", "data_options": {"alphabets": 4}, "ways": 3, "queries": 3, "iterations": 6,
    "meta_batch": 5, "checkpoint_every": 2, "validate_every": 3, "validation_episodes": 7, "channels": 16,
    "downsample": "stride", "device": "cpu", "test_steps": 2, "inner_steps": 2,
}  # fmt: skip
_SINES = {
    "data": "sinusoid", "shots": 10, "queries": 10, "iterations": 8, "meta_batch": 7, "checkpoint_every": 3,
    "validate_every": 4, "validation_episodes": 9, "inner_rate": 0.01, "test_steps": 2, "channels": 40,
    "device": "cpu",
}  # fmt: skip


def training(settings: Mapping[str, Any]) -> Work:
    def work(given: Conditions, team: Any, folder: Path) -> Numbers:
        config = TrainConfig(**settings)
        if given.stopped:
            with contextlib.suppress(Stop):
                train(config, folder / "run", progress=stopping(4))
        run = train(config, folder / "run", resume=given.stopped)
        if team.rank:
            return {}
        end = checkpoints.read(checkpoints.steps(run.path)[-1])
        found = {"theta": end.theta.numpy()}
        if end.rates is not None:
            found["rates"] = end.rates.numpy()
        log: dict[int, dict[str, Any]] = {}
        for line in (run.path / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            record.pop("seconds")
            log[record["iteration"]] = record
        for key in ("loss", "gradient_norm"):
            found[key] = np.array([log[i][key] for i in sorted(log)])
        found["validation"] = repr([log[i].get("validation") for i in sorted(log)])
        return found

    return work


def _run_of(folder: Path, settings: Mapping[str, Any]) -> Any:
    return train(TrainConfig(**{**settings, "iterations": 3}), folder / "run")


def _alone(folder: Path, make: Callable[[Path], Any], team: Any) -> Path:
    """What one process makes before the others go on: on ranks each makes its own, as if it were alone."""
    place = folder / f"own{team.rank}"
    place.mkdir(exist_ok=True)
    kept = {n: os.environ.pop(n) for n in ("WORLD_SIZE",) if n in os.environ}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        make(place)
    finally:
        os.environ.update(kept)
        torch.set_num_threads(threads)
    return place / "run"


def meta_surface(executor: str) -> Work:
    def work(given: Conditions, team: Any, folder: Path) -> Numbers:
        run = _alone(folder, lambda place: _run_of(place, _IMAGES), team)
        return surface_of(lambda: meta_objective(run, episodes=5), executor)(given, team, folder)

    return work


def meta_sharpness(given: Conditions, team: Any, folder: Path) -> Numbers:
    run = _alone(folder, lambda place: _run_of(place, _SINES), team)
    return sharpness_of(lambda: meta_objective(run, episodes=4))(given, team, folder)


def meta_hessian(given: Conditions, team: Any, folder: Path) -> Numbers:
    run = _alone(folder, lambda place: _run_of(place, _SINES), team)
    return hessian_of(lambda: meta_objective(run, episodes=4), k=2)(given, team, folder)


def scored(given: Conditions, team: Any, folder: Path) -> Numbers:
    run = _alone(folder, lambda place: _run_of(place, _IMAGES), team)
    return {"scores": evaluate(run, episodes=40).scores}


_RESUMED, _FEW = "resumed", "few at a time"
_MAIN = ("theta", "rates")
for _method in METHODS:
    SUBJECTS[f"training: {_method}, images"] = Subject(
        training({**_IMAGES, "method": _method}), (_RESUMED,), (*RANKS, "2 threads"), _MAIN
    )
for _executor in ("loop", "vmap", "adjoint", "stacked"):
    SUBJECTS[f"training: sharp-both, sinusoids, {_executor}"] = Subject(
        training({**_SINES, "method": "sharp-both", "executor": _executor}),
        (_RESUMED,), (*RANKS, "2 threads"), _MAIN,
    )  # fmt: skip
SUBJECTS["training: sharp-both, sinusoids, float64"] = Subject(
    training({**_SINES, "dtype": "float64", "method": "sharp-both"}),
    (_RESUMED,), (*RANKS, "2 threads"), _MAIN,
)  # fmt: skip
SUBJECTS["evaluation, images"] = Subject(scored, (_FEW,), ("2 threads",))
for _executor in ("plain", "vmap", "stacked"):
    SUBJECTS[f"meta surface: {_executor}"] = Subject(
        meta_surface(_executor), (_FEW, _RESUMED, *RANKS), ("2 threads",), ("loss", "terms")
    )
SUBJECTS["meta sharpness: all measures"] = Subject(
    meta_sharpness, (_RESUMED,), ("2 threads",), ("/value",), tolerance=2e-2
)
SUBJECTS["meta Hessian"] = Subject(meta_hessian, (), (*RANKS, "2 threads"), ("/value",))
