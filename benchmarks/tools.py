"""What the benchmarks ask of a tool that draws loss surfaces, ours or another: one interface, NumPy and torch only."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[Any]]


class NotOfferedError(Exception):
    """The tool has no public way to do this; the message says what is missing."""


@dataclass
class Task:
    """A network, its data as a reusable iterable of ``(x, y)`` batches, and ``loss(output, y) -> scalar``."""

    model: nn.Module
    data: Any
    loss: Callable[[Tensor, Tensor], Tensor]

    def whole(self) -> tuple[Tensor, Tensor]:
        """All examples as one batch."""
        x, y = (torch.cat(column) for column in zip(*self.data, strict=True))
        return x, y


@dataclass
class Grid:
    """A surface as a tool returns it.

    Attributes:
        loss: rows are the second direction, columns the first.
        alpha: the tool's own labels along the first direction; ``None`` where it returns none.
        beta: along the second.
        unit: how many of the directions handed over the tool calls 1, by its documentation.
        labelled: whether the labels came from the tool; else they are read from its source.
        table: ``(alpha, beta, loss)``, each ``(points,)``, where the tool lists its points one by one.
    """

    loss: Array
    alpha: Array | None = None
    beta: Array | None = None
    unit: tuple[float, float] = (1.0, 1.0)
    labelled: bool = True
    table: tuple[Array, Array, Array] | None = None


class Tool:
    """A tool; whatever a subclass leaves out is not offered.

    ``package`` is the name to install. The flags are what the tool claims or how it works:
    ``orthogonal`` random directions, ``filters`` normalized as by Li et al. 2018, a ``loader`` of batches
    over which it averages itself, ``one_batch`` where it evaluates a single one, a ``function`` of the
    user's that it evaluates instead.
    """

    package = ""
    orthogonal = filters = loader = one_batch = function = False

    @property
    def version(self) -> str:
        """As installed."""
        return importlib.metadata.version(self.package)

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """The plane along ``directions (2, params)`` around the model, ``[-span, span]`` on each axis."""
        raise NotOfferedError("takes no directions")

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """A random plane by the call of the README; ``careful`` avoids what is known to go wrong there."""
        raise NotOfferedError("draws no random plane")

    def line(self, task: Task, points: int) -> Array:
        """Losses along a random line."""
        raise NotOfferedError("draws no random line")

    def between(self, task: Task, end: nn.Module, points: int) -> tuple[Array, Array]:
        """Positions from 0 (the task's model) to 1 (``end``), by the tool's documentation, and losses."""
        raise NotOfferedError("draws no line between two models")

    def directions(self, task: Task) -> Array:
        """A pair of its random directions, ``(2, params)``."""
        raise NotOfferedError("does not show its directions")

    def seeded(self, task: Task, seed: int) -> Array:
        """Random numbers of the tool, drawn with its own seed argument."""
        raise NotOfferedError("has no seed argument")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Several tools print at every point."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def flat(model: nn.Module) -> Array:
    """The parameters as one vector, a copy."""
    return joined(model.parameters())


def joined(tensors: Iterable[Tensor]) -> Array:
    """Tensors end to end in one vector, a copy."""
    return np.concatenate([t.detach().numpy().reshape(-1).copy() for t in tensors])


def shaped(model: nn.Module, row: Array) -> list[Tensor]:
    """A vector ``(params,)`` as new tensors like the model's parameters."""
    sizes = [p.numel() for p in model.parameters()]
    pieces = torch.split(torch.from_numpy(row.copy()), sizes)
    pairs = zip(pieces, model.parameters(), strict=True)
    return [piece.to(p.dtype).reshape(p.shape).clone() for piece, p in pairs]


def moved(model: nn.Module, theta: Array) -> nn.Module:
    """A copy of the model with other weights."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p, value in zip(model.parameters(), shaped(model, theta), strict=True):
            p.copy_(value)
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def record(model: nn.Module) -> list[Array]:
    """A list that grows by the weights of each forward pass of the model or of its copies."""
    seen: list[Array] = []
    model.register_forward_pre_hook(lambda module, _: seen.append(flat(module)))
    return seen
