"""Constant memory in the number of inner steps: the chain of Hessian products, walked backwards."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sharpmaml.execution import chain
from sharpmaml.execution.batches import check_at_once, chunks, columns_of, network_of, taken
from sharpmaml.execution.loop import mean_of
from sharpmaml.execution.rows import OneByOne, Rows, Together
from sharpmaml.plan import Pass, Plan, Tasks


class Adjoint:
    """What a task needs does not grow with its inner steps, but for one parameter vector each.

    For that, every step is evaluated again on the way back: about 1.2 to 1.6 times the time of `Loop`.

    Args:
        tasks_at_once: 1 takes any tasks; more of them, or 0 for all, go through ``vmap`` and have to be
            those of a network.

    Raises:
        ValueError: a negative number.
    """

    name = "adjoint"

    def __init__(self, tasks_at_once: int = 1) -> None:
        self.tasks_at_once = check_at_once(tasks_at_once)

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """See :class:`sharpmaml.plan.Executor`.

        Raises:
            ValueError: several tasks at once, and they are formulas or differ in size.
        """
        at = theta.detach()
        return mean_of(
            [
                chain.passed(rows, at, plan, None if ascents is None else ascents[part])
                for rows, part in self._parts(batch)
            ]
        )

    def _parts(self, batch: Tasks) -> Iterator[tuple[Rows, slice]]:
        if self.tasks_at_once == 1:
            tasks = batch.tasks()
            for part in chunks(len(tasks), 1):
                yield OneByOne(tasks[part]), part
            return
        network = network_of(batch, self.name)
        columns = columns_of(network)
        for part in chunks(len(columns[0]), self.tasks_at_once):
            yield Together(network, taken(columns, part)), part
