"""Norm layers from their definitions, and batch norm's statistics by hand; nothing here is the library's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Moments = tuple[Tensor, Tensor]


class Normalized(nn.Module):
    """``(x - mean) / sqrt(variance + eps)`` along some dimensions, then scale and shift.

    Attributes:
        source: ``"batch"`` or ``"stored"``, of a batch norm.
        records: moments that batch norms met, mean and unbiased variance, while ``noting``.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__()
        self.kind = type(native).__name__
        self.eps = native.eps if native.eps is not None else torch.finfo(torch.float64).eps
        self.weight, self.bias = getattr(native, "weight", None), getattr(native, "bias", None)
        self.groups = getattr(native, "num_groups", 0)
        self.shape = getattr(native, "normalized_shape", None)
        self.mean, self.variance = (
            getattr(native, "running_mean", None),
            getattr(native, "running_var", None),
        )
        self.tracked = self.mean is not None
        self.own = self.mean is None
        self.noting = False
        self.records: list[Moments] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.shape is not None:
            return self._last(x)
        channels = [1, x.shape[1]] + [1] * (x.dim() - 2)
        if self.kind.startswith("GroupNorm"):
            parts = x.reshape(x.shape[0], self.groups, -1)
            made = _standard(parts, (2,), self.eps).reshape(x.shape)
        elif self.kind.startswith("InstanceNorm") and self.own:
            made = _standard(x, tuple(range(2, x.dim())), self.eps)
        elif self.own:
            dims = (0, *range(2, x.dim()))
            if self.noting:
                self.records.append(_moments(x, dims))
            made = _standard(x, dims, self.eps)
        else:
            mean, variance = self.mean.view(channels), self.variance.view(channels)
            made = (x - mean) / torch.sqrt(variance + self.eps)
        made = made if self.weight is None else made * self.weight.view(channels)
        return made if self.bias is None else made + self.bias.view(channels)

    def _last(self, x: Tensor) -> Tensor:
        dims = tuple(range(x.dim() - len(self.shape), x.dim()))
        if self.kind == "RMSNorm":
            made = x / torch.sqrt((x * x).mean(dims, keepdim=True) + self.eps)
        else:
            made = _standard(x, dims, self.eps)
        made = made if self.weight is None else made * self.weight
        return made if self.bias is None else made + self.bias


class Lengths(nn.Module):
    """Weight norm: ``g v / ‖v‖``, a length for each slice along ``dim``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        others = [d for d in range(v.dim()) if d != self.dim]
        return g * v / torch.sqrt((v * v).sum(others, keepdim=True))


def _moments(x: Tensor, dims: tuple[int, ...]) -> Moments:
    count = x.numel() // x.shape[1]
    mean = x.mean(dims)
    centred = x - x.mean(dims, keepdim=True)
    return mean, (centred * centred).sum(dims) / (count - 1)


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(dims, keepdim=True) + eps)


NATIVE = (
    nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm,
    nn.RMSNorm,
)  # fmt: skip


def rewritten(model: nn.Module) -> nn.Module:
    """The same model with its norm layers from their definitions, in place."""
    made: dict[nn.Module, Normalized] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, parametrizations._WeightNorm):
                setattr(parent, name, Lengths(child.dim))
            elif isinstance(child, NATIVE):
                made.setdefault(child, Normalized(child))
                setattr(parent, name, made[child])
    return model


class Statistics:
    """What batch norms of a rewritten model normalize by; stored statistics at first."""

    def __init__(self, model: nn.Module) -> None:
        found = [m for m in model.modules() if isinstance(m, Normalized)]
        self._norms = [m for m in found if m.kind.startswith("BatchNorm")]
        for norm in self._norms:
            norm.own = not norm.tracked
            norm.noting, norm.records = False, []
        self._collects = False

    @property
    def couples(self) -> bool:
        """Whether the examples of a batch depend on each other."""
        return any(norm.own for norm in self._norms)

    def of_each_batch(self) -> None:
        """Those of the batch at hand."""
        for norm in self._norms:
            norm.own = True

    def take(self, inputs: Sequence[Tensor], model: nn.Module) -> None:
        """The plain means of those met in a pass over all batches, which itself goes by each batch's own."""
        tracked = [norm for norm in self._norms if norm.tracked]
        for norm in self._norms:
            norm.own, norm.noting = True, True
        for x in inputs:
            model(x.clone())
        for norm in self._norms:
            norm.own, norm.noting = not norm.tracked, False
        for norm in tracked:
            norm.mean = sum(mean for mean, _ in norm.records) / len(norm.records)
            norm.variance = sum(variance for _, variance in norm.records) / len(norm.records)
