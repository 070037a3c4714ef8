"""What executors need to know of a meta-batch of networks to take several of its tasks at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.plan import Aux, Task, Tasks

Columns = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support inputs and targets, query inputs and targets; ``(tasks, examples, ...)`` or without tasks."""


class NetworkBatch(Protocol):
    """One network and the episodes that it adapts to, as `sharpmaml.tasks.NetworkTasks` has them."""

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    @property
    def space(self) -> ParameterSpace:
        """Its parameters."""
        ...

    @property
    def episodes(self) -> Sequence[Episode]:
        """One a task."""
        ...

    @property
    def kind(self) -> str:
        """``"classification"`` or ``"regression"``."""
        ...

    def support(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss that the inner loop descends, 0-dimensional."""
        ...

    def query(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Aux]:
        """The loss after adaptation and its by-products."""
        ...

    def scores(self, prediction: Tensor, y: Tensor) -> dict[str, Tensor]:
        """By-products of predictions ``(..., examples, outputs)``."""
        ...

    def tasks(self) -> list[Task]:
        """The same as functions of the parameters alone."""
        ...

    def stacked(self) -> Episode:
        """All episodes as one, the tasks as the first axis of every tensor."""
        ...


def network_of(batch: Tasks, name: str) -> NetworkBatch:
    """The batch, where it is one of a network.

    Raises:
        ValueError: it holds formulas, which executor ``name`` cannot take.
    """
    # Not isinstance with the protocol: its look at every member takes a twentieth of a sinusoid's pass.
    if hasattr(batch, "stacked"):
        return cast(NetworkBatch, batch)
    raise ValueError(
        f"executor {name!r} takes several tasks of a network at once, and these tasks are "
        f"{type(batch).__name__}: give NetworkTasks, or use executor 'loop'"
    )


def columns_of(batch: NetworkBatch) -> Columns:
    """The stacked episodes.

    Raises:
        ValueError: the episodes differ in their numbers of examples.
    """
    try:
        whole = batch.stacked()
    except ValueError as error:
        raise ValueError(f"{error}: take them one by one, with executor 'loop'") from None
    return (whole.support_x, whole.support_y, whole.query_x, whole.query_y)


def taken(columns: Columns, part: slice) -> Columns:
    """The episodes of some of the tasks."""
    xs, ys, xq, yq = columns
    if part.stop - part.start == len(xs):
        return columns
    return xs[part], ys[part], xq[part], yq[part]


def chunks(count: int, at_once: int) -> Iterator[slice]:
    """Slices of ``at_once`` of ``count`` tasks, the last perhaps smaller; 0: all in one."""
    size = at_once or count
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def check_at_once(tasks_at_once: int) -> int:
    """The number itself.

    Raises:
        ValueError: a negative one.
    """
    if tasks_at_once < 0:
        raise ValueError(
            f"tasks_at_once is {tasks_at_once}: expected a number of tasks, or 0 for all"
        )
    return tasks_at_once
