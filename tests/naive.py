"""Deliberately naive computations in float64, written from the formulas; nothing here is the library's.

A model is copied, weights are written into the copy, examples go through it one at a time, derivatives are
double loops, and norm layers are computed from their definitions. Slow and easy to check.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from naive_norms import Statistics, rewritten
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Array = np.ndarray[Any, np.dtype[np.float64]]
Function = Callable[[nn.Module], Tensor]


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are coordinates, in order; a shared one once."""
    found: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad and not any(parameter is other for other in found):
            found.append(parameter)
    return found


def weights(model: nn.Module) -> Array:
    """They as one vector."""
    return np.concatenate([p.detach().numpy().reshape(-1) for p in trained(model)])


def written(model: nn.Module, vector: Array) -> nn.Module:
    """A copy of the model with these weights, its norm layers from their definitions, in eval mode."""
    made = rewritten(copy.deepcopy(model).double().eval())
    first = 0
    with torch.no_grad():
        for parameter in trained(made):
            piece = vector[first : first + parameter.numel()]
            parameter.copy_(torch.from_numpy(np.array(piece)).view(parameter.shape))
            first += parameter.numel()
    assert first == len(vector)
    return made


def loss_of(case: Any) -> Function:
    """``model -> mean loss over all examples``, differentiable; ``model`` comes from :func:`written`."""

    def function(model: nn.Module) -> Tensor:
        statistics = Statistics(model)
        if case.norm == "recalibrate":
            statistics.take([x for x, _ in case.pairs], model)
        elif case.norm == "batch":
            statistics.of_each_batch()
        total, count = torch.zeros((), dtype=torch.float64), 0
        for x, y in case.pairs:
            size = len(y)
            if statistics.couples or case.task.scalar:
                total = total + size * case.task.formula(model(x.clone()), y)
            else:
                for i in range(size):
                    total = total + case.task.formula(model(x[i : i + 1].clone()), y[i : i + 1])
            count += size
        return total / count

    return function


def in_batches(case: Any) -> Function:
    """The same, all examples of a batch in one call: for derivatives that would take too long otherwise."""

    def function(model: nn.Module) -> Tensor:
        statistics = Statistics(model)
        if case.norm == "recalibrate":
            statistics.take([x for x, _ in case.pairs], model)
        elif case.norm == "batch":
            statistics.of_each_batch()
        sizes = [len(y) for _, y in case.pairs]
        parts = [
            n * case.task.formula(model(x.clone()), y)
            for n, (x, y) in zip(sizes, case.pairs, strict=True)
        ]
        return torch.stack(parts).sum() / sum(sizes)

    return function


@contextmanager
def exact() -> Iterator[None]:
    """Attention from matrix products: the fused one has no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def value(case: Any, vector: Array) -> float:
    """The mean loss at ``vector``."""
    with torch.no_grad():
        return float(loss_of(case)(written(case.model, vector)))


def surface(case: Any, origin: Array, directions: Sequence[Array], coordinates: Array) -> Array:
    """Losses at ``origin + a d1 + b d2``: ``(b, a)``, one point after the other."""
    first, second = directions
    return np.array(
        [[value(case, origin + (a * first + b * second)) for a in coordinates] for b in coordinates]
    )


def gradient(function: Function, model: nn.Module, vector: Array) -> Array:
    """By one backward pass into a copy."""
    made = written(model, vector)
    with exact():
        function(made).backward()
    return np.concatenate(
        [
            (np.zeros(p.numel()) if p.grad is None else p.grad.numpy().reshape(-1))
            for p in trained(made)
        ]
    )


def hessian(function: Function, model: nn.Module, vector: Array) -> Array:
    """Every entry of the gradient differentiated once more, one after the other."""
    made = written(model, vector)
    parameters = trained(made)
    with exact():
        first = torch.autograd.grad(
            function(made), parameters, create_graph=True, allow_unused=True
        )
        rows = []
        for parameter, slope in zip(parameters, first, strict=True):
            for j in range(parameter.numel()):
                row = [None] * len(parameters)
                if slope is not None and slope.requires_grad:
                    row = torch.autograd.grad(
                        slope.reshape(-1)[j], parameters, retain_graph=True, allow_unused=True
                    )
                rows.append(_joined(row, parameters))
    return np.stack(rows)


def _joined(pieces: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Array:
    return np.concatenate(
        [
            np.zeros(p.numel()) if t is None else t.detach().numpy().reshape(-1)
            for t, p in zip(pieces, parameters, strict=True)
        ]
    )


def difference(
    function: Function, model: nn.Module, vector: Array, v: Array, step: float = 1e-5
) -> Array:
    """``H v`` as a central difference of the gradient, of fourth order."""
    at = lambda h: gradient(function, model, vector + h * v)  # noqa: E731
    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


def flat_output(output: Any) -> list[Tensor]:
    """Every real number that a network returns, as leaves of one kind: tensors."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, tuple):
        return list(output)
    return [t for t in vars(output).values() if isinstance(t, Tensor)]


