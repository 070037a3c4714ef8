"""The coordinate system of a landscape: which tensors make up the vector, in which order, grouped how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROLES = ("weight", "bias", "norm")
"""What a tensor is, for rules such as ``ignore=("bias", "norm")``."""

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ParameterSpace:
    """Names, shapes and grouping of the tensors behind a flat vector ``theta`` of shape ``(params,)``.

    Attributes:
        names: one dotted name a tensor, in the order of the flat vector.
        shapes: one shape a tensor.
        roles: ``"weight"``, ``"bias"`` or ``"norm"``, one a tensor.
        filter_axes: axis along which a slice is one filter (output channel or neuron), or ``None``
            for a tensor that has no filters (fewer than two dimensions).

    >>> space = ParameterSpace.from_module(torch.nn.Linear(3, 2))
    >>> space.names, space.size, space.roles, space.filter_axes
    (('weight', 'bias'), 8, ('weight', 'bias'), (0, None))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    roles: tuple[str, ...]
    filter_axes: tuple[int | None, ...]

    @classmethod
    def from_module(cls, module: nn.Module) -> ParameterSpace:
        """The trainable parameters of a module, in their order; a tied tensor counts once.

        Raises:
            ValueError: the module has no trainable parameter.
        """
        owners = dict(module.named_modules())
        names, shapes, roles, axes = [], [], [], []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            prefix, _, leaf = name.rpartition(".")
            owner = owners[prefix]
            names.append(name)
            shapes.append(tuple(parameter.shape))
            roles.append(_role(owner, leaf, parameter.dim()))
            axes.append(_filter_axis(owner, parameter.dim()))
        if not names:
            raise ValueError(
                f"{type(module).__name__} has no trainable parameter: "
                "a landscape needs at least one tensor with requires_grad=True"
            )
        return cls(tuple(names), tuple(shapes), tuple(roles), tuple(axes))

    @classmethod
    def of_vector(cls, size: int, name: str = "theta") -> ParameterSpace:
        """A space of one plain vector, for objectives that are formulas and not networks."""
        return cls((name,), ((size,),), ("weight",), (None,))

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


def _role(owner: nn.Module, leaf: str, dim: int) -> str:
    # Class names, not classes: it also catches the norm layers of users and of other libraries.
    if "norm" in type(owner).__name__.lower():
        return "norm"
    return "bias" if "bias" in leaf or dim < 2 else "weight"


def _filter_axis(owner: nn.Module, dim: int) -> int | None:
    if dim < 2:
        return None
    return 1 if isinstance(owner, _TRANSPOSED) else 0


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(repr(name) for name in names[:count])
