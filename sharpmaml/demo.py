"""The whole job on embedded data: train four methods, score them, compare their landscapes, one page."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from landscape import console
from landscape import device as devices
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
    """
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
    page, tables = study.page(
        {LABELS[method]: runs / method for method in METHODS},
        title="Is Sharp-MAML's solution flatter than MAML's?",
        recipe="sharpmaml demo"
        + (" --quick" if quick else "")
        + (f" --seed {seed}" if seed else ""),
    )
    print("\n".join(table.to_text() for table in tables))
    _say(f"\nDone in {time.monotonic() - began:.0f} s. Open {page}")
    return page


def _side_by_side(study: Study, configs: dict[Path, TrainConfig]) -> None:
    context = multiprocessing.get_context("spawn")
    reports, halt = context.Queue(), context.Event()
    workers = min(len(configs), os.cpu_count() or 1)
    with (
        console.progress_board() as board,
        ProcessPoolExecutor(workers, context, _start_worker, (reports, halt)) as pool,
    ):
        jobs: list[Future[None]] = [
            pool.submit(_one_method, study, run, config) for run, config in configs.items()
        ]
        try:
            while not all(job.done() for job in jobs):
                try:
                    board(*reports.get(timeout=0.2))
                except queue.Empty:
                    continue
        except KeyboardInterrupt:
            # The workers were interrupted too, and save their state; none may take up the next method.
            halt.set()
            pool.shutdown(cancel_futures=True)
            raise
        for job in jobs:
            job.result()


_reports: Any = None
_halt: Any = None


def _start_worker(reports: Any, halt: Any) -> None:
    import torch

    global _reports, _halt
    _reports, _halt = reports, halt
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an idle worker has nothing to save or to say


def _one_method(study: Study, run: Path, config: TrainConfig) -> None:
    label = LABELS[config.method]
    told = 0.0

    def tell(done: int, total: int, what: str) -> None:
        nonlocal told
        if _halt.is_set():
            raise KeyboardInterrupt
        if done in (0, total) or time.monotonic() - told > 0.3:
            told = time.monotonic()
            _reports.put((label, done, total, what))

    def show(record: Any) -> None:
        tell(record["iteration"], config.iterations, f"training, loss {record['loss']:.2f}")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        train(config, run, resume=True, progress=show)
        study.measure(label, run, tell)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


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
