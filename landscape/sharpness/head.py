"""The last linear layer of a network: which it is, what goes into it, and the loss as a function of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data_objective import DataObjective
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import VALUE_COST, Point


@dataclass(frozen=True, eq=False)
class Head:
    """The weight of the last linear layer.

    Attributes:
        name: of the weight in the parameter space.
        spreads: standard deviation of each of its inputs over the data ``(inputs,)``, float64; ``None``
            where the objective does not show them.
        inputs: one ``(examples, inputs)`` a batch, and
        outputs: one ``(examples, outputs)`` a batch; both empty unless the layer's output is the
            network's and has one row an example.
        mean: of each of its inputs over the data ``(inputs,)``, where there are spreads.
        rows: how many inputs each batch has ``(batches,)``, where there are spreads.
        scatter: mean over each batch of ``((x - mean) / spread)²``, ``(batches, inputs)``, likewise.
    """

    name: str
    spreads: Tensor | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    mean: Tensor | None = None
    rows: Tensor | None = None
    scatter: Tensor | None = None


def head_of(point: Point) -> Head:
    """The head of the objective at a point, found once; ⅓ FB for a network on data.

    For a network on data, by order of execution; for other objectives the last weight of two dimensions.

    Raises:
        NotApplicable: no such layer, or one whose weight is frozen or shared with another.
    """
    found: Head = point.once("head", lambda: _find(point))
    return found


def _find(point: Point) -> Head:
    objective, space = point.objective, point.objective.space
    if isinstance(objective, DataObjective):
        point.pay(VALUE_COST)
        return _watch(objective, point.theta)
    rows = zip(space.names, space.shapes, space.roles, strict=True)
    names = [name for name, shape, role in rows if role == "weight" and len(shape) == 2]
    if not names:
        raise NotApplicable("no head: no weight of two dimensions among the parameters")
    return Head(names[-1])


def _watch(objective: DataObjective, theta: Tensor) -> Head:
    """The last linear layer that runs, its inputs and outputs, in one pass over the data."""
    last: list[Any] = [None, None, None]

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if args and _linear(module, args[0], output):
            last[:] = [module, args[0].detach(), output]

    moments = _Moments()
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    handles = [module.register_forward_hook(note) for module in objective.module.modules()]
    try:
        state = objective.state(theta)
        with torch.no_grad():
            for batch in objective.batches:
                last[:] = [None, None, None]
                output = objective.call(state, batch)
                if last[0] is None:
                    raise NotApplicable("no head: no linear layer runs in this network")
                moments.add(last[1].reshape(-1, last[1].shape[-1]))
                if output is last[2] and output.dim() == 2 and len(output) == batch.size:
                    inputs.append(last[1])
                    outputs.append(output.detach())
    finally:
        for handle in handles:
            handle.remove()
    name = _name(objective, last[0])
    if len(outputs) < len(objective.batches):
        inputs, outputs = [], []
    return Head(name, inputs=tuple(inputs), outputs=tuple(outputs), **moments.found())


def _linear(module: nn.Module, given: Any, output: Any) -> bool:
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.dim() == 2
        and isinstance(given, Tensor)
        and isinstance(output, Tensor)
        and given.is_floating_point()
        and given.dim() > 0
        and (output.shape[-1:], given.shape[-1:]) == (weight.shape[:1], weight.shape[1:])
    )


def _name(objective: DataObjective, head: nn.Module) -> str:
    """The name of the weight of the head, which must be a parameter of this layer alone."""
    named = objective.module.named_modules(remove_duplicate=False)
    owners = [
        f"{path}.weight" if path else "weight"
        for path, module in named
        if getattr(module, "weight", None) is head.weight
    ]
    if len(owners) > 1:
        raise NotApplicable(f"the head shares its weight: {', '.join(owners)}")
    if owners[0] not in objective.space.names:
        raise NotApplicable(f"the weight of the head, {owners[0]}, is not among the parameters")
    return owners[0]


class _Moments:
    """Mean and spread of rows that come in batches (Chan, Golub, LeVeque 1983)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0
        self._batches: list[tuple[int, Tensor, Tensor]] = []

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        count, mean = len(rows), rows.mean(0)
        whole = self._count + count
        gap = mean - self._mean
        own = (rows - mean).square().sum(0)
        self._squares = self._squares + own + gap.square() * (self._count * count / whole)
        self._batches.append((count, mean, own / count))
        self._mean = self._mean + gap * (count / whole)
        self._count = whole

    def found(self) -> dict[str, Tensor]:
        """What :class:`Head` says of the inputs; the spread of one that never changes, which has no scale, is 1."""
        assert isinstance(self._squares, Tensor) and isinstance(self._mean, Tensor)
        spreads = (self._squares / self._count).sqrt()
        spreads = torch.where(spreads > 0, spreads, 1.0)
        scatter = [
            (squares + (mean - self._mean).square()) / spreads.square()
            for _, mean, squares in self._batches
        ]
        counts = torch.tensor([count for count, _, _ in self._batches], dtype=torch.float64)
        return {
            "spreads": spreads, "mean": self._mean, "rows": counts, "scatter": torch.stack(scatter),
        }  # fmt: skip


def direct_forms(
    point: Point, head: Head, columns: Tensor, lengths: list[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """``cᵀ(∇²ℓᵢ)c`` of every example and column, and the means of ``‖xᵢ‖² (∇²ℓᵢ)c``; ``∇²`` in the outputs.

    The head is linear in its weight, so with ``‖xᵢ‖²`` this is all of the Hessian of its block that a
    weight perturbation ``c xᵀ`` sees. The passes go through the loss alone, not through the network.

    Args:
        point: of a network on data.
        head: with inputs and outputs.
        columns: ``c``, float64 ``(columns, outputs)``.
        lengths: ``‖xᵢ‖²`` of each batch, in the scale wanted.

    Returns:
        The forms ``(columns, examples)`` and the means ``(columns, outputs)``, or ``None`` where the loss
        of a batch is one number.
    """
    objective = point.objective
    assert isinstance(objective, DataObjective)
    found, images = [], torch.zeros_like(columns)
    for batch, output, length in zip(objective.batches, head.outputs, lengths, strict=True):
        z = output.clone().requires_grad_()
        with torch.enable_grad():
            losses = objective.loss_of(z, batch)
            if losses.dim() == 0:
                return None
            (slope,) = torch.autograd.grad(losses.sum(), z, create_graph=True)
        rows = []
        for i, column in enumerate(columns.to(z)):
            image = torch.zeros_like(z)
            if slope.requires_grad:
                (image,) = torch.autograd.grad(
                    slope @ column, z, torch.ones_like(length).to(z), retain_graph=True
                )
            rows.append(image.double() @ column.double())
            images[i] += length @ image.double()
        found.append(torch.stack(rows))
    forms = torch.cat(found, 1)
    return forms, images / forms.shape[1]


def root(gram: Tensor) -> Tensor:
    """``L (n, rank)`` with ``L Lᵀ = gram (n, n)``, symmetric and positive semidefinite, float64."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    made: Tensor = vectors[:, kept] * values[kept].sqrt()
    return made if made.shape[1] else gram.new_zeros(len(gram), 1)


def signs(shape: tuple[int, ...], drawn: Any) -> Tensor:
    """Random signs, float64, from a NumPy generator."""
    return torch.from_numpy(drawn.integers(0, 2, shape) * 2.0 - 1.0)