def gauss_newton(case: Any, vector: Array) -> Array:
    """``Σ Jᵀ H_L J / n``: J row by row over the outputs, the Hessian of the loss in the outputs entry by entry."""
    total, count = np.zeros((len(vector), len(vector))), 0
    model = written(case.model, vector)
    parameters = trained(model)
    statistics = Statistics(model)
    if case.norm == "batch":
        statistics.of_each_batch()
    for x, y in case.pairs:
        with exact():
            outputs = flat_output(model(x.clone()))
        rows = []
        for tensor in outputs:
            for entry in _real(tensor):
                found = [None] * len(parameters)
                if entry.requires_grad:
                    found = torch.autograd.grad(
                        entry, parameters, retain_graph=True, allow_unused=True
                    )
                rows.append(_joined(found, parameters))
        jacobian = np.stack(rows)
        numbers = torch.stack([e.detach() for t in outputs for e in _real(t)]).requires_grad_()
        loss = len(y) * case.task.formula(_shaped(numbers, model(x.clone())), y)
        (slope,) = torch.autograd.grad(loss, numbers, create_graph=True)
        bend = [
            torch.autograd.grad(s, numbers, retain_graph=True, materialize_grads=True)[0].numpy()
            if s.requires_grad
            else np.zeros(len(numbers))
            for s in slope
        ]
        total += jacobian.T @ np.stack(bend) @ jacobian
        count += len(y)
    return total / count


def _real(tensor: Tensor) -> list[Tensor]:
    return list((torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1))


def _shaped(numbers: Tensor, like: Any) -> Any:
    """The real numbers of an output in the form of one."""
    made, first = [], 0
    for tensor in flat_output(like):
        size = tensor.numel() * (2 if tensor.is_complex() else 1)
        piece = numbers[first : first + size]
        first += size
        made.append(
            torch.view_as_complex(piece.view(*tensor.shape, 2))
            if tensor.is_complex()
            else piece.view(tensor.shape)
        )
    if isinstance(like, Tensor):
        return made[0]
    if isinstance(like, tuple):
        return tuple(made)
    result = copy.copy(like)
    for name, tensor in zip(
        [k for k, v in vars(like).items() if isinstance(v, Tensor)], made, strict=True
    ):
        setattr(result, name, tensor)
    return result


def gradients(case: Any, vector: Array) -> Array:
    """The gradient of the loss of each example ``(examples, params)``; the examples must not be coupled."""
    ones = [(x[i : i + 1], y[i : i + 1]) for x, y in case.pairs for i in range(len(y))]

    def alone(x: Tensor, y: Tensor) -> Function:
        return lambda model: case.task.formula(model(x.clone()), y)

    return np.stack([gradient(alone(*one), case.model, vector) for one in ones])


def losses(case: Any, vector: Array) -> Array:
    """The loss of each example ``(examples,)``; the examples must not be coupled."""
    model = written(case.model, vector)
    with torch.no_grad():
        return np.array(
            [
                float(case.task.formula(model(x[i : i + 1].clone()), y[i : i + 1]))
                for x, y in case.pairs
                for i in range(len(y))
            ]
        )
