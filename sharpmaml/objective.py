"""The meta loss on fixed episodes, as an objective whose landscape can be computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from landscape import device as devices
from landscape.directions import Plane
from landscape.evaluator import Evaluator, PointByPoint
from landscape.objective import gradient_of, hvp_of, standard_error
from landscape.parts import Part
from landscape.space import ParameterSpace
from sharpmaml import meta_parts
from sharpmaml.checkpoint import Checkpoint, read
from sharpmaml.evaluators import candidates
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_gradient, meta_loss
from sharpmaml.models import native_norms
from sharpmaml.perturb import sam
from sharpmaml.tasks import CheckpointTasks, NetworkTasks


class MetaObjective:
    """Mean query loss after inner-loop adaptation, as a function of the initialization.

    ``h(θ) = mean_m Q_m(adapt(S_m, θ))`` over the tasks given (Finn et al. 2017, eq. 2). It satisfies
    ``landscape.Objective``: surfaces, Hessians and sharpness of the meta objective need nothing else.
    Its terms (``losses``) are the tasks, so every standard error is over tasks.

    With ``upper > 0`` it is ``h(θ + ε(θ))``, ``ε(θ) = upper · ∇h(θ) / ‖∇h(θ)‖`` (Abbas et al. 2022,
    eq. 13), a function of ``θ`` as a whole: the ascent is differentiated too; see :meth:`perturbed`.

    Args:
        tasks: fixed tasks; the same ones at every point.
        theta: the initialization of interest, ``(params,)``.
        space: names and shapes of the parameters.
        inner: the adaptation; plain MAML steps when methods are compared, because perturbation belongs
            to training.
        settings: what to record beside the numbers.
        network: the network and the episodes behind ``tasks``, where they are known: faster evaluators
            look into them.
        upper: radius of the ascent in the meta objective.
        tasks_at_once: tasks that go through one ``vmap`` in products with the Hessian; ``"auto"``: on a
            GPU as many as fit, on a CPU 1 for convolutions, where the graphs of single tasks are kept.

    Raises:
        ValueError: no tasks, a negative radius, or fewer than one task at once.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        theta: Tensor,
        space: ParameterSpace,
        inner: InnerLoop,
        settings: dict[str, Any] | None = None,
        network: NetworkTasks | None = None,
        *,
        upper: float = 0.0,
        tasks_at_once: int | str = "auto",
    ) -> None:
        if not tasks:
            raise ValueError("a meta objective needs at least one task")
        if upper < 0:
            raise ValueError(f"upper is {upper}: expected a radius of at least 0")
        meta_parts.check(tasks_at_once)
        self.tasks = tuple(tasks)
        self.theta = theta.detach().clone()
        self.space = space
        self.inner = inner
        self.network = network
        self.upper = upper
        self.tasks_at_once = tasks_at_once
        self._given = dict(settings or {})
        self.settings: dict[str, Any] = {
            "objective": "meta",
            "tasks": len(self.tasks),
            "inner_steps": inner.steps,
            "inner_rate": inner.shown_rate,
            "lower": inner.lower,
            "dtype": str(theta.dtype).removeprefix("torch."),
            **self._given,
        }
        if upper:
            self.settings["upper"] = upper
        if tasks_at_once != "auto":
            self.settings["tasks_at_once"] = tasks_at_once

    def value(self, theta: Tensor) -> Tensor:
        """Mean meta loss at ``theta (params,)``, 0-dimensional and differentiable."""
        return self.losses(theta).mean()

    def values(self, thetas: Tensor) -> Tensor:
        """``(points, params)`` -> ``(points,)``."""
        return torch.stack([self.value(theta) for theta in thetas])

    def losses(self, theta: Tensor) -> Tensor:
        """Query loss of each task after adaptation, ``(tasks,)``."""
        with devices.exact_kernels():
            point = self._ascended(theta)
            return torch.stack([meta_loss(task, point, self.inner)[0] for task in self.tasks])

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """``loss``, ``loss_stderr`` over tasks, and ``accuracy`` where there are classes."""
        losses: list[Tensor] = []
        extra: dict[str, list[Tensor]] = {}
        with devices.exact_kernels():
            point = self._ascended(theta.detach())
            for task in self.tasks:
                loss, aux = meta_loss(task, point, self.inner)
                losses.append(loss)
                for name, value in aux.items():
                    extra.setdefault(name, []).append(value)
        terms = torch.stack(losses).double()
        means = {name: float(torch.stack(values).double().mean()) for name, values in extra.items()}
        return {"loss": float(terms.mean()), "loss_stderr": standard_error(terms), **means}

    def scores(self, theta: Tensor) -> dict[str, Tensor]:
        """``loss`` and by-products such as ``accuracy`` of each task after adaptation, ``(tasks,)``."""
        columns: dict[str, list[Tensor]] = {}
        with devices.exact_kernels():
            point = self._ascended(theta.detach())
            for task in self.tasks:
                loss, aux = meta_loss(task, point, self.inner)
                for name, value in {"loss": loss, **aux}.items():
                    columns.setdefault(name, []).append(value.detach())
        return {name: torch.stack(values) for name, values in columns.items()}

    def losses_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Query loss of each task ``(tasks,)`` and the gradient of their mean ``(params,)`` in one pass.

        Raises:
            ValueError: an upper ascent, which couples the tasks.
        """
        if self.upper:
            raise ValueError("an upper ascent couples the tasks: use losses and gradient")
        losses: list[Tensor] = []
        total = torch.zeros_like(theta)
        with devices.exact_kernels(), torch.enable_grad():
            for task in self.tasks:
                point = theta.detach().requires_grad_()
                loss, _ = meta_loss(task, point, self.inner)
                total += torch.autograd.grad(loss, point)[0]
                losses.append(loss.detach())
        return torch.stack(losses), total / len(self.tasks)

    def pieces(self, size: int) -> list[MetaObjective]:
        """The meta loss of at most ``size`` consecutive tasks each; their weighted mean is this one.

        Raises:
            ValueError: an upper ascent, which couples the tasks.
        """
        if self.upper:
            raise ValueError("an upper ascent couples the tasks: pieces would be other functions")
        ends = range(0, len(self.tasks), size)
        return [self._like(self.inner, 0.0, begin, begin + size) for begin in ends]

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient ``(params,)``; without an upper ascent, one task's graph is in memory at a time."""
        if self.upper:
            return gradient_of(self.value, theta)
        with devices.exact_kernels():
            return meta_gradient(self.tasks, theta, self.inner).gradient

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        """Hessian of the meta objective times ``v (params,)``: third derivatives of the support loss.

        Raises:
            ValueError: as :meth:`parts`.
        """
        self._twice_differentiable()
        if self.upper:
            return hvp_of(self.value, theta, v)
        total = torch.zeros_like(theta)
        with devices.exact_kernels():
            for task in self.tasks:
                total += hvp_of(lambda t, task=task: meta_loss(task, t, self.inner)[0], theta, v)  # type: ignore[misc]
        return total / len(self.tasks)

    def parts(self, tasks_at_once: int | str | None = None) -> list[Part]:
        """The tasks, one a part or several; all in one part where an upper ascent couples them.

        Args:
            tasks_at_once: instead of the objective's own.

        Raises:
            ValueError: an inner ascent held constant, native norm layers, or tasks to go together
                whose network is unknown or whose sizes differ.
        """
        self._twice_differentiable()
        if self.upper:
            return [Part(len(self.tasks), lambda tensors: self.losses(self.space.join(tensors)))]
        wanted = self.tasks_at_once if tasks_at_once is None else tasks_at_once
        return meta_parts.parts(
            self.tasks, self.network, self.space, self.inner, self.theta, wanted
        )

    def perturbed(self, lower: float = 0.0, upper: float = 0.0) -> MetaObjective:
        """What Sharp-MAML minimizes, as a function of the initialization, on the same tasks.

        ``lower``: each adaptation step is ``θ ← θ − β ∇L(θ + ε_m(θ))`` with
        ``ε_m(θ) = lower · ∇L/‖∇L‖`` (Abbas et al. 2022, eqs. 11 and 12). ``upper``:
        ``h(θ + ε(θ))`` with ``ε(θ) = upper · ∇h/‖∇h‖`` and ``h`` the loss after those steps (eq. 13).
        Both ascents are differentiated, first and second derivatives are those of this one function;
        training holds the upper one constant, and the lower one unless ``eps_grad="through"``.
        """
        inner = dataclasses.replace(self.inner, lower=lower, eps_grad="through")
        return self._like(inner, upper)

    def double(self) -> MetaObjective:
        """The same objective in float64, for checks.

        Raises:
            ValueError: the tasks are plain functions, without a network that could be converted.
        """
        if self.network is None:
            raise ValueError(
                "the tasks of this meta objective are plain functions, which cannot be brought to float64"
            )
        network = self.network.double()
        return MetaObjective(
            network.tasks(), self.theta.double(), self.space, self.inner.to(self.theta.double()),
            self._given, network,
            upper=self.upper, tasks_at_once=self.tasks_at_once,
        )  # fmt: skip

    def before(self) -> MetaObjective:
        """The same tasks before adaptation: the loss of the initialization itself, to set beside this one."""
        return self._like(dataclasses.replace(self.inner, steps=0), 0.0)

    def evaluators(self, plane: Plane) -> dict[str, Callable[[], Evaluator]]:
        """Ways to evaluate many points of ``plane``, by name; each is built when it is called.

        See :func:`sharpmaml.evaluators.candidates`; an upper ascent, which they do not know, has the plain
        one alone.
        """
        if self.upper:
            return {"plain": lambda: PointByPoint(self, plane)}
        return candidates(self.tasks, self.network, self.inner, plane)

    def measures(self) -> dict[str, Callable[..., Any]]:
        """What only a meta objective can be asked for in a sharpness report, by name.

        See :func:`sharpmaml.sharpness.measures`.
        """
        from sharpmaml import sharpness  # which asks for tasks of this class

        return sharpness.measures()

    def first(self, tasks: int) -> MetaObjective:
        """The same objective on the first so many of its tasks.

        Raises:
            ValueError: fewer than one task, or more than there are.
        """
        if not 1 <= tasks <= len(self.tasks):
            raise ValueError(f"tasks is {tasks}: expected 1 to {len(self.tasks)}")
        return self._like(self.inner, self.upper, 0, tasks)

    def _like(
        self, inner: InnerLoop, upper: float, begin: int = 0, end: int | None = None
    ) -> MetaObjective:
        network = self.network
        if network is not None:
            network = dataclasses.replace(network, episodes=network.episodes[begin:end])
        return MetaObjective(
            self.tasks[begin:end],
            self.theta,
            self.space,
            inner,
            self._given,
            network,
            upper=upper,
            tasks_at_once=self.tasks_at_once,
        )

    def _ascended(self, theta: Tensor) -> Tensor:
        """``θ + ε(θ)``, differentiable; ``θ`` itself without an upper ascent."""
        if not self.upper:
            return theta
        gradients = (
            grad(lambda t, task=task: meta_loss(task, t, self.inner)[0])(theta)
            for task in self.tasks
        )
        total: Tensor = sum(gradients, torch.zeros_like(theta))
        return theta + sam(total / len(self.tasks), theta, self.upper)

    def _twice_differentiable(self) -> None:
        inner = self.inner
        unrolled = inner.steps > 0 and not inner.first_order
        if unrolled and inner.lower > 0 and inner.eps_grad == "detach":
            raise ValueError(
                "eps_grad='detach' holds the inner ascent constant, so the meta-gradient is no gradient "
                "and has no Hessian: use eps_grad='through' (MetaObjective.perturbed does)"
            )
        native = native_norms(self.network.model) if self.network is not None else []
        if native and (unrolled or self.upper):  # else there are no third derivatives
            raise ValueError(
                f"third derivatives of torch's native norm layers are wrong (here: {', '.join(native)}); build "
                "the tasks with sharpmaml.models.with_primitive_norms(model), the same function"
            )


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
    gradient steps of what its run adapts, at the rates that it learned. No perturbation, but in runs
    with ``sam_at_test``: their adaptation climbs, by its own definition.

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
    inner = given.inner(steps).to(make.theta)
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
