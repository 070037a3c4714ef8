"""Objectives: scalar functions of a flat parameter vector, and the mean loss of a network over data."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from landscape.space import ParameterSpace

NORM_MODES = ("eval", "batch", "recalibrate")
_CHUNK = 256

Loss = str | Callable[[Tensor, Tensor], Tensor]
Metric = str | Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Objective(Protocol):
    """A scalar function of a vector ``theta (params,)``, with what the toolkit asks of it.

    ``value`` and ``losses`` are pure and differentiable functions of ``theta``; no graph is built unless
    ``theta`` asks for one. ``losses`` returns the terms whose mean is ``value`` (examples, or tasks of a
    meta objective), shape ``(terms,)``: their scatter is the standard error of everything derived.
    """

    space: ParameterSpace
    theta: Tensor
    settings: dict[str, Any]

    def value(self, theta: Tensor) -> Tensor:
        """The loss at ``theta``, 0-dimensional."""

    def values(self, thetas: Tensor) -> Tensor:
        """``thetas (points, params)`` -> losses ``(points,)``."""

    def losses(self, theta: Tensor) -> Tensor:
        """The terms ``(terms,)`` whose mean is ``value(theta)``."""

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """``loss``, ``loss_stderr`` and the objective's other metrics at ``theta``."""

    def gradient(self, theta: Tensor) -> Tensor:
        """``(params,)``."""

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian at ``theta`` times ``v``, ``(params,)``."""


def standard_error(losses: Tensor) -> float:
    """Standard error of the mean of ``losses (terms,)``; NaN for a single term."""
    n = losses.numel()
    return float(losses.std(correction=1)) / math.sqrt(n) if n > 1 else math.nan


def digest(tensors: Iterable[Tensor]) -> str:
    """The sha256 of tensors, dtypes and shapes included: the same on every device."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


