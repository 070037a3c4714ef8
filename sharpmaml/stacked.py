"""One network with weights of its own for each of several tasks: losses and gradients without a graph."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.blocks import Block, FirstBlock
from sharpmaml.layers import Gather, Layer, Linear, ReLU

__all__ = ["Gather", "StackedNetwork", "Tape"]


class Tape(NamedTuple):
    """The passes that made a gradient, for Hessian-vector products at the same weights.

    Attributes:
        gradients: of each task's mean loss, ``(tasks, params)``.
        outputs: predictions or logits, ``(tasks, examples, outputs)``.
        residuals: derivative of each task's mean loss for its outputs.
        passes: of each layer, first to last: itself, its weights, its trace, what its reverse pass kept.
    """

    gradients: Tensor
    outputs: Tensor
    residuals: Tensor
    passes: list[tuple[Layer, list[Tensor], Any, Any]]

    @property
    def nbytes(self) -> int:
        """Memory held, views of one tensor counted once."""
        found: dict[int, int] = {}
        _count(self, found)
        return sum(found.values())


class StackedNetwork:
    """A `conv4` or an `mlp` at ``thetas (tasks, params)``, each task with weights of its own.

    Derivatives are written out layer by layer and checked against autograd in the tests.

    Args:
        model: the network; only its layers are read, never its weights.
        space: its parameters.
        kind: ``"classification"`` (cross-entropy) or ``"regression"`` (mean squared error).

    Raises:
        ValueError: layers that are not those of `sharpmaml.models`, or a frozen parameter.
    """

    def __init__(self, model: nn.Module, space: ParameterSpace, kind: str) -> None:
        if tuple(name for name, _ in model.named_parameters()) != space.names:
            raise ValueError("some parameters are frozen: a stacked network adapts all of them")
        self._layers = _layers(model)
        self._space = space
        starts = itertools.accumulate(space.sizes, initial=0)
        self._views = [
            (shape, _strides(shape), start)
            for shape, start in zip(space.shapes, starts, strict=False)
        ]
        ends = list(itertools.accumulate((layer.tensors for layer in self._layers), initial=0))
        self._spans = list(zip(self._layers, ends, ends[1:]))  # noqa: B905
        self._kind = kind

    def prepare(self, x: Tensor) -> Any:
        """Inputs ``(tasks, examples, ...)`` -> what the other methods take, computed once."""
        first = self._layers[0]
        return first.prepare(x) if isinstance(first, FirstBlock) else x.flatten(2)

    def activations(self, x: Tensor) -> int:
        """Entries of the widest layer for the examples ``x (examples, ...)`` of one task."""
        widest = max(shape[0] for shape in self._space.shapes)
        first = self._layers[0]
        places = math.prod(x.shape[-2:]) // first.stride**2 if isinstance(first, FirstBlock) else 1
        return x.shape[0] * widest * places

    def outputs(self, thetas: Tensor, inputs: Any) -> Tensor:
        """Predictions or logits, ``(tasks, examples, outputs)``."""
        x = inputs
        for layer, weights in self._weighted(thetas):
            x = layer.apply(x, weights)
        return x  # type: ignore[no-any-return]

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss of each task, ``(tasks,)``."""
        if self._kind == "classification":
            return F.cross_entropy(outputs.mT, y, reduction="none").mean(1)
        return (outputs - y).square().flatten(1).mean(1)

    def gradients(self, thetas: Tensor, inputs: Any, y: Tensor) -> Tensor:
        """Gradient of each task's mean loss with respect to its own weights, ``(tasks, params)``."""
        return self.tape(thetas, inputs, y).gradients

    def tape(self, thetas: Tensor, inputs: Any, y: Tensor) -> Tape:
        """The same with all that `products` needs."""
        x = inputs
        records = []
        for layer, weights in self._weighted(thetas):
            x, trace = layer.record(x, weights)
            records.append((layer, weights, trace))
        residuals = self._residuals(x, y)
        upstream: Tensor | None = residuals
        passes, pieces = [], []
        for layer, weights, trace in reversed(records):
            assert upstream is not None  # only the first layer returns no derivative for its input
            upstream, derivatives, kept = layer.reverse(trace, weights, upstream)
            passes.append((layer, weights, trace, kept))
            pieces.append(derivatives)
        return Tape(_joined(pieces[::-1], thetas), x, residuals, passes[::-1])

    def products(self, tape: Tape, vectors: Tensor) -> Tensor:
        """Hessian of each task's mean loss times its row of ``vectors``, ``(tasks, params)``.

        The derivative of `gradients` along ``vectors``: forward over reverse, at the weights of ``tape``.
        """
        x: Tensor | None = None
        moved = []
        pairs = zip(tape.passes, self._weighted(vectors), strict=True)
        for (layer, weights, trace, kept), (_, directions) in pairs:
            x, moving = layer.tangent(trace, weights, directions, x)
            moved.append((layer, trace, weights, kept, moving, directions))
        assert x is not None  # every network has a layer with weights
        upstream: Tensor | None = self._residuals_tangent(tape, x)
        pieces = []
        for layer, *known in reversed(moved):
            assert upstream is not None
            upstream, derivatives = layer.reverse_tangent(*known, upstream)
            pieces.append(derivatives)
        return _joined(pieces[::-1], vectors)

    def _weighted(self, thetas: Tensor) -> list[tuple[Layer, list[Tensor]]]:
        tasks, (row, column), start = len(thetas), thetas.stride(), thetas.storage_offset()
        if column != 1:
            return self._weighted(thetas.contiguous())
        # As strides rather than by split and view: a third of the time, which small networks feel.
        tensors = [
            thetas.as_strided((tasks, *shape), (row, *strides), start + first)
            for shape, strides, first in self._views
        ]
        return [(layer, tensors[first:last]) for layer, first, last in self._spans]

    def _residuals(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Derivative of each task's mean loss for its outputs."""
        examples = outputs.shape[1]
        if self._kind == "classification":
            # Not F.one_hot: it looks at the numbers, and a GPU would have to be waited for.
            hot = y[..., None] == torch.arange(outputs.shape[2], device=y.device)
            return (outputs.softmax(2) - hot.to(outputs.dtype)) / examples
        return (outputs - y).mul_(2 * len(outputs) / outputs.numel())

    def _residuals_tangent(self, tape: Tape, moving: Tensor) -> Tensor:
        """Derivative of the residuals along ``moving``, a direction of the outputs."""
        outputs = tape.outputs
        if self._kind == "classification":
            share = outputs.softmax(2)
            weighted = share * moving
            return (weighted - share * weighted.sum(2, keepdim=True)) / outputs.shape[1]
        return moving * (2 * len(outputs) / outputs.numel())


def _layers(model: nn.Module) -> list[Layer]:
    modules = list(model) if isinstance(model, nn.Sequential) else [model]
    layers: list[Layer] = []
    for index, module in enumerate(modules):
        match module:
            case models.ConvBlock():
                stride, eps = int(module.conv.stride[0]), module.norm.eps
                kind = FirstBlock if index == 0 else Block
                layers.append(kind(stride, module.pool, eps))
            case models.SpatialMean() | nn.Flatten():
                # An mlp flattens its inputs first: `prepare` has done it.
                if index > 0:
                    layers.append(Gather(isinstance(module, models.SpatialMean)))
            case nn.Linear() if module.bias is not None:
                layers.append(Linear(first=not layers))
            case nn.ReLU():
                layers.append(ReLU())
            case _:
                raise ValueError(
                    f"no stacked form of {type(module).__name__}: only conv4 and mlp have one"
                )
    return layers


def _joined(pieces: Sequence[tuple[Tensor, ...]], like: Tensor) -> Tensor:
    """Derivatives for the weights of all layers as ``(tasks, params)``."""
    rows, dtype = len(like), like.dtype
    flat = [tensor.reshape(rows, -1) for layer in pieces for tensor in layer]
    return torch.cat([piece if piece.dtype == dtype else piece.to(dtype) for piece in flat], 1)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _count(held: Any, found: dict[int, int]) -> None:
    if isinstance(held, Tensor):
        storage = held.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    elif isinstance(held, (tuple, list)):
        for part in held:
            _count(part, found)
