"""The upper ascent of Sharp-MAML over a whole training, with the cheap forms that remember earlier steps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sharpmaml.meta import MetaGradient, Upper, meta_gradient_of
from sharpmaml.plan import Executor, Plan, Tasks


class UpperAscent:
    """Meta-gradients of a training, in order.

    Args:
        upper: radius and rule.
    """

    def __init__(self, upper: Upper) -> None:
        self.upper = upper

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, executor: Executor, iteration: int
    ) -> MetaGradient:
        """The direction to descend at meta-update ``iteration``, counted from 0."""
        return meta_gradient_of(batch, theta, plan, self.upper, executor)

    def state_dict(self) -> dict[str, Tensor]:
        """What has to be kept for the same numbers after a resumption."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a kept state."""
