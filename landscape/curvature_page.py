"""A :class:`~landscape.curvature_report.Curvature` for people: tables, sentences, and a page with its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from landscape import plot
from landscape.curvature_report import Curvature
from landscape.operators.selftest import SelfTest
from landscape.plot.page import Section, write_page
from landscape.plot.table import Cell, Table

_TITLES = {
    "LA": "Largest eigenvalues",
    "SA": "Smallest eigenvalues",
    "LM": "Eigenvalues of largest magnitude",
    "BE": "Eigenvalues at both ends",
}
_KINDS = {
    "hessian": "Hessian",
    "ggn": "generalized Gauss-Newton matrix",
    "fisher": "empirical Fisher",
}


def tables(found: Curvature) -> list[Table]:
    """The numbers, for the terminal and for a page."""
    made = [_values(found)]
    if found.trace is not None or found.functionals:
        made.append(_functionals(found))
    if found.layers:
        made.append(_layers(found))
    return made


def remarks(found: Curvature) -> list[str]:
    """What was computed of what, how it was tested, and what it cost, a sentence each."""
    name = _KINDS.get(str(found.pairs.settings.get("operator")), "operator")
    chosen = found.pairs.settings.get("params")
    of = f"{name} with respect to {chosen}" if chosen else name
    told = [
        f"{of}: {found.params:,} parameters, data in {found.parts} part{'s' * (found.parts > 1)}."
    ]
    if found.test is not None:
        told.append(_tested(found.test))
    told.append(f"{found.pairs.products} products; {found.pairs.outcome}.")
    if found.pairs.opposite is not None:
        value, error = found.pairs.opposite
        told.append(
            f"At the other end of the spectrum, from the same products: {value:.4g} ± {error:.2g}."
        )
    if found.held_out is not None:
        told.append(
            f"On held-out data: eigenvalues of halves of the data average {found.held_out.upper[0]:.4g}, their "
            f"vectors are worth {found.held_out.lower[0]:.4g} on the other half; on unlimited data the largest "
            "lies between the two, on average."
        )
    if found.stability is not None:
        told.append(
            f"Edge of stability: {found.stability.ratio:.4g} of the threshold ({found.stability.text})."
        )
    return told


def write(found: Curvature, path: Path, label: str) -> Path:
    """Write the figures and tables as one page that works offline.

    Args:
        found: what was measured.
        path: the HTML file.
        label: name of the subject.
    """
    columns = [found.pairs.values.tolist(), found.pairs.residuals.tolist()]
    if found.noise is not None and not found.noise.stderr.isnan().any():
        columns.append(found.noise.stderr.tolist())
    missed = [] if found.pairs.converged else [found.pairs.outcome]
    shown: dict[str, Any] = {"title": _TITLES[found.pairs.which], "refused": missed}
    if found.pairs.which == "BE":
        top = (len(columns[0]) + 1) // 2
        if top < len(columns[0]):
            shown["lowest"] = {label: tuple(column[top:] for column in columns)}
        columns = [column[:top] for column in columns]
    shades: dict[str, xr.Dataset] = {}
    sections = [Section("Numbers", tables=tables(found))]
    if found.density is not None:
        dataset = found.density.to_dataset().assign_attrs(label=label)
        shades[label] = dataset
        sections.append(Section("Density of the spectrum", figures=[plot.density(dataset)]))
    sections.insert(
        1,
        Section(
            "Eigenvalues",
            figures=[plot.spectrum({label: tuple(columns)}, bulk=shades or None, **shown)],
        ),
    )
    if found.stability is not None:
        gauge = plot.stability({label: found.stability.gauge()})
        sections.append(Section("Edge of stability", found.stability.text, [gauge]))
    return write_page(
        path,
        f"Curvature of {label}",
        "\n\n".join(remarks(found)),
        sections,
        {"objective": found.objective, "search": dict(found.pairs.settings)},
        found.doubts,
    )


def _values(found: Curvature) -> Table:
    pairs = found.pairs
    columns = ["", "eigenvalue", "residual", "an eigenvalue lies in"]
    rows: list[list[Cell | str]] = []
    for i, (value, residual) in enumerate(
        zip(pairs.values.tolist(), pairs.residuals.tolist(), strict=True)
    ):
        low, high = value - residual, value + residual
        rows.append([f"{i + 1}", f"{value:.8g}", f"{residual:.2g}", f"[{low:.8g}, {high:.8g}]"])
        if found.noise is not None:
            rows[-1].append(f"{float(found.noise.stderr[i]):.2g}")
    if found.noise is not None:
        columns.append("± over the data")
    caption = (
        "The residual ‖Hv − λv‖ is that of the products made; a symmetric matrix has an eigenvalue that near "
        "to λ for certain."
    )
    if found.noise is not None:
        caption += (
            f" The last column is the standard error of vᵀHv over the {found.parts} parts of the data, "
            "for vectors that were made from the same data."
        )
    return Table("Eigenvalues", columns, rows, caption)


def _functionals(found: Curvature) -> Table:
    rows: list[list[Cell | str]] = []
    if found.trace is not None:
        trace = found.trace
        source = f"{trace.method}, {trace.products} products"
        cell = Cell(trace.value, trace.stderr)
        rows.append(["trace", cell, _interval(trace.interval), source])
    rows += [
        [e.name, Cell(e.value, e.stderr), _interval(e.interval), "quadrature"]
        for e in found.functionals
    ]
    caption = "± is the standard error over random probes, not over the data; intervals hold 95 %."
    return Table("The whole spectrum", ["", "value", "interval", "from"], rows, caption)


def _layers(found: Curvature) -> Table:
    rows: list[list[Cell | str]] = [
        [name, f"{float(p.values[0]):.6g}", f"{float(p.residuals[0]):.2g}", f"{p.vectors.shape[1]:,}"]
        for name, p in found.layers.items()
    ]  # fmt: skip
    caption = "Largest eigenvalue of each layer's own block, the other layers held constant."
    return Table("Layer by layer", ["layer", "eigenvalue", "residual", "parameters"], rows, caption)


def _tested(test: SelfTest) -> str:
    parts = [
        f"symmetric to {test.symmetry:.1g}",
        f"linear to {test.linearity:.1g}",
        f"repeats to {test.repeatability:.1g}",
    ]
    if test.difference is not None:
        parts.append(f"agrees with differences of the gradient to {test.difference:.1g}")
    return f"Self-test passed: {', '.join(parts)}; it cost {test.cost:.0f} gradients."


def _interval(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.5g}, {interval[1]:.5g}]"
