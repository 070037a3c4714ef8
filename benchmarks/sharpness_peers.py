"""The published sharpness code and PyHessian, each called as its scripts and its README do.

    PEERS/bin/python benchmarks/sharpness_peers.py published CODE DATA EXAMPLES MEASURE RADIUS M SEED
    PEERS/bin/python benchmarks/sharpness_peers.py pyhessian DATA EXAMPLES top5|trace SEED

One JSON document on standard output; PEERS as in ``peers.txt``, CODE a checkout of
https://github.com/tml-epfl/sharpness-vs-generalization. Nothing of theirs is copied or changed: their ``.cuda()``
calls are made to do nothing, and the losses that they compute are read as they come.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import contextlib
import importlib
import importlib.metadata
import io
import json
import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sharpness_problem import RADII, Passes, Watched, counted, gradient_flops, load
from torch import Tensor, nn

DRAWS = STEPS = 20  # --n_iters of sh/eval_sharpness_final.sh


def published(
    code: str, data: str, examples: int, name: str, radius: float, size: int, seed: int
) -> dict[str, Any]:
    """One run of ``eval_sharpness.py``: one algorithm, one radius, batches of one size."""
    model, batches = load(data, examples, size)
    unit = gradient_flops(model, batches)
    passes = Passes()
    watched = Watched(model, passes)
    sharpness = _import(code)
    seen: list[float] = []

    def loss(output: Tensor, y: Tensor) -> Tensor:
        found = F.cross_entropy(output, y, reduction="mean")
        seen.append(float(found.detach()))
        return found

    given = [(x, x, y, y, y) for x, y in batches]  # as their loaders yield: only x and y are read
    torch.manual_seed(seed)
    with counted(passes, examples, unit) as costs, contextlib.redirect_stdout(io.StringIO()):
        if name.startswith("average"):
            value, *_ = sharpness.eval_average_sharpness(
                watched, given, loss, rho=radius, n_iters=DRAWS, return_output=True,
                adaptive="adaptive" in name, norm="l2",
            )  # fmt: skip
        else:
            value, *_ = sharpness.eval_APGD_sharpness(
                watched, given, loss, 0.0, 0.0, rho=radius, n_iters=STEPS, n_restarts=1,
                step_size_mult=1.0, rand_init=False, no_grad_norm=False, verbose=True,
                return_output=True, adaptive="adaptive" in name,
                norm="linf" if "linf" in name else "l2",
            )  # fmt: skip
    found = {"value": value, **costs}
    if name.startswith("average"):
        # A batch: its loss, then one for each of its own draws.
        rises = np.array(seen).reshape(len(batches), 1 + DRAWS)[:, 1:]
        found["stderr"] = float(np.sqrt((rises.var(1, ddof=1) / DRAWS).sum()) / len(batches))
    return found


def pyhessian(data: str, examples: int, what: str, seed: int) -> dict[str, Any]:
    """``eigenvalues(top_n=5)`` or ``trace()`` over a loader, everything else at its default."""
    from pyhessian import hessian

    model, batches = load(data, examples)
    unit = gradient_flops(model, batches)
    products = 0
    torch.manual_seed(seed)
    tool = hessian(model, nn.CrossEntropyLoss(), dataloader=batches, cuda=False)
    plain = tool.dataloader_hv_product

    def product(v: list[Tensor]) -> Any:
        nonlocal products
        products += 1
        return plain(v)

    tool.dataloader_hv_product = product
    with counted(Passes(), examples, unit) as costs:
        found = tool.eigenvalues(top_n=5)[0] if what == "top5" else tool.trace()
    version = importlib.metadata.version("PyHessian")
    costs = {key: value for key, value in costs.items() if key != "passes"}
    result: dict[str, Any] = {"products": products, "version": version, **costs}
    if what == "top5":
        return {"values": sorted(found, reverse=True), **result}
    error = float(np.std(found, ddof=1)) / len(found) ** 0.5
    return {"value": float(np.mean(found)), "stderr": error, **result}


def _import(code: str) -> Any:
    # Before this script's own folder, where another file has the same name.
    sys.path.insert(0, code)
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,misc]
    return importlib.import_module("sharpness")


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    match arguments:
        case ["published", code, data, examples, name, radius, size, seed] if name in RADII:
            found = published(code, data, int(examples), name, float(radius), int(size), int(seed))
        case ["pyhessian", data, examples, "top5" | "trace" as what, seed]:
            found = pyhessian(data, int(examples), what, int(seed))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
