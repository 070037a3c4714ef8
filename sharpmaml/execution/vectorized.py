"""Several tasks at once through ``vmap``: fast wherever single calls are small, and on GPUs."""

from __future__ import annotations

from torch import Tensor

from sharpmaml.execution import chain
from sharpmaml.execution.batches import (
    Columns,
    NetworkBatch,
    check_at_once,
    chunks,
    columns_of,
    network_of,
    taken,
)
from sharpmaml.execution.loop import mean_of
from sharpmaml.execution.rows import Together
from sharpmaml.execution.unrolled import Computation, changing, packed, unrolled
from sharpmaml.plan import Pass, Plan, Tasks


class Vectorized:
    """Every gradient is taken inside the ``vmap`` over tasks, never through it.

    Differentiated from outside, native norm layers give second derivatives that are wrong without any
    error (pytorch/functorch #534). A chunk of tasks is reduced to its mean before the next begins.

    Args:
        tasks_at_once: tasks of a chunk; 0: all of them.

    Raises:
        ValueError: a negative number.
    """

    name = "vmap"

    def __init__(self, tasks_at_once: int = 0) -> None:
        self.tasks_at_once = check_at_once(tasks_at_once)

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """See :class:`sharpmaml.plan.Executor`.

        Raises:
            ValueError: tasks that are formulas, or that differ in size.
        """
        network = network_of(batch, self.name)
        columns, at = columns_of(network), theta.detach()
        results = []
        for part in chunks(len(columns[0]), self.tasks_at_once):
            given = None if ascents is None else ascents[part]
            results.append(self._chunk(network, taken(columns, part), at, plan, given))
        return mean_of(results)

    def _chunk(
        self,
        network: NetworkBatch,
        columns: Columns,
        theta: Tensor,
        plan: Plan,
        ascents: Tensor | None,
    ) -> Pass:
        if plan.estimator != "unrolled":  # they do not differentiate the steps: nothing to unroll
            return chain.passed(Together(network, columns), theta, plan, ascents)
        compute = self._computation(network, plan, columns, ascents)
        return packed(compute(theta, changing(plan, theta), columns, ascents))

    def _computation(
        self, network: NetworkBatch, plan: Plan, columns: Columns, ascents: Tensor | None
    ) -> Computation:
        return unrolled(network, plan)
