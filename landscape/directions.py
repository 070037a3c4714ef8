"""Planes through the landscape: random directions under named normalization rules, and lines between points."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.device import one_thread
from landscape.normalization import RULES, normalized, orthogonalized, units
from landscape.norms import BATCH_NORM
from landscape.objective import Objective
from landscape.space import ROLES, ParameterSpace


@dataclass(frozen=True, eq=False)
class Plane:
    """An origin and one or two directions; a line is a plane with one axis.

    Attributes:
        origin: ``(params,)``, where ``alpha = beta = 0``.
        basis: ``(axes, params)``, one direction a row, neither unit nor orthogonal in general.
        settings: how the plane was made (``kind``, and what that kind needs), JSON-able.
        buffers: norm statistics that move with the point, by name: ``(1 + axes, ...)``, the value at the
            origin and the step along each direction. Used by objectives with ``norm="interpolated"``.

    >>> line = Plane(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0]]))
    >>> line.axes, line.norms, line.point(2.0).tolist()
    (1, (5.0,), [7.0, 10.0])
    """

    origin: Tensor
    basis: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

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
    @one_thread()
    def norms(self) -> tuple[float, ...]:
        """Euclidean length of each direction."""
        return tuple(float(row.double().norm()) for row in self.basis)

    @property
    @one_thread()
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

    def statistics(self, alpha: float, beta: float = 0.0) -> dict[str, Tensor]:
        """The buffers at a point, by name; empty where the plane carries none."""
        place = (float(alpha), float(beta))[: self.axes]
        return {
            name: values[0] + sum(c * step for c, step in zip(place, values[1:], strict=True))
            for name, values in self.buffers.items()
        }


def generator(*key: object) -> np.random.Generator:
    """A NumPy generator fixed by the words of ``key``: the same numbers on every machine and device.

    >>> generator(0, "x").standard_normal() == generator(0, "x").standard_normal()
    True
    """
    text = "/".join(str(word) for word in key)
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=value))


@one_thread()  # norms of whole layers are long sums
def random_plane(
    objective: Objective,
    normalize: str = "filter",
    ignore: Iterable[str] = ("bias", "norm"),
    seed: int = 0,
    axes: int = 2,
    theta: Tensor | None = None,
    orthogonal: bool = False,
) -> Plane:
    """Random Gaussian directions, scaled so that a step of 1 means the same for every network.

    With ``d`` the entries drawn for a tensor and ``w`` its weights, the rules are

    ==========  ==================================================================================
    ``filter``  ``d_i * ||w_i|| / (||d_i|| + 1e-10)`` for each filter ``i`` (Li et al. 2018, sec. 4)
    ``layer``   ``d * ||w|| / ||d||`` for the whole tensor
    ``weight``  ``d * w``, entry by entry and signed
    ``none``    ``d`` as drawn, standard normal
    ==========  ==================================================================================

    What a filter is depends on the module (a neuron, an output channel, an attention head, ...):
    :func:`landscape.space.table` shows it. A tensor whose role is in ``ignore`` does not move. A
    tensor without filters (fewer than two dimensions) that is not ignored follows the layer rule
    under ``filter``; there the reference code copies ``w`` instead, which makes both axes move it in
    one and the same direction.

    The numbers are float64, drawn for each tensor from ``(seed, axis, tensor name)`` alone: a
    direction does not depend on the device, the dtype, or the order of the layers. Two such
    directions are orthogonal up to about ``1 / sqrt(params)``; ``Plane.cosine`` says how far.

    With ``orthogonal=True`` they are exactly so (up to rounding to the dtype of ``theta``): inside
    each filter under ``filter``, inside each tensor under the other rules. Gram-Schmidt acts on the
    numbers drawn and the rule scales what is left, so the norms are those of the rule too. Two
    directions cannot be orthogonal in one entry: a tensor whose filters have one entry each follows
    the layer rule on both axes, and a tensor of a single entry moves along the first axis only.

    Args:
        objective: gives the space, and the weights that scale the directions.
        normalize: one of ``"filter"``, ``"layer"``, ``"weight"``, ``"none"``.
        ignore: roles that stay fixed: any of ``"weight"``, ``"bias"``, ``"norm"``.
        seed: of the directions.
        axes: 1 for a line, 2 for a plane.
        theta: the origin ``(params,)``; ``objective.theta`` when left out.
        orthogonal: make the second axis orthogonal to the first, filter by filter.

    Returns:
        The plane. Its settings hold the arguments, and what moves: ``moved_share``, the share of
        ``||theta||`` that the moving tensors have (to 6 digits; 1 at ``theta = 0``); ``ignored``, the
        names of the tensors that stay; ``groupings``, the number of moving tensors by grouping rule.

    Raises:
        ValueError: an unknown rule or role, a wrong number of axes or shape of ``theta``, or a
            direction that is zero because everything is ignored, the weights are zero, or nothing
            is orthogonal to the first axis.

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
    space, weights = objective.space, objective.space.unflatten(origin.double().cpu())
    moving = [role not in ignored for role in space.roles]
    basis = torch.stack(
        [_direction(space, weights, normalize, moving, seed, a, orthogonal) for a in range(axes)]
    )
    nonzero = basis.any(dim=1).tolist()
    if not nonzero[0]:
        raise ValueError(
            f"the direction is zero: with normalize={normalize!r} and ignore={ignored!r} "
            "no tensor moves; ignore less, or use normalize='none' where the weights are zero"
        )
    if not all(nonzero):
        raise ValueError(
            "the second direction is zero: no tensor that moves has two entries that count, so "
            "nothing is orthogonal to the first; ignore less, or use orthogonal=False"
        )
    settings = {
        "kind": "random",
        "normalize": normalize,
        "ignore": list(ignored),
        "seed": seed,
        "axes": axes,
        "orthogonal": orthogonal,
        **_moved(space, weights, moving),
    }
    return Plane(origin, basis.to(dtype=origin.dtype, device=origin.device), settings)


