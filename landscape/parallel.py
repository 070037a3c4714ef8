"""Who evaluates which point: the ranks of a ``torchrun`` job, or the shards of a job array."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from landscape.heartbeat import Heartbeat, Lost

_TIMEOUT = timedelta(hours=6)
"""Of one exchange: a rank may compute for so long. One that is gone is noticed by the heartbeat."""

T = TypeVar("T")


class LostError(ValueError):
    """Another rank is no longer there: which, why as far as is known, and what to do.

    Attributes:
        rank: the one that is lost; ``None`` where it is not known.
        speaks: whether this rank is the one to say so.
    """

    def __init__(self, own: int, lost: Lost | None, what: str = "") -> None:
        self.rank = None if lost is None else lost.rank
        self.speaks = own == 0 or self.rank in (0, None)
        super().__init__(
            f"rank {own} lost another rank: {lost or what}; files written so far are kept, the same command "
            "continues them (sharpmaml train: with --resume)"
        )


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
        exchange(lambda: dist.all_gather_object(parts, results))
        merged: list[T] = []
        for position in range(sum(len(part) for part in parts)):
            merged.append(parts[position % self.size][position // self.size])
        return merged

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of everybody's tensor, on every process; one exchange."""
        if self.size == 1:
            return tensor
        total = tensor.detach().cpu()  # gloo meets on the CPU
        exchange(lambda: dist.all_reduce(total))
        return total.to(tensor.device)

    def agree(self, value: T) -> T:
        """Rank 0's value, on every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        exchange(lambda: dist.broadcast_object_list(box, src=0))
        return box[0]  # type: ignore[no-any-return]


def join() -> Team:
    """The team that ``torchrun`` started this process in; a team of one outside of it.

    Processes meet over gloo, on the CPU: what they exchange are numbers of surfaces.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    meet("gloo")
    return Team(dist.get_rank(), dist.get_world_size())


_heartbeat: Heartbeat | None = None


def meet(backend: str, timeout: timedelta = _TIMEOUT) -> None:
    """Meet the other processes of ``torchrun``, once, and part from them when Python ends.

    From then on a process that another one is lost to ends within a minute: by a :class:`LostError` of its next
    exchange, or with a line and status 1 where it hangs in one.

    gloo's threads must be gone by then: one that lets go of a tensor while the interpreter is taken
    down aborts the process.
    """
    if dist.is_initialized():
        return
    # It takes the group that there is as its functions' defaults: imported later, by torch's compiler
    # for one, it would keep the group and its threads alive after leave().
    importlib.import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"rank {os.environ.get('RANK', '?')} could not meet the other ranks: {first}"
        ) from None
    atexit.register(leave)
    _listen_to_each_other()


def _listen_to_each_other() -> None:
    global _heartbeat
    rank, host = dist.get_rank(), os.environ.get("MASTER_ADDR", "localhost")
    found: list[Any] = [None]
    if rank == 0:
        _heartbeat = Heartbeat(0, lambda lost: _end(0, lost), host)
        found = [(_heartbeat.port, _heartbeat.token)]
    exchange(lambda: dist.broadcast_object_list(found, src=0))
    if rank > 0:
        try:
            _heartbeat = Heartbeat(rank, lambda lost: _end(rank, lost), host, *found[0])
        except OSError:
            _heartbeat = None  # a firewall: what is left is the limit on the time of an exchange


def _end(own: int, lost: Lost) -> None:
    """End this process, whose main thread hangs in an exchange: no exception would reach it there."""
    error = LostError(own, lost)
    if error.speaks:
        print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def exchange(meeting: Callable[[], object]) -> None:
    """Meet the other ranks.

    Raises:
        LostError: one of them is gone.
    """
    if _heartbeat is not None:
        _heartbeat.meeting = True
    try:
        meeting()
    except RuntimeError as error:  # a process that is gone closes its connections
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LostError(dist.get_rank(), lost(), first) from None
    finally:
        if _heartbeat is not None:
            _heartbeat.meeting = False


def lost() -> Lost | None:
    """The rank that was lost, as far as is known."""
    return None if _heartbeat is None else _heartbeat.news()


def leave() -> None:
    """Part from the other processes, if there are any."""
    global _heartbeat
    if _heartbeat is not None:
        _heartbeat.stop()
        _heartbeat = None
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
