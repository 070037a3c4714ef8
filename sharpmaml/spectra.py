"""Curvature at the three places of a meta-learner: before adaptation, after it, and of the meta loss."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.linalg import vector_norm

from landscape.objective import FunctionObjective
from landscape.operators.hessian import HessianOperator
from landscape.plot.table import Cell, Table
from landscape.spectra.eigenpairs import ConvergenceWarning, Eigenpairs, eigenpairs
from sharpmaml.adapt import adapt
from sharpmaml.curvature import Share, split
from sharpmaml.objective import MetaObjective

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Spectrum:
    """Ends of the spectrum of the Hessian of a mean over tasks.

    Attributes:
        values: largest eigenvalues, largest first.
        residuals: ``‖H v − λ v‖`` of each: an eigenvalue lies within it, whatever else happened.
        stderrs: data noise of each: standard error over tasks of ``vᵀ H_m v``; NaN where the tasks
            cannot be told apart.
        lowest: smallest eigenvalue, with ``lowest_residual`` and ``lowest_stderr`` likewise.
        gradient_norm: ``‖∇‖`` of the same mean.
        products: Hessian products made.
        converged: all residuals are within the tolerance.
        outcome: what happened, in words.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    stderrs: tuple[float, ...]
    lowest: float
    lowest_residual: float
    lowest_stderr: float
    gradient_norm: float
    products: int
    converged: bool
    outcome: str

    @property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        """``[λ − residual, λ + residual]`` of each of ``values``."""
        return tuple((v - r, v + r) for v, r in zip(self.values, self.residuals, strict=True))


@dataclass(frozen=True)
class AdaptedSpectra:
    """Both ends of the spectrum of ``∇²Q_m`` at the adapted parameters, task by task.

    Attributes:
        largest: largest eigenvalue of each task.
        largest_residuals: of those.
        lowest: smallest eigenvalue of each task.
        lowest_residuals: of those.
        gradient_norms: ``‖∇Q_m(θ'_m)‖`` of each task.
        products: Hessian products of single query losses, in all.
        converged: all residuals are within the tolerance.
        outcome: of the first task that did not converge; of the last one where all did.
    """

    largest: tuple[float, ...]
    largest_residuals: tuple[float, ...]
    lowest: tuple[float, ...]
    lowest_residuals: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    products: int
    converged: bool
    outcome: str

    @property
    def mean(self) -> float:
        """Mean over tasks of the largest eigenvalue."""
        return float(np.mean(self.largest))

    @property
    def stderr(self) -> float:
        """Its standard error over tasks; NaN for one task."""
        return _standard_error(np.asarray(self.largest))

    def difference(self, other: AdaptedSpectra) -> tuple[float, float]:
        """Mean and standard error of ``self − other``, paired by task.

        Raises:
            ValueError: different numbers of tasks.
        """
        if len(self.largest) != len(other.largest):
            raise ValueError(
                f"{len(self.largest)} and {len(other.largest)} tasks: pairs need the same tasks"
            )
        changes = np.asarray(self.largest) - np.asarray(other.largest)
        return float(changes.mean()), _standard_error(changes)


@dataclass(frozen=True)
class Spectra:
    """What :func:`spectra` measures at one initialization.

    Attributes:
        initialization: of the mean query loss before adaptation, at ``θ``.
        adapted: of each task's query loss at its adapted parameters.
        meta: of the meta loss, at ``θ``.
        third: share of third derivatives in the meta-Hessian; ``None`` where it was left out.
        settings: objective, tolerance, seed, probes.
    """

    initialization: Spectrum
    adapted: AdaptedSpectra
    meta: Spectrum
    third: Share | None
    settings: dict[str, Any]

    @property
    def doubts(self) -> list[str]:
        """Which of the three have not converged, and how far they came."""
        parts: dict[str, Spectrum | AdaptedSpectra] = {
            "before": self.initialization,
            "adapted": self.adapted,
            "meta": self.meta,
        }
        return [
            f"eigenvalues, {name}: {of.outcome}" for name, of in parts.items() if not of.converged
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Spectra:
        """The inverse of :meth:`to_dict`, also after JSON has made lists of tuples.

        Raises:
            KeyError, TypeError: the record is not one.
        """

        def of(kind: Any, found: Mapping[str, Any]) -> Any:
            return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})

        third = record["third"]
        return Spectra(
            of(Spectrum, record["initialization"]),
            of(AdaptedSpectra, record["adapted"]),
            of(Spectrum, record["meta"]),
            None if third is None else of(Share, third),
            dict(record["settings"]),
        )


