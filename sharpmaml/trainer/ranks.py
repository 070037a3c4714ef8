"""Training by several processes: each takes a share of the tasks, and the meta-gradients are added up.

What is added up is the gradient of a whole pass, after every derivative of the inner loop: no hook sits
in a backward pass. The upper ascent of Sharp-MAML then starts from the gradient of all tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from landscape import parallel
from sharpmaml.plan import Executor, Pass, Plan, Tasks
from sharpmaml.trainer.signals import SIGNALS, Noted

T = TypeVar("T")


class ElsewhereError(ValueError):
    """Another rank could not go on; its own error says why."""


class Ranks:
    """The processes that train one run together; a single process is alone.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        noted: signals that this process was sent and has not acted upon.
        agreed: a signal that some process was sent, known to all of them since the last exchange.

    >>> alone = Ranks()
    >>> alone.share(5), Ranks(1, 3).share(5)
    ((0, 5), (2, 2))
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.noted = Noted()
        self.agreed: int | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def stop(self) -> int | None:
        """A signal upon which all processes stop after this meta-update."""
        return self.agreed if self.size > 1 else (self.noted[0] if self.noted else None)

    def share(self, count: int) -> tuple[int, int]:
        """First and number of the items of ``count`` that are this process's; sizes differ by one at most."""
        each, more = divmod(count, self.size)
        return self.rank * each + min(self.rank, more), each + (self.rank < more)

    def device(self, name: str) -> str:
        """This process's device: its own GPU where there is one for each process of the machine."""
        local = os.environ.get("LOCAL_RANK")
        if name == "cuda" and local is not None and torch.cuda.device_count() > 1:
            return f"cuda:{int(local) % torch.cuda.device_count()}"
        return parallel.local_device(name)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of everybody's tensor, the same bits on every process; one exchange."""
        if self.size == 1:
            return tensor
        own_gpu = tensor.is_cuda and parallel.local_ranks() <= torch.cuda.device_count()
        total = tensor.detach().clone() if own_gpu else tensor.detach().cpu().clone()
        parallel.exchange(lambda: dist.all_reduce(total))
        return total.to(tensor.device)

    def agree(self, value: T) -> T:
        """Rank 0's value, on every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        parallel.exchange(lambda: dist.broadcast_object_list(box, src=0))
        return box[0]  # type: ignore[no-any-return]

    def together(self, work: Callable[[], T]) -> T:
        """``work()`` on every process; where it fails on one of them, no process goes on.

        Raises:
            Exception: what ``work`` raised, on the first process where it did.
            ElsewhereError: the same in words, on the others.
        """
        if self.size == 1:
            return work()
        value: Any = None
        error: Exception | None = None
        try:
            value = work()
        except Exception as problem:  # whatever it is, the others wait for this one
            error = problem
        words: list[Any] = [None] * self.size
        parallel.exchange(lambda: dist.all_gather_object(words, error and _words(error)))
        failed = [rank for rank, said in enumerate(words) if said is not None]
        if error is not None and failed[0] == self.rank:
            raise error
        if failed:
            raise ElsewhereError(f"rank {failed[0]}: {words[failed[0]]}")
        return value  # type: ignore[no-any-return]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def join() -> Ranks:
    """The ranks that ``torchrun`` started this process among; a process of its own outside of it.

    Tensors of a GPU meet over NCCL, everything else over gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    both = torch.cuda.is_available() and dist.is_nccl_available()
    parallel.meet("cpu:gloo,cuda:nccl" if both else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())


class Ranked:
    """An executor over this process's share of the meta-batch, with the sums of all shares.

    Inner ascents stay where their tasks are. Losses and by-products come back of all tasks, in order.

    Args:
        executor: computes this process's share.
        ranks: the processes.
        count: tasks of the whole meta-batch.
    """

    def __init__(self, executor: Executor, ranks: Ranks, count: int) -> None:
        self.name = executor.name
        self._executor, self._ranks, self._count = executor, ranks, count

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """See :class:`sharpmaml.plan.Executor`; ``batch`` and ``ascents`` are of this process's tasks."""
        own = self._executor(batch, theta, plan, ascents)
        first, count = self._ranks.share(self._count)
        columns = [own.losses, *own.aux.values()]
        rows = own.gradient.new_zeros(len(columns), self._count)
        # Zeros elsewhere: the sum of the rows is all of them side by side, in the order of the tasks.
        rows[:, first : first + count] = torch.stack([c.to(rows.dtype) for c in columns])
        flags = rows.new_tensor([float(number in self._ranks.noted) for number in SIGNALS])
        sums = [own.gradient] if own.rates is None else [own.gradient, own.rates]
        pieces = [flags, rows.flatten(), *(piece.flatten() * count for piece in sums)]
        total = torch.split(self._ranks.sum(torch.cat(pieces)), [len(piece) for piece in pieces])
        for number, seen in zip(SIGNALS, total[0].tolist(), strict=True):
            if seen:
                self._ranks.agreed = number
        losses, *aux = total[1].view_as(rows)
        means = [t.view_as(s) / self._count for t, s in zip(total[2:], sums, strict=True)]
        return Pass(
            means[0],
            losses,
            dict(zip(own.aux, aux, strict=True)),
            means[1] if len(means) == 2 else None,
            own.ascents,
        )
