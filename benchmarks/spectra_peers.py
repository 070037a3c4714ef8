"""Other tools' eigenvalues and traces, each called as its README does.

    PEERS/bin/python benchmarks/spectra_peers.py pairs FOLDER PROBLEM ROW SEED count|time
    PEERS/bin/python benchmarks/spectra_peers.py trace FOLDER ROW

One JSON document on standard output; PEERS as in ``peers.txt``. Nothing of theirs is copied or changed: products
are counted by wrapping the tool's own product.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from spectra_measure import Counted, Found, measure, needed
from spectra_problems import Problem, exact_attention, load
from torch import Tensor, nn

LOSS = nn.CrossEntropyLoss()


def pyhessian_loader(problem: Problem, seed: int, k: int, **options: Any) -> Found:
    """Power iteration, a fresh graph for every batch and product."""
    from pyhessian import hessian

    torch.manual_seed(seed)
    tool = hessian(problem.model, LOSS, dataloader=problem.batches, cuda=False)
    tool.dataloader_hv_product = product = Counted(tool.dataloader_hv_product)
    values, vectors = tool.eigenvalues(top_n=k, **options)
    return _rows(values, vectors, product.calls)


def pyhessian_batch(problem: Problem, seed: int, k: int, **options: Any) -> Found:
    """Power iteration on all examples as one batch, whose graph it keeps."""
    module = importlib.import_module("pyhessian.hessian")  # the package hides it behind its class
    torch.manual_seed(seed)
    tool = module.hessian(problem.model, LOSS, data=problem.whole(), cuda=False)
    plain = module.hessian_vector_product
    product = Counted(plain)
    setattr(module, plain.__name__, product)
    try:
        values, vectors = tool.eigenvalues(top_n=k, **options)
    finally:
        setattr(module, plain.__name__, plain)
    return _rows(values, vectors, product.calls)


def eigenthings(problem: Problem, seed: int, k: int, method: str, **options: Any) -> Found:
    """``lanczos`` or ``deflated_power_iteration``."""
    import hessian_eigenthings as tool

    loss = tool.supervised_loss(LOSS)
    operator = tool.HessianOperator(problem.model, problem.batches, loss)
    operator.matvec = product = Counted(operator.matvec)
    found = getattr(tool, method)(operator, k=k, seed=seed, **options)
    return Found(found.eigenvalues, found.eigenvectors, product.calls)


def curvlinops_eigsh(problem: Problem, seed: int, k: int, check: bool, tol: float) -> Found:
    """Its Hessian as a SciPy operator; ``check`` and ``tol=0`` are the defaults."""
    from curvlinops import HessianLinearOperator

    made = 0

    class Hessian(HessianLinearOperator):  # type: ignore[misc]
        def _matmat(self, columns: list[Tensor]) -> Any:
            nonlocal made
            made += columns[0].shape[-1]
            return super()._matmat(columns)

    operator = Hessian(
        problem.model, LOSS, problem.weights, problem.batches, check_deterministic=check
    )
    start = np.random.default_rng(seed).standard_normal(problem.size).astype(np.float32)
    values, vectors = eigsh(operator.to_scipy(), k=k, which="LA", tol=tol, v0=start)
    return Found(torch.from_numpy(values), torch.from_numpy(vectors.T.copy()).float(), made)


def _rows(values: list[float], vectors: list[list[Tensor]], products: int) -> Found:
    flat = [torch.cat([t.reshape(-1) for t in v]).detach() for v in vectors]
    return Found(torch.tensor(values, dtype=torch.float64), torch.stack(flat), products)


PAIRS: dict[str, tuple[str, Callable[..., Found], dict[str, Any]]] = {
    "pyhessian, loader": ("PyHessian", pyhessian_loader, {}),
    "pyhessian, loader, tol=3e-6": (
        "PyHessian", pyhessian_loader, {"tol": 3e-6, "maxIter": 1000}
    ),
    "pyhessian, one batch": ("PyHessian", pyhessian_batch, {}),
    "pyhessian, one batch, tol=3e-6": (
        "PyHessian", pyhessian_batch, {"tol": 3e-6, "maxIter": 1000}
    ),
    "hessian-eigenthings, lanczos": ("hessian-eigenthings", eigenthings, {"method": "lanczos"}),
    "hessian-eigenthings, lanczos, max_iter=20": (
        "hessian-eigenthings", eigenthings, {"method": "lanczos", "max_iter": 20}
    ),
    "hessian-eigenthings, lanczos, max_iter=30": (
        "hessian-eigenthings", eigenthings, {"method": "lanczos", "max_iter": 30}
    ),
    "hessian-eigenthings, deflated power": (
        "hessian-eigenthings", eigenthings, {"method": "deflated_power_iteration"}
    ),
    "curvlinops + eigsh": (
        "curvlinops-for-pytorch", curvlinops_eigsh, {"check": True, "tol": 0.0}
    ),
    "curvlinops + eigsh, tol=1e-3, no check": (
        "curvlinops-for-pytorch", curvlinops_eigsh, {"check": False, "tol": 1e-3}
    ),
}  # fmt: skip
"""Row -> package, function, options; default settings unless the row says otherwise."""
SLOW = (
    "pyhessian, loader, tol=3e-6",
    "pyhessian, one batch, tol=3e-6",
    "hessian-eigenthings, deflated power",
)
"""Rows that need many hundreds of products."""


class Quadratic(nn.Module):
    """``wᵀ H w / 2``: a network whose Hessian is a given matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.w = nn.Parameter(torch.zeros(len(matrix)))

    def forward(self, _: Tensor) -> Tensor:
        """The input is not looked at."""
        return 0.5 * self.w @ (self.matrix @ self.w)


