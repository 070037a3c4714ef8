"""What finding eigenpairs cost and how good they are: the same yardstick in every tool's own process."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spectra_problems import Problem, exact_attention, residuals
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Found:
    """Eigenvalues as a tool returns them.

    Attributes:
        values: ``(k,)``.
        vectors: ``(k, params)``.
        products: Hessian-vector products made, all of them.
    """

    values: Tensor
    vectors: Tensor
    products: int


LADDER = (12, 16, 20, 24, 30, 36, 42, 48, 54, 60, 72, 84, 96, 120, 150, 180, 240, 300, 400, 600)
"""Numbers of products at which the error of a trace is looked at."""
SEEDS = 30
SAMPLES = 60  # of a mean, whose error at any other number follows

Estimate = Callable[[Tensor, int, int], tuple[float, float]]
"""The matrix, products, a seed -> a trace, the products made for it."""


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As the function."""
        self.calls += 1
        return self.function(*arguments, **options)


def measure(problem: Problem, find: Callable[[], Found], count: bool) -> dict[str, Any]:
    """Run ``find`` once, its set-up included.

    ``count`` counts floating-point operations and checks the pairs; otherwise processor time is taken, in
    seconds and in gradients of this process, timed before and after. Counting slows small operations
    down, so that it is a run of its own.
    """
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    if count:
        with exact_attention(), FlopCounterMode(display=False) as gradient:
            problem.gradient()
        with FlopCounterMode(display=False) as counter:
            found = find()
        result["fb"] = counter.get_total_flops() / gradient.get_total_flops()
    else:
        before = _gradient_seconds(problem)
        start = time.process_time()
        found = find()
        seconds = time.process_time() - start
        unit = statistics.median([*before, *_gradient_seconds(problem)])
        result |= {"seconds": seconds, "fb_time": seconds / unit, "gradient": unit}
    result["peak_mb"] = peak_mb()
    order = torch.argsort(found.values, descending=True)
    values = found.values[order].double().tolist()
    result |= {"values": values, "products": found.products}
    if count:
        with exact_attention():
            result["residuals"] = residuals(problem, values, found.vectors[order])
    return result


def peak_mb() -> float:
    """Most memory this process has held.

    Not ``ru_maxrss`` where Linux tells the other: a new process inherits that from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _gradient_seconds(problem: Problem) -> list[float]:
    with exact_attention():
        problem.gradient()
        seconds = []
        for _ in range(5):
            start = time.process_time()
            problem.gradient()
            seconds.append(time.process_time() - start)
    return seconds


def needed(folder: str | Path, estimate: Estimate, mean: bool) -> dict[str, Any]:
    """Products until a trace has a root mean square error of 1 % of the sum of all ``|eigenvalue|``.

    Over :data:`SEEDS` seeds, on the matrix that :func:`spectra_problems.dense` made. The error of a plain
    ``mean`` of samples is measured at :data:`SAMPLES` and falls with the root of their number; other estimates are
    made again at each step of the ladder.
    """
    torch.set_num_threads(1)
    stored = np.load(Path(folder) / "dense.npz")
    matrix = torch.from_numpy(stored["matrix"]).float()
    trace, scale = stored["values"].sum(), np.abs(stored["values"]).sum()
    for products in (SAMPLES,) if mean else LADDER:
        found = [estimate(matrix, products, seed) for seed in range(SEEDS)]
        values, made = np.array(found).T
        error = float(np.sqrt(np.mean((values - trace) ** 2)) / scale)
        if mean:
            return {"products": float(made.mean()) * (error / 0.01) ** 2, "error": 0.01}
        if error <= 0.01:
            return {"products": float(made.mean()), "error": error}
    return {"products": None, "error": error}
