"""The meta loss on fixed episodes, as an objective whose landscape can be computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape import device as devices
from landscape.directions import Plane
from landscape.evaluator import Evaluator
from landscape.objective import hvp_of, standard_error
from landscape.space import ParameterSpace
from sharpmaml.checkpoint import Checkpoint, read
from sharpmaml.evaluators import candidates
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_gradient, meta_loss
from sharpmaml.tasks import CheckpointTasks, NetworkTasks


class MetaObjective:
    """Mean query loss after inner-loop adaptation, as a function of the initialization.

    ``h(θ) = mean_m Q_m(adapt(S_m, θ))`` over the tasks given (Finn et al. 2017, eq. 2). It satisfies
    ``landscape.Objective``: surfaces, Hessians and sharpness of the meta objective need nothing else.
    Its terms (``losses``) are the tasks, so every standard error is over tasks.

    Args:
        tasks: fixed tasks; the same ones at every point.
        theta: the initialization of interest, ``(params,)``.
        space: names and shapes of the parameters.
        inner: the adaptation; plain MAML steps when methods are compared, because perturbation belongs
            to training.
        settings: what to record beside the numbers.
        network: the network and the episodes behind ``tasks``, where they are known: faster evaluators
            look into them.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        theta: Tensor,
        space: ParameterSpace,
        inner: InnerLoop,
        settings: dict[str, Any] | None = None,
        network: NetworkTasks | None = None,
    ) -> None:
        if not tasks:
            raise ValueError("a meta objective needs at least one task")
        self.tasks = tuple(tasks)
        self.theta = theta.detach().clone()
        self.space = space
        self.inner = inner
        self.network = network
        self._given = dict(settings or {})
        self.settings: dict[str, Any] = {
            "objective": "meta",
            "tasks": len(self.tasks),
            "inner_steps": inner.steps,
            "inner_rate": inner.rate,
            "lower": inner.lower,
            "dtype": str(theta.dtype).removeprefix("torch."),
            **self._given,
        }

    def value(self, theta: Tensor) -> Tensor:
        """Mean meta loss at ``theta (params,)``, 0-dimensional and differentiable."""
        return self.losses(theta).mean()

    def values(self, thetas: Tensor) -> Tensor:
        """``(points, params)`` -> ``(points,)``."""
        return torch.stack([self.value(theta) for theta in thetas])

    def losses(self, theta: Tensor) -> Tensor:
        """Query loss of each task after adaptation, ``(tasks,)``."""
        with devices.exact_kernels():
            return torch.stack([meta_loss(task, theta, self.inner)[0] for task in self.tasks])

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """``loss``, ``loss_stderr`` over tasks, and ``accuracy`` where there are classes."""
        losses: list[Tensor] = []
        extra: dict[str, list[Tensor]] = {}
        with devices.exact_kernels():
            for task in self.tasks:
                loss, aux = meta_loss(task, theta.detach(), self.inner)
                losses.append(loss)
                for name, value in aux.items():
                    extra.setdefault(name, []).append(value)
        terms = torch.stack(losses).double()
        means = {name: float(torch.stack(values).double().mean()) for name, values in extra.items()}
        return {"loss": float(terms.mean()), "loss_stderr": standard_error(terms), **means}

    def gradient(self, theta: Tensor) -> Tensor:
        """Meta-gradient ``(params,)``, one task's graph in memory at a time."""
        with devices.exact_kernels():
            return meta_gradient(self.tasks, theta, self.inner).gradient

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian of the meta objective times ``v (params,)``: third derivatives of the support loss."""
        total = torch.zeros_like(theta)
        with devices.exact_kernels():
            for task in self.tasks:
                total += hvp_of(lambda t, task=task: meta_loss(task, t, self.inner)[0], theta, v)  # type: ignore[misc]
        return total / len(self.tasks)

    def before(self) -> MetaObjective:
        """The same tasks before adaptation: the loss of the initialization itself, to set beside this one."""
        inner = dataclasses.replace(self.inner, steps=0)
        return MetaObjective(self.tasks, self.theta, self.space, inner, self._given, self.network)

    def evaluators(self, plane: Plane) -> dict[str, Callable[[], Evaluator]]:
        """Ways to evaluate many points of ``plane``, by name; each is built when it is called.

        See :func:`sharpmaml.evaluators.candidates`.
        """
        return candidates(self.tasks, self.network, self.inner, plane)


def meta_objective(
    checkpoint: str | Path | Checkpoint,
    episodes: int = 64,
    seed: int = 0,
    dtype: str | None = None,
    *,
    split: str = "test",
    steps: int | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
) -> MetaObjective:
    """The plain MAML meta loss of one of our checkpoints, whatever method trained it.

    Methods are compared on one and the same function: the same seeded episodes, adapted to by plain
    gradient steps, without any perturbation.

    Args:
        checkpoint: folder of a checkpoint or of a run, or one already read.
        episodes: number of tasks.
        seed: of the episodes; they are those of ``split`` and never meet the training stream.
        dtype: ``"float64"`` for checks; the checkpoint's own when left out.
        split: classes that the episodes are drawn from: ``"train"``, ``"val"`` or ``"test"``.
        steps: adaptation steps; the run's ``test_steps`` when left out.
        data_root: where the data set lies, when it has moved since training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        DataError: the data set cannot be read.
        ValueError: no episodes, or an unknown dtype or device.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}: expected at least 1")
    given = checkpoint if isinstance(checkpoint, Checkpoint) else read(checkpoint)
    config = given.config
    make = CheckpointTasks(
        given, split=split, seed=seed, dtype=dtype, device=device, data_root=data_root
    )
    inner = config.test_inner() if steps is None else InnerLoop(steps, config.inner_rate)
    settings = {
        "checkpoint": given.fingerprint,
        "data": config.data,
        "split": split,
        "ways": config.ways,
        "shots": config.shots,
        "queries": config.queries,
        "episode_seed": seed,
        "norm": "batch",
    }
    network = make.first(episodes)
    return MetaObjective(network.tasks(), make.theta, make.space, inner, settings, network)
