"""Losses that users take, drawn at random: as the library is given them, and written out from their formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from random_layers import Draw
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Task:
    """A loss and its targets.

    Attributes:
        name: to show.
        loss: as the library is given it.
        formula: ``(output, y)`` of some examples -> their mean loss, written out.
        outputs: width of the head.
        form: of the head's tensor -> what the network returns.
        draw_targets: ``(draw, examples, x)`` -> targets.
        scalar: the loss couples the examples of its batch.
    """

    name: str
    loss: str | Callable[[Any, Any], Tensor]
    formula: Callable[[Any, Any], Tensor]
    outputs: int
    draw_targets: Callable[[Draw, int, Tensor], Tensor]
    form: Callable[[Tensor], Any] = lambda t: t
    scalar: bool = False

    def targets(self, draw: Draw, n: int, x: Tensor, batch: int) -> Tensor:
        """Targets of one batch."""
        return self.draw_targets(draw, n, x)


def log_shares(scores: Tensor) -> Tensor:
    """Logarithms of softmax along dimension 1, by its definition."""
    shifted = scores - scores.detach().amax(1, keepdim=True)
    return shifted - shifted.exp().sum(1, keepdim=True).log()


def by_example(one: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The mean over examples of ``one(output of an example, its target)``."""

    def mean(output: Tensor, y: Tensor) -> Tensor:
        return torch.stack([one(output[i : i + 1], y[i : i + 1]) for i in range(len(y))]).mean()

    return mean


def _classes(classes: int) -> Callable[[Draw, int, Tensor], Tensor]:
    return lambda draw, n, x: torch.from_numpy(draw.integers(0, classes, n))


def _normal(width: int) -> Callable[[Draw, int, Tensor], Tensor]:
    return lambda draw, n, x: torch.from_numpy(draw.standard_normal((n, width)))


def _minus_log_share(output: Tensor, y: Tensor) -> Tensor:
    return -log_shares(output)[0, int(y[0])]


def cross_entropy(classes: int) -> Task:
    return Task(
        "cross_entropy", "cross_entropy", by_example(_minus_log_share), classes, _classes(classes)
    )


def with_logits(classes: int) -> Task:
    """An output that has ``logits`` beside something else."""
    form = lambda t: SimpleNamespace(logits=t, hidden=t.square())  # noqa: E731
    formula = by_example(_minus_log_share)
    return Task(
        "cross_entropy of .logits", "cross_entropy", lambda o, y: formula(o.logits, y), classes,
        _classes(classes), form,
    )  # fmt: skip


def smoothed(classes: int) -> Task:
    share = 0.1

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y, label_smoothing=share, reduction="none")

    def one(output: Tensor, y: Tensor) -> Tensor:
        logs = log_shares(output)[0]
        return -(1 - share) * logs[int(y[0])] - share * logs.mean()

    return Task("label smoothing", loss, by_example(one), classes, _classes(classes))


def weighted(classes: int) -> Task:
    weights = torch.linspace(0.5, 2.0, classes, dtype=torch.float64)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y, weight=weights, reduction="none")

    def one(output: Tensor, y: Tensor) -> Tensor:
        return weights[int(y[0])] * _minus_log_share(output, y)

    return Task("class weights", loss, by_example(one), classes, _classes(classes))


def weighted_mean(classes: int) -> Task:
    """torch's own mean with class weights: a weighted mean over the batch, one scalar."""
    weights = torch.linspace(0.5, 2.0, classes, dtype=torch.float64)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y, weight=weights)

    def formula(output: Tensor, y: Tensor) -> Tensor:
        parts = [
            weights[int(y[i])] * _minus_log_share(output[i : i + 1], y[i : i + 1])
            for i in range(len(y))
        ]
        return torch.stack(parts).sum() / sum(float(weights[int(label)]) for label in y)

    return Task(
        "class weights, mean of the batch", loss, formula, classes, _classes(classes), scalar=True
    )


def soft_labels(classes: int) -> Task:
    def targets(draw: Draw, n: int, x: Tensor) -> Tensor:
        return torch.from_numpy(draw.dirichlet(np.ones(classes), n))

    def one(output: Tensor, y: Tensor) -> Tensor:
        return -(y * log_shares(output)).sum()

    return Task("soft labels", "cross_entropy", by_example(one), classes, targets)


def nll(classes: int) -> Task:
    """The network ends in a log-softmax."""
    form = lambda t: t.log_softmax(1)  # noqa: E731

    def one(output: Tensor, y: Tensor) -> Tensor:
        return -output[0, int(y[0])]

    return Task("nll_loss", "nll_loss", by_example(one), classes, _classes(classes), form)


