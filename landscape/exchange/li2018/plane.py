"""The reference's points: the step is computed in float64 and rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from landscape.directions import Plane


@dataclass(frozen=True, eq=False)
class ReferencePlane(Plane):
    """A plane whose points are ``origin + round(alpha * dx + beta * dy)``, the bracket in float64.

    That is what loss-landscape's ``set_weights`` and ``set_states`` compute under NumPy 2, to the bit, in float32;
    a :class:`~landscape.directions.Plane` rounds each product as well. ``executor="plain"`` uses these
    points; the other executors agree with it to rounding.

    >>> import torch
    >>> plane = ReferencePlane(torch.zeros(1), torch.tensor([[1.0], [1e-9]]))
    >>> plane.point(1.0, -1.0).tolist()
    [1.0]
    """

    def point(self, alpha: float, beta: float = 0.0) -> Tensor:
        """``(params,)``; see :meth:`landscape.directions.Plane.point`."""
        if self.axes == 1 and beta:
            raise ValueError(f"beta is {beta}, but this plane is a line: give alpha only")
        return _moved(self.origin, list(self.basis), (alpha, beta)[: self.axes])

    def statistics(self, alpha: float, beta: float = 0.0) -> dict[str, Tensor]:
        """The buffers at a point, by name."""
        place = (alpha, beta)[: self.axes]
        return {name: _moved(v[0], list(v[1:]), place) for name, v in self.buffers.items()}


def _moved(start: Tensor, steps: Sequence[Tensor], place: Sequence[float]) -> Tensor:
    change = float(place[0]) * steps[0].double()
    for c, step in zip(place[1:], steps[1:], strict=True):
        change = change + float(c) * step.double()
    return start + change.to(start.dtype)
