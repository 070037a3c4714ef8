"""Derivatives of several tasks, each at parameters of its own: what `sharpmaml.execution.chain` walks on.

A row is a task. Nothing keeps a graph between calls, and no gradient passes through ``vmap``:
differentiated from outside, native norm layers give second derivatives that are wrong without any error
(pytorch/functorch #534).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp, vmap

from landscape.objective import hvp_of
from sharpmaml.execution.batches import Columns, NetworkBatch
from sharpmaml.plan import Aux, Task


class Rows(Protocol):
    """Tasks and their derivatives at ``points (tasks, params)``.

    Attributes:
        count: how many tasks.
    """

    count: int

    def gradients(self, points: Tensor, once: bool = False) -> Tensor:
        """Of the support losses, ``(tasks, params)``; ``once``: nothing more is asked about these points."""
        ...

    def products(self, points: Tensor, vectors: Tensor) -> Tensor:
        """Hessians of the support losses times ``vectors (tasks, params)``, in the same form."""
        ...

    def queries(self, points: Tensor) -> tuple[Tensor, Tensor, Aux]:
        """Gradients of the query losses ``(tasks, params)``, the losses ``(tasks,)`` and by-products."""
        ...


class OneByOne:
    """Any tasks, one after the other.

    Args:
        tasks: at least one.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.count = len(tasks)
        self._tasks = tasks

    def gradients(self, points: Tensor, once: bool = False) -> Tensor:
        """See `Rows`."""
        pairs = zip(self._tasks, points, strict=True)
        return torch.stack([_slope(task.support, at) for task, at in pairs])

    def products(self, points: Tensor, vectors: Tensor) -> Tensor:
        """See `Rows`; by double backward: for conv4 two thirds of the time of forward over reverse."""
        rows = zip(self._tasks, points, vectors, strict=True)
        return torch.stack([hvp_of(task.support, at, vector) for task, at, vector in rows])

    def queries(self, points: Tensor) -> tuple[Tensor, Tensor, Aux]:
        """See `Rows`."""
        slopes, losses, auxes = [], [], []
        for task, at in zip(self._tasks, points, strict=True):

            def loss(point: Tensor, task: Task = task) -> Tensor:
                value, aux = task.query(point)
                losses.append(value.detach())
                auxes.append({name: by.detach() for name, by in aux.items()})
                return value

            slopes.append(_slope(loss, at))
        aux = {name: torch.stack([by[name] for by in auxes]) for name in auxes[0]}
        return torch.stack(slopes), torch.stack(losses), aux


class Together:
    """Tasks of one network through ``vmap``.

    Args:
        network: whose loss functions.
        columns: the episodes of these tasks.
    """

    def __init__(self, network: NetworkBatch, columns: Columns) -> None:
        self.count = len(columns[0])
        self._network = network
        self._support = columns[:2]
        self._query = columns[2:]

    def gradients(self, points: Tensor, once: bool = False) -> Tensor:
        """See `Rows`."""
        found: Tensor = vmap(grad(self._network.support))(points, *self._support)
        return found

    def products(self, points: Tensor, vectors: Tensor) -> Tensor:
        """See `Rows`."""

        def one(point: Tensor, vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
            made: Any = vjp(lambda t: grad(self._network.support)(t, x, y), point)
            product: Tensor = made[1](vector)[0]
            return product

        found: Tensor = vmap(one)(points, vectors, *self._support)
        return found

    def queries(self, points: Tensor) -> tuple[Tensor, Tensor, Aux]:
        """See `Rows`."""
        slopes, (losses, aux) = vmap(grad_and_value(self._network.query, has_aux=True))(
            points, *self._query
        )
        return slopes, losses, aux


def _slope(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    point = at.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(point), point)
    return slope