def logit_normalized(classes: int) -> Task:
    def one(output: Tensor, y: Tensor) -> Tensor:
        centred = output - output.sum(1, keepdim=True) / output.shape[1]
        return _minus_log_share(centred / (centred * centred).sum().sqrt(), y)

    name = "logit_normalized_cross_entropy"
    return Task(name, name, by_example(one), classes, _classes(classes))


def squares(classes: int) -> Task:
    def one(output: Tensor, y: Tensor) -> Tensor:
        return ((output - y) * (output - y)).sum() / 2  # the named loss is the mean over outputs

    return Task("mse_loss", "mse_loss", by_example(one), 2, _normal(2))


def binary(classes: int) -> Task:
    def targets(draw: Draw, n: int, x: Tensor) -> Tensor:
        return torch.from_numpy(draw.integers(0, 2, (n, 2)).astype(float))

    def one(output: Tensor, y: Tensor) -> Tensor:
        share = 1 / (1 + (-output).exp())
        return -(y * share.log() + (1 - y) * (1 - share).log()).sum() / 2

    name = "binary_cross_entropy_with_logits"
    return Task(name, name, by_example(one), 2, targets)


def counts(classes: int) -> Task:
    def targets(draw: Draw, n: int, x: Tensor) -> Tensor:
        return torch.from_numpy(draw.poisson(1.0, (n, 1)).astype(float))

    def one(output: Tensor, y: Tensor) -> Tensor:
        return (output.exp() - y * output).sum()

    return Task("poisson_nll_loss", "poisson_nll_loss", by_example(one), 1, targets)


def gaussian(classes: int) -> Task:
    """Two outputs in a tuple, one a function of the other, and a loss of the user's own."""
    form = lambda t: (t[:, :1], t[:, 1:] + t[:, :1].tanh())  # noqa: E731

    def loss(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        mean, log_variance = output
        return ((mean - y).square() * (-log_variance).exp() + log_variance).squeeze(1)

    def formula(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        parts = [
            (output[0][i] - y[i]) * (output[0][i] - y[i]) / output[1][i].exp() + output[1][i]
            for i in range(len(y))
        ]
        return torch.cat(parts).mean()

    return Task("gaussian, two outputs", loss, formula, 2, _normal(1), form)


def complex_squares(classes: int) -> Task:
    """A complex output."""
    form = lambda t: torch.complex(t[:, 0].cos(), t[:, 1])  # noqa: E731

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return (output * torch.exp(1j * y[:, 0]) - 1).abs().square()

    def formula(output: Tensor, y: Tensor) -> Tensor:
        a, b, c, s = output.real, output.imag, y[:, 0].cos(), y[:, 0].sin()
        left, right = a * c - b * s - 1, a * s + b * c
        return (left * left + right * right).mean()

    return Task("complex output", loss, formula, 2, _normal(1), form)


def tokens(vocabulary: int) -> Task:
    """A class for every token, some of which do not count, classes along dimension 1 as torch wants them."""

    def targets(draw: Draw, n: int, x: Tensor) -> Tensor:
        labels = draw.integers(0, vocabulary, tuple(x.shape))
        return torch.from_numpy(np.where(draw.random(labels.shape) < 0.25, IGNORED, labels))

    return Task(
        "cross_entropy of tokens", "cross_entropy", by_example(_token_mean), vocabulary, targets,
        lambda t: t.transpose(1, 2),
    )  # fmt: skip


def _token_mean(output: Tensor, y: Tensor) -> Tensor:
    total, logs = output.sum() * 0, log_shares(output)
    counted = [t for t in range(y.shape[1]) if int(y[0, t]) != IGNORED]
    for t in counted:
        total = total - logs[0, int(y[0, t]), t]
    return total / max(len(counted), 1)


def following(vocabulary: int) -> Task:
    def one(output: Tensor, y: Tensor) -> Tensor:
        return _token_mean(output[:, :-1].transpose(1, 2), y[:, 1:])

    return Task("next_token", "next_token", by_example(one), vocabulary, lambda d, n, x: x.clone())


HEADS: dict[str, tuple[Callable[[int], Task], ...]] = {
    "examples": (
        cross_entropy, with_logits, smoothed, weighted, weighted_mean, soft_labels, nll, nll, logit_normalized,
        squares, binary, counts, gaussian, complex_squares,
    ),
    "tokens": (tokens, following),
    "plain": (cross_entropy, squares),
}  # fmt: skip
