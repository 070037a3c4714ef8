"""Passes in bfloat16, and how far their meta-gradient is from the full one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sharpmaml.config import TrainConfig
from sharpmaml.plan import Executor, Pass, Plan, Tasks

BY_AUTOGRAD = ("loop", "vmap")
"""Executors whose passes autocast reaches; the others write their derivatives out themselves."""


class Autocast:
    """An executor whose forward and backward passes run in bfloat16.

    Parameters, updates of the inner loop, losses and the sum over tasks stay as they are: autocast casts
    where a matrix product or a convolution begins, and gradients come back in the parameters' own type.

    Args:
        executor: one of `BY_AUTOGRAD`.
    """

    def __init__(self, executor: Executor) -> None:
        self.name = executor.name
        self._executor = executor

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        """See :class:`sharpmaml.plan.Executor`."""
        # No cache of casts: it would hold tensors of a torch.func level that has ended.
        with torch.autocast(theta.device.type, torch.bfloat16, cache_enabled=False):
            return self._executor(batch, theta, plan, ascents)


@dataclass(frozen=True)
class Precision:
    """A meta-gradient in bfloat16 against the same one in float32.

    Attributes:
        error: norm of the difference over the norm of the float32 one.
        cosine: of the angle between the two.
        loss_error: difference of the two mean losses.
    """

    error: float
    cosine: float
    loss_error: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"bfloat16: the first meta-gradient is {self.error:.2g} of its norm away from float32's, "
            f"cosine {self.cosine:.4f}, loss {self.loss_error:+.2g}"
        )


def compare(full: Pass, low: Pass) -> Precision:
    """How far ``low`` is from ``full``.

    >>> one = Pass(torch.tensor([3.0, 4.0]), torch.tensor([1.0]))
    >>> compare(one, Pass(torch.tensor([3.0, 4.5]), torch.tensor([1.25])))
    Precision(error=0.1, cosine=0.99846..., loss_error=0.25)
    """
    a, b = full.gradient.double(), low.gradient.double()
    norm = float(a.norm())
    return Precision(
        float((b - a).norm()) / norm if norm else 0.0,
        float(a @ b / (a.norm() * b.norm())) if norm and float(b.norm()) else 0.0,
        float(low.losses.double().mean() - full.losses.double().mean()),
    )


def executor_for(config: TrainConfig, name: str, device: torch.device) -> str:
    """The executor to ask for where passes are in bfloat16.

    Args:
        config: the run, with ``precision="bfloat16"``.
        name: the executor asked for, perhaps ``"auto"``.
        device: where it computes.

    Raises:
        ValueError: float64, or an executor that autocast does not reach.
    """
    refusal: Any = None
    if config.dtype == "float64":
        refusal = "dtype float64"
    elif name not in ("auto", *BY_AUTOGRAD):
        refusal = f"executor {name!r}"
    if refusal:
        raise ValueError(
            f"precision bfloat16 does not go with {refusal}: expected dtype float32 and executor "
            f"{' or '.join(BY_AUTOGRAD)}"
        )
    if name != "auto":
        return name
    return "vmap" if device.type == "cuda" else "loop"
