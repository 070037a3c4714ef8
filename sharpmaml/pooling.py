"""2×2 max-pooling written out: its maximum, and where that was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def corners(z: Tensor) -> tuple[Tensor, ...]:
    """Views of the four places of each 2×2 window of ``(..., height, width, channels)``, in order."""
    height, width = (size // 2 * 2 for size in z.shape[-3:-1])
    return tuple(z[..., row:height:2, column:width:2, :] for row in (0, 1) for column in (0, 1))


def highest(parts: Sequence[Tensor]) -> Tensor:
    """Their maximum, entry by entry."""
    top = parts[0]
    for part in parts[1:]:
        top = torch.maximum(top, part)
    return top


def winners(parts: Sequence[Tensor], top: Tensor) -> list[Tensor]:
    """1 where a part is the first to hold the maximum, as in torch's pooling; else 0."""
    if len(parts) == 1:
        return [torch.ones_like(top)]
    # Numbers from the start: comparisons that give bool are not vectorized on CPUs, and have to be converted.
    masks = [torch.eq(part, top, out=torch.empty_like(top)) for part in parts]
    taken = masks[0]
    for index, hit in enumerate(masks[1:], 1):
        masks[index] = torch.gt(hit, taken, out=torch.empty_like(top))
        taken = torch.maximum(taken, hit)
    return masks


def picked(parts: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """What the parts have where their masks are 1."""
    total = parts[0] * masks[0]
    for part, mask in zip(parts[1:], masks[1:], strict=True):
        total.addcmul_(part, mask)
    return total
