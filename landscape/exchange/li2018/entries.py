"""The tensors that the reference's lists of directions are made of, in its order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.data_objective import DataObjective
from landscape.objective import Objective

MODES = ("weights", "states")
"""Parameters in the order of ``parameters()``, or everything in the order of ``state_dict()``."""


@dataclass(frozen=True)
class Entries:
    """Names and values at the origin, one a tensor of the list.

    Attributes:
        mode: one of :data:`MODES`.
        tensors: by name, in order; parameters have the values of the objective's ``theta``.
    """

    mode: str
    tensors: dict[str, Tensor]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """One shape a tensor."""
        return [tuple(tensor.shape) for tensor in self.tensors.values()]


def entries(objective: Objective, mode: str) -> Entries:
    """The list of an objective.

    Objectives that are not of a module (:class:`landscape.DataObjective`) have weights only: the tensors of
    their space.

    Raises:
        ValueError: an unknown mode; states of an objective without a module, or with tied tensors, of which
            the reference moves each name by itself.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: expected weights or states")
    own = {k: v.detach() for k, v in objective.space.unflatten(objective.theta).items()}
    if not isinstance(objective, DataObjective):
        if mode == "states":
            raise ValueError("states need the buffers of a network: expected a DataObjective")
        return Entries(mode, own)
    if mode == "weights":
        named = {name: p.detach() for name, p in objective.module.named_parameters()}
        return Entries(mode, {name: own.get(name, p) for name, p in named.items()})
    many = dict(objective.module.named_parameters(remove_duplicate=False))
    if len(many) > len(dict(objective.module.named_parameters())):
        raise ValueError(
            "the network has tied tensors, which the reference's states move twice: use weights"
        )
    state = objective.module.state_dict()
    return Entries(mode, {name: own.get(name, t.detach()) for name, t in state.items()})


def combined(
    objective: Objective, found: Entries, rows: list[dict[str, Tensor]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Directions by name -> the basis ``(axes, params)`` and the buffers of a plane.

    Raises:
        ValueError: a frozen parameter or a buffer that the objective keeps fixed would move.
    """
    space = objective.space
    basis = torch.stack(
        [torch.cat([row[name].reshape(-1) for name in space.names]) for row in rows]
    ).to(objective.theta)
    moving: dict[str, Tensor] = {}
    for name, start in found.tensors.items():
        if name in space.names or not any(bool(row[name].any()) for row in rows):
            continue
        if not start.is_floating_point():  # num_batches_tracked: no loss depends on it
            continue
        if found.mode == "weights":
            raise ValueError(f"{name!r} moves, but it is frozen: set requires_grad on it")
        steps = [start, *(row[name] for row in rows)]
        moving[name] = torch.stack([step.to(objective.theta) for step in steps])
    if moving and getattr(objective, "norm", None) != "interpolated":
        raise ValueError(
            f"the directions move {next(iter(moving))!r}: "
            "build the objective with norm='interpolated', or ignore biasbn"
        )
    return basis, moving
