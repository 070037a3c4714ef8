"""Planes through the landscape: random directions under named normalization rules, and lines between points."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.space import ROLES, ParameterSpace

RULES = ("filter", "layer", "weight", "none")
"""How a random direction is scaled against the weights; see :func:`random_plane`."""

_EPSILON = 1e-10  # the reference's guard against a filter drawn as zero


@dataclass(frozen=True, eq=False)
class Plane:
    """An origin and one or two directions; a line is a plane with one axis.

    Attributes:
        origin: ``(params,)``, where ``alpha = beta = 0``.
        basis: ``(axes, params)``, one direction a row, neither unit nor orthogonal in general.
        settings: how the plane was made (``kind``, and what that kind needs), JSON-able.

    >>> line = Plane(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0]]))
    >>> line.axes, line.norms, line.point(2.0).tolist()
    (1, (5.0,), [7.0, 10.0])
    """

    origin: Tensor
    basis: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.origin.dim() != 1 or self.basis.shape not in (
            (1, self.origin.numel()),
            (2, self.origin.numel()),
        ):
            raise ValueError(
                f"origin has shape {tuple(self.origin.shape)} and basis "
                f"{tuple(self.basis.shape)}: expected (params,) and (1 or 2, params)"
            )

    @property
    def axes(self) -> int:
        """1 for a line, 2 for a plane."""
        return int(self.basis.shape[0])

    @property
    def norms(self) -> tuple[float, ...]:
        """Euclidean length of each direction."""
        return tuple(float(row.double().norm()) for row in self.basis)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two directions; NaN for a line."""
        if self.axes == 1:
            return math.nan
        x, y = self.basis.double()
        return float(x @ y / (x.norm() * y.norm()))

    def point(self, alpha: float, beta: float = 0.0) -> Tensor:
        """``origin + alpha * basis[0] + beta * basis[1]``, ``(params,)``.

        Each point is placed directly from the origin, never by walking from its neighbour, so
        rounding does not add up over a grid.

        Raises:
            ValueError: ``beta`` is given on a line.
        """
        if self.axes == 1:
            if beta:
                raise ValueError(f"beta is {beta}, but this plane is a line: give alpha only")
            return self.origin + float(alpha) * self.basis[0]
        return self.origin + (float(alpha) * self.basis[0] + float(beta) * self.basis[1])


def generator(*key: object) -> np.random.Generator:
    """A NumPy generator fixed by the words of ``key``: the same numbers on every machine and device.

    >>> generator(0, "x").standard_normal() == generator(0, "x").standard_normal()
    True
    """
    text = "/".join(str(word) for word in key)
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=value))


def random_plane(
    objective: Objective,
    normalize: str = "filter",
    ignore: Iterable[str] = ("bias", "norm"),
    seed: int = 0,
    axes: int = 2,
    theta: Tensor | None = None,
) -> Plane:
    """Random Gaussian directions, scaled so that a step of 1 means the same for every network.

    With ``d`` the entries drawn for a tensor and ``w`` its weights, the rules are

    ==========  ==================================================================================
    ``filter``  ``d_i * ||w_i|| / (||d_i|| + 1e-10)`` for each filter ``i`` (Li et al. 2018, sec. 4)
    ``layer``   ``d * ||w|| / ||d||`` for the whole tensor
    ``weight``  ``d * w``, entry by entry and signed
    ``none``    ``d`` as drawn, standard normal
    ==========  ==================================================================================

    A tensor whose role is in ``ignore`` does not move. A tensor without filters (fewer than two
    dimensions) that is not ignored follows the layer rule under ``filter``; there the reference code
    copies ``w`` instead, which makes both axes move it in one and the same direction.

    The numbers are float64, drawn for each tensor from ``(seed, axis, tensor name)`` alone: a
    direction does not depend on the device, the dtype, or the order of the layers. The axes are not
    orthogonalized; ``Plane.cosine`` says how far from orthogonal they are.

    Args:
        objective: gives the space, and the weights that scale the directions.
        normalize: one of ``"filter"``, ``"layer"``, ``"weight"``, ``"none"``.
        ignore: roles that stay fixed: any of ``"weight"``, ``"bias"``, ``"norm"``.
        seed: of the directions.
        axes: 1 for a line, 2 for a plane.
        theta: the origin ``(params,)``; ``objective.theta`` when left out.

    Raises:
        ValueError: an unknown rule or role, a wrong number of axes or shape of ``theta``, or a
            direction that is zero because everything is ignored or the weights are zero.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]))
    >>> [round(norm, 4) for norm in random_plane(bowl).norms]  # as long as the weights
    [5.0, 5.0]
    """
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if normalize not in RULES:
        raise ValueError(
            f"unknown rule normalize={normalize!r}: expected one of {', '.join(RULES)}"
        )
    unknown = [role for role in ignored if role not in ROLES]
    if unknown:
        raise ValueError(f"unknown role ignore={unknown[0]!r}: expected any of {', '.join(ROLES)}")
    if axes not in (1, 2):
        raise ValueError(f"axes is {axes}: expected 1 (a line) or 2 (a plane)")
    origin = (objective.theta if theta is None else theta).detach().clone()
    weights = objective.space.unflatten(origin.double().cpu())
    basis = torch.stack(
        [_direction(objective.space, weights, normalize, ignored, seed, a) for a in range(axes)]
    )
    if not basis.any(dim=1).all():
        raise ValueError(
            f"the direction is zero: with normalize={normalize!r} and ignore={ignored!r} "
            "no tensor moves; ignore less, or use normalize='none' where the weights are zero"
        )
    settings = {
        "kind": "random",
        "normalize": normalize,
        "ignore": list(ignored),
        "seed": seed,
        "axes": axes,
    }
    return Plane(origin, basis.to(dtype=origin.dtype, device=origin.device), settings)