def pyhessian_trace(matrix: Tensor, products: int, seed: int) -> float:
    """The mean of its samples; ``tol=0`` lets it make as many as asked for."""
    from pyhessian import hessian

    torch.manual_seed(seed)
    nothing = torch.zeros(1)
    tool = hessian(Quadratic(matrix), lambda out, _: out, data=(nothing, nothing), cuda=False)
    return float(np.mean(tool.trace(maxIter=products, tol=0.0)))


def eigenthings_trace(matrix: Tensor, products: int, seed: int, method: str) -> float:
    """Its ``trace``."""
    import hessian_eigenthings as tool

    operator = tool.LambdaOperator(
        lambda v: matrix @ v, size=len(matrix), device=matrix.device, dtype=matrix.dtype
    )
    return float(tool.trace(operator, num_matvecs=products, method=method, seed=seed).estimate)


def curvlinops_trace(matrix: Tensor, products: int, seed: int, name: str) -> float:
    """``hutchinson_trace``, ``hutchpp_trace`` or ``xtrace``, which take a matrix."""
    import curvlinops

    torch.manual_seed(seed)
    return float(getattr(curvlinops, name)(matrix, products))


TRACES: dict[str, tuple[str, Callable[..., float], dict[str, Any]]] = {
    "pyhessian, trace": ("PyHessian", pyhessian_trace, {}),
    "hessian-eigenthings, hutchinson": (
        "hessian-eigenthings", eigenthings_trace, {"method": "hutchinson"}
    ),
    "hessian-eigenthings, hutch++": (
        "hessian-eigenthings", eigenthings_trace, {"method": "hutch++"}
    ),
    "curvlinops, hutchinson_trace": (
        "curvlinops-for-pytorch", curvlinops_trace, {"name": "hutchinson_trace"}
    ),
    "curvlinops, hutchpp_trace": (
        "curvlinops-for-pytorch", curvlinops_trace, {"name": "hutchpp_trace"}
    ),
    "curvlinops, xtrace": ("curvlinops-for-pytorch", curvlinops_trace, {"name": "xtrace"}),
}  # fmt: skip
"""As :data:`PAIRS`."""
MEANS = ("pyhessian, trace", "hessian-eigenthings, hutchinson", "curvlinops, hutchinson_trace")
"""Those that are a mean of independent samples."""


def pairs(folder: str, name: str, row: str, seed: int, count: bool) -> dict[str, Any]:
    """Cost and quality of one row on one problem."""
    package, find, options = PAIRS[row]
    problem = load(folder, name)

    def run() -> Found:
        with exact_attention():
            return find(problem, seed, 5, **options)

    found = measure(problem, run, count)
    return {**found, "version": importlib.metadata.version(package)}


def traces(folder: str, row: str) -> dict[str, Any]:
    """Products that one row needs on the matrix in the folder."""
    package, estimate, options = TRACES[row]

    def run(matrix: Tensor, products: int, seed: int) -> tuple[float, float]:
        return estimate(matrix, products, seed, **options), products

    found = needed(folder, run, mean=row in MEANS)
    return {**found, "version": importlib.metadata.version(package)}


def main(arguments: list[str]) -> None:
    match arguments:
        case ["pairs", folder, name, row, seed, "count" | "time" as what]:
            print(json.dumps(pairs(folder, name, row, int(seed), what == "count")))
        case ["trace", folder, row]:
            print(json.dumps(traces(folder, row)))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
