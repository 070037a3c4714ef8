"""What a run learns, and the step that learns it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.adaptable import contracted_rates, initial_rates
from sharpmaml.checkpoint import inner_loop
from sharpmaml.config import TrainConfig
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import MetaGradient
from sharpmaml.plan import Plan
from sharpmaml.plans import ascent_of, plan_of
from sharpmaml.trainer.optimizer import OPTIMIZERS, Optimizer
from sharpmaml.trainer.schedule import clipped, rate_at


class Learner:
    """The initialization and learned inner rates, with the optimizer of both.

    Args:
        config: the run.
        space: the parameters.
        theta: where they start, ``(params,)``.

    Attributes:
        theta: the initialization as it is now.
        rates: learned rates, ``(params,)`` or ``(steps, tensors)``; ``None`` where they are fixed.
        ascent: the upper ascent, which may remember earlier ones.
    """

    def __init__(self, config: TrainConfig, space: ParameterSpace, theta: Tensor) -> None:
        self.config, self.space = config, space
        self.theta = theta.detach().clone()
        rates = initial_rates(space, config.chosen("rates"), config.inner_steps, config.inner_rate)
        self.rates = None if rates is None else rates.to(theta)
        self.ascent = ascent_of(config, space)
        learned = [self.theta] if self.rates is None else [self.theta, self.rates]
        self._optimizer: Optimizer = OPTIMIZERS[config.optimizer](learned)
        self._changes = self.rates is not None or config.chosen("multi_step") > 0
        self._plan: Plan | None = None

    def plan(self, iteration: int) -> Plan:
        """What meta-update ``iteration``, counted from 0, computes."""
        if self._plan is None or self._changes:
            device = self.theta.device
            self._plan = plan_of(self.config, self.space, self.rates, iteration, device)
        return self._plan

    def inner(self) -> InnerLoop:
        """The adaptation of validation."""
        inner = self.config.test_inner()
        return inner_loop(inner, self.config, self.space, self.rates).to(self.theta)

    def rate(self, iteration: int) -> float:
        """The meta rate of a meta-update."""
        config = self.config
        return rate_at(iteration, config.iterations, config.meta_rate, config.schedule)

    def update(self, result: MetaGradient, iteration: int) -> None:
        """One step of the optimizer, within the limits, at the rate of the schedule."""
        config = self.config
        gradients = [result.gradient]
        if self.rates is not None:
            assert result.rates is not None
            gradients.append(contracted_rates(result.rates, self.rates, self.space))
        gradients = clipped(gradients, config.clip_value, config.clip_norm)
        self._optimizer.step(gradients, self.rate(iteration))

    def state_dict(self) -> dict[str, Any]:
        """State beside the weights and rates themselves."""
        return {"optimizer": self._optimizer.state_dict(), "ascent": dict(self.ascent.state_dict())}

    def load_state_dict(
        self, theta: Tensor, rates: Tensor | None, state: Mapping[str, Any]
    ) -> None:
        """Take up the weights, rates and state of a checkpoint; one without an ascent's state starts it."""
        self.theta.copy_(theta)
        if self.rates is not None and rates is not None:
            self.rates.copy_(rates)
        self._optimizer.load_state_dict(state["optimizer"])
        self.ascent.load_state_dict(state.get("ascent", {}))
        self._plan = None
