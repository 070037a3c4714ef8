"""Losses and metrics by name or as callables, brought to one number an example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = str | Callable[[Any, Any], Tensor]
Metric = str | Callable[[Any, Any], Tensor]

IGNORED = -100
"""The label of entries that do not count, as in ``torch.nn.functional.cross_entropy``."""

_COLUMNS = ("loss", "loss_stderr", "rise", "rise_stderr", "terms")  # of a surface
_LABELLED = ("cross_entropy", "nll_loss")  # the losses of torch that know IGNORED


def resolve_loss(loss: Loss) -> tuple[Callable[[Any, Any], Tensor], str]:
    """A loss as ``callable(output, target)`` and the name to record.

    Names are those in ``torch.nn.functional`` and those of :data:`LOSSES`. A named loss reads the
    ``logits`` of an output that has them (Hugging Face models).

    Every example weighs the same. Where an example has several labels (tokens, pixels), its loss is the
    mean over those that count: labels of -100 are left out of ``cross_entropy``, ``nll_loss`` and
    ``next_token``, as ``reduction="mean"`` leaves them out, but within each example. So the mean over
    examples is not the mean over all tokens unless every example counts as many.

    Raises:
        ValueError: no such loss.
    """
    if callable(loss):
        return loss, getattr(loss, "__qualname__", type(loss).__name__)
    if loss in LOSSES:
        own = LOSSES[loss]
        return lambda output, y: own(_exact(_logits(output)), y), loss
    function = getattr(F, loss, None)
    if not callable(function):
        raise ValueError(
            f"unknown loss {loss!r}: expected a name in torch.nn.functional such as 'cross_entropy' or "
            f"'mse_loss', one of {', '.join(LOSSES)}, or a callable(output, y)"
        )

    def named(output: Any, y: Any) -> Tensor:
        values: Tensor = function(_exact(_logits(output)), y, reduction="none")
        labelled = loss in _LABELLED and values.shape == getattr(y, "shape", None)
        return counted_mean(values, y) if labelled else values

    return named, loss


def logit_normalized_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the logits, centred over classes and divided by their norm; one an example.

    Andriushchenko et al. 2023, "A modern look at the relationship between sharpness and generalization",
    with the centring that their code has: a network cannot make it small by scaling its outputs up. Where
    all logits are equal the norm is taken as 1e-10.

    Args:
        logits: ``(examples, classes)``, or ``(examples, classes, positions)``.
        y: class labels.

    >>> z = torch.tensor([[4.0, -4.0]])  # centred and of norm 1: (0.5, -0.5) * sqrt(2)
    >>> float(logit_normalized_cross_entropy(z, torch.tensor([0]))) == float(
    ...     torch.log1p(torch.exp(torch.tensor(-(2**0.5))))
    ... )
    True
    """
    centred = logits - logits.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp(min=1e-10)
    return counted_mean(F.cross_entropy(centred / norm, y, reduction="none"), y)


def next_token(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each token given those before it, the mean over an example's tokens.

    Args:
        logits: ``(examples, positions, vocabulary)``; position ``t`` is about token ``t + 1``.
        y: ``(examples, positions)``, the tokens themselves, not shifted; -100 does not count.

    >>> uniform = next_token(torch.zeros(1, 3, 4), torch.tensor([[0, 1, -100]]))
    >>> round(float(uniform.exp()), 6)  # four tokens, one counted position
    4.0
    """
    ahead = y[:, 1:]
    values = F.cross_entropy(logits[:, :-1].transpose(1, 2), ahead, reduction="none")
    return counted_mean(values, ahead)


def next_token_accuracy(output: Any, y: Tensor) -> Tensor:
    """Share of an example's counted tokens that get the highest score, ``(examples,)``."""
    ahead = y[:, 1:]
    return counted_mean(_logits(output)[:, :-1].argmax(-1) == ahead, ahead)


def counted_mean(values: Tensor, y: Tensor) -> Tensor:
    """The mean of each example over the entries whose label counts, ``(examples,)``.

    Entries whose label is -100 do not count; an example that has no other has the value zero.

    Args:
        values: of the entries, of the shape of ``y``. With one label an example they stay as they are.
        y: class labels.

    >>> counted_mean(torch.tensor([[2.0, 0.0]]), torch.tensor([[7, -100]])).tolist()
    [2.0]
    """
    if values.dim() < 2 or y.is_floating_point():
        return values
    counts = (y != IGNORED).flatten(1)
    return (values.flatten(1).double() * counts).sum(1) / counts.sum(1).clamp(min=1)


def uncounted(loss: Loss, target: Any) -> int:
    """How many examples have no label that a named loss counts; their loss would read as zero."""
    known = loss in LOSSES or loss in _LABELLED
    if not known or not isinstance(target, Tensor) or target.is_floating_point():
        return 0
    labels = target[:, 1:] if loss == "next_token" else target
    return int((labels.reshape(len(labels), -1) == IGNORED).all(1).sum())


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logit_normalized_cross_entropy": logit_normalized_cross_entropy,
    "next_token": next_token,
}
"""Named losses that ``torch.nn.functional`` has not, each one number an example."""


def resolve_metric(metric: Metric) -> tuple[str, Callable[[Any, Any], Tensor]]:
    """The name to record a metric under, and the metric as ``callable(output, target)``.

    Raises:
        ValueError: an unknown name.
    """
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), metric
    if metric == "accuracy":
        return metric, lambda output, y: counted_mean(_logits(output).argmax(1) == y, y)
    raise ValueError(f"unknown metric {metric!r}: expected 'accuracy' or a callable(output, y)")


def named_metrics(metrics: Sequence[Metric]) -> dict[str, Callable[[Any, Any], Tensor]]:
    """Metrics by the names to record them under.

    Raises:
        ValueError: an unknown name, two of one name, or a name that is taken.
    """
    named = [resolve_metric(metric) for metric in metrics]
    names = [name for name, _ in named]
    taken = [n for i, n in enumerate(names) if n in _COLUMNS or n in names[:i]]
    if taken:
        raise ValueError(
            f"two numbers would be called {taken[0]!r}: give each metric a __name__ of its own, "
            f"and none of {', '.join(_COLUMNS)}"
        )
    return dict(named)


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
