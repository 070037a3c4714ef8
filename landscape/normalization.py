"""How a random direction is scaled against the weights, and made orthogonal to another one, tensor by tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.grouping import Grouping, whole

RULES = ("filter", "layer", "weight", "none")
"""How a random direction is scaled against the weights; see :func:`landscape.random_plane`."""

_EPSILON = 1e-10  # the reference's guard against a filter drawn as zero
_NOTHING_LEFT = 1e-8  # share of a vector that is rounding, once its projection is taken away


def normalized(drawn: Tensor, weights: Tensor, rule: str, grouping: Grouping) -> Tensor:
    """The entries drawn for one tensor, scaled by one of :data:`RULES`.

    Args:
        drawn: any shape.
        weights: the same shape.
        rule: one of ``"filter"``, ``"layer"``, ``"weight"``, ``"none"``.
        grouping: what a filter of this tensor is.

    >>> weights = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    >>> rows = Grouping("row", view=(2, 2), within=(1,))
    >>> normalized(torch.ones(2, 2), weights, "filter", rows).norm(dim=1).round(decimals=4).tolist()
    [5.0, 2.0]
    """
    if rule == "none":
        return drawn
    if rule == "weight":
        return drawn * weights
    if rule == "layer" or grouping.is_whole:
        length: Tensor = torch.linalg.vector_norm(drawn)
        if not length:  # orthogonalized away
            return drawn
        ratio: Tensor = torch.linalg.vector_norm(weights) / length
        return drawn * ratio
    d, w = drawn.view(grouping.view), weights.reshape(grouping.view)
    return (d * (_norm(w, grouping) / (_norm(d, grouping) + _EPSILON))).view(drawn.shape)


def orthogonalized(
    first: Tensor, second: Tensor, weights: Tensor, rule: str, grouping: Grouping
) -> Tensor:
    """``second`` less its projection on ``first``, so that the two are orthogonal once normalized.

    Gram-Schmidt inside each group under ``"filter"``, over the tensor under the other rules, and
    for ``"weight"`` in the inner product that its factor ``w`` makes: ``Σ w² d₁ d₂``. A group where
    nothing is left, as where only one entry counts, becomes exactly zero.

    Args:
        first: entries drawn for the first axis, any shape.
        second: entries drawn for the second axis, the same shape.
        weights: the same shape.
        rule: one of :data:`RULES`.
        grouping: the groups of this tensor.

    >>> x, y = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0])
    >>> orthogonalized(x, y, x, "none", whole((2,)))
    tensor([ 0.1600, -0.1200])
    """
    grouping = grouping if rule == "filter" else whole(tuple(first.shape))
    d1, d2 = first.reshape(grouping.view), second.reshape(grouping.view)
    metric = weights.reshape(grouping.view) if rule == "weight" else torch.ones_like(d1)
    p1, before = d1 * metric, _squared(d2 * metric, grouping)
    for _ in range(2):  # the second pass removes the rounding of the first
        inner = _sum(p1 * (d2 * metric), grouping)
        d2 = d2 - d1 * (inner / _squared(p1, grouping)).nan_to_num(0.0)
    gone = _squared(d2 * metric, grouping) <= _NOTHING_LEFT**2 * before
    return d2.masked_fill(gone, 0.0).view(first.shape)


def units(grouping: Grouping, rule: str) -> Grouping:
    """The groups that two orthogonal directions can have: filters of one entry count as one together."""
    if rule == "filter" and grouping.entries == 1:
        return whole(grouping.view, grouping.rule)
    return grouping


# An empty dim= would mean all dimensions, not none.


def _norm(values: Tensor, grouping: Grouping) -> Tensor:
    if not grouping.within:
        return values.abs()
    norm: Tensor = torch.linalg.vector_norm(values, dim=grouping.within, keepdim=True)
    return norm


def _sum(values: Tensor, grouping: Grouping) -> Tensor:
    return values.sum(dim=grouping.within, keepdim=True) if grouping.within else values


def _squared(values: Tensor, grouping: Grouping) -> Tensor:
    return _sum(values * values, grouping)
