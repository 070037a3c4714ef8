"""From the settings of a run to what a meta-update computes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.adaptable import adapted_mask
from sharpmaml.ascent import UpperAscent
from sharpmaml.checkpoint import inner_loop
from sharpmaml.config import TrainConfig
from sharpmaml.meta import Upper
from sharpmaml.plan import Plan


def plan_of(
    config: TrainConfig,
    space: ParameterSpace,
    rates: Tensor | None,
    iteration: int,
    device: torch.device | str,
) -> Plan:
    """What one pass of meta-update ``iteration`` computes.

    Args:
        config: the run.
        space: its parameters.
        rates: learned inner rates as of :func:`sharpmaml.adaptable.initial_rates`, ``None`` where fixed.
        iteration: of the meta-update, counted from 0; only the multi-step loss depends on it.
        device: where the passes are made.

    Raises:
        ValueError: settings that contradict each other.

    >>> net = torch.nn.Linear(1, 1)
    >>> config = TrainConfig(inner_steps=2, multi_step=100)
    >>> plan_of(config, ParameterSpace.from_module(net), None, 50, "cpu").weights
    (0.25, 0.75)
    """
    if (config.chosen("rates") == "fixed") != (rates is None):
        raise ValueError(
            f"rates are {config.chosen('rates')!r}, but {'none are' if rates is None else 'some are'} "
            "given: start from sharpmaml.adaptable.initial_rates"
        )
    if rates is not None and config.inner_steps == 0:
        raise ValueError("there are no inner steps whose rates could be learned: set inner_steps")
    still = None if rates is None else rates.detach()
    inner = inner_loop(config.inner(), config, space, still)
    estimator = config.chosen("estimator")
    if inner.adapted is not None:
        if estimator == "reptile":
            raise ValueError(
                "Reptile moves nothing that the inner loop does not: it needs adapted='all' and "
                "adapt_norm_affine=true"
            )
        inner = replace(inner, adapted=inner.adapted.to(device))
    return Plan(
        inner,
        step_weights(config.inner_steps, iteration, config.chosen("multi_step")),
        estimator,
        config.solver_steps,
        learns_rates=rates is not None,
    )


def step_weights(steps: int, iteration: int, over: int) -> tuple[float, ...] | None:
    """Weights of the query losses after each inner step in the multi-step loss of MAML++.

    With ``t = iteration / over``: ``(1 − t)/K`` for each step but the last, and what is missing to 1 for
    the last; from ``t = 1`` on the last step alone (Antoniou et al. 2019, section 4). Their code counts
    epochs, and keeps ``0.03/K`` as a floor of the early weights until then; here there is none, so the
    loss does not jump.

    Args:
        steps: inner steps ``K``.
        iteration: of the meta-update, counted from 0.
        over: meta-updates until the last step is alone; 0: from the start.

    Returns:
        ``K`` weights that sum to 1; ``None`` for the last step alone.

    >>> step_weights(4, 0, 100), step_weights(4, 100, 100)
    ((0.25, 0.25, 0.25, 0.25), None)
    """
    if steps < 2 or iteration >= over:
        return None
    early = (1 - iteration / over) / steps
    return (*[early] * (steps - 1), 1 - (steps - 1) * early)


def ascent_of(config: TrainConfig, space: ParameterSpace) -> UpperAscent:
    """The ascent of a run's meta-updates; it remembers, so one for the whole run.

    Args:
        config: the run.
        space: its parameters.

    Raises:
        ValueError: settings that contradict each other.
    """
    upper = Upper(config.upper, config.perturbation, config.eps_m)
    blind = config.ascent_gradient == "momentum" and config.eps_m == "reuse"
    if blind and upper.radius > 0 and config.lower > 0:
        raise ValueError(
            "eps_m='reuse' needs the inner ascents of the point itself, which ascent_gradient='momentum' "
            "does not compute: set eps_m='recompute', or ascent_gradient to full or first-order"
        )
    return UpperAscent(
        upper,
        gradient=config.ascent_gradient,
        every=config.ascent_every,
        reuse=config.ascent_reuse,
        part=adapted_mask(space, config.ascent_part),
        reduction=config.reduction,
    )
