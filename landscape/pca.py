"""The plane that holds most of a path of training: principal components of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from landscape.device import one_thread
from landscape.directions import Plane
from landscape.objective import Objective
from landscape.space import ROLES

ENOUGH = 0.8
"""Share of the checkpoints' variance below which a plane hides much of the path."""

_CHUNK_BYTES = 1 << 26  # float64 copies of the checkpoints are never larger than this
_RANK = (
    1e-7  # the Gram matrix squares singular values: below this share of the first they are noise
)

Origin = Literal["last", "mean"]
Scale = Literal["path", "unit"]


@one_thread()  # the plane is in the fingerprint of what is computed over it
def pca_plane(
    objective: Objective,
    thetas: Sequence[Tensor] | Tensor,
    origin: Origin = "last",
    *,
    ignore: Iterable[str] = (),
    scale: Scale = "path",
) -> Plane:
    """The plane through a path of checkpoints that holds most of its variance (Li et al. 2018, sec. 7.2).

    The directions are the first two principal components of the checkpoints, whose mean is taken off
    first; that is the plane of scikit-learn's ``PCA``, and not that of an SVD of the differences to the last
    checkpoint, which is another one. They are exact: eigenvectors of the ``n x n`` Gram matrix of the centred
    checkpoints, in float64. The origin is the last checkpoint and not the mean, so that the surface is around
    the solution; the plane is moved there parallel to itself.

    Signs: the checkpoint that is farthest from the origin along a direction (the earliest of equals) has a
    positive coordinate there.

    With ``scale="path"`` each direction is as long as the path is along it, so that the path fills
    the square from -1 to 1; the axes then differ in length, which ``axis_titles`` and ``Plane.norms`` tell.
    With ``scale="unit"`` both have length 1 and coordinates are distances between weights.

    The plane is the same to the bit whatever the number of threads, so that a run over it can be continued with
    another one. It carries no norm statistics: a surface over it uses those of the objective at every point.

    Args:
        objective: gives the space, dtype and device.
        thetas: checkpoints in the order of training, at least three, ``(params,)`` each.
        origin: ``"last"`` or ``"mean"``.
        ignore: roles that stay fixed: any of ``"weight"``, ``"bias"``, ``"norm"``. What such tensors did
            counts as variance that the plane does not hold.
        scale: ``"path"`` or ``"unit"``.

    Returns:
        The plane. Its settings hold the arguments and ``checkpoints``, their number; ``variance``, shares
        of the centred variance of all parameters along the two directions; ``singular_values`` of the
        centred checkpoints, the first ten; ``cautions``, where the plane holds less than 80 %.

    Raises:
        ValueError: fewer than three checkpoints, one of another shape or not finite, all equal, all on
            one line, or an unknown option.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(3).double())
    >>> path = torch.tensor([[4.0, 0, 0], [2, 1, 0], [0, 0, 0]]).double()
    >>> plane = pca_plane(bowl, path)
    >>> plane.basis.round(decimals=9).abs().tolist(), plane.settings["variance"]
    ([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.923077, 0.0769231])
    """
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    _require(origin, scale, ignored)
    path = [theta.detach() for theta in thetas]
    _require_path(path, objective.space.size)
    moving = _moving(objective, ignored)
    gram = torch.zeros(len(path), len(path), dtype=torch.float64)
    total = 0.0
    for where, block in _centred(path):
        total += float(block.square().sum())
        block *= moving[where].to(block.device)
        gram += (block @ block.T).cpu()
    if not bool(gram.isfinite().all()):
        raise ValueError(
            "the squares of the checkpoints' differences are too large for float64: a checkpoint has diverged, "
            "leave it out"
        )
    values, vectors = torch.linalg.eigh(gram)
    singular = values.flip(0).clamp(min=0).sqrt()
    left = vectors.flip(1)[:, :2]
    _require_rank(singular, path)
    coordinates = left * singular[:2]
    if origin == "last":
        coordinates = coordinates - coordinates[-1]
    left, lengths = left * _signs(coordinates), coordinates.abs().amax(dim=0)
    factors = (left / singular[:2] * (lengths if scale == "path" else 1)).T
    basis = torch.empty(2, objective.space.size).to(objective.theta)
    for where, block in _centred(path):
        block *= moving[where].to(block.device)
        basis[:, where] = (factors.to(block.device) @ block).to(basis)
    shares = [_rounded(float(s) ** 2 / total) for s in singular[:2]]
    units = [float(row.double().norm()) for row in basis]
    settings = {
        "kind": "pca",
        "normalize": "none",
        "ignore": list(ignored),
        "axes": 2,
        "origin": origin,
        "scale": scale,
        "checkpoints": len(path),
        "variance": shares,
        "singular_values": [
            _rounded(float(s)) if s > _RANK * singular[0] else 0.0 for s in singular[:10]
        ],
        "directions": f"first two principal components of {len(path)} checkpoints",
        "axis_titles": [
            f"{name}: component {k} ({share:.0%}, unit {unit:.3g})"
            for k, (name, share, unit) in enumerate(zip("αβ", shares, units, strict=True), 1)
        ],
        "cautions": _cautions(sum(shares)),
    }
    start = path[-1] if origin == "last" else _mean(path)
    return Plane(start.to(objective.theta).clone(), basis, settings)