def spectra(
    objective: MetaObjective,
    k: int = 5,
    tol: float = 1e-2,
    seed: int = 0,
    *,
    tasks: int | None = None,
    probes: int = 8,
    theta: Tensor | None = None,
    progress: Progress | None = None,
) -> Spectra:
    """Largest and smallest eigenvalues at an initialization, of adapted weights and of the meta loss.

    Products cost two meta-gradients each where graphs are kept; before adaptation and after it they
    are Hessians of plain query losses, and cheap.

    Args:
        objective: the meta objective.
        k: largest eigenvalues before adaptation and of the meta loss; of adapted weights both ends only.
        tol: largest residual, relative to the eigenvalue.
        seed: of start vectors and probes.
        tasks: use the first so many tasks; all when left out.
        probes: random vectors behind the share of third derivatives, each some four meta-gradients;
            0 leaves it out, and so does an upper ascent.
        theta: the initialization ``(params,)``; ``objective.theta`` when left out.
        progress: called as ``progress(done, total, what)``.

    Raises:
        ValueError: the objective has no Hessian (:meth:`MetaObjective.parts`), or an argument out of
            range.
    """
    given = objective if tasks is None else objective.first(tasks)
    point = given.theta if theta is None else theta.detach()
    tell = progress or (lambda done, total, what: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged` instead
        tell(0, 4, "eigenvalues before adaptation")
        before = _ends(given.before(), point, k, tol, seed)
        tell(1, 4, "eigenvalues after adaptation")
        after = _adapted(given, point, tol, seed)
        tell(2, 4, "eigenvalues of the meta loss")
        meta = _ends(given, point, k, tol, seed)
    tell(3, 4, "share of third derivatives")
    third = split(given, point).share(probes, seed) if probes and not given.upper else None
    tell(4, 4, "eigenvalues")
    settings = {**given.settings, "k": k, "tol": tol, "seed": seed, "probes": probes}
    return Spectra(before, after, meta, third, settings)


def table(found: Mapping[str, Spectra]) -> Table:
    """Spectra by label, side by side; the first is what the others are paired with.

    Raises:
        ValueError: different numbers of tasks.
    """
    first = next(iter(found.values()))
    rows: list[list[Cell | str]] = []
    for label, of in found.items():
        paired = (None, None) if of is first else of.adapted.difference(first.adapted)
        doubt = "" if of.adapted.converged else of.adapted.outcome
        third = of.third
        rows.append(
            [
                label,
                _cell(of.initialization, of.initialization.values[0], of.initialization.stderrs[0]),
                Cell(of.adapted.mean, of.adapted.stderr, note=doubt, flag=bool(doubt)),
                Cell(*paired),
                _cell(of.meta, of.meta.values[0], of.meta.stderrs[0]),
                _cell(of.meta, of.meta.lowest, of.meta.lowest_stderr),
                Cell(of.meta.gradient_norm),
                Cell(None) if third is None else Cell(100 * third.value, 100 * third.stderr),
            ]
        )
    return Table(
        "Eigenvalues before adaptation, after it, and of the meta loss",
        [
            "",
            "before: λ max",
            "adapted: λ max",
            "− first",
            "meta: λ max",
            "meta: λ min",
            "meta: ‖∇‖",
            "3rd, %",
        ],
        rows,
        f"Hessians of the query loss at the initialization, of each task's query loss at its adapted weights "
        f"(mean over tasks), and of the meta loss as a function of the initialization; {first.settings['tasks']} "
        f"tasks, the same ones for every row, eigenvalues to a residual of {first.settings['tol']:g} of "
        "themselves. ± is a standard error over tasks; “− first” is the difference of adapted values from those "
        "of the first row, paired by task. “3rd” is the share of third derivatives in the Frobenius norm of the "
        "meta-Hessian, ± over random probes.",
    )


def _ends(objective: MetaObjective, theta: Tensor, k: int, tol: float, seed: int) -> Spectrum:
    operator = HessianOperator(objective, theta)
    high = eigenpairs(operator, k, which="LA", tol=tol, seed=seed, spread=True)
    low = eigenpairs(operator, 1, which="SA", tol=tol, seed=seed, spread=True)
    return Spectrum(
        values=tuple(high.values.tolist()),
        residuals=tuple(high.residuals.tolist()),
        stderrs=_data_noise(high),
        lowest=float(low.values[0]),
        lowest_residual=float(low.residuals[0]),
        lowest_stderr=_data_noise(low)[0],
        gradient_norm=float(vector_norm(objective.gradient(theta))),
        products=operator.products,
        converged=high.converged and low.converged,
        outcome=low.outcome if high.converged else high.outcome,
    )


def _adapted(objective: MetaObjective, theta: Tensor, tol: float, seed: int) -> AdaptedSpectra:
    found: list[Eigenpairs] = []
    slopes: list[float] = []
    for task in objective.tasks:
        end = adapt(task.support, theta, objective.inner).detach()
        query = FunctionObjective(lambda t, task=task: task.query(t)[0], end)  # type: ignore[misc]
        found.append(
            eigenpairs(query, min(2, len(end)), which="BE", tol=tol, seed=seed, check=False)
        )
        slopes.append(float(vector_norm(query.gradient(end))))
    failed = [pairs.outcome for pairs in found if not pairs.converged]
    return AdaptedSpectra(
        largest=tuple(float(pairs.values[0]) for pairs in found),
        largest_residuals=tuple(float(pairs.residuals[0]) for pairs in found),
        lowest=tuple(float(pairs.values[-1]) for pairs in found),
        lowest_residuals=tuple(float(pairs.residuals[-1]) for pairs in found),
        gradient_norms=tuple(slopes),
        products=sum(pairs.products for pairs in found),
        converged=not failed,
        outcome=failed[0] if failed else found[-1].outcome,
    )


def _data_noise(pairs: Eigenpairs) -> tuple[float, ...]:
    """Standard error of each value over the parts of the mean, which may differ in weight."""
    quotients, weights = pairs.quotients, pairs.weights
    if quotients is None or weights is None or len(quotients) < 2:
        return (math.nan,) * len(pairs.values)
    spread = weights[:, None] * (quotients - weights @ quotients)
    count = len(quotients)
    return tuple((spread.square().sum(0) * (count / (count - 1))).sqrt().tolist())


def _standard_error(values: np.ndarray[Any, np.dtype[Any]]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _cell(of: Spectrum, value: float, stderr: float) -> Cell:
    return Cell(value, stderr, note="" if of.converged else of.outcome, flag=not of.converged)
