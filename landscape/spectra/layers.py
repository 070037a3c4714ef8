"""Spectra of the diagonal blocks of a Hessian: one layer at a time, the others held constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.space import ParameterSpace
from landscape.spectra.eigenpairs import Eigenpairs, eigenpairs


def layers(space: ParameterSpace) -> Mapping[str, tuple[str, ...]]:
    """Parameters by the module that holds them, in their order; a bare tensor stands for itself.

    >>> from torch import nn
    >>> space = ParameterSpace.from_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    >>> dict(layers(space))
    {'0': ('0.weight', '0.bias'), '2': ('2.weight', '2.bias')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in space.names:
        owner = name.rpartition(".")[0] or name
        found[owner] = (*found.get(owner, ()), name)
    return found


def layer_eigenpairs(
    objective: Objective,
    k: int = 1,
    tol: float = 1e-3,
    seed: int = 0,
    theta: Tensor | None = None,
    **options: Any,
) -> dict[str, Eigenpairs]:
    """The ``k`` largest eigenvalues of each layer's own block of the Hessian, by layer.

    A block is the Hessian with respect to that layer's parameters alone; its largest eigenvalue is at
    most that of the whole (Cauchy's interlacing). A layer of fewer than ``k`` parameters has as many.

    Args:
        objective: the function.
        k: eigenpairs a layer.
        tol: see :func:`landscape.spectra.eigenpairs.eigenpairs`.
        seed: of the random start vectors.
        theta: the point, all parameters ``(params,)``; ``objective.theta`` when left out.
        options: see :func:`landscape.operators.operator_of`.

    Raises:
        ValueError: an option out of range, or a Hessian that is not finite.
    """
    operator_of(objective, theta, **options)  # tested as a whole, once
    options["check"] = False
    space = objective.space
    sizes = dict(zip(space.names, space.sizes, strict=True))
    return {
        layer: eigenpairs(
            objective,
            min(k, sum(sizes[name] for name in names)),
            tol=tol,
            seed=seed,
            theta=theta,
            params=[literal(name) for name in names],
            **options,
        )
        for layer, names in layers(space).items()
    }


def literal(name: str) -> str:
    """A pattern that matches this name only: its own brackets and stars are no wildcards.

    >>> literal("blocks[0].*")
    'blocks[[]0].[*]'
    """
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
