"""Chunks of data outside, points inside: one forward pass a chunk and point, one synchronization a block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from landscape import device as devices
from landscape.batches import Batch, recut, tensors_in
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.evaluator import Columns, summary

_BLOCK_BYTES = 64 * 2**20  # weights of the points of a block
_MAX_BLOCK = 256

Places = np.ndarray[Any, np.dtype[Any]]


class Unsupported(Exception):
    """This way of computing cannot serve this objective; the message says why."""


class Program(Protocol):
    """How the network's output is computed, in three parts that are paid at different rates.

    Attributes:
        group: points that are computed together; blocks are multiples of it.
    """

    group: int

    def block(self, places: Places) -> Sequence[Any]:
        """What each of ``places (points, axes)`` needs whatever the data; made once a point."""

    def chunk(self, batch: Batch) -> Any:
        """What a chunk of data needs whatever the point; made once a chunk and block of points."""

    def outputs(self, shared: Any, block: Sequence[Any], batch: Batch) -> Iterable[Any]:
        """The network's output for one chunk at each point of a block."""


class ChunkLoop:
    """The evaluator of a `Program` over the data of a :class:`DataObjective`.

    A point's arithmetic never depends on the other points of its block, so any blocks give the same bits.

    Args:
        name: of the evaluator.
        objective: gives data and scores.
        plane: where the points lie.
        program: computes outputs.
        chunk: at most so many examples a forward pass; ``None`` leaves the objective's batches whole.
        setup_seconds: what building the program took.
    """

    def __init__(
        self,
        name: str,
        objective: DataObjective,
        plane: Plane,
        program: Program,
        chunk: int | None = None,
        setup_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.setup_seconds = setup_seconds
        self._objective = objective
        self._program = program
        self._batches = recut(objective.batches, chunk) if chunk else list(objective.batches)
        centre = np.zeros((1, plane.axes))
        with torch.no_grad():
            size = sum(t.numel() * t.element_size() for t in tensors_in(program.block(centre)))
        groups = min(_MAX_BLOCK // program.group, _BLOCK_BYTES // max(size, 1))
        self._block = program.group * max(1, groups)
        self._centre = self._terms(centre)[0]["loss"][0]

    def __call__(self, coordinates: Places, terms: bool = False) -> Columns:
        """See :class:`landscape.evaluator.Evaluator`."""
        groups = -(-len(coordinates) // self._program.group)
        rounds = max(1, -(-len(coordinates) // self._block))
        size = self._program.group * -(
            -groups // rounds
        )  # blocks of one size: what they share is paid once each
        blocks = [
            self._columns(coordinates[start : start + size], terms)
            for start in range(0, len(coordinates), size)
        ]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _columns(self, places: Places, terms: bool) -> Columns:
        scores, scalar = self._terms(places)
        losses = scores.pop("loss")
        found = summary(losses, self._centre)
        if scalar:  # the mean of a batch says nothing of the scatter within it
            for name in ("loss_stderr", "rise_stderr"):
                found[name] = torch.full_like(found[name], math.nan)
        for name, values in scores.items():
            found[name] = torch.stack([row.double().mean() for row in values])
        if terms:
            found["terms"] = losses
        names = list(found)
        # One copy to the host for everything: the only time the device is waited for.
        widths = [found[name].reshape(len(places), -1).shape[1] for name in names]
        packed = torch.cat([found[name].reshape(len(places), -1).double() for name in names], 1)
        parts = np.split(packed.cpu().numpy(), np.cumsum(widths)[:-1], axis=1)
        return {
            name: part if name == "terms" else part[:, 0]
            for name, part in zip(names, parts, strict=True)
        }

    def _terms(self, places: Places) -> tuple[dict[str, Tensor], bool]:
        """Scores of every example, ``(points, examples)`` each, and whether the loss is a mean only."""
        scalar = False
        # Tables made beforehand: thousands of small tensors that stay would scatter the heap.
        tables: dict[str, Tensor] = {}
        with torch.no_grad(), devices.exact_kernels():
            block = self._program.block(places)
            start = 0
            for batch in self._batches:
                outputs = self._program.outputs(self._program.chunk(batch), block, batch)
                for i, output in zip(range(len(places)), outputs, strict=True):
                    for name, values in self._objective.score(output, batch).items():
                        scalar = scalar or (name == "loss" and values.dim() == 0)
                        if name not in tables:
                            tables[name] = values.new_empty(len(places), self._objective.examples)
                        tables[name][i, start : start + batch.size] = values
                start += batch.size
        return tables, scalar


class PlainProgram:
    """The network called functionally with the tensors of the point: what every other way is tested against."""

    group = 1

    def __init__(self, objective: DataObjective, plane: Plane) -> None:
        self._objective = objective
        self._plane = plane
        names = canonical_names(objective.module)
        # A state_dict, where a plane's statistics come from, has a tied weight under all its names.
        moved = objective.space.names
        self._statistics = {n for n in plane.buffers if names.get(n, n) not in moved}

    def block(self, places: Places) -> list[dict[str, Tensor]]:
        """The state of the network at each point."""
        return [self.state(place) for place in places.tolist()]

    def state(self, place: Sequence[float]) -> dict[str, Tensor]:
        """Parameters, and buffers that are not the stored ones."""
        state = self._objective.state(self._plane.point(*place))
        if self._objective.norm == "interpolated":
            found = self._plane.statistics(*place)
            state |= {name: found[name] for name in self._statistics}
        return state

    def chunk(self, batch: Batch) -> None:
        """Nothing is shared between points."""

    def outputs(
        self, shared: None, block: Sequence[Mapping[str, Tensor]], batch: Batch
    ) -> Iterator[Any]:
        """A functional call of the module at each point."""
        return (self._objective.call(state, batch) for state in block)


def canonical_names(module: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> its first name: a tied tensor has several."""
    first: dict[int, str] = {}
    tensors: list[Callable[..., Any]] = [module.named_parameters, module.named_buffers]
    return {
        name: first.setdefault(id(tensor), name)
        for named in tensors
        for name, tensor in named(remove_duplicate=False)
    }
