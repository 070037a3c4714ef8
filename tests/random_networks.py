"""Small random networks with data: a seed -> a network of layers that users draw from, batches, a loss.

A network is drawn again until no input of a layer with a kink (ReLU, max-pooling, ...) lies near it, so that
second derivatives are those of a smooth function: :func:`margin` is the check, and :data:`MARGIN` its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import naive
import numpy as np
import torch
from kinks import margin
from random_layers import Draw, Shape, activation, flag, pick, stage
from random_losses import HEADS, Task
from torch import Tensor, nn

MARGIN = 1e-4
MOST = 300  # parameters

NORMS = ("eval", "batch", "recalibrate")
KINDS = ("vector", "signal", "image", "sequence", "tokens")


class Network(nn.Module):
    """Stages one after the other, then a head; what it returns is one tensor, or what ``form`` makes of it."""

    def __init__(
        self, stages: list[nn.Module], head: nn.Module, form: Callable[[Tensor], Any]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = head
        self._form = form

    def forward(self, x: Tensor) -> Any:
        for part in self.stages:
            x = part(x)
        return self._form(self.head(x))


class Pooled(nn.Module):
    """Everything but the examples to one vector, then linear."""

    def __init__(self, shape: Shape, kind: str, outputs: int, flat: bool) -> None:
        super().__init__()
        self.axis = -2 if kind in ("sequence", "tokens") else -1
        self.kind, self.flat = kind, flat
        width = (
            math.prod(shape) if flat else shape[-1] if kind in ("sequence", "tokens") else shape[0]
        )
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.flat or x.dim() == 2:
            return self.out(x.flatten(1))
        return self.out(x.mean(1) if self.axis == -2 else x.flatten(2).mean(2))


class Tied(nn.Module):
    """Scores of the tokens, by the transposed embedding."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


@dataclass(frozen=True, eq=False)
class Case:
    """A network and its data.

    Attributes:
        seed: what it was drawn from.
        model: in float64, in training mode as users leave it.
        pairs: ``(x, y)``, one a batch; the last is short.
        data: the same as it is given to the library.
        options: ``norm`` and ``batch_size`` of the library's objective.
        task: the loss, for the library and written out.
        layers: names of what it is made of.
    """

    seed: int
    model: nn.Module
    pairs: list[tuple[Tensor, Tensor]]
    data: Any
    options: dict[str, Any]
    task: Task
    layers: tuple[str, ...] = field(default=())

    @property
    def norm(self) -> str:
        return str(self.options["norm"])

    @property
    def params(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def coupled(self) -> bool:
        """Whether the loss of an example depends on the others of its batch, or of all batches."""
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        return self.task.scalar or any(self.norm != "eval" or m.running_mean is None for m in norms)

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.params} parameters, {self.task.name}, {self.options}: {', '.join(self.layers)}"


