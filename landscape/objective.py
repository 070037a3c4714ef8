"""Objectives: scalar functions of a flat parameter vector."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from landscape.parts import Part
from landscape.space import ParameterSpace


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
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
        # A copy: torch calls a single row contiguous whatever its strides, and would not view it as bytes.
        flat.copy_(tensor.detach().reshape(-1))
        total.update(flat.view(torch.uint8).numpy().data)
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

    def parts(self) -> list[Part]:
        """The function as its own only part."""
        return [Part(1, lambda tensors: self._function(self.space.join(tensors)))]


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
