"""One network with weights of its own for each of several tasks: losses and gradients without a graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.blocks import Block, Derivatives, FirstBlock, Layer


class Linear(Layer):
    """``(tasks, examples, in)`` -> ``(tasks, examples, out)``."""

    tensors = 2

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The output; the input is what `backward` needs."""
        weight, bias = weights
        return torch.baddbmm(bias[:, None], x, weight.mT), x

    def backward(self, trace: Tensor, weights: Sequence[Tensor], upstream: Tensor) -> Derivatives:
        """Derivatives for the input, the weight and the bias."""
        return upstream @ weights[0], (upstream.mT @ trace, upstream.sum(1))


class ReLU(Layer):
    """Any shape; its derivative at 0 is 0, as in torch."""

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The output; the input is what `backward` needs."""
        return x.clamp_min(0), x

    def backward(self, trace: Tensor, weights: Sequence[Tensor], upstream: Tensor) -> Derivatives:
        """The derivative for the input."""
        return torch.where(trace > 0, upstream, 0.0), ()


class Gather(Layer):
    """``(images, h, w, tasks, channels)`` -> ``(tasks, images, features)``: flattened, or averaged."""

    def __init__(self, mean: bool) -> None:
        self.mean = mean

    def record(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, torch.Size]:
        """The output; the shape of the input is what `backward` needs."""
        maps = x.permute(3, 0, 4, 1, 2)
        return maps.mean((3, 4)) if self.mean else maps.flatten(2), maps.shape

    def backward(
        self, trace: torch.Size, weights: Sequence[Tensor], upstream: Tensor
    ) -> Derivatives:
        """The derivative for the input."""
        if self.mean:
            maps = (upstream / (trace[3] * trace[4]))[..., None, None].expand(trace)
        else:
            maps = upstream.reshape(trace)
        return maps.permute(1, 3, 4, 0, 2).contiguous(), ()


class StackedNetwork:
    """A `conv4` or an `mlp` at ``thetas (tasks, params)``, each task with weights of its own.

    Derivatives are written out layer by layer and checked against autograd in the tests. Nothing is
    kept between calls.

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
        x = inputs
        records = []
        for layer, weights in self._weighted(thetas):
            x, trace = layer.record(x, weights)
            records.append((layer, trace, weights))
        upstream: Tensor | None = self._residuals(x, y)
        pieces: list[Tensor] = []
        for layer, trace, weights in reversed(records):
            assert upstream is not None  # only the first layer returns no derivative for its input
            upstream, derivatives = layer.backward(trace, weights, upstream)
            pieces = [piece.flatten(1).to(thetas.dtype) for piece in derivatives] + pieces
        return torch.cat(pieces, 1)

    def _weighted(self, thetas: Tensor) -> list[tuple[Layer, list[Tensor]]]:
        pieces = torch.split(thetas, list(self._space.sizes), 1)
        shapes = self._space.shapes
        tensors = [torch.unflatten(p, 1, shape) for p, shape in zip(pieces, shapes, strict=True)]
        pairs = []
        for layer in self._layers:
            pairs.append((layer, tensors[: layer.tensors]))
            tensors = tensors[layer.tensors :]
        return pairs

    def _residuals(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Derivative of each task's mean loss for its outputs."""
        examples = outputs.shape[1]
        if self._kind == "classification":
            hot = F.one_hot(y, outputs.shape[2]).to(outputs.dtype)
            return (outputs.softmax(2) - hot) / examples
        return (outputs - y) * (2 / outputs[0].numel())


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
                layers.append(Linear())
            case nn.ReLU():
                layers.append(ReLU())
            case _:
                raise ValueError(
                    f"no stacked form of {type(module).__name__}: only conv4 and mlp have one"
                )
    return layers
