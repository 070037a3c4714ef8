"""Losses and metrics by name or as callables, brought to one number an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = str | Callable[[Any, Any], Tensor]
Metric = str | Callable[[Any, Any], Tensor]


def resolve_loss(loss: Loss) -> tuple[Callable[[Any, Any], Tensor], str]:
    """A loss as ``callable(output, target)`` and the name to record.

    A named loss reads the ``logits`` of an output that has them (Hugging Face models).

    Raises:
        ValueError: no such loss in ``torch.nn.functional``.
    """
    if callable(loss):
        return loss, getattr(loss, "__qualname__", type(loss).__name__)
    function = getattr(F, loss, None)
    if function is None:
        raise ValueError(
            f"unknown loss {loss!r}: expected a name in torch.nn.functional such as "
            "'cross_entropy' or 'mse_loss', or a callable(output, y)"
        )
    return lambda output, y: function(_exact(_logits(output)), y, reduction="none"), loss


def resolve_metric(metric: Metric) -> tuple[str, Callable[[Any, Any], Tensor]]:
    """The name to record a metric under, and the metric as ``callable(output, target)``.

    Raises:
        ValueError: an unknown name.
    """
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), metric
    if metric == "accuracy":
        return metric, lambda output, y: _logits(output).argmax(1) == y
    raise ValueError(f"unknown metric {metric!r}: expected 'accuracy' or a callable(output, y)")


def fits_accuracy(output: Any, target: Any) -> bool:
    """Whether ``output`` scores classes along dimension 1, one choice for every entry of ``target``."""
    scores = _logits(output)
    return (
        isinstance(scores, Tensor)
        and scores.dim() >= 2
        and scores.shape[:1] + scores.shape[2:] == target.shape
    )


def per_example(values: Tensor, count: int) -> Tensor:
    """One number an example, ``(count,)``: means over all other dimensions; a scalar is repeated."""
    if values.dim() == 0:
        return values.expand(count)
    return values.flatten(1).double().mean(1) if values.dim() > 1 else values


def _exact(scores: Tensor) -> Tensor:
    """In float32 at least: the loss of bfloat16 scores needs not be rounded to bfloat16 again."""
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


def _logits(output: Any) -> Tensor:
    tensor: Tensor = getattr(output, "logits", output)
    return tensor
