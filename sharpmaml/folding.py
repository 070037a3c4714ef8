"""Convolution of known inputs, batch normalization, scale and shift as one matrix, and its derivatives.

For a channel with kernel ``w``, scale ``γ`` and shift ``β``, over patches of mean ``m`` and covariance ``C``, the
output is ``s w·patch + β − s w·m`` with ``s = γ (w·C w + ε)^(-1/2)``: linear in patches with a row of ones added.
All of it is small and computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Folded(NamedTuple):
    """The folded weights of all tasks; ``i`` inputs are ``channels · 9``.

    Attributes:
        matrix: ``(tasks, i + 1, out)``, in the dtype of the weights.
        weight: ``(tasks, out, i)``.
        gamma: ``(tasks, out)``.
        product: ``C w``, ``(tasks, out, i)``.
        centre: ``w · m``, ``(tasks, out)``.
        inverse: of the standard deviation, ``(tasks, out)``.
        scale: ``s``, ``(tasks, out)``.
    """

    matrix: Tensor
    weight: Tensor
    gamma: Tensor
    product: Tensor
    centre: Tensor
    inverse: Tensor
    scale: Tensor


class Sums(NamedTuple):
    """Derivatives for the folded matrix, taken apart.

    Attributes:
        inner: of the part of ``w``, less the mean patch times ``bias``, ``(tasks, out, i)``.
        bias: of the shift, ``(tasks, out)``.
        gain: of ``s``, ``(tasks, out)``.
    """

    inner: Tensor
    bias: Tensor
    gain: Tensor


class Moving(NamedTuple):
    """Derivatives of `Folded` along a direction of the weights, named as there."""

    matrix: Tensor
    weight: Tensor
    gamma: Tensor
    product: Tensor
    inverse: Tensor
    scale: Tensor


def folded(mean: Tensor, covariance: Tensor, eps: float, weights: Sequence[Tensor]) -> Folded:
    """From patches of ``mean (tasks, i)`` and ``covariance (tasks, i, i)``, and weights of a block."""
    weight, gamma, beta = (tensor.double() for tensor in weights)
    weight = weight.flatten(2)
    product = weight @ covariance
    centre = (weight @ mean[:, :, None])[..., 0]
    # Rounding can leave a variance of zero a little below it.
    inverse = ((product * weight).sum(2).clamp_min(0) + eps).rsqrt()
    scale = gamma * inverse
    matrix = _matrix(weight * scale[..., None], beta - scale * centre, weights[0])
    return Folded(matrix, weight, gamma, product, centre, inverse, scale)


def reverse(known: Folded, mean: Tensor, total: Tensor) -> tuple[tuple[Tensor, ...], Sums]:
    """Derivatives for weight ``(tasks, out, i)``, scale and shift, from ``total`` for the matrix."""
    bias = total[:, -1].double()
    inner = total[:, :-1].mT.double() - bias[..., None] * mean[:, None]
    gain = (known.weight * inner).sum(2)
    gamma = gain * known.inverse
    pull = gamma * known.scale * known.inverse
    weight = known.scale[..., None] * inner - pull[..., None] * known.product
    return (weight, gamma, bias), Sums(inner, bias, gain)


def tangent(
    known: Folded, mean: Tensor, covariance: Tensor, directions: Sequence[Tensor]
) -> Moving:
    """Derivatives of the folded weights along ``directions`` of weight, scale and shift."""
    weight, gamma, beta = (tensor.double() for tensor in directions)
    weight = weight.flatten(2)
    product = weight @ covariance
    inverse = -known.inverse.pow(3) * (known.product * weight).sum(2)
    scale = gamma * known.inverse + known.gamma * inverse
    centre = (weight @ mean[:, :, None])[..., 0]
    matrix = _matrix(
        weight * known.scale[..., None] + known.weight * scale[..., None],
        beta - scale * known.centre - known.scale * centre,
        directions[0],
    )
    return Moving(matrix, weight, gamma, product, inverse, scale)


def reverse_tangent(
    known: Folded, sums: Sums, moving: Moving, mean: Tensor, total: Tensor
) -> tuple[Tensor, ...]:
    """Derivatives of what `reverse` returned, where ``total`` is that of its argument."""
    bias = total[:, -1].double()
    inner = total[:, :-1].mT.double() - bias[..., None] * mean[:, None]
    gain = (moving.weight * sums.inner + known.weight * inner).sum(2)
    gamma = moving.inverse * sums.gain + known.inverse * gain
    square = known.inverse.square()
    pull = sums.gain * known.scale * square
    pulling = (gain * known.scale + sums.gain * moving.gamma * known.inverse) * square
    pulling = pulling + 3 * sums.gain * known.scale * known.inverse * moving.inverse
    weight = moving.scale[..., None] * sums.inner + known.scale[..., None] * inner
    weight = weight - pulling[..., None] * known.product - pull[..., None] * moving.product
    return weight, gamma, bias


def _matrix(weight: Tensor, shift: Tensor, like: Tensor) -> Tensor:
    return torch.cat([weight, shift[..., None]], 2).mT.to(like.dtype).contiguous()