def interpolation(
    objective: Objective,
    theta_a: Tensor,
    theta_b: Tensor,
    buffers: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
    labels: tuple[str, str] = ("A", "B"),
) -> Plane:
    """The straight line from ``theta_a`` (``alpha = 0``) to ``theta_b`` (``alpha = 1``).

    ``alpha = 1`` meets ``theta_b`` up to one rounding of an addition in its dtype
    (Goodfellow, Vinyals & Saxe 2015).

    Args:
        objective: the function to look at along the line; gives dtype and device.
        theta_a: ``(params,)``.
        theta_b: ``(params,)``.
        buffers: the networks' ``state_dict()`` (or buffers by name) at both ends, for an objective with
            ``norm="interpolated"``: batch-norm statistics then move with the parameters. With those of
            one end alone, the middle shows a barrier that is not there.
        labels: names of the ends, for figures.

    Raises:
        ValueError: a shape that is not the objective's, two equal points, or buffers that do not agree
            in names and shapes.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2))
    >>> line = interpolation(bowl, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    >>> line.point(0.5).tolist()
    [0.5, 0.5]
    """
    require_points(objective, theta_a=theta_a, theta_b=theta_b)
    start = theta_a.detach().to(objective.theta).clone()
    step = theta_b.detach().to(objective.theta) - start
    if not step.any():
        raise ValueError("theta_a and theta_b are equal: there is no line between them")
    moving = {} if buffers is None else moving_buffers(objective, *buffers)
    first, last = labels
    settings = {
        "kind": "interpolation",
        "normalize": "none",
        "axes": 1,
        "axis_titles": [f"α (0 at {first}, 1 at {last})"],
        "directions": f"straight line from {first} to {last}",
        "marks": [named_point(first, 0.0), named_point(last, 1.0)],
        "refusals": stale_statistics(objective, last),
    }
    return Plane(start, step[None], settings, moving)


