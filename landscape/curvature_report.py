"""Everything about the curvature at a point that one command asks for, measured in one go."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.selftest import SelfTest, require
from landscape.operators.symmetric import SymmetricOperator
from landscape.spectra.data_noise import HeldOut, Spread, held_out, spread_of
from landscape.spectra.density import Density, density
from landscape.spectra.eigenpairs import (
    ConvergenceWarning,
    Eigenpairs,
    eigenpairs,
    memory_bound,
    require_settings,
)
from landscape.spectra.functionals import Estimate, functional
from landscape.spectra.layers import layer_eigenpairs
from landscape.spectra.stability import Stability, from_checkpoint
from landscape.spectra.traces import Trace, trace

FUNCTIONALS = (
    "trace",
    "absolute_trace",
    "frobenius",
    "negative_mass",
    "effective_dimension",
    "log_determinant",
)
"""Functionals of the density that are told; the last two at ``Asked.alpha``."""


@dataclass(frozen=True)
class Asked:
    """What to compute at a point.

    Attributes:
        k: eigenvalues.
        which: end of the spectrum; see :func:`landscape.spectra.eigenpairs.eigenpairs`.
        method: of the search for them.
        tol: largest residual, as a share of each eigenvalue's own magnitude.
        seed: of start vectors and probes.
        trace: also the trace.
        density: also the spectral density, and what follows from it.
        alpha: regularization of the effective dimension and of the log-determinant.
        layers: also the largest eigenvalue of each layer's own block.
        held_out: also the eigenvalues of each half of the data, on the other half.
        optimizer: a checkpoint with the state of an optimizer, for its edge of stability.
        check: test the operator before it is used.
        max_products: bound on the products of the search.
        options: of the operator: kind, params, keep_graph, mode, team, record.
    """

    k: int = 5
    which: str = "LA"
    method: str = "lanczos"
    tol: float = 1e-3
    seed: int = 0
    trace: bool = False
    density: bool = False
    alpha: float = 1.0
    layers: bool = False
    held_out: bool = False
    optimizer: Path | None = None
    check: bool = True
    max_products: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Curvature:
    """What was found; what was not asked for is ``None`` or empty."""

    asked: Asked
    objective: Mapping[str, Any]
    params: int
    parts: int
    memory: int
    test: SelfTest | None
    pairs: Eigenpairs
    noise: Spread | None
    trace: Trace | None
    density: Density | None
    functionals: Sequence[Estimate]
    layers: Mapping[str, Eigenpairs]
    held_out: HeldOut | None
    stability: Stability | None

    @property
    def doubts(self) -> list[str]:
        """Why some of it cannot be vouched for; empty where all of it can."""
        found = [] if self.pairs.converged else [self.pairs.outcome]
        found += [f"layer {n}: {p.outcome}" for n, p in self.layers.items() if not p.converged]
        if self.held_out is not None and not self.held_out.converged:
            found.append("the eigenvectors of the halves of the data have not converged")
        if self.stability is not None and not self.stability.converged:
            found.append("the eigenvalue in the metric of the optimizer has not converged")
        return found

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        pairs, asked = self.pairs, self.asked
        rows: list[dict[str, Any]] = [
            {"value": value, "residual": residual, "interval": interval}
            for value, residual, interval in zip(
                pairs.values.tolist(),
                pairs.residuals.tolist(),
                pairs.intervals.tolist(),
                strict=True,
            )
        ]
        if self.noise is not None:
            for row, error in zip(rows, self.noise.stderr.tolist(), strict=True):
                row["stderr_over_parts"] = error
        told: dict[str, Any] = {
            "eigenvalues": rows,
            "opposite_end": pairs.opposite,
            "products": pairs.products,
            "passes": pairs.passes,
            "converged": pairs.converged,
            "outcome": pairs.outcome,
            "doubts": self.doubts,
            "method": pairs.method,
            "which": pairs.which,
            "tol": asked.tol,
            "seed": asked.seed,
            "params": self.params,
            "parts": self.parts,
            "memory_bound_bytes": self.memory,
            "settings": dict(pairs.settings),
            "objective": dict(self.objective),
        }
        if self.test is not None:
            told["self_test"] = dataclasses.asdict(self.test)
        if self.trace is not None:
            told["trace"] = dataclasses.asdict(self.trace)
        if self.density is not None:
            grid = self.density.to_dataset()
            told["density"] = {
                **{str(name): values.values.tolist() for name, values in grid.variables.items()},
                "attrs": dict(grid.attrs),
            }
            told["functionals"] = {e.name: dataclasses.asdict(e) for e in self.functionals}
        if self.layers:
            told["layers"] = {
                name: {
                    "value": float(found.values[0]),
                    "residual": float(found.residuals[0]),
                    "products": found.products,
                    "converged": found.converged,
                }
                for name, found in self.layers.items()
            }
        if self.held_out is not None:
            told["held_out"] = {
                "upper": self.held_out.upper.tolist(),
                "lower": self.held_out.lower.tolist(),
                "products": self.held_out.products,
                "converged": self.held_out.converged,
            }
        if self.stability is not None:
            told["stability"] = dataclasses.asdict(self.stability)
        return told


def measure(
    objective: Objective,
    asked: Asked,
    tell: Callable[[str], None] = lambda words: None,
) -> Curvature:
    """Compute what is asked for at ``objective.theta``.

    Args:
        objective: the function.
        asked: what to compute.
        tell: called with a line of what comes next and what it will take.

    Raises:
        OperatorError: the operator fails its test.
        ValueError: a setting out of range, or an operator that is not finite.
    """
    options, tol, seed = dict(asked.options), asked.tol, asked.seed
    operator = operator_of(objective, check=False, **options)
    require_settings(operator.shape[0], asked.k, asked.method, asked.which, tol, asked.max_products)
    memory = memory_bound(operator, asked.k, asked.method, asked.max_products)
    tell(f"memory of kept vectors: at most {_bytes(memory)}; {_graphs(operator)}")
    test = None
    if asked.check:
        tell("testing the operator")
        test = require(operator, seed)
    parts = int(getattr(operator, "parts", 1))
    with warnings.catch_warnings():
        # Told by `doubts`, in the table, and by the exit status.
        warnings.simplefilter("ignore", ConvergenceWarning)
        pairs = eigenpairs(
            operator, asked.k, asked.method, asked.which, tol, seed,
            max_products=asked.max_products, spread=parts > 1,
        )  # fmt: skip
        noise = None
        if pairs.quotients is not None and pairs.weights is not None:
            noise = spread_of(pairs.quotients, pairs.weights)
        shared = None if asked.which == "SA" else pairs
        traced = trace(operator, seed=seed, pairs=shared) if asked.trace else None
        found = density(operator, seed=seed, pairs=shared) if asked.density else None
        many: list[Estimate] = []
        if found is not None:
            more = {
                "effective_dimension": {"alpha": asked.alpha},
                "log_determinant": {"gamma": asked.alpha},
            }
            many = [functional(found, name, **more.get(name, {})) for name in FUNCTIONALS]
        tested = {**options, "check": False}
        by_layer = layer_eigenpairs(objective, tol=tol, seed=seed, **tested) if asked.layers else {}
        halves = held_out(objective, seed=seed, tol=tol, **tested) if asked.held_out else None
        edge = None
        if asked.optimizer is not None:
            edge = from_checkpoint(asked.optimizer, operator, tol=max(tol, 1e-2), seed=seed)
    return Curvature(
        asked=asked,
        objective=objective.settings,
        params=operator.shape[0],
        parts=parts,
        memory=memory,
        test=test,
        pairs=pairs,
        noise=noise,
        trace=traced,
        density=found,
        functionals=many,
        layers=by_layer,
        held_out=halves,
        stability=edge,
    )


def _graphs(operator: SymmetricOperator) -> str:
    kept = getattr(operator, "kept", None)
    if kept is None:
        return "no graph is kept"
    parts = getattr(operator, "parts", kept)
    cost = f"{operator.product_cost:.2g} gradients a product"
    return f"graphs of {kept} of {parts} parts are kept, {cost}"


def _bytes(count: int) -> str:
    """``1.5 MB``."""
    power = min(int(math.log(max(count, 1), 1000)), 4)
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
