"""What one command tells about the curvature at a point: numbers with their proof, as text, JSON and a page."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from landscape import plot
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.selftest import SelfTest, require
from landscape.operators.symmetric import SymmetricOperator
from landscape.plot.page import Section, write_page
from landscape.plot.table import Cell, Table
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
        options: of the operator: kind, params, keep_graph, mode, team.
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

    def tables(self) -> list[Table]:
        """The numbers, for the terminal and for a page."""
        made = [self._values()]
        if self.trace is not None or self.functionals:
            made.append(self._functionals())
        if self.layers:
            made.append(self._layers())
        return made

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
            }
        if self.stability is not None:
            told["stability"] = dataclasses.asdict(self.stability)
        return told

    def page(self, path: Path, label: str) -> Path:
        """Write the figures and tables as one page that works offline.

        Args:
            path: the HTML file.
            label: name of the subject.
        """
        pairs = self.pairs
        found: tuple[Any, ...] = (pairs.values.tolist(), pairs.residuals.tolist())
        if self.noise is not None and not self.noise.stderr.isnan().any():
            found = (*found, self.noise.stderr.tolist())
        shades: dict[str, xr.Dataset] = {}
        sections = [Section("Numbers", tables=self.tables())]
        if self.density is not None:
            dataset = self.density.to_dataset().assign_attrs(label=label)
            shades[label] = dataset
            sections.append(Section("Density of the spectrum", figures=[plot.density(dataset)]))
        sections.insert(
            1, Section("Eigenvalues", figures=[plot.spectrum({label: found}, bulk=shades or None)])
        )
        if self.stability is not None:
            gauge = plot.stability({label: self.stability.gauge()})
            sections.append(Section("Edge of stability", self.stability.text, [gauge]))
        return write_page(
            path,
            f"Curvature of {label}",
            "\n\n".join(self.remarks()),
            sections,
            {"objective": self.objective, "search": dict(pairs.settings)},
            self.doubts,
        )

    def remarks(self) -> list[str]:
        """What was computed of what, how it was tested, and what it cost, a sentence each."""
        kind = {
            "hessian": "Hessian",
            "ggn": "generalized Gauss-Newton matrix",
            "fisher": "empirical Fisher",
        }
        name = kind.get(str(self.pairs.settings.get("operator")), "operator")
        chosen = self.pairs.settings.get("params")
        of = f"{name} with respect to {chosen}" if chosen else name
        told = [
            f"{of}: {self.params:,} parameters, data in {self.parts} part{'s' * (self.parts > 1)}."
        ]
        if self.test is not None:
            told.append(_tested(self.test))
        told.append(f"{self.pairs.products} products; {self.pairs.outcome}.")
        if self.pairs.opposite is not None:
            value, error = self.pairs.opposite
            told.append(
                f"At the other end of the spectrum, from the same products: {value:.4g} ± {error:.2g}."
            )
        if self.held_out is not None:
            told.append(
                f"On held-out data: eigenvalues of halves of the data average {self.held_out.upper[0]:.4g}, their "
                f"vectors are worth {self.held_out.lower[0]:.4g} on the other half; on unlimited data the largest "
                "lies between the two, on average."
            )
        if self.stability is not None:
            told.append(
                f"Edge of stability: {self.stability.ratio:.4g} of the threshold ({self.stability.text})."
            )
        return told

    def _values(self) -> Table:
        pairs = self.pairs
        columns = ["", "eigenvalue", "residual", "an eigenvalue lies in"]
        rows: list[list[Cell | str]] = []
        for i, (value, residual) in enumerate(
            zip(pairs.values.tolist(), pairs.residuals.tolist(), strict=True)
        ):
            low, high = value - residual, value + residual
            rows.append([f"{i + 1}", f"{value:.8g}", f"{residual:.2g}", f"[{low:.8g}, {high:.8g}]"])
            if self.noise is not None:
                rows[-1].append(f"{float(self.noise.stderr[i]):.2g}")
        if self.noise is not None:
            columns.append("± over the data")
        caption = (
            "The residual ‖Hv − λv‖ is that of the products made; a symmetric matrix has an eigenvalue that near "
            "to λ for certain."
        )
        if self.noise is not None:
            caption += (
                f" The last column is the standard error of vᵀHv over the {self.parts} parts of the data, "
                "for vectors that were made from the same data."
            )
        return Table("Eigenvalues", columns, rows, caption)

    def _functionals(self) -> Table:
        rows: list[list[Cell | str]] = []
        if self.trace is not None:
            found = self.trace
            cell = Cell(found.value, found.stderr)
            source = f"{found.method}, {found.products} products"
            rows.append(["trace", cell, _interval(found.interval), source])
        rows += [
            [e.name, Cell(e.value, e.stderr), _interval(e.interval), "quadrature"]
            for e in self.functionals
        ]
        caption = (
            "± is the standard error over random probes, not over the data; intervals hold 95 %."
        )
        return Table("The whole spectrum", ["", "value", "interval", "from"], rows, caption)

    def _layers(self) -> Table:
        rows: list[list[Cell | str]] = [
            [name, f"{float(p.values[0]):.6g}", f"{float(p.residuals[0]):.2g}", f"{p.vectors.shape[1]:,}"]
            for name, p in self.layers.items()
        ]  # fmt: skip
        caption = "Largest eigenvalue of each layer's own block, the other layers held constant."
        return Table(
            "Layer by layer", ["layer", "eigenvalue", "residual", "parameters"], rows, caption
        )


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


def _tested(test: SelfTest) -> str:
    parts = [
        f"symmetric to {test.symmetry:.1g}",
        f"linear to {test.linearity:.1g}",
        f"repeats to {test.repeatability:.1g}",
    ]
    if test.difference is not None:
        parts.append(f"agrees with differences of the gradient to {test.difference:.1g}")
    return f"Self-test passed: {', '.join(parts)}; it cost {test.cost:.0f} gradients."


def _graphs(operator: SymmetricOperator) -> str:
    kept = getattr(operator, "kept", None)
    if kept is None:
        return "no graph is kept"
    parts = getattr(operator, "parts", kept)
    cost = f"{operator.product_cost:.2g} gradients a product"
    return f"graphs of {kept} of {parts} parts are kept, {cost}"


def _interval(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.5g}, {interval[1]:.5g}]"


def _bytes(count: int) -> str:
    """``1.5 MB``."""
    power = min(int(math.log(max(count, 1), 1000)), 4)
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
