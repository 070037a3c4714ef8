"""Figures of curvature: spectra, densities, eigenvalues along training and over a plane, gauges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from landscape.plot.readings import (
    Datasets,
    Spectra,
    read_bulk,
    read_densities,
    read_gauges,
    read_maps,
    read_paths,
    read_spectra,
)
from landscape.plot.sheet import MAX_SCENES
from landscape.plot.signed import Axis, fit

Backend = Literal["plotly", "matplotlib"]


def spectrum(
    spectra: Spectra,
    backend: Backend = "plotly",
    *,
    title: str = "Largest Hessian eigenvalues",
    bulk: Mapping[str, xr.Dataset] | None = None,
    lowest: Spectra | None = None,
    log: bool | None = None,
    refused: Sequence[str] = (),
) -> Any:
    """Eigenvalues by rank, their residuals as thick bars, several subjects on one scale.

    The residual bounds the error of the computation: an eigenvalue of the Hessian on this data lies
    inside. Standard errors over the data, where given, are drawn as thin whiskers.

    Args:
        spectra: label -> (eigenvalues, residuals ``||Hv - λv||``) or (eigenvalues, residuals,
            standard errors over batches or tasks), equally long, in the order of their ranks.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        bulk: label -> spectral density (``docs/schema.md``): where the other eigenvalues lie, from
            the 1 % to the 99 % quantile, and the edges where less than one eigenvalue is left.
        lowest: the same as ``spectra`` from the lower end, smallest first; drawn at ranks up to P.
        log: logarithmic on both sides of zero, or linear; None: logarithmic where ``spectra`` range
            over more than two decades. Interactive figures have a switch.
        refused: why some of them cannot be vouched for, such as a search that has not converged: the
            footnote begins with it.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: a bulk is not a Dataset.
        ValueError: no spectrum, an empty one, not one residual (and standard error) per
            eigenvalue, no finite eigenvalue, or ``bulk`` or ``lowest`` of an unknown subject.
    """
    known, names = read_spectra(spectra, lowest)
    behind = read_bulk(bulk, spectra)
    reach: list[Any] = []
    for s in known:
        for errors in (s.residuals, s.errors):
            if errors is not None:
                reach += [s.values - errors, s.values + errors]
    for d in behind.values():
        reach += [d.bulk(), d.edges()]
    axes = _axes([s.values for s in known], reach=reach)
    start = fit([values for values, *_ in spectra.values()], log).log
    if wants_plotly(backend):
        from landscape.plot import spectra as interactive

        return interactive.spectrum(known, names, behind, axes, start, title, refused)
    from landscape.plot import spectra_static as static

    return static.spectrum(known, names, behind, axes[start], title, refused)


def density(
    densities: Datasets,
    backend: Backend = "plotly",
    *,
    title: str = "Spectral density of the Hessian",
    log: bool | None = None,
) -> Any:
    """Smoothed densities on a logarithmic scale, outliers as spikes, cumulative curves below.

    The dotted line is the height of a single eigenvalue, ``1 / (P width sqrt(2 pi))`` for a Gaussian
    kernel: a density under it holds less than one eigenvalue. Outliers, known exactly, stand at this
    height with their mass 1/P.

    Args:
        densities: one Dataset or several, also by label (``docs/schema.md``).
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        log: eigenvalues logarithmic on both sides of zero, linear within the width of the kernel,
            or linear throughout; None: logarithmic where the largest is 1000 times that width.
            Interactive figures have a switch.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing to draw, a missing variable, or no attribute ``params``.
    """
    known = read_densities(densities)
    values = [v for d in known for v in (d.grid, d.outliers)]
    ends = [d.outliers + sign * d.residuals for d in known for sign in (-1, 1)]
    largest = max(float(np.nanmax(np.abs(v))) for v in values if np.isfinite(v).any())
    fine = max(min(d.width or float(np.diff(d.grid).min(initial=largest)) for d in known), 0.0)
    unit = max(fine, largest * 1e-6) or 1.0
    axes = _axes(values, reach=ends, unit=unit)
    start = largest > 1000 * unit if log is None else log
    if wants_plotly(backend):
        from landscape.plot import spectra as interactive

        return interactive.density(known, axes, start, title)
    from landscape.plot import spectra_static as static

    return static.density(known, axes[start], title)


def along_training(
    paths: Datasets,
    backend: Backend = "plotly",
    *,
    title: str = "Eigenvalues along training",
    log: bool | None = None,
) -> Any:
    """The largest eigenvalues, the smallest and the edge of stability over the steps of training.

    Args:
        paths: one Dataset or several, also by label (``docs/schema.md``): ``eigenvalue`` and ``residual`` over
            ``step`` and ``rank``; where known ``smallest``, ``smallest_residual`` and
            ``threshold`` over ``step``.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        log: logarithmic on both sides of zero, or linear; None: logarithmic where the largest
            eigenvalues range over more than two decades. Interactive figures have a switch.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, or a missing variable.
    """
    known = read_paths(paths)
    reach: list[Any] = []
    for p in known:
        reach += [p.values - p.residuals, p.values + p.residuals]
        reach += [part for part in (p.smallest, p.threshold) if part is not None]
        if p.smallest is not None and p.smallest_residuals is not None:
            reach += [p.smallest - p.smallest_residuals, p.smallest + p.smallest_residuals]
    values = [p.values for p in known]
    axes = _axes(values, reach=reach)
    start = fit([p.values[:, 0] for p in known], log).log
    if wants_plotly(backend):
        from landscape.plot import dynamics as interactive

        return interactive.along_training(known, axes, start, title)
    from landscape.plot import dynamics_static as static

    return static.along_training(known, axes[start], title)


def curvature_map(
    maps: Datasets,
    backend: Backend = "plotly",
    *,
    title: str = "Curvature over a plane",
    log: bool | None = None,
) -> Any:
    """Both ends of the spectrum over a plane, and ``|λ_min / λ_max|``.

    The ratio is the measure of non-convexity of Li et al. 2018, "Visualizing the Loss Landscape of
    Neural Nets", section 6: near 0 the loss is as good as convex there. Its colours end at 1. Points
    that are NaN are gaps; crosses mark eigenvalues whose residual is above ``tol`` of their size.

    Args:
        maps: one Dataset or several, also by label, at most four (``docs/schema.md``).
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        log: colours of the largest eigenvalue; None: logarithmic above two decades.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, a missing variable, more than four maps, or maps that
            must not be compared (another normalization, ignored parameters, span, points or seed).
    """
    known = read_maps(maps)
    if len(known) > MAX_SCENES:
        raise ValueError(f"a figure holds at most {MAX_SCENES} maps, got {len(known)}")
    if wants_plotly(backend):
        from landscape.plot import curvature_maps as interactive

        return interactive.curvature_map(known, log, title)
    from landscape.plot import curvature_maps_static as static

    return static.curvature_map(known, log, title)


def stability(
    gauges: Mapping[str, Mapping[str, Any]],
    backend: Backend = "plotly",
    *,
    title: str = "Distance to the edge of stability",
) -> Any:
    """Sharpness relative to the largest that the optimizer tolerates; the edge stands at 1.

    Args:
        gauges: label -> ``value`` (sharpness over its threshold), and where known ``low`` and
            ``high`` (its interval) and ``rule`` (a text: which threshold). NaN is drawn empty,
            readings beyond 4 as an arrow at the end.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        ValueError: no gauge, no ``value``, or a value outside its interval.
    """
    known = read_gauges(gauges)
    if wants_plotly(backend):
        from landscape.plot import dynamics as interactive

        return interactive.stability(known, title)
    from landscape.plot import dynamics_static as static

    return static.stability(known, title)


def _axes(values: list[Any], *, reach: list[Any], unit: float | None = None) -> tuple[Axis, Axis]:
    """The linear axis and the signed logarithmic one."""
    return fit(values, False, reach=reach, unit=unit), fit(values, True, reach=reach, unit=unit)


def wants_plotly(backend: str) -> bool:
    """Whether ``backend`` is plotly; neither it nor matplotlib is a ValueError."""
    if backend not in ("plotly", "matplotlib"):
        raise ValueError(f"backend={backend!r} is not known; expected 'plotly' or 'matplotlib'")
    return backend == "plotly"