def network(
    seed: int, smooth: bool = False, most: int = MOST, kind: str | None = None, plain: bool = False
) -> Case:
    """The case of this seed: the first draw that is small enough and far from its kinks.

    Args:
        seed: of everything.
        smooth: without kinks and recurrent layers.
        most: parameters.
        kind: of :data:`KINDS`; by the seed when left out.
        plain: cross-entropy or mean squares, nothing frozen, norms with stored statistics.
    """
    for attempt in range(1000):
        draw = np.random.Generator(np.random.Philox(key=[seed, attempt]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * seed + attempt)
            made = _drawn(seed, draw, smooth, kind, plain)
        if made is not None and 0 < made.params <= most and clear(made) > MARGIN:
            return made
    raise AssertionError(f"seed {seed} gives no network")


def clear(case: Case) -> float:
    """How far the inputs of all kinked layers are from their kinks."""
    model = naive.written(case.model, naive.weights(case.model))
    return margin(lambda: naive.in_batches(case)(model))


def networks(count: int, first: int = 0) -> Iterator[Case]:
    """``count`` cases."""
    return (network(seed) for seed in range(first, first + count))


def _drawn(seed: int, draw: Draw, smooth: bool, kind: str | None, plain: bool) -> Case | None:
    kind = kind or KINDS[seed % len(KINDS)]
    vocabulary, sizes = 5, pick(draw, ((4, 3), (3, 3, 2), (5,)))
    stages, shape = _stages(draw, kind, smooth, vocabulary)
    if shape is None:
        return None
    flows = "sequence" if kind == "tokens" else kind
    head, task = _head(draw, kind, flows, shape, stages, vocabulary, plain)
    model = Network(stages, head, task.form).double()
    _unsettle(model, draw)
    parts = [p for part in stages for p in part.parameters()]
    if flag(draw, 0.25) and parts and not plain:
        pick(draw, parts).requires_grad_(False)
    pairs = []
    for i, n in enumerate(sizes):
        x = _inputs(draw, kind, n, vocabulary)
        pairs.append((x, task.targets(draw, n, x, i)))
    normed = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norm = NORMS[seed // len(KINDS) % len(NORMS)] if normed and not plain else "eval"
    if norm == "recalibrate" and not any(m.running_mean is not None for m in normed):
        norm = "batch"
    data, options = _given(draw, pairs, norm)
    layers = tuple(dict.fromkeys(_names(model)))
    return Case(seed, model.train(), pairs, data, options, task, layers)


def _stages(
    draw: Draw, kind: str, smooth: bool, vocabulary: int
) -> tuple[list[nn.Module], Shape | None]:
    stages: list[nn.Module] = []
    flows = "sequence" if kind == "tokens" else kind
    if kind == "tokens":
        width = pick(draw, (3, 4))
        # No padding row: torch's derivatives hold it constant, the loss does not.
        stages.append(nn.Embedding(vocabulary, width))
        x: Tensor = _inputs(draw, kind, 2, vocabulary)
    else:
        x = torch.zeros(2, *SHAPES[kind])
    x = nn.Sequential(*stages)(x)
    for _ in range(int(draw.integers(2, 6))):
        for made in (
            stage(draw, flows, tuple(x.shape[1:]), smooth),
            activation(draw, tuple(x.shape[1:]), smooth),
        ):
            if isinstance(made, nn.ReLU | nn.ReLU6) and flag(draw, 0.3):
                continue
            if stages and isinstance(stages[-1], nn.modules.dropout._DropoutNd):
                # A dropout that is off hands on its input: torch cannot differentiate what is then changed in place.
                made.inplace = False
            try:
                with torch.no_grad():
                    x = made.double().eval()(x.double())
            except (RuntimeError, ValueError):  # a kernel that does not fit
                return [], None
            stages.append(made)
    return stages, tuple(x.shape[1:])


SHAPES: dict[str, Shape] = {
    "vector": (4,),
    "signal": (2, 7),
    "image": (2, 5, 5),
    "sequence": (3, 4),
}


def _inputs(draw: Draw, kind: str, n: int, vocabulary: int) -> Tensor:
    if kind == "tokens":
        return torch.from_numpy(draw.integers(0, vocabulary, (n, 4)))
    return torch.from_numpy(draw.standard_normal((n, *SHAPES[kind])))


def _head(
    draw: Draw,
    kind: str,
    flows: str,
    shape: Shape,
    stages: list[nn.Module],
    vocabulary: int,
    plain: bool,
) -> tuple[nn.Module, Task]:
    if kind == "tokens" and flag(draw, 0.6) and not plain:
        task = pick(draw, HEADS["tokens"])(vocabulary)
        if shape[-1] == stages[0].embedding_dim and flag(draw, 0.7):
            return Tied(stages[0]), task
        return nn.Linear(shape[-1], vocabulary, bias=flag(draw)), task
    task = pick(draw, HEADS["plain" if plain else "examples"])(3)
    flat = math.prod(shape) <= 24 and flag(draw, 0.5)
    return Pooled(shape, flows, task.outputs, flat), task


def _given(draw: Draw, pairs: list[tuple[Tensor, Tensor]], norm: str) -> tuple[Any, dict[str, Any]]:
    """The data as users have them: batches, mappings, or one pair that is to be cut."""
    sizes = [len(y) for _, y in pairs]
    form = pick(draw, ("batches", "mappings", "pair"))
    if form == "mappings":
        return [{"x": x, "labels": y} for x, y in pairs], {"norm": norm}
    if form == "pair" and len(sizes) > 1:
        whole = tuple(torch.cat(column) for column in zip(*pairs, strict=True))
        return whole, {"norm": norm, "batch_size": sizes[0]}
    return list(pairs), {"norm": norm}


def _unsettle(model: nn.Module, draw: Draw) -> None:
    """No parameter and no statistic at the value that it is born with."""
    for module in model.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            size = module.running_mean.shape
            module.running_mean.copy_(torch.from_numpy(draw.uniform(-0.5, 0.5, size)))
            module.running_var.copy_(torch.from_numpy(draw.uniform(0.5, 2.0, size)))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = np.asarray(0.15 * draw.standard_normal(tuple(parameter.shape)))
            parameter += torch.from_numpy(noise)


def _names(model: nn.Module) -> Iterator[str]:
    skipped = (Network, nn.ModuleList, nn.ModuleDict, nn.Sequential)
    for module in model.modules():
        name = type(module).__name__
        if not isinstance(module, skipped) and not name.startswith(("_", "Parametriz")):
            yield name
        elif name.startswith("_"):
            yield name.strip("_")
