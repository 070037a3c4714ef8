"""Which executor computes a training: by a fixed rule on a CPU, by measurement on a GPU or where asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from landscape import device as devices
from sharpmaml.execution import memory
from sharpmaml.execution.batches import NetworkBatch
from sharpmaml.execution.named import made
from sharpmaml.execution.stacked import Stacked
from sharpmaml.plan import Executor, Plan

CHOICES = ("auto", "measure", "loop", "vmap", "adjoint", "stacked", "compile")

_SHARE = 0.5  # of the free memory of a GPU that the tasks that go together may fill
_ENTRIES = 4_000_000  # of the weights of all tasks that go together on a CPU
_REPEATS = 3


@dataclass(frozen=True)
class Candidate:
    """One executor, tried on the sample.

    Attributes:
        name: of the executor.
        tasks_at_once: that it was given.
        seconds: of one pass over the sample, the best of three; ``None``: it could not be used.
        bytes: peak memory of such a pass.
        why: what kept it from being used; empty otherwise.
    """

    name: str
    tasks_at_once: int
    seconds: float | None = None
    bytes: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Choice:
    """An executor, and how it came to be.

    Attributes:
        executor: ready to be called.
        name: its name; a resumed run asks for it by this, without measuring again.
        tasks_at_once: tasks that it takes together, for the same purpose.
        reason: one line.
        table: what was measured; empty where nothing was.
    """

    executor: Executor
    name: str
    tasks_at_once: int
    reason: str
    table: tuple[Candidate, ...] = ()


def choose(
    name: str, sample: NetworkBatch, theta: Tensor, plan: Plan, tasks_at_once: int = 0
) -> Choice:
    """The executor for tasks like those of a sample.

    ``"auto"`` on a CPU is a rule, so that the same seed gives the same numbers: written-out derivatives
    where the network has them, else ``vmap`` for networks without convolutions, else the loop. On a GPU,
    and for ``"measure"``, all but ``"compile"`` are timed on the sample and the fastest is taken. All of
    them compute the same numbers to rounding.

    Args:
        name: one of `CHOICES`.
        sample: a meta-batch, best as large as those of training.
        theta: the initialization, ``(params,)``.
        plan: what a pass computes.
        tasks_at_once: tasks that it takes together; 0: on a GPU as many as half of the free memory holds,
            on a CPU by the number of their weights.

    Raises:
        ValueError: an unknown name, a negative number, or no executor could be used.
    """
    if name not in CHOICES:
        raise ValueError(f"unknown executor {name!r}: expected one of {', '.join(CHOICES)}")
    if name not in ("auto", "measure"):
        return _chosen(name, "as asked for", sample, theta, plan, tasks_at_once)
    if name == "measure" or theta.is_cuda:
        return _fastest(sample, theta, plan, tasks_at_once)
    if Stacked.supports(sample, plan):
        reason = "its derivatives are written out for this network"
        return _chosen("stacked", reason, sample, theta, plan, tasks_at_once)
    if not convolves(sample.model) and alike(sample):
        reason = "no convolutions: small calls, which vmap makes fewer of"
        return _chosen("vmap", reason, sample, theta, plan, tasks_at_once)
    reason = (
        "convolutions are faster one task at a time on a CPU"
        if alike(sample)
        else "the tasks differ in size"
    )
    return _chosen("loop", reason, sample, theta, plan, tasks_at_once)


def fitting(name: str, sample: NetworkBatch, theta: Tensor, plan: Plan) -> int:
    """How many tasks executor ``name`` is to take at once, where nothing is said.

    On a CPU this depends on the network alone, so that the same seed gives the same numbers there.
    """
    count = len(sample.episodes)
    if name == "loop" or not alike(sample):
        return 1
    if not theta.is_cuda:
        if name == "stacked":
            return 0  # it knows best how wide its layers are
        return 1 if convolves(sample.model) else min(count, max(1, _ENTRIES // theta.numel()))
    taken = memory.estimate(sample, theta, plan, name, 1, 1)
    return max(1, min(count, int(_SHARE * devices.free_memory(theta.device)) // max(taken, 1)))


def convolves(model: nn.Module) -> bool:
    """Whether there is a convolution in the network."""
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())


def alike(sample: NetworkBatch) -> bool:
    """Whether all tasks have the same numbers of examples."""
    return len({(e.support_x.shape, e.query_x.shape) for e in sample.episodes}) == 1


def _chosen(
    name: str, reason: str, sample: NetworkBatch, theta: Tensor, plan: Plan, tasks_at_once: int
) -> Choice:
    at_once = tasks_at_once or fitting(name, sample, theta, plan)
    return Choice(made(name, at_once), name, at_once, reason)


def _fastest(sample: NetworkBatch, theta: Tensor, plan: Plan, tasks_at_once: int) -> Choice:
    names = ["loop", "adjoint"]
    if alike(sample):
        names.append("vmap")
    if Stacked.supports(sample, plan):
        names.append("stacked")
    table = tuple(_tried(name, sample, theta, plan, tasks_at_once) for name in names)
    usable = [one for one in table if one.seconds is not None]
    if not usable:
        raise ValueError(
            f"no executor can compute a meta-batch of {len(sample.episodes)} tasks: "
            + "; ".join(f"{one.name}: {one.why}" for one in table)
        )
    best = min(usable, key=lambda one: one.seconds or 0.0)
    executor = made(best.name, best.tasks_at_once)
    return Choice(executor, best.name, best.tasks_at_once, "the fastest here", table)


def _tried(
    name: str, sample: NetworkBatch, theta: Tensor, plan: Plan, tasks_at_once: int
) -> Candidate:
    at_once = tasks_at_once
    try:
        at_once = at_once or fitting(name, sample, theta, plan)
        one_pass: Callable[[], object] = partial(made(name, at_once), sample, theta, plan)
        taken = memory.peak_bytes(one_pass, theta.device)
        seconds = min(_seconds(one_pass, theta.device) for _ in range(_REPEATS))
        return Candidate(name, at_once, seconds, taken)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
    # Not while the error is handled: it holds the frames of the pass, and they hold its tensors.
    if theta.is_cuda:
        torch.cuda.empty_cache()
    return Candidate(name, at_once, why="out of memory")


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    began = now()
    call()
    return now() - began


def _out_of_memory(error: Exception) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "allocate memory" in str(error)  # the allocator of a CPU raises a RuntimeError
