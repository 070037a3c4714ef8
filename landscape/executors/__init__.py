"""Ways to evaluate the loss of a network at many points of a plane; all give the same numbers to rounding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.batches import tensors_in
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.evaluator import Evaluator
from landscape.executors.compiled import CompiledProgram, CudaGraphProgram
from landscape.executors.fused import FusedProgram
from landscape.executors.loop import ChunkLoop, PlainProgram, Program, Unsupported
from landscape.executors.stacked import VmapProgram

_ACTIVATION_BYTES = {"cpu": 6 * 2**20, "cuda": 512 * 2**20}
"""Largest activation of a chunk: on a CPU it should stay in the caches, on a GPU fill the device."""

_MAX_CHUNK = {"cpu": 512, "cuda": 8192}


def candidates(objective: DataObjective, plane: Plane) -> dict[str, Callable[[], Evaluator]]:
    """The ways to evaluate ``objective`` on ``plane``, by name; each is built when it is called.

    ``plain`` calls the network functionally on the objective's own batches and is what the others are
    checked against; ``chunked`` is the same in chunks whose activations stay in the caches; ``fused``
    rewrites the network for the plane; ``vmap`` stacks points; ``compile`` goes through
    ``torch.compile``; ``cudagraph`` replays a recording (CUDA only). Building one may raise
    `Unsupported`.
    """
    cuda = plane.origin.device.type == "cuda"
    cut = _chunk(objective)

    def made(name: str, make: Callable[[], Program], size: int | None) -> Callable[[], Evaluator]:
        def build() -> Evaluator:
            start = time.perf_counter()
            evaluator = ChunkLoop(name, objective, plane, make(), size)
            evaluator.setup_seconds = time.perf_counter() - start
            return evaluator

        return build

    result = {
        "plain": made("plain", lambda: PlainProgram(objective, plane), None),
        "chunked": made("chunked", lambda: PlainProgram(objective, plane), cut),
        "fused": made("fused", lambda: FusedProgram(objective, plane), cut),
        "vmap": made("vmap", lambda: VmapProgram(objective, plane), cut),
        "compile": made("compile", lambda: CompiledProgram(objective, plane, cut), cut),
    }
    if cuda:
        result["cudagraph"] = made("cudagraph", lambda: CudaGraphProgram(objective, plane), cut)
    return result


def _chunk(objective: DataObjective) -> int | None:
    """Examples a forward pass; ``None`` where another cut gives other numbers.

    That is so with batch statistics, and where the loss is the mean of its batch.
    """
    norms = [m for m in objective.module.modules() if isinstance(m, _BatchNorm)]
    whole = any(norm.running_mean is None for norm in norms)
    batch = objective.batches[0]
    largest = 1

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal largest
        largest = max(
            [largest, *(t.numel() * t.element_size() for t in tensors_in((args, output)))]
        )

    hooks = [module.register_forward_hook(watch) for module in objective.module.modules()]
    try:
        with torch.no_grad():
            # This call also tells whether the network writes into its inputs, before anything is compiled.
            output: Any = objective.call(objective.state(objective.theta), batch)
            if whole or objective.loss_of(output, batch).dim() == 0:
                return None
    finally:
        for hook in hooks:
            hook.remove()
    kind = "cuda" if objective.theta.device.type == "cuda" else "cpu"
    fitting = _ACTIVATION_BYTES[kind] * batch.size // largest
    return int(min(max(fitting, 16), _MAX_CHUNK[kind]))


__all__ = ["Evaluator", "Unsupported", "candidates"]
