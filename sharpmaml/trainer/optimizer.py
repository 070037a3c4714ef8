"""The two optimizers of the meta-update, without what those of torch carry along.

A step of ``torch.optim.Adam`` takes four times as long as the arithmetic in it, which on sinusoids is a
noticeable part of a meta-update. The numbers are the same, bit for bit, and so is the state that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class Optimizer(Protocol):
    """Changes tensors in place, one step at a time."""

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Descend ``gradients``, one a tensor, at a rate."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept between steps, in the words of ``torch.optim``."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a kept state; that of the same optimizer of ``torch.optim`` too."""


class Adam:
    """Adam with its published constants (Kingma & Ba 2015, algorithm 1).

    >>> x = torch.zeros(2)
    >>> Adam([x]).step([torch.tensor([5.0, -0.1])], 0.5)  # the first step is the rate, by its signs
    >>> x
    tensor([-0.5000,  0.5000])
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._step = 0
        self._rate = 0.0
        self._first = [torch.zeros_like(t) for t in tensors]
        self._second = [torch.zeros_like(t) for t in tensors]

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Descend ``gradients``, one a tensor, at a rate."""
        self._step += 1
        self._rate = rate
        rate /= 1 - _BETA1**self._step
        scale = (1 - _BETA2**self._step) ** 0.5
        columns = zip(self._tensors, gradients, self._first, self._second, strict=True)
        for tensor, gradient, first, second in columns:
            first.lerp_(gradient, 1 - _BETA1)
            second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
            tensor.addcdiv_(first, second.sqrt().div_(scale).add_(_EPS), value=-rate)

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept between steps, in the words of ``torch.optim``."""
        step = torch.tensor(float(self._step))
        pairs = zip(self._first, self._second, strict=True)
        return {
            "state": {
                number: {"step": step, "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
                for number, (first, second) in enumerate(pairs)
            },
            # Of no use here: tools that analyse the optimizer of a checkpoint read its constants there.
            "param_groups": [
                {
                    "lr": self._rate,
                    "betas": (_BETA1, _BETA2),
                    "eps": _EPS,
                    "weight_decay": 0,
                    "amsgrad": False,
                    "maximize": False,
                    "params": list(range(len(self._tensors))),
                }
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a kept state; that of ``torch.optim.Adam`` too.

        Raises:
            KeyError: it is not one of as many tensors.
            ValueError: it is one of tensors of another shape.
        """
        for number, (first, second) in enumerate(zip(self._first, self._second, strict=True)):
            kept = state["state"][number]
            for mine, given in ((first, kept["exp_avg"]), (second, kept["exp_avg_sq"])):
                if mine.shape != given.shape:
                    raise ValueError(f"moments of shape {tuple(given.shape)}")
                mine.copy_(given)
            self._step = int(kept["step"])


class SGD:
    """Plain gradient descent; it remembers nothing."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._rate = 0.0

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Descend ``gradients``, one a tensor, at a rate."""
        self._rate = rate
        for tensor, gradient in zip(self._tensors, gradients, strict=True):
            tensor.sub_(gradient, alpha=rate)

    def state_dict(self) -> dict[str, Any]:
        """The constants alone."""
        constants = {"lr": self._rate, "momentum": 0, "dampening": 0, "weight_decay": 0}
        group = {**constants, "nesterov": False, "maximize": False}
        return {"state": {}, "param_groups": [{**group, "params": list(range(len(self._tensors)))}]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is taken up."""


OPTIMIZERS: dict[str, type[Adam] | type[SGD]] = {"adam": Adam, "sgd": SGD}
"""By the name in settings."""