def _require(origin: str, scale: str, ignored: Sequence[str]) -> None:
    if origin not in ("last", "mean"):
        raise ValueError(f"origin is {origin!r}: expected 'last' or 'mean'")
    if scale not in ("path", "unit"):
        raise ValueError(f"scale is {scale!r}: expected 'path' or 'unit'")
    unknown = [role for role in ignored if role not in ROLES]
    if unknown:
        raise ValueError(f"unknown role ignore={unknown[0]!r}: expected any of {', '.join(ROLES)}")


def _require_path(path: Sequence[Tensor], size: int) -> None:
    if len(path) < 3:
        raise ValueError(
            f"{len(path)} checkpoints given: a plane through a path needs at least three"
        )
    for k, theta in enumerate(path):
        if tuple(theta.shape) != (size,):
            raise ValueError(f"checkpoint {k} has shape {tuple(theta.shape)}, expected ({size},)")
        if not bool(theta.isfinite().all()):
            raise ValueError(f"checkpoint {k} is not finite: leave it out")


def _require_rank(singular: Tensor, path: Sequence[Tensor]) -> None:
    first, second = float(singular[0]), float(singular[1])
    if first == 0:
        raise ValueError("all checkpoints are equal where they may move: there is no plane")
    # Rounding of the weights alone scatters the points of a line about this far.
    scatter = torch.finfo(path[0].dtype).eps * max(float(theta.norm()) for theta in path)
    if second <= max(_RANK * first, scatter):
        raise ValueError(
            "all checkpoints lie on one line (up to rounding): use landscape.interpolation through its ends"
        )


def _moving(objective: Objective, ignored: Sequence[str]) -> Tensor:
    space = objective.space
    moves = torch.tensor([float(role not in ignored) for role in space.roles], dtype=torch.float64)
    return moves.repeat_interleave(torch.tensor(space.sizes))


def _centred(path: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Some columns at a time: which, and the checkpoints there less their mean, ``(n, columns)``."""
    width = max(1, _CHUNK_BYTES // (8 * len(path)))
    for start in range(0, path[0].numel(), width):
        where = slice(start, start + width)
        block = torch.stack([theta[where].double() for theta in path])
        yield where, block - block.mean(dim=0)


def _cautions(share: float) -> list[str]:
    if share >= ENOUGH:
        return []
    return [
        f"the plane holds {share:.0%} of the variance of the checkpoints, less than {ENOUGH:.0%}: "
        "much of what training did lies off it"
    ]


def _mean(path: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(path[0], dtype=torch.float64)
    for theta in path:
        total += theta
    return total / len(path)


def _signs(coordinates: Tensor) -> Tensor:
    """1 or -1 for each column, by the rule of :func:`pca_plane`."""
    size = coordinates.abs()
    # The first within rounding of the largest: otherwise the last bits decide between equals.
    first = (size >= size.amax(dim=0) * (1 - 1e-9)).int().argmax(dim=0)
    return coordinates.gather(0, first[None])[0].sign()


def _rounded(value: float) -> float:
    # The last bits depend on the machine, and settings enter the fingerprint.
    return float(f"{value:.6g}")
