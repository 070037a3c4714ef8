"""Several points in one forward pass: ``vmap`` over their parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.batches import Batch, map_tensors
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.executors.loop import Places, PlainProgram, Unsupported

GROUP = 8
"""Points in one pass. Fixed, and the last group filled up, so that a point's bits never depend on company."""


class VmapProgram:
    """Convolutions of several networks become one grouped convolution, matrix products one batched product.

    Raises:
        Unsupported: when computing, where an operation of the network knows nothing of stacked parameters.
    """

    group = GROUP

    def __init__(self, objective: DataObjective, plane: Plane) -> None:
        self._objective = objective
        self._plain = PlainProgram(objective, plane)

    def block(self, places: Places) -> list[tuple[int, dict[str, Tensor]]]:
        """For each group of points, how many they are and their states stacked."""
        groups = []
        for start in range(0, len(places), GROUP):
            some = places[start : start + GROUP]
            filled = np.concatenate([some, np.repeat(some[-1:], GROUP - len(some), axis=0)])
            states = [self._plain.state(place) for place in filled.tolist()]
            groups.append((len(some), {k: torch.stack([s[k] for s in states]) for k in states[0]}))
        return groups

    def chunk(self, batch: Batch) -> None:
        """Nothing is shared between groups."""

    def outputs(
        self, shared: None, block: Sequence[tuple[int, dict[str, Tensor]]], batch: Batch
    ) -> Iterator[Any]:
        """One pass a group; the outputs of its points one by one."""
        for count, states in block:
            try:
                with warnings.catch_warnings():
                    # An operation without a rule for stacks is looped over: slow, and choosing sees that.
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    stacked = torch.func.vmap(lambda state: self._objective.call(state, batch))(
                        states
                    )
            except (RuntimeError, ValueError) as error:
                raise Unsupported(f"vmap: {str(error).splitlines()[0]}") from error
            for i in range(count):
                yield map_tensors(lambda t, i=i: t[i], stacked)  # type: ignore[misc]
