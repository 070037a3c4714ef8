"""Our eigenvalues, traces, products of the meta-Hessian and memory, each in a process of its own.

    python benchmarks/spectra_ours.py pairs FOLDER PROBLEM ROW SEED K count|time
    python benchmarks/spectra_ours.py trace FOLDER ROW
    python benchmarks/spectra_ours.py meta
    python benchmarks/spectra_ours.py memory product|pairs

One JSON document on standard output.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from spectra_measure import Found, measure, needed, peak_mb
from spectra_problems import load
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import landscape
from landscape.operators.symmetric import MatrixOperator

PAIRS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, graphs kept": {"keep_graph": True, "check": False},
    "ours, streaming": {"keep_graph": False, "check": False},
    "ours, graphs kept, no copy check": {
        "keep_graph": True, "check": False, "multiplicity": "skip",
    },
    "ours, streaming, no copy check": {
        "keep_graph": False, "check": False, "multiplicity": "skip",
    },
}  # fmt: skip
"""Row -> options. Plain ``ours`` is the default: it keeps what fits and tests the operator first."""
VECTORS = 40  # in the memory run
WIDTH = 1408  # of its network: 4 million weights


def pairs(folder: str, name: str, row: str, seed: int, k: int, count: bool) -> dict[str, Any]:
    """Cost and quality of one row on one problem."""
    problem = load(folder, name)
    outcome = ""

    def run() -> Found:
        nonlocal outcome
        objective = landscape.DataObjective(problem.model, problem.batches)
        found = landscape.eigenpairs(objective, k=k, tol=1e-3, seed=seed, **PAIRS[row])
        outcome = found.outcome
        return Found(found.values, found.vectors, found.products)

    return {**measure(problem, run, count), "outcome": outcome}


def traces(folder: str, row: str) -> dict[str, Any]:
    """Products that one row needs on the matrix in the folder, those for the eigenpairs included."""
    k, method = TRACES[row]

    def run(matrix: Tensor, products: int, seed: int) -> tuple[float, float]:
        operator = MatrixOperator(matrix)
        found, spent = None, 0
        if k:
            found = landscape.eigenpairs(operator, k=k, seed=seed)
            spent = found.products
        probes = max(4, products - spent)
        result = landscape.trace(operator, probes=probes, seed=seed, pairs=found, method=method)
        return result.value, spent + result.products

    return needed(folder, run, mean=row == "ours, Hutchinson")


TRACES: dict[str, tuple[int, str]] = {
    "ours, Hutchinson": (0, "hutchinson"),
    "ours, XTrace": (0, "xtrace"),
    "ours, 5 eigenpairs found and deflated": (5, "auto"),
    "ours, 10 eigenpairs found and deflated": (10, "auto"),
}
"""Row -> eigenpairs deflated, method."""


def meta() -> dict[str, float]:
    """A product with the meta-Hessian in meta-gradients of the same tasks, by operations and by time."""
    from sharpmaml import models
    from sharpmaml.data import make_source
    from sharpmaml.inner import InnerLoop
    from sharpmaml.objective import MetaObjective
    from sharpmaml.tasks import network_task

    torch.set_num_threads(1)
    source = make_source("strokes", ways=5, shots=1, queries=15)
    model = models.build("conv4", {"ways": 5, "downsample": "stride"})
    space = landscape.ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))
    tasks = [network_task(model, space, source.episode(i), "classification") for i in range(4)]
    objective = MetaObjective(tasks, theta, space, InnerLoop(1, 0.4))
    v = torch.randn(space.size, generator=torch.Generator().manual_seed(0))
    operator = landscape.HessianOperator(objective)
    operator @ v  # what is paid once
    runs: dict[str, Callable[[], object]] = {
        "gradient": lambda: objective.gradient(theta),
        "product": lambda: operator @ v,
        "hvp": lambda: objective.hvp(theta, v),
    }
    flops = {name: _flops(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(5):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    times = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "product": flops["product"] / flops["gradient"],
        "product_time": times["product"] / times["gradient"],
        "hvp": flops["hvp"] / flops["gradient"],
        "hvp_time": times["hvp"] / times["gradient"],
    }


def _flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def memory(what: str) -> dict[str, float]:
    """Peak memory of one product with its graph kept, or of a Lanczos run of :data:`VECTORS` vectors."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH)]
    model = nn.Sequential(*layers, nn.Tanh(), nn.Linear(WIDTH, 10))
    x, y = torch.randn(64, WIDTH), torch.randint(10, (64,))
    objective = landscape.DataObjective(model, (x, y))
    size = objective.space.size
    made = 1
    if what == "product":
        _ = landscape.HessianOperator(objective, keep_graph=True) @ torch.ones(size)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", landscape.ConvergenceWarning)
            found = landscape.eigenpairs(
                objective, k=1, tol=1e-12, max_products=VECTORS + 1, keep_graph=True, check=False
            )
        made = found.products
    return {"peak_mb": peak_mb(), "params": size, "products": made}


def main(arguments: list[str]) -> None:
    match arguments:
        case ["pairs", folder, name, row, seed, k, "count" | "time" as what]:
            found: Any = pairs(folder, name, row, int(seed), int(k), what == "count")
        case ["trace", folder, row]:
            found = traces(folder, row)
        case ["meta"]:
            found = meta()
        case ["memory", "product" | "pairs" as what]:
            found = memory(what)
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
