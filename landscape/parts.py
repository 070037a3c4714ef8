"""An objective as a weighted mean of parts: what products with its Hessian are summed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Tensors = Mapping[str, Tensor]
"""The parameters by name, as :meth:`landscape.space.ParameterSpace.unflatten` gives them."""


@dataclass(frozen=True, eq=False)
class Part:
    """Terms of an objective whose graph is built at one time: a batch, or a task.

    The objective is ``Σ size · mean(losses) / Σ size`` over its parts. All functions are pure and take
    the parameters by name, so that some of them can be held constant.

    Attributes:
        size: number of terms (examples, tasks).
        losses: parameters -> the terms ``(size,)``, or their mean, 0-dimensional.
        output: parameters -> the network's output, where it can be told apart from the loss.
        loss_of: that output -> the same as ``losses``.
        kernels: makes the context that derivatives are taken in: kernels that can be differentiated twice.
        products: parameters, and for some of them directions ``(count, *shape)`` by name -> the Hessian
            of :meth:`total` times those, in the same form. For a part whose loss is not to be
            differentiated from outside: one that is a ``vmap`` of gradients.
    """

    size: int
    losses: Callable[[Tensors], Tensor]
    output: Callable[[Tensors], Any] | None = None
    loss_of: Callable[[Any], Tensor] | None = None
    kernels: Callable[[], AbstractContextManager[Any]] = nullcontext
    products: Callable[[Tensors, Tensors], Tensors] | None = None

    def total(self, tensors: Tensors) -> Tensor:
        """Sum of the terms, 0-dimensional."""
        losses = self.losses(tensors)
        return losses * self.size if losses.dim() == 0 else losses.sum()


@runtime_checkable
class InParts(Protocol):
    """An objective that can be taken apart; others are one part, differentiated through ``value``."""

    def parts(self) -> Sequence[Part]:
        """The parts, in a fixed order."""
