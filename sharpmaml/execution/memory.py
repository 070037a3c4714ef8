"""What one pass takes in memory, found on one task with one and two inner steps before training begins."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sharpmaml.execution.batches import NetworkBatch
from sharpmaml.execution.named import made
from sharpmaml.execution.stacked import Stacked
from sharpmaml.plan import Executor, Plan


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made while it is entered, and their peak.

    Not `torch.autograd.graph.saved_tensors_hooks`: those are refused inside ``torch.func``, and the
    temporary tensors of a backward pass would be missing. Workspace inside of kernels is not seen.

    Attributes:
        now: bytes that live.
        peak: the most that lived at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the operation, then count the storages that it made."""
        before = {s._cdata for s in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            key, size = storage._cdata, storage.nbytes()
            if key in before or key in self._known:
                continue
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size).atexit = False
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    leaves = pytree.tree_leaves(tree)
    return [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, Tensor)]


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most memory that ``call`` takes at a time beyond what is taken already, in bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - int(before)
    live = LiveBytes()
    with live:
        call()
    return live.peak


def estimate(
    sample: NetworkBatch,
    theta: Tensor,
    plan: Plan,
    executor_name: str,
    tasks_at_once: int = 0,
    tasks: int = 1,
) -> int:
    """Bytes that one pass takes at its peak, beyond the network, the episodes and ``theta``.

    One task of the sample is computed with one and with two inner steps; from there the peak grows by
    the same amount with every step, and in proportion to the tasks at once. It counts tensors: on a CPU
    the allocator keeps freed blocks too, and the resident memory has been seen at up to three times this.

    Args:
        sample: tasks like those of the meta-batch; the first is used.
        theta: the initialization, ``(params,)``.
        plan: what a pass computes.
        executor_name: as `sharpmaml.execution.named.MAKERS` lists them; ``"compile"`` counts as ``"vmap"``.
        tasks_at_once: as the executor is told; 0: all, or what the executor finds best.
        tasks: tasks of the meta-batch.

    Raises:
        ValueError: an executor that is unknown or does not take these tasks.
    """
    executor = made("vmap" if executor_name == "compile" else executor_name, tasks_at_once)
    steps = plan.inner.steps
    if isinstance(executor, Stacked):
        together = min(executor.together(sample), tasks)
        chunk = _stacked(executor.room(plan, theta.device), sample, theta, plan, together)
    else:
        together = 1 if executor_name == "loop" else min(tasks_at_once or tasks, tasks)
        chunk = together * _of_one(made(executor.name, 1), sample, theta, plan)
    vectors = 1 + steps * plan.learns_rates  # of every chunk, until all are averaged
    kept = vectors * math.ceil(tasks / together) + steps * plan.keeps_ascents * tasks
    return chunk + kept * theta.numel() * theta.element_size()


def _of_one(executor: Executor, sample: NetworkBatch, theta: Tensor, plan: Plan) -> int:
    one, steps = first_of(sample, 1), plan.inner.steps
    if theta.is_cuda:
        executor(
            one, theta, with_steps(plan, min(steps, 1))
        )  # the workspace of its libraries stays
    seen = [
        peak_bytes(partial(executor, one, theta, with_steps(plan, k)), theta.device)
        for k in range(min(steps, 1), min(steps, 2) + 1)
    ]
    step = seen[-1] - seen[-2] if len(seen) > 1 else 0
    return seen[-1] + max(step, 0) * max(steps - 2, 0)


def _stacked(room: int, sample: NetworkBatch, theta: Tensor, plan: Plan, together: int) -> int:
    """A chunk of tasks that keeps its passes while they fit into ``room``."""
    kept = together * _of_one(Stacked(1), sample, theta, plan)
    if kept <= room:
        return kept
    return min(kept, room + together * _of_one(Stacked(1, 0), sample, theta, plan))


def first_of(sample: NetworkBatch, count: int) -> NetworkBatch:
    """The first tasks of a sample."""
    made_of: Any = sample
    fewer: NetworkBatch = replace(made_of, episodes=sample.episodes[:count])
    return fewer


def with_steps(plan: Plan, steps: int) -> Plan:
    """The plan with fewer inner steps; of the weights of the multi-step loss, the last are left."""
    weights = plan.weights[len(plan.weights) - steps :] if plan.weights is not None else None
    return replace(plan, inner=replace(plan.inner, steps=steps), weights=weights)
