"""Who evaluates which point: the ranks of a ``torchrun`` job, or the shards of a job array."""

from __future__ import annotations

import atexit
import importlib
import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_TIMEOUT = timedelta(minutes=10)  # of one exchange: a rank that is gone is noticed by then

T = TypeVar("T")


class Team:
    """The processes that share one surface; a single process is a team of one.

    Every process holds the same surface and takes every ``size``-th point of each round, so that the
    result is the same, bit for bit, whatever the size. Rank 0 writes the file.

    >>> alone = Team()
    >>> alone.mine(["a", "b", "c"]), alone.gather(["a", "b", "c"])
    (['a', 'b', 'c'], ['a', 'b', 'c'])
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def mine(self, points: list[T]) -> list[T]:
        """The points of a round that this process evaluates."""
        return points[self.rank :: self.size]

    def gather(self, results: list[T]) -> list[T]:
        """Everybody's results of a round, in the order of its points, on every process."""
        if self.size == 1:
            return results
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, results)
        merged: list[T] = []
        for position in range(sum(len(part) for part in parts)):
            merged.append(parts[position % self.size][position // self.size])
        return merged

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of everybody's tensor, on every process; one exchange."""
        if self.size == 1:
            return tensor
        total = tensor.detach().cpu()  # gloo meets on the CPU
        dist.all_reduce(total)
        return total.to(tensor.device)

    def agree(self, value: T) -> T:
        """Rank 0's value, on every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[no-any-return]


def join() -> Team:
    """The team that ``torchrun`` started this process in; a team of one outside of it.

    Processes meet over gloo, on the CPU: what they exchange are numbers of surfaces.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    meet("gloo", _TIMEOUT)
    return Team(dist.get_rank(), dist.get_world_size())


def meet(backend: str, timeout: timedelta) -> None:
    """Meet the other processes of ``torchrun``, once, and part from them when Python ends.

    gloo's threads must be gone by then: one that lets go of a tensor while the interpreter is taken
    down aborts the process.
    """
    if dist.is_initialized():
        return
    # It takes the group that there is as its functions' defaults: imported later, by torch's compiler
    # for one, it would keep the group and its threads alive after leave().
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend, timeout=timeout)
    atexit.register(leave)


def leave() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def local_ranks() -> int:
    """Processes of this job on this machine, which share its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_device(name: str) -> str:
    """``auto`` -> this rank's own GPU where there are several; any other name as it is."""
    local = os.environ.get("LOCAL_RANK")
    if name == "auto" and local is not None and torch.cuda.device_count() > 1:
        return f"cuda:{int(local) % torch.cuda.device_count()}"
    return name


def shard_of(text: str) -> tuple[int, int]:
    """``"2/5"`` -> ``(2, 5)``: the second of five shards.

    Raises:
        ValueError: anything else, or a number that is not among them.
    """
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise ValueError(f"shard is {text!r}: expected i/n with i from 1 to n, such as 2/5")
