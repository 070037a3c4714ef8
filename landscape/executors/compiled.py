"""The forward pass compiled: by ``torch.compile`` anywhere, as a CUDA graph on NVIDIA devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.batches import Batch, map_tensors, recut
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.executors.loop import Places, PlainProgram, Unsupported


class CompiledProgram:
    """The functional call through ``torch.compile``, for full chunks; a short last chunk runs plainly.

    Raises:
        Unsupported: at the first call, where the network or this machine's compiler does not allow it.
    """

    group = 1

    def __init__(self, objective: DataObjective, plane: Plane, chunk: int | None) -> None:
        self._plain = PlainProgram(objective, plane)
        self._objective = objective
        batches = recut(objective.batches, chunk) if chunk else objective.batches
        self._size = batches[0].size
        self._call = torch.compile(objective.call, dynamic=False)

    def block(self, places: Places) -> list[dict[str, Tensor]]:
        """The state of the network at each point."""
        return self._plain.block(places)

    def chunk(self, batch: Batch) -> None:
        """Nothing is shared between points."""

    def outputs(
        self, shared: None, block: Sequence[Mapping[str, Tensor]], batch: Batch
    ) -> Iterator[Any]:
        """One compiled call a point."""
        # Another size would compile the network a second time for a single chunk.
        call = self._compiled if batch.size == self._size else self._objective.call
        return (call(dict(state), batch) for state in block)

    def _compiled(self, state: dict[str, Tensor], batch: Batch) -> Any:
        from torch._dynamo.exc import TorchDynamoException  # seconds to import

        try:
            return self._call(state, batch)
        except TorchDynamoException as error:
            raise Unsupported(f"torch.compile: {str(error).splitlines()[0]}") from error


class CudaGraphProgram:
    """The forward pass recorded once for each shape of chunk and replayed with other numbers in its inputs.

    A replay costs one launch, where a small network spends most of its time launching kernels.
    """

    group = 1

    def __init__(self, objective: DataObjective, plane: Plane) -> None:
        self._objective = objective
        self._plain = PlainProgram(objective, plane)
        self._state = {
            name: tensor.clone() for name, tensor in self._plain.state([0.0] * plane.axes).items()
        }
        self._recorded: dict[tuple[Any, ...], tuple[Batch, torch.cuda.CUDAGraph, Any]] = {}

    def block(self, places: Places) -> list[dict[str, Tensor]]:
        """The state of the network at each point."""
        return self._plain.block(places)

    def chunk(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Any]:
        """The recording for this shape, its inputs filled with this chunk."""
        key = tuple((t.shape, t.dtype) for t in batch.tensors())
        if key not in self._recorded:
            self._recorded[key] = self._record(batch)
        inputs, graph, output = self._recorded[key]
        for into, out_of in zip(inputs.tensors(), batch.tensors(), strict=True):
            into.copy_(out_of)
        return graph, output

    def outputs(
        self,
        shared: tuple[torch.cuda.CUDAGraph, Any],
        block: Sequence[Mapping[str, Tensor]],
        batch: Batch,
    ) -> Iterator[Any]:
        """One replay a point; its output is copied before the next one overwrites it."""
        graph, output = shared
        for state in block:
            for name, tensor in state.items():
                self._state[name].copy_(tensor)
            graph.replay()
            yield map_tensors(torch.clone, output)

    def _record(self, batch: Batch) -> tuple[Batch, torch.cuda.CUDAGraph, Any]:
        inputs = batch.map(torch.clone)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(
            side
        ):  # libraries set themselves up on a first run, outside the recording
            self._objective.call(self._state, inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._objective.call(self._state, inputs)
        return inputs, graph, output