def named_point(
    label: str, alpha: float, beta: float = 0.0, residual: float = 0.0
) -> dict[str, Any]:
    """A point that figures draw with its name: one entry of the setting ``marks`` of a plane."""
    return {"label": label, "alpha": alpha, "beta": beta, "loss": None, "residual": residual}


def stale_statistics(objective: Objective, *others: str) -> list[str]:
    """Why a surface that leads to the points named must not be trusted: batch norm keeps one end's statistics."""
    module = getattr(objective, "module", None)
    if module is None or getattr(objective, "norm", None) != "eval":
        return []
    stored = [m for m in module.modules() if isinstance(m, BATCH_NORM)]
    if not any(getattr(m, "running_mean", None) is not None for m in stored):
        return []
    return [
        "the batch-norm statistics stay those of one network while the weights move to "
        f"{' and '.join(others)}, so barriers may be artefacts: use norm 'recalibrate' or 'interpolated'"
    ]


def require_points(objective: Objective, **thetas: Tensor) -> None:
    """ValueError unless every point has the shape of the objective's."""
    for name, theta in thetas.items():
        if tuple(theta.shape) != (objective.space.size,):
            raise ValueError(
                f"{name} has shape {tuple(theta.shape)}, expected ({objective.space.size},)"
            )


def moving_buffers(
    objective: Objective, start: Mapping[str, Tensor], *others: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Floating-point buffers by name, ``(networks, ...)``: the value at the start, the steps to the others."""
    known = set(objective.space.names)
    names = [name for name, t in start.items() if name not in known and t.is_floating_point()]
    for which, end in zip(("second", "third"), others, strict=False):
        for name in names:
            if name not in end or end[name].shape != start[name].shape:
                raise ValueError(
                    f"buffer {name!r} is missing or of another shape in the {which} network: "
                    f"expected networks of one architecture"
                )
    found = {}
    for name in names:
        first, *rest = (t[name].detach().to(objective.theta) for t in (start, *others))
        found[name] = torch.stack([first, *(t - first for t in rest)])
    return found


def _direction(
    space: ParameterSpace,
    weights: Mapping[str, Tensor],
    normalize: str,
    moving: Sequence[bool],
    seed: int,
    axis: int,
    orthogonal: bool,
) -> Tensor:
    pieces = []
    for name, shape, grouping, moves in zip(
        space.names, space.shapes, space.groupings, moving, strict=True
    ):
        if not moves:
            pieces.append(torch.zeros(math.prod(shape), dtype=torch.float64))
            continue
        drawn, w = _drawn(seed, axis, name, shape), weights[name]
        if orthogonal:
            grouping = units(grouping, normalize)
            if axis == 1:
                first = _drawn(seed, 0, name, shape)
                drawn = orthogonalized(first, drawn, w, normalize, grouping)
        pieces.append(normalized(drawn, w, normalize, grouping).reshape(-1))
    return torch.cat(pieces)


def _drawn(seed: int, axis: int, name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.asarray(generator(seed, axis, name).standard_normal(shape)))


def _moved(
    space: ParameterSpace, weights: Mapping[str, Tensor], moving: Sequence[bool]
) -> dict[str, Any]:
    squares = [float(weights[name].square().sum()) for name in space.names]
    moved = math.fsum(square for square, moves in zip(squares, moving, strict=True) if moves)
    total = math.fsum(squares)
    # Rounded: the last bits depend on the machine, and these settings enter the fingerprint.
    return {
        "moved_share": round(math.sqrt(moved / total), 6) if total else 1.0,
        "ignored": [name for name, moves in zip(space.names, moving, strict=True) if not moves],
        "groupings": dict(
            sorted(
                Counter(
                    grouping.rule
                    for grouping, moves in zip(space.groupings, moving, strict=True)
                    if moves
                ).items()
            )
        ),
    }
