"""Several tasks at once with derivatives written out: no autograd, so no graph and few small calls."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from landscape.space import ParameterSpace
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
from sharpmaml.plan import Aux, Pass, Plan, Tasks
from sharpmaml.stacked import StackedNetwork, Tape

_ACTIVATIONS = 4_000_000  # entries of the widest layer computed at a time on a CPU
_ACTIVATIONS_GPU = 200_000_000
_HELD_BYTES = 2**28
_HELD_SHARE_GPU = 4  # a quarter of its memory


class Stacked:
    """The meta-gradient of `conv4` and `mlp` by the chain of Hessian products, layer by layer.

    The passes that made the gradient of a step are kept for its Hessian product while they fit into
    ``held_bytes``, and made again otherwise: memory stays flat in the inner steps from there on.

    Args:
        tasks_at_once: tasks of a chunk; 0: by the size of their activations.
        held_bytes: memory for the passes of all steps of a chunk; by the device when left out.

    Raises:
        ValueError: a negative number of tasks.
    """

    name = "stacked"

    def __init__(self, tasks_at_once: int = 0, held_bytes: int | None = None) -> None:
        self.tasks_at_once = check_at_once(tasks_at_once)
        self._held_bytes = held_bytes
        self._last: tuple[tuple[nn.Module, ParameterSpace, str], StackedNetwork] | None = None
        self._kept: Prepared | None = None

    @staticmethod
    def supports(network: NetworkBatch, plan: Plan) -> bool:
        """Whether the network has a stacked form and its tasks are of one size; every plan will do."""
        try:
            StackedNetwork(network.model, network.space, network.kind)
        except ValueError:
            return False
        shapes = {tuple(getattr(e, f.name).shape for f in fields(e)) for e in network.episodes}
        return len(shapes) == 1

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """See :class:`sharpmaml.plan.Executor`.

        Raises:
            ValueError: another network than `conv4` and `mlp`, formulas, or tasks that differ in size.
        """
        known, network = self._network(batch)
        columns, inner = columns_of(known), plan.inner
        budget = self.room(plan, theta.device)
        at, results = theta.detach(), []
        # Inference mode takes a fifth off small networks; the Jacobian of the ascent rule cannot run in it.
        through = inner.lower > 0 and inner.eps_grad == "through"
        with torch.no_grad() if through else torch.inference_mode():
            for part in chunks(len(columns[0]), self.together(known)):
                given = None if ascents is None else ascents[part]
                # No name for the rows: the next ones would be made while these are in memory.
                episodes = taken(columns, part)
                inputs = self._prepared(network, episodes)
                results.append(
                    chain.passed(
                        StackedRows(network, known, episodes, inputs, budget), at, plan, given
                    )
                )
            found = mean_of(results)
        return found if through else _ordinary(found)

    def _network(self, batch: Tasks) -> tuple[NetworkBatch, StackedNetwork]:
        """The batch, and the stacked form of its network: the last one, where that has not changed."""
        known = network_of(batch, self.name)
        key = (known.model, known.space, known.kind)
        if self._last is None or any(a is not b for a, b in zip(key, self._last[0], strict=True)):
            self._last = key, StackedNetwork(*key)
        return known, self._last[1]

    def _prepared(self, network: StackedNetwork, columns: Columns) -> Prepared:
        """The inputs of a chunk as the network takes them: the last ones, where it is the same again.

        An upper ascent makes two passes over the same episodes, and images cost a tenth of a pass.
        """
        xs, _, xq, _ = columns
        if self._kept is None or not self._kept.are(network, xs, xq):
            self._kept = None  # before the next ones take its memory twice
            self._kept = Prepared.of(network, xs, xq)
        return self._kept

    def together(self, network: NetworkBatch) -> int:
        """Tasks of a chunk; they may be more than there are."""
        if self.tasks_at_once:
            return self.tasks_at_once
        one, layers = network.episodes[0], self._network(network)[1]
        limit = _ACTIVATIONS_GPU if one.support_x.is_cuda else _ACTIVATIONS
        return max(1, limit // max(map(layers.activations, (one.support_x, one.query_x))))

    def room(self, plan: Plan, device: torch.device) -> int:
        """Bytes for the passes of all steps of a chunk."""
        if plan.inner.first_order or plan.estimator == "reptile":
            return 0  # such a pass never goes back over a step
        if self._held_bytes is not None:
            return self._held_bytes
        if device.type == "cuda":
            return int(torch.cuda.get_device_properties(device).total_memory) // _HELD_SHARE_GPU
        return _HELD_BYTES


class Prepared(NamedTuple):
    """Inputs of some tasks as a network takes them, and what they were made of.

    Attributes:
        network: whose form.
        sources: of support and query.
        versions: of these; ``None`` where torch does not count their changes.
        support: prepared.
        query: prepared.
    """

    network: StackedNetwork
    sources: tuple[Tensor, Tensor]
    versions: tuple[int, int] | None
    support: Any
    query: Any

    @classmethod
    def of(cls, network: StackedNetwork, xs: Tensor, xq: Tensor) -> Prepared:
        """Of the inputs of support and query."""
        return cls(network, (xs, xq), _versions(xs, xq), network.prepare(xs), network.prepare(xq))

    def are(self, network: StackedNetwork, xs: Tensor, xq: Tensor) -> bool:
        """Whether they were made of these tensors, which have not changed since."""
        same = network is self.network and xs is self.sources[0] and xq is self.sources[1]
        return same and self.versions is not None and self.versions == _versions(xs, xq)


def _versions(xs: Tensor, xq: Tensor) -> tuple[int, int] | None:
    return None if xs.is_inference() or xq.is_inference() else (xs._version, xq._version)


class StackedRows:
    """Tasks of one network for :mod:`sharpmaml.execution.chain`: see `sharpmaml.execution.rows.Rows`.

    Args:
        network: the stacked form.
        known: the batch that it is of.
        columns: the episodes of these tasks.
        inputs: theirs, prepared.
        held_bytes: memory for the passes that made a gradient.
    """

    def __init__(
        self,
        network: StackedNetwork,
        known: NetworkBatch,
        columns: Columns,
        inputs: Prepared,
        held_bytes: int,
    ) -> None:
        self.count = len(columns[0])
        self._network, self._known = network, known
        _, self._ys, _, self._yq = columns
        self._xs, self._xq = inputs.support, inputs.query
        self._room = held_bytes
        self._tapes: list[tuple[Tensor, Tape]] = []

    def gradients(self, points: Tensor, once: bool = False) -> Tensor:
        """Of the support losses; the passes are kept while there is room, unless it is for ``once``."""
        if once:
            return self._network.gradients(points, self._xs, self._ys)
        return self._tape(points).gradients

    def products(self, points: Tensor, vectors: Tensor) -> Tensor:
        """Hessians of the support losses times ``vectors``."""
        return self._network.products(self._tape(points), vectors)

    def queries(self, points: Tensor) -> tuple[Tensor, Tensor, Aux]:
        """Gradients of the query losses, the losses and by-products."""
        tape = self._network.tape(points, self._xq, self._yq)
        losses = self._network.losses(tape.outputs, self._yq)
        return tape.gradients, losses, self._known.scores(tape.outputs, self._yq)

    def _tape(self, points: Tensor) -> Tape:
        for place, tape in self._tapes:
            if place is points:
                return tape
        tape = self._network.tape(points, self._xs, self._ys)
        if self._room > 0:
            self._room -= tape.nbytes
        if self._room > 0:
            self._tapes.append((points, tape))
        return tape


def _ordinary(found: Pass) -> Pass:
    """Copies that may be changed and differentiated, which tensors of inference mode may not."""
    return Pass(
        found.gradient.clone(),
        found.losses.clone(),
        {name: value.clone() for name, value in found.aux.items()},
        None if found.rates is None else found.rates.clone(),
        None if found.ascents is None else found.ascents.clone(),
    )