class FunctionObjective:
    """Any differentiable function of a vector as an objective: the way in for formulas.

    Args:
        function: ``theta (params,) -> scalar`` written in torch operations.
        theta: the point of interest, ``(params,)``.
        space: names and shapes; a single unnamed vector when left out.

    >>> bowl = FunctionObjective(lambda t: 0.5 * (t * t).sum(), torch.tensor([3.0, 4.0]))
    >>> float(bowl.value(bowl.theta)), bowl.gradient(bowl.theta).tolist()
    (12.5, [3.0, 4.0])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        theta: Tensor,
        space: ParameterSpace | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._function = function
        self.theta = theta.detach().clone()
        self.space = space or ParameterSpace.of_vector(theta.numel())
        self.settings: dict[str, Any] = {"objective": "function", **(settings or {})}

    def value(self, theta: Tensor) -> Tensor:
        """The function at ``theta (params,)``, 0-dimensional."""
        return self._function(theta)

    def values(self, thetas: Tensor) -> Tensor:
        """``(points, params)`` -> ``(points,)``."""
        return torch.stack([self.value(theta) for theta in thetas])

    def losses(self, theta: Tensor) -> Tensor:
        """A formula has one exact term, ``(1,)``."""
        return self.value(theta).reshape(1)

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """``loss``; its ``loss_stderr`` is 0 because nothing was sampled."""
        return {"loss": float(self.value(theta)), "loss_stderr": 0.0}

    def gradient(self, theta: Tensor) -> Tensor:
        """``(params,)``."""
        return gradient_of(self.value, theta)

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """``(params,)``, by double backward."""
        return hvp_of(self.value, theta, v)


class DataObjective:
    """Mean loss of a network over a data set, as a function of its trainable parameters.

    The model is copied: the caller's parameters, buffers, mode and the global random state are never
    touched. The data are read once and kept on the model's device. Every average is over examples,
    so a short last batch weighs what it should.

    Args:
        model: any ``nn.Module``; ``theta`` is a detached copy of its trainable parameters.
        data: an iterable of ``(x, y)`` batches, or a pair of tensors.
        loss: name in ``torch.nn.functional`` (``"cross_entropy"``, ``"mse_loss"``, ...) or
            ``callable(output, y)`` that returns one loss an example, or the scalar mean of its batch
            (then a standard error is not available and reads NaN).
        metrics: ``"accuracy"`` (reported where the labels are integers) or callables
            ``(output, y) -> (examples,)``.
        norm: batch-norm statistics: ``"eval"`` the stored ones, ``"batch"`` those of each batch,
            ``"recalibrate"`` recomputed over all data at each ``theta`` (values only, no derivatives).
        batch_size: how a pair of tensors is cut. With ``norm="batch"`` the cut changes the loss, and
            the default is one batch of everything; otherwise it only bounds memory.

    Raises:
        ValueError: no data, an unknown loss, metric or norm mode.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> objective = DataObjective(model, (torch.ones(4, 1), torch.zeros(4, 1)), loss="mse_loss")
    >>> objective.metrics(objective.theta)
    {'loss': 4.0, 'loss_stderr': 0.0}
    """

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
        loss: Loss = "cross_entropy",
        metrics: Sequence[Metric] = ("accuracy",),
        norm: str = "eval",
        batch_size: int | None = None,
    ) -> None:
        if norm not in NORM_MODES:
            raise ValueError(f"unknown norm mode {norm!r}: expected one of {', '.join(NORM_MODES)}")
        self.space = ParameterSpace.from_module(model)
        self.theta = self.space.flatten(dict(model.named_parameters()))
        self.norm = norm
        self._loss, loss_name = _resolve_loss(loss)
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        if norm == "batch":
            _use_batch_statistics(self._model)
        self._batches = _materialize(data, batch_size, norm, self.theta)
        integer_labels = not self._batches[0][1].is_floating_point()
        self._metrics = dict(
            _resolve_metric(m) for m in metrics if m != "accuracy" or integer_labels
        )
        self.examples = sum(_length(y) for _, y in self._batches)
        self.settings: dict[str, Any] = {
            "objective": "data",
            "model": type(model).__name__,
            "loss": loss_name,
            "norm": norm,
            "examples": self.examples,
            "batches": len(self._batches),
            "dtype": str(self.theta.dtype).removeprefix("torch."),
            "data_sha256": digest(tensor for batch in self._batches for tensor in batch),
            "fixed_sha256": digest(self._fixed()),
        }

    def value(self, theta: Tensor) -> Tensor:
        """Mean loss over all examples at ``theta (params,)``, 0-dimensional."""
        buffers = self._buffers(theta)
        terms = [self._batch_loss(theta, buffers, x, y) for x, y in self._batches]
        return torch.stack(terms).sum() / self.examples

    def values(self, thetas: Tensor) -> Tensor:
        """``(points, params)`` -> ``(points,)``."""
        return torch.stack([self.value(theta) for theta in thetas])

    def losses(self, theta: Tensor) -> Tensor:
        """Loss of each example, ``(examples,)``.

        Raises:
            ValueError: the loss callable returns one scalar a batch, so there are no terms.
        """
        buffers = self._buffers(theta)
        pieces = [self._loss(self._forward(theta, buffers, x), y) for x, y in self._batches]
        if any(piece.dim() == 0 for piece in pieces):
            raise ValueError(
                "the loss returns one scalar a batch; return one loss an example instead"
            )
        return torch.cat(
            [piece.flatten(1).mean(1) if piece.dim() > 1 else piece for piece in pieces]
        )

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """``loss``, ``loss_stderr`` (over examples) and the metrics asked for, one forward pass."""
        buffers = self._buffers(theta)
        losses: list[Tensor] = []
        extra: dict[str, list[Tensor]] = {name: [] for name in self._metrics}
        scalar = False
        with torch.no_grad():
            for x, y in self._batches:
                output = self._forward(theta, buffers, x)
                loss = self._loss(output, y)
                scalar = scalar or loss.dim() == 0
                losses.append(_per_example(loss, _length(y)))
                for name, metric in self._metrics.items():
                    extra[name].append(_per_example(metric(output, y), _length(y)))
        terms = torch.cat(losses).double()
        error = math.nan if scalar else standard_error(terms)
        result = {"loss": float(terms.mean()), "loss_stderr": error}
        return result | {name: float(torch.cat(v).double().mean()) for name, v in extra.items()}

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient ``(params,)``, one batch's graph in memory at a time.

        Raises:
            ValueError: ``norm="recalibrate"``, whose statistics are not differentiated.
        """
        self._need_derivatives()
        buffers = self._buffers(theta)
        total = torch.zeros_like(theta)
        for x, y in self._batches:
            total += gradient_of(lambda t, x=x, y=y: self._batch_loss(t, buffers, x, y), theta)  # type: ignore[misc]
        return total / self.examples

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian times ``v (params,)`` by double backward, every batch weighted by its size.

        Raises:
            ValueError: ``norm="recalibrate"``, whose statistics are not differentiated.
        """
        self._need_derivatives()
        buffers = self._buffers(theta)
        total = torch.zeros_like(theta)
        for x, y in self._batches:
            total += hvp_of(lambda t, x=x, y=y: self._batch_loss(t, buffers, x, y), theta, v)  # type: ignore[misc]
        return total / self.examples

    def _fixed(self) -> Iterable[Tensor]:
        """What the loss depends on beside theta and the data: frozen parameters and buffers."""
        trained = set(self.space.names)
        yield from (p for name, p in self._model.named_parameters() if name not in trained)
        yield from self._model.buffers()

    def _forward(self, theta: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(
            self._model, {**self.space.unflatten(theta), **buffers}, (x,)
        )
        return output

    def _batch_loss(
        self, theta: Tensor, buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """Sum over the examples of one batch."""
        loss = self._loss(self._forward(theta, buffers, x), y)
        if loss.dim() == 0:
            return loss * _length(y)
        return loss.flatten(1).mean(1).sum() if loss.dim() > 1 else loss.sum()

    def _buffers(self, theta: Tensor) -> dict[str, Tensor]:
        if self.norm != "recalibrate":
            return {}
        named = {
            name: m
            for name, m in self._model.named_modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
        }
        norms = list(named.values())
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        for name, buffer in buffers.items():
            owner, _, leaf = name.rpartition(".")
            # Other layers (InstanceNorm) may store statistics under the same names: leave theirs.
            if owner in named and leaf in ("running_mean", "num_batches_tracked"):
                buffer.zero_()
            elif owner in named and leaf == "running_var":
                buffer.fill_(1.0)
        momenta = [m.momentum for m in norms]
        try:
            for m in norms:
                m.train()
                m.momentum = None  # cumulative average: every batch counts once
            with torch.no_grad():
                for x, _ in self._batches:
                    self._forward(theta.detach(), buffers, x)
        finally:
            for m, momentum in zip(norms, momenta, strict=True):
                m.momentum = momentum
                m.eval()
        return buffers

    def _need_derivatives(self) -> None:
        if self.norm == "recalibrate":
            raise ValueError(
                "norm='recalibrate' has values but no derivatives; use norm='eval' or norm='batch'"
            )


def gradient_of(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Gradient ``(params,)`` of a scalar function of a vector."""
    point = theta.detach().requires_grad_()
    with torch.enable_grad():  # also where the caller has switched gradients off
        (gradient,) = torch.autograd.grad(function(point), point)
    return gradient


