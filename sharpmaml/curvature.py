"""What the Hessian of the meta objective is made of: curvature after adaptation, and third derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from landscape.directions import generator
from landscape.objective import Objective
from landscape.operators.hessian import HessianOperator
from landscape.operators.summed import LinearMap, PartsOperator, by_rows
from landscape.operators.symmetric import SymmetricOperator
from landscape.parts import Part
from landscape.space import ParameterSpace
from sharpmaml.adapt import adapt
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task
from sharpmaml.objective import MetaObjective


@dataclass(frozen=True, eq=False)
class _Tasks:
    """The tasks of a meta objective in another form: all that an operator asks of an objective."""

    theta: Tensor
    space: ParameterSpace
    pieces: Sequence[Part]

    def parts(self) -> Sequence[Part]:
        return self.pieces


class AdaptedPart(PartsOperator):
    """``v -> mean_m J_mᵀ ∇²Q_m(θ'_m) J_m v`` with ``θ'_m`` the adapted parameters, ``J_m = ∂θ'_m/∂θ``.

    The curvature of the query losses where adaptation ends, seen from the initialization. For one plain
    step, ``(I - βH_s) H_q (I - βH_s)``.

    Args:
        objective: the meta objective.
        theta: the initialization ``(params,)``; ``objective.theta`` when left out.
        options: see :class:`landscape.operators.summed.PartsOperator`.

    Raises:
        ValueError: the objective has no Hessian (:meth:`MetaObjective.parts`), or an upper ascent.
    """

    kind = "adapted"

    def __init__(
        self, objective: MetaObjective, theta: Tensor | None = None, **options: Any
    ) -> None:
        inner, join = objective.inner, objective.space.join

        def part(task: Task) -> Part:
            return Part(
                1,
                lambda tensors: task.query(adapt(task.support, join(tensors), inner))[0],
                output=lambda tensors: adapt(task.support, join(tensors), inner),
                loss_of=lambda adapted: task.query(adapted)[0],
            )

        super().__init__(_in_tasks(objective, [part(t) for t in objective.tasks]), theta, **options)

    def _linearize(self, i: int, tensors: dict[str, Tensor]) -> LinearMap:
        part = self._parts[i]
        assert part.output is not None and part.loss_of is not None
        leaves = [tensors[name] for name in self.space.names]
        with torch.enable_grad():
            end = part.output(tensors)
            probe = torch.zeros_like(end, requires_grad=True)
            # Linear in the probe: its derivative in a direction is J times that direction.
            back = torch.autograd.grad(end, leaves, probe, create_graph=True)
            place = end.detach().requires_grad_()
            (slope,) = torch.autograd.grad(part.loss_of(place), place, create_graph=True)
        self._heads = [*back, slope]

        def product(pieces: list[Tensor], again: bool, batched: bool) -> Sequence[Tensor | None]:
            def through(heads: Any, to: Any, along: Any, keep: bool) -> Sequence[Tensor | None]:
                made: Sequence[Tensor | None] = torch.autograd.grad(
                    heads, to, along, retain_graph=keep, is_grads_batched=batched
                )
                return made

            if not slope.requires_grad:  # the query loss is linear
                return [None] * len(leaves)
            moved = through(back, probe, pieces, True)
            return through(end, leaves, through(slope, place, moved, again), again)

        return by_rows(self.space, self.chunk, product)


class ThirdDerivativePart(HessianOperator):
    """``v -> mean_m ∇²_θ ⟨g_m, θ'_m(θ)⟩ v`` with ``g_m = ∇Q_m(θ'_m)`` held constant: what the adaptation bends.

    For one plain step ``-β T₃[g_m]``, the third derivative of the support loss contracted with ``g_m``;
    zero where support losses are quadratic.

    Args:
        objective: the meta objective.
        theta: the initialization ``(params,)``; ``objective.theta`` when left out.
        options: see :class:`landscape.operators.hessian.HessianOperator`.

    Raises:
        ValueError: as for :class:`AdaptedPart`.
    """

    kind = "third-derivative"

    def __init__(
        self, objective: MetaObjective, theta: Tensor | None = None, **options: Any
    ) -> None:
        join = objective.space.join

        def part(task: Task) -> Part:
            return Part(1, lambda tensors: _displacement(task, join(tensors), objective.inner))

        super().__init__(_in_tasks(objective, [part(t) for t in objective.tasks]), theta, **options)


@dataclass(frozen=True, eq=False)
class Split:
    """The Hessian of a meta objective as a sum of two symmetric operators.

    Attributes:
        adapted: curvature after adaptation, ``Jᵀ H_q J``.
        third: the rest, from derivatives of the adaptation's own Jacobian.
    """

    adapted: SymmetricOperator
    third: SymmetricOperator

    def share(self, probes: int = 16, seed: int = 0) -> Share:
        """Frobenius norms of both parts and of their sum, by random signs.

        ``‖A‖_F² = E ‖A z‖²`` (Hutchinson 1990 for ``AᵀA``), the same ``z`` for both parts, so that the
        errors of the norms cancel in the share. Each probe is a product with either part.

        Raises:
            ValueError: fewer than 2 probes.
        """
        if probes < 2:
            raise ValueError(
                f"probes is {probes}: expected at least 2, or there is no error estimate"
            )
        params = self.adapted.shape[0]
        squares = np.empty((probes, 3))
        for i in range(probes):
            signs = generator(seed, "split", i).integers(0, 2, params, dtype=np.int8) * 2 - 1
            z = torch.from_numpy(signs).to(self.adapted.theta)
            adapted, third = (self.adapted @ z).double(), (self.third @ z).double()
            images = (adapted, third, adapted + third)
            squares[i] = [float(image @ image) for image in images]
        norms = np.sqrt(squares.mean(0))
        rest = np.sqrt((squares.sum(0) - squares) / (probes - 1))  # one probe left out
        whole = norms[2]
        value = float(norms[1] / whole) if whole else 0.0
        left_out = rest[:, 1] / rest[:, 2] if whole else np.zeros(probes)
        spread = np.concatenate([rest, left_out[:, None]], 1)
        errors = [float(e) for e in np.sqrt((probes - 1) * spread.var(0))]  # jackknife
        return Share(
            value=value,
            stderr=errors[3],
            adapted=float(norms[0]),
            third=float(norms[1]),
            whole=float(norms[2]),
            stderrs=(errors[0], errors[1], errors[2]),
            probes=probes,
        )


@dataclass(frozen=True)
class Share:
    """How much of a meta-Hessian comes from third derivatives.

    Attributes:
        value: ``‖third‖_F / ‖whole‖_F``; the parts may cancel, so that it can exceed 1.
        stderr: its standard error over the probes (jackknife); not the data noise.
        adapted: ``‖Jᵀ H_q J‖_F``.
        third: ``‖third‖_F``.
        whole: ``‖∇²h‖_F``.
        stderrs: standard errors of the three norms.
        probes: random vectors used; each cost a product with either part.
    """

    value: float
    stderr: float
    adapted: float
    third: float
    whole: float
    stderrs: tuple[float, float, float]
    probes: int


def split(
    objective: MetaObjective, theta: Tensor | None = None, *, keep_graph: bool | str = "auto"
) -> Split:
    """The two parts of the Hessian of the meta objective at ``theta``.

    ``∇²h = mean_m J_mᵀ H_q J_m + mean_m ∇²_θ ⟨g_m, θ'_m(θ)⟩``: the chain rule for ``Q_m(θ'_m(θ))``. One step
    of MAML gives ``(I - βH_s) H_q (I - βH_s) - β T₃[g_q]``. Their sum is the Hessian to rounding.

    Args:
        objective: the meta objective, of any number of steps, with a lower ascent or without.
        theta: the initialization ``(params,)``; ``objective.theta`` when left out.
        keep_graph: see :class:`landscape.operators.summed.PartsOperator`; for each of both.

    Raises:
        ValueError: the objective has no Hessian (:meth:`MetaObjective.parts`), or an upper ascent.

    >>> bowl = Task(lambda t: (t * t).sum(), lambda t: ((t - 1).square().sum(), {}))
    >>> start, space = torch.ones(2), ParameterSpace.of_vector(2)
    >>> parts = split(MetaObjective([bowl], start, space, InnerLoop(steps=1, rate=0.25)))
    >>> (parts.adapted @ start).tolist(), (parts.third @ start).tolist()  # (1 - 2 β)² · 2, and 0
    ([0.5, 0.5], [0.0, 0.0])
    """
    return Split(
        AdaptedPart(objective, theta, keep_graph=keep_graph),
        ThirdDerivativePart(objective, theta, keep_graph=keep_graph),
    )


def _in_tasks(objective: MetaObjective, pieces: Sequence[Part]) -> Objective:
    if objective.upper:
        raise ValueError(
            "an upper ascent couples the tasks, so that there is nothing to split: use perturbed(lower=...)"
        )
    objective.parts(tasks_at_once=1)  # refuses what has no Hessian
    return cast(Objective, _Tasks(objective.theta, objective.space, pieces))


def _displacement(task: Task, theta: Tensor, inner: InnerLoop) -> Tensor:
    end = adapt(task.support, theta, inner)
    slope = grad(lambda t: task.query(t)[0])(end.detach())
    value: Tensor = slope.detach() @ end
    return value