def interpolation(objective: Objective, theta_a: Tensor, theta_b: Tensor) -> Plane:
    """The straight line from ``theta_a`` (``alpha = 0``) to ``theta_b`` (``alpha = 1``).

    ``alpha = 1`` meets ``theta_b`` up to one rounding of an addition in its dtype
    (Goodfellow, Vinyals & Saxe 2015).

    Args:
        objective: the function to look at along the line; gives dtype and device.
        theta_a: ``(params,)``.
        theta_b: ``(params,)``.

    Raises:
        ValueError: a shape that is not the objective's, or two equal points.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2))
    >>> line = interpolation(bowl, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    >>> line.point(0.5).tolist()
    [0.5, 0.5]
    """
    for name, theta in (("theta_a", theta_a), ("theta_b", theta_b)):
        if tuple(theta.shape) != (objective.space.size,):
            raise ValueError(
                f"{name} has shape {tuple(theta.shape)}, expected ({objective.space.size},)"
            )
    start = theta_a.detach().to(objective.theta).clone()
    step = theta_b.detach().to(objective.theta) - start
    if not step.any():
        raise ValueError("theta_a and theta_b are equal: there is no line between them")
    return Plane(start, step[None], {"kind": "interpolation", "normalize": "none", "axes": 1})


def _direction(
    space: ParameterSpace,
    weights: Mapping[str, Tensor],
    normalize: str,
    ignored: tuple[str, ...],
    seed: int,
    axis: int,
) -> Tensor:
    pieces = []
    for name, shape, role, filters in zip(
        space.names, space.shapes, space.roles, space.filter_axes, strict=True
    ):
        if role in ignored:
            pieces.append(torch.zeros(math.prod(shape), dtype=torch.float64))
            continue
        drawn = torch.from_numpy(np.asarray(generator(seed, axis, name).standard_normal(shape)))
        pieces.append(_scale(drawn, weights[name], normalize, filters).reshape(-1))
    return torch.cat(pieces)


def _scale(drawn: Tensor, weights: Tensor, normalize: str, filters: int | None) -> Tensor:
    if normalize == "none":
        return drawn
    if normalize == "weight":
        return drawn * weights
    if normalize == "layer" or filters is None:
        whole: Tensor = torch.linalg.vector_norm(weights) / torch.linalg.vector_norm(drawn)
        return drawn * whole
    rest = [dim for dim in range(drawn.dim()) if dim != filters]
    ratio: Tensor = torch.linalg.vector_norm(weights, dim=rest, keepdim=True) / (
        torch.linalg.vector_norm(drawn, dim=rest, keepdim=True) + _EPSILON
    )
    return drawn * ratio
