"""The coordinate system of a landscape: which tensors make up the vector, in which order, grouped how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from landscape.grouping import Grouping, Place, Rule, assign, whole

ROLES = ("weight", "bias", "norm")
"""What a tensor is, for rules such as ``ignore=("bias", "norm")``."""


@dataclass(frozen=True)
class ParameterSpace:
    """Names, shapes and grouping of the tensors behind a flat vector ``theta`` of shape ``(params,)``.

    Attributes:
        names: one dotted name a tensor, in the order of the flat vector.
        shapes: one shape a tensor.
        roles: ``"weight"``, ``"bias"`` or ``"norm"``, one a tensor.
        groupings: which entries form one filter (output channel, neuron, attention head), one
            :class:`~landscape.grouping.Grouping` a tensor.

    Raises:
        ValueError: not one shape, role and grouping a name, or a grouping for another size.

    >>> space = ParameterSpace.from_module(torch.nn.Linear(3, 2))
    >>> space.names, space.size, space.roles
    (('weight', 'bias'), 8, ('weight', 'bias'))
    >>> [(grouping.rule, grouping.groups) for grouping in space.groupings]
    [('row', 2), ('whole', 1)]
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    roles: tuple[str, ...]
    groupings: tuple[Grouping, ...]

    def __post_init__(self) -> None:
        counts = tuple(map(len, (self.names, self.shapes, self.roles, self.groupings)))
        if len(set(counts)) > 1:
            raise ValueError(
                f"{counts} names, shapes, roles and groupings: expected one of each a tensor"
            )
        for name, shape, grouping in zip(self.names, self.shapes, self.groupings, strict=True):
            if math.prod(grouping.view) != math.prod(shape):
                raise ValueError(
                    f"{name!r} has shape {shape}, but its grouping sees it as {grouping.view}: "
                    "expected a view of as many entries"
                )

    @classmethod
    def from_module(
        cls, module: nn.Module, groupings: Mapping[type[nn.Module] | str, Rule] | None = None
    ) -> ParameterSpace:
        """The trainable parameters of a module, in their order; a tied tensor counts once.

        What one filter of each tensor is comes from :data:`landscape.grouping.TABLE`, by the type of
        the module that holds it and by its name; :func:`table` shows what was chosen.

        The roles: ``"norm"`` for all that a module with "norm" in its class name holds; else
        ``"bias"`` for a name with "bias" in it and for any vector, so also for a class token of shape
        ``(width,)`` or a LayerScale ``gamma``; else ``"weight"``, a scalar such as a temperature
        included.

        Args:
            module: any ``nn.Module``.
            groupings: entries that go before the table, the first match first. The key is a module
                class, the name of one, or a glob over parameter names; the value is a name in
                :data:`landscape.grouping.RULES`, or a callable ``(module, its name for the tensor,
                shape) -> Grouping``. A class speaks of tensors of two or more dimensions, a glob of
                any.

        Raises:
            ValueError: the module has no trainable parameter, or an entry of ``groupings`` names an
                unknown rule, matches nothing, or does not fit the tensor it matches.

        >>> net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
        >>> def pairs(module, leaf, shape):  # two neurons a group
        ...     return Grouping("pairs", view=(shape[0] // 2, 2, shape[1]), within=(1, 2))
        >>> space = ParameterSpace.from_module(net, {"0.weight": pairs, nn.Linear: "column"})
        >>> [(row.name, row.rule, row.groups) for row in table(space) if row.role == "weight"]
        [('0.weight', 'pairs', 2), ('1.weight', 'column', 4)]
        """
        owners = dict(module.named_modules())
        places = []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                path = name.rpartition(".")[0]
                parent = owners[path.rpartition(".")[0]] if path else None
                places.append(Place(name, tuple(parameter.shape), owners[path], parent))
        if not places:
            raise ValueError(
                f"{type(module).__name__} has no trainable parameter: "
                "a landscape needs at least one tensor with requires_grad=True"
            )
        return cls(
            tuple(place.name for place in places),
            tuple(place.shape for place in places),
            tuple(_role(place) for place in places),
            assign(places, groupings),
        )

    @classmethod
    def of_vector(cls, size: int, name: str = "theta") -> ParameterSpace:
        """A space of one plain vector, for objectives that are formulas and not networks."""
        return cls((name,), ((size,),), ("weight",), (whole((size,)),))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Number of coordinates, ``params``."""
        return sum(self.sizes)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors by name -> one vector ``(params,)``, a copy that shares no memory with them.

        Raises:
            ValueError: a tensor is missing or has another shape than the space says.
        """
        missing = [name for name in self.names if name not in tensors]
        if missing:
            raise ValueError(f"{len(missing)} tensors are missing, first {_first(missing)}")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if tuple(tensors[name].shape) != shape:
                raise ValueError(
                    f"tensor {name!r} has shape {tuple(tensors[name].shape)}, the model wants {shape}"
                )
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.names])

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors by name -> one vector ``(params,)``, differentiable."""
        pieces = [tensors[name].reshape(-1) for name in self.names]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def only(self, names: Sequence[str]) -> ParameterSpace:
        """The space of some of the tensors, in the order of this one."""
        rows = zip(self.names, self.shapes, self.roles, self.groupings, strict=True)
        kept = [row for row in rows if row[0] in names]
        return ParameterSpace(*zip(*kept, strict=True))

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Vector ``(params,)`` -> views by name; differentiable, and nothing is copied.

        Raises:
            ValueError: the vector has another length than the space.
        """
        if theta.shape[-1] != self.size or theta.dim() != 1:
            raise ValueError(f"theta has shape {tuple(theta.shape)}, expected ({self.size},)")
        pieces = torch.split(theta, list(self.sizes))
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }


class Row(NamedTuple):
    """One tensor of a space: its name, shape and role, and the rule that made its groups."""

    name: str
    shape: tuple[int, ...]
    role: str
    rule: str
    groups: int


def table(space: ParameterSpace) -> list[Row]:
    """What was grouped how: one row a tensor, in the order of the space.

    >>> table(ParameterSpace.from_module(nn.Conv2d(1, 3, 5, bias=False)))
    [Row(name='weight', shape=(3, 1, 5, 5), role='weight', rule='slice0', groups=3)]
    """
    return [
        Row(name, shape, role, grouping.rule, grouping.groups)
        for name, shape, role, grouping in zip(
            space.names, space.shapes, space.roles, space.groupings, strict=True
        )
    ]


def _role(place: Place) -> str:
    # Class names, not classes: it also catches the norm layers of users and of other libraries.
    if "norm" in type(place.module).__name__.lower():
        return "norm"
    leaf = place.name.rpartition(".")[2]
    return "bias" if "bias" in leaf or len(place.shape) == 1 else "weight"


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(repr(name) for name in names[:count])
