"""The mean loss of a network over a data set, as a function of its parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape import device as devices
from landscape import norms
from landscape.batches import Batch, Data, materialize
from landscape.objective import digest, gradient_of, hvp_of, standard_error
from landscape.parts import Part, Tensors
from landscape.scoring import Loss, Metric, fits_accuracy, named_metrics, per_example, resolve_loss
from landscape.space import ParameterSpace

NORM_MODES = ("eval", "batch", "recalibrate", "interpolated")

_SCALAR = "the loss returns one scalar a batch; return one loss an example instead"


class DataObjective:
    """Mean loss of a network over a data set, as a function of its trainable parameters.

    The model is copied: the caller's parameters, buffers, mode and the global random state are never
    touched. The data are read once and kept on the model's device. Every average is over examples,
    so a short last batch weighs what it should.

    Args:
        model: any ``nn.Module``; ``theta`` is a detached copy of its trainable parameters.
        data: an iterable of batches, or one pair ``(x, y)`` of tensors. A batch is ``(x, y)``,
            ``(x1, x2, ..., y)`` for several inputs, or a mapping of keyword inputs with the target
            under ``"labels"`` (see :func:`landscape.batches.materialize`).
        loss: name in ``torch.nn.functional`` (``"cross_entropy"``, ``"mse_loss"``, ...) or
            ``callable(output, y)`` that returns one loss an example, or the scalar mean of its batch
            (then a standard error is not available and reads NaN).
        metrics: ``"accuracy"`` (reported where the labels are classes) or callables
            ``(output, y) -> (examples,)``.
        norm: batch-norm statistics: ``"eval"`` the stored ones, ``"batch"`` those of each batch,
            ``"recalibrate"`` recomputed over all data at each ``theta``, derivatives included,
            ``"interpolated"`` those that a plane between checkpoints carries, on surfaces; elsewhere the
            stored ones.
        batch_size: how a pair of tensors is cut. With ``norm="batch"`` the cut changes the loss, and
            the default is one batch of everything; otherwise it only bounds memory.
        precision: ``"bfloat16"`` runs the network under autocast: ``theta`` stays what it is and is moved
            before it is rounded, so that small steps do not vanish. Losses are then those of a bfloat16
            network. Left out, everything is computed in the dtype of the model.
        groupings: what is one filter, for modules or tensors that the table of
            :mod:`landscape.grouping` does not describe as you want.

    Attributes:
        module: the copy, in eval mode. Read it, call it functionally, do not change it.
        batches: the data, on the device.
        examples: how many.

    Raises:
        ValueError: no data, an unknown loss, metric, norm mode or precision, two metrics of one name.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> objective = DataObjective(model, (torch.ones(4, 1), torch.zeros(4, 1)), loss="mse_loss")
    >>> objective.metrics(objective.theta)
    {'loss': 4.0, 'loss_stderr': 0.0}
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        loss: Loss = "cross_entropy",
        metrics: Sequence[Metric] = ("accuracy",),
        norm: str = "eval",
        batch_size: int | None = None,
        *,
        precision: str | None = None,
        groupings: Mapping[Any, Any] | None = None,
    ) -> None:
        if norm not in NORM_MODES:
            raise ValueError(f"unknown norm mode {norm!r}: expected one of {', '.join(NORM_MODES)}")
        if precision not in (None, "bfloat16"):
            raise ValueError(
                f"unknown precision {precision!r}: expected 'bfloat16', or None for the model's own "
                "(convert the model with .double() for float64)"
            )
        self.space = ParameterSpace.from_module(model, groupings)
        self.theta = self.space.flatten(dict(model.named_parameters()))
        self.norm = norm
        self._precision = precision
        self._loss, loss_name = resolve_loss(loss)
        self.module = norms.copied(model).eval().requires_grad_(False)
        if norm == "batch":
            norms.use_batch_statistics(self.module)
        self.batches: Sequence[Batch] = materialize(data, batch_size, norm == "batch", self.theta)
        target = self.batches[0].target
        classes = isinstance(target, Tensor) and not target.is_floating_point()
        self._metrics = named_metrics([m for m in metrics if m != "accuracy" or classes])
        self.examples = sum(batch.size for batch in self.batches)
        self._changes_inputs: bool | None = None
        self.settings: dict[str, Any] = {
            "objective": "data",
            "model": type(model).__name__,
            "loss": loss_name,
            "norm": norm,
            "examples": self.examples,
            "batches": len(self.batches),
            "dtype": str(self.theta.dtype).removeprefix("torch."),
            "precision": precision or str(self.theta.dtype).removeprefix("torch."),
            "data_sha256": digest(t for batch in self.batches for t in batch.tensors()),
            "fixed_sha256": digest(self._fixed()),
        }

    def value(self, theta: Tensor) -> Tensor:
        """Mean loss over all examples at ``theta (params,)``, 0-dimensional."""
        state = self.state(theta)
        return (
            torch.stack([self._sum(state, batch) for batch in self.batches]).sum() / self.examples
        )

    def values(self, thetas: Tensor) -> Tensor:
        """``(points, params)`` -> ``(points,)``."""
        return torch.stack([self.value(theta) for theta in thetas])

    def losses(self, theta: Tensor) -> Tensor:
        """Loss of each example, ``(examples,)``.

        Raises:
            ValueError: the loss callable returns one scalar a batch, so there are no terms.
        """
        state = self.state(theta)
        pieces = [self.loss_of(self.call(state, batch), batch) for batch in self.batches]
        if any(piece.dim() == 0 for piece in pieces):
            raise ValueError(_SCALAR)
        return torch.cat(pieces)

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """``loss``, ``loss_stderr`` (over examples) and the metrics asked for, one forward pass."""
        state = self.state(theta)
        columns: dict[str, list[Tensor]] = {}
        scalar = False
        with torch.no_grad():
            for batch in self.batches:
                scores = self.score(self.call(state, batch), batch)
                scalar = scalar or scores["loss"].dim() == 0
                for name, values in scores.items():
                    columns.setdefault(name, []).append(per_example(values, batch.size))
        means = {name: torch.cat(values).double() for name, values in columns.items()}
        terms = means.pop("loss")
        error = math.nan if scalar else standard_error(terms)
        extra = {name: float(values.mean()) for name, values in means.items()}
        return {"loss": float(terms.mean()), "loss_stderr": error, **extra}

    def scores(self, theta: Tensor) -> dict[str, Tensor]:
        """``loss`` and the metrics asked for of each example, ``(examples,)``, in one forward pass.

        Raises:
            ValueError: the loss callable returns one scalar a batch, so there are no terms.
        """
        state = self.state(theta)
        columns: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for batch in self.batches:
                for name, values in self.score(self.call(state, batch), batch).items():
                    if name == "loss" and values.dim() == 0:
                        raise ValueError(_SCALAR)
                    columns.setdefault(name, []).append(per_example(values, batch.size))
        return {name: torch.cat(values) for name, values in columns.items()}

    def losses_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each example ``(examples,)`` and gradient ``(params,)`` in one pass.

        Where the loss is the mean of its batch, every example of the batch has that mean. Losses are those
        of the network that is differentiated: the same as :meth:`losses` within rounding.
        """
        losses: list[Tensor] = []
        total = torch.zeros_like(self.theta)
        for part in self.parts():
            point = theta.detach().requires_grad_()
            with part.kernels(), torch.enable_grad():
                found = part.losses(self.space.unflatten(point))
                whole = found * part.size if found.dim() == 0 else found.sum()
                total += torch.autograd.grad(whole, point)[0]
            losses.append(per_example(found.detach(), part.size))
        return torch.cat(losses), total / self.examples

    def pieces(self, size: int) -> list[DataObjective]:
        """The loss over at most ``size`` consecutive examples each; their weighted mean is this one.

        Batches are cut, never joined: one that holds fewer stays a piece of its own.

        Raises:
            ValueError: batch-norm statistics couple the examples, so the pieces would be other functions.
        """
        if self._recalibrates or (
            self.norm == "batch" and any(batch.size > size for batch in self.batches)
        ):
            raise ValueError(
                f"norm={self.norm!r} couples the examples: a loss over {size} of them is another function"
            )
        cut = [piece for batch in self.batches for piece in batch.split(size)]
        return [self._only([piece]) for piece in cut]

    def _only(self, batches: Sequence[Batch]) -> DataObjective:
        made = copy.copy(self)
        made.batches = batches
        made.examples = sum(batch.size for batch in batches)
        made.settings = {**self.settings, "examples": made.examples, "batches": len(batches)}
        return made

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient ``(params,)``, the graph of one part in memory at a time (see :meth:`parts`)."""
        return self._mean(lambda total: gradient_of(total, theta))

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian times ``v (params,)`` by double backward, every batch weighted by its size."""
        return self._mean(lambda total: hvp_of(total, theta, v))

    def parts(self) -> list[Part]:
        """One part a batch, weighted by its size, for derivatives of the loss.

        With ``norm="recalibrate"`` the statistics couple all batches: there is a single part, whose graph
        holds two passes over all data, one for the statistics and one for the loss. Batch and instance
        norms with batch statistics, where torch gets some derivatives wrong, are computed from
        elementary operations (:mod:`landscape.norms`), by a copy of the network that shares its
        tensors; values agree within rounding.

        Raises:
            ValueError: ``norm="recalibrate"`` and a batch norm whose statistics cannot be followed.
        """
        kernels = partial(devices.differentiable_kernels, self._recurrent)
        pieces = [self.batches] if self._recalibrates else [[batch] for batch in self.batches]
        return [self._part(batches, kernels) for batches in pieces]

    def double(self) -> DataObjective:
        """The same objective in float64: network, data and point, and no reduced precision."""
        made = copy.copy(self)
        made.__dict__.pop("_smooth", None)
        made._precision = None
        made.theta = self.theta.double()
        made.module = copy.deepcopy(self.module).double()
        made.batches = [batch.map(_double) for batch in self.batches]
        made.settings = {**self.settings, "dtype": "float64", "precision": "float64"}
        return made

    def state(self, theta: Tensor) -> dict[str, Tensor]:
        """The tensors by name that :meth:`call` takes: views of ``theta``, and recomputed statistics."""
        parameters = self.space.unflatten(theta)
        return {**parameters, **self._statistics(parameters)} if self._recalibrates else parameters

    def call(self, state: Mapping[str, Tensor], batch: Batch) -> Any:
        """The network's output on one batch, with the tensors of ``state`` in place of its own."""
        return self._call(self.module, state, batch)

    def _call(self, module: nn.Module, state: Mapping[str, Tensor], batch: Batch) -> Any:
        if self._changes_inputs is not False:
            batch = batch.map(torch.clone)
        with self._autocast():
            output = functional_call(module, dict(state), batch.args, dict(batch.kwargs))
        if self._changes_inputs is None:
            # A first call on copies tells; in inference mode tensors do not count their changes.
            counted = [t for t in batch.tensors() if not t.is_inference()]
            changed = any(t._version for t in counted)
            self._changes_inputs = changed or len(counted) < len(list(batch.tensors()))
        return output

    def loss_of(self, output: Any, batch: Batch) -> Tensor:
        """Loss of each example, ``(examples,)``, or 0-dimensional where the loss is the batch's mean."""
        if self._precision is not None and isinstance(output, Tensor):
            output = output.to(self.theta.dtype)
        return _one_each(self._loss(output, batch.target), batch)

    def score(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """``loss`` as :meth:`loss_of`, and the metrics of a batch's output, of the same shapes."""
        scores = {"loss": self.loss_of(output, batch)}
        for name, metric in self._metrics.items():
            if name != "accuracy" or fits_accuracy(output, batch.target):
                scores[name] = _one_each(metric(output, batch.target), batch)
        return scores

    @property
    def changes_inputs(self) -> bool:
        """Whether the network writes into its inputs; it is then given copies, so that the data stay."""
        if self._changes_inputs is None:
            with torch.no_grad():
                self.call(self.state(self.theta), self.batches[0])
        return self._changes_inputs is not False

    @property
    def _recalibrates(self) -> bool:
        return self.norm == "recalibrate"

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision is None:
            return nullcontext()
        # The cache would keep the cast weights of an earlier point.
        return torch.autocast(self.theta.device.type, torch.bfloat16, cache_enabled=False)

    @cached_property
    def _smooth(self) -> nn.Module:
        """The network that is differentiated: :attr:`module`, or a copy with norms from primitives."""
        if not self._recalibrates and not norms.native_norms(self.module, order=2):
            return self.module
        shared = {id(t): t for t in [*self.module.parameters(), *self.module.buffers()]}
        return norms.use_primitive_norms(copy.deepcopy(self.module, shared))

    @property
    def _recurrent(self) -> bool:
        return any(isinstance(m, nn.RNNBase | nn.RNNCellBase) for m in self.module.modules())

    def _mean(self, derivative: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
        """The mean of a derivative over all examples, from that of a sum over some of them."""
        total = torch.zeros_like(self.theta)
        for part in self.parts():
            with part.kernels():
                total = total + derivative(
                    lambda theta, part=part: part.total(self.space.unflatten(theta))  # type: ignore[misc]
                )
        return total / self.examples

    def _part(self, batches: Sequence[Batch], kernels: Callable[[], Any]) -> Part:
        size = sum(batch.size for batch in batches)

        def output(tensors: Tensors) -> Any:
            state = tensors
            if self._recalibrates:
                with norms.recording(self._smooth) as statistics:
                    for batch in batches:
                        self._call(self._smooth, tensors, batch)
                state = {**tensors, **statistics()}
            outputs = [self._call(self._smooth, state, batch) for batch in batches]
            return outputs if self._recalibrates else outputs[0]

        def loss_of(output: Any) -> Tensor:
            if not self._recalibrates:
                return self.loss_of(output, batches[0])
            losses = [self.loss_of(o, batch) for o, batch in zip(output, batches, strict=True)]
            if all(loss.dim() for loss in losses):
                return torch.cat(losses)
            weighted = [loss * batch.size for loss, batch in zip(losses, batches, strict=True)]
            return torch.stack(weighted).sum() / size

        return Part(size, lambda tensors: loss_of(output(tensors)), output, loss_of, kernels)

    def _fixed(self) -> Iterable[Tensor]:
        """What the loss depends on beside theta and the data: frozen parameters and buffers."""
        trained = set(self.space.names)
        yield from (p for name, p in self.module.named_parameters() if name not in trained)
        yield from self.module.buffers()

    def _sum(self, state: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Sum of the loss over the examples of one batch."""
        loss = self.loss_of(self.call(state, batch), batch)
        return loss * batch.size if loss.dim() == 0 else loss.sum()

    def _statistics(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Batch-norm statistics accumulated over all data with these parameters."""
        named = {
            name: m
            for name, m in self.module.named_modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
        }
        norms = list(named.values())
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        for name, buffer in buffers.items():
            owner, _, leaf = name.rpartition(".")
            # Other layers (InstanceNorm) may store statistics under the same names: leave theirs.
            if owner in named and leaf in ("running_mean", "num_batches_tracked"):
                buffer.zero_()
            elif owner in named and leaf == "running_var":
                buffer.fill_(1.0)
        fixed = {name: p.detach() for name, p in parameters.items()}
        momenta = [m.momentum for m in norms]
        try:
            for m in norms:
                m.train()
                m.momentum = None  # cumulative average: every batch counts once
            with torch.no_grad():
                for batch in self.batches:
                    self.call({**fixed, **buffers}, batch)
        finally:
            for m, momentum in zip(norms, momenta, strict=True):
                m.momentum = momentum
                m.eval()
        return buffers


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _one_each(values: Tensor, batch: Batch) -> Tensor:
    return per_example(values, batch.size) if values.dim() else values
