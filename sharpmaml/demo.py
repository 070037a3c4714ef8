"""The whole job on embedded data: train four methods, score them, compare their landscapes, one page."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from landscape import console
from landscape import device as devices
from landscape.holding import held
from landscape.writing import write_error
from sharpmaml import workers
from sharpmaml.checkpoint import LABELS
from sharpmaml.config import TrainConfig
from sharpmaml.data import load_images
from sharpmaml.study import Study
from sharpmaml.training import train

METHODS = ("maml", "sharp-low", "sharp-up", "sharp-both")

_FULL: dict[str, Any] = {
    "test_episodes": 600,
    "tasks": 5,
    "points": 11,
    "line_points": 21,
    "measures": ("gradient_norm", "lambda_max", "trace", "sam", "asam", "worst_l2", "average"),
    "settings": {
        "lambda_max": {"tol": 1e-2},
        "trace": {"probes": 8, "tol": 1e-2},
        "worst_l2": {"steps": 3},
        "average": {"pairs": 8},
    },
    "eigenvalues": {"k": 1, "tol": 2e-2, "probes": 3},
}
_QUICK: dict[str, Any] = {
    "test_episodes": 30,
    "tasks": 2,
    "points": 5,
    "line_points": 9,
    "measures": ("gradient_norm", "lambda_max", "sam", "average"),
    "settings": {"average": {"pairs": 4}, "lambda_max": {"tol": 5e-2}},
    "eigenvalues": {"k": 1, "tol": 5e-2, "probes": 2},
    "figures": False,
}


def run_demo(out: Path, *, quick: bool, seed: int, device: str) -> Path:
    """Train, evaluate and compare; print what is done and the table.

    All four methods start from the same weights and see the same episodes; all are measured on one and
    the same function, the plain MAML meta loss with the same test-time adaptation. Methods run side by
    side, one process and one thread each.

    Args:
        out: folder for runs, page and figures; what is already in it is continued.
        quick: the small size.
        seed: of weights, episodes and directions.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The page.

    Raises:
        HeldError: another demo writes the folder.
        Untrusted: a number on the page, which is written, fails a check of its own.
        WriteError: the disk is full, or the folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from None
    with held(out / "index.html"):
        return _demo(out, quick=quick, seed=seed, device=device)


def _demo(out: Path, *, quick: bool, seed: int, device: str) -> Path:
    began = time.monotonic()
    devices.resolve(device)  # a device that is not there is told now, not by four processes
    load_images("strokes")  # made once and cached, not once a process
    size = _QUICK if quick else _FULL
    # Sizes are kept apart, so that a quick look and the whole demo can share a folder.
    runs, kept = out / f"runs{'-quick' * quick}", f"measurements{'-quick' * quick}"
    study = Study(out=out, seed=seed, device=device, folder=kept, **size)
    configs = {method: _config(method, 20 if quick else 200, seed, device) for method in METHODS}
    _say(
        f"Training {', '.join(LABELS[m] for m in METHODS)} on strokes: procedural, handwriting-like characters.\n"
        f"5-way 1-shot, conv4, {configs['maml'].iterations} meta-updates each, from the same weights on the same "
        "episodes.\nThen, for each: accuracy on unseen classes, surfaces, eigenvalues and sharpness of the meta loss."
    )
    _side_by_side(study, {runs / method: config for method, config in configs.items()})
    _say("Drawing the page")
    page = study.page(
        {LABELS[method]: runs / method for method in METHODS},
        title="Is Sharp-MAML's solution flatter than MAML's?",
        recipe="sharpmaml demo"
        + (" --quick" if quick else "")
        + (f" --seed {seed}" if seed else ""),
    )
    print("\n".join(table.to_text() for table in page.tables))
    _say(f"\nDone in {time.monotonic() - began:.0f} s. Open {page.path}")
    if page.doubts:
        raise console.Untrusted("; ".join(page.doubts))
    return page.path


def _side_by_side(study: Study, configs: dict[Path, TrainConfig]) -> None:
    jobs = [(study, run, config) for run, config in configs.items()]
    with console.progress_board() as board:
        workers.side_by_side(
            jobs, min(len(jobs), os.cpu_count() or 1), _one_method, lambda job: LABELS[job[2].method], board
        )  # fmt: skip


def _one_method(job: tuple[Study, Path, TrainConfig], tell: console.Advance) -> None:
    study, run, config = job

    def show(record: Any) -> None:
        tell(record["iteration"], config.iterations, f"training, loss {record['loss']:.2f}")

    train(config, run, resume=True, progress=show)
    study.measure(LABELS[config.method], run, tell)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _config(method: str, iterations: int, seed: int, device: str) -> TrainConfig:
    return TrainConfig(
        method=method,
        data="strokes",
        downsample="stride",
        iterations=iterations,
        checkpoint_every=iterations,
        validate_every=iterations,
        validation_episodes=20,
        seed=seed,
        device=device,
    )