def hvp_of(function: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor) -> Tensor:
    """Hessian of a scalar function of a vector times ``v (params,)``, by double backward."""
    point = theta.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(function(point), point, create_graph=True)
        if not gradient.requires_grad:  # a linear function: its Hessian is zero
            return torch.zeros_like(v)
        (product,) = torch.autograd.grad(gradient, point, v, allow_unused=True)
    return torch.zeros_like(v) if product is None else product


def _materialize(
    data: Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
    batch_size: int | None,
    norm: str,
    theta: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    def place(tensor: Tensor) -> Tensor:
        # Inputs follow the model's precision; integer inputs (tokens, labels) stay what they are.
        dtype = theta.dtype if tensor.is_floating_point() else None
        return tensor.detach().to(device=theta.device, dtype=dtype)

    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(d, Tensor) for d in data):
        x, y = cast(tuple[Tensor, Tensor], data)
        size = batch_size or (len(x) if norm == "batch" else _CHUNK)
        batches = list(zip(torch.split(x, max(size, 1)), torch.split(y, max(size, 1)), strict=True))
    else:
        # A DataLoader draws from the global generator as soon as it is iterated.
        with torch.random.fork_rng(devices=[]):
            batches = [(x, y) for x, y in data]
    batches = [(place(x), place(y)) for x, y in batches if _length(y)]
    if not batches:
        raise ValueError("the data hold no example: pass (x, y) batches or a pair of tensors")
    return batches


def _length(y: Tensor) -> int:
    return y.shape[0] if y.dim() else 1


def _per_example(values: Tensor, count: int) -> Tensor:
    if values.dim() == 0:
        return values.expand(count)
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _resolve_loss(loss: Loss) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    if callable(loss):
        return loss, getattr(loss, "__qualname__", type(loss).__name__)
    function = getattr(F, loss, None)
    if function is None:
        raise ValueError(
            f"unknown loss {loss!r}: expected a name in torch.nn.functional such as "
            "'cross_entropy' or 'mse_loss', or a callable(output, y)"
        )
    return lambda output, y: function(output, y, reduction="none"), loss


def _resolve_metric(metric: Metric) -> tuple[str, Callable[[Tensor, Tensor], Tensor]]:
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), metric
    if metric == "accuracy":
        return metric, lambda output, y: (output.argmax(1) == y).to(torch.float64)
    raise ValueError(f"unknown metric {metric!r}: expected 'accuracy' or a callable(output, y)")


def _use_batch_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # Without stored statistics torch takes the batch's own, in eval mode too.
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
