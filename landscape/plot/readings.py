"""What the figures of curvature draw: inputs checked, as arrays, not finite numbers as gaps.

Both backends draw from these, so that they show the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from landscape.plot.sheet import require_comparable
from landscape.plot.signed import Values

Datasets = xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset]
Spectra = Mapping[str, tuple[Sequence[float], ...]]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of one subject; ``ranks`` says in which place each of them stands."""

    label: str
    ranks: list[int]
    values: Values
    residuals: Values
    errors: Values | None


@dataclass(frozen=True)
class Density:
    """A spectral density; ``bands`` are lower and upper ends of density and cumulative curve."""

    label: str
    grid: Values
    density: Values
    cumulative: Values
    bands: tuple[tuple[Values, Values] | None, tuple[Values, Values] | None]
    outliers: Values
    residuals: Values
    params: int
    width: float | None
    attrs: dict[str, Any]

    @property
    def one(self) -> float:
        """The height of one eigenvalue: the peak of a kernel of mass 1/P, or that mass itself."""
        mass = 1 / self.params
        return mass if self.width is None else mass / (self.width * math.sqrt(2 * math.pi))

    def bulk(self) -> tuple[float, float]:
        """The 1 % and 99 % quantiles of the eigenvalues that are not outliers."""
        outliers = np.sort(self.outliers[np.isfinite(self.outliers)])
        below = np.searchsorted(outliers, self.grid, side="right")
        share = self.cumulative - below / self.params
        share = np.maximum.accumulate(np.nan_to_num(share))
        low, high = np.interp([0.01 * share[-1], 0.99 * share[-1]], share, self.grid)
        return float(low), float(high)

    def edges(self) -> tuple[float, float]:
        """Where the density without the outliers falls under the height of one eigenvalue."""
        rest = self.density.copy()
        if self.width is not None:
            for value in self.outliers[np.isfinite(self.outliers)]:
                rest -= self.one * np.exp(-0.5 * ((self.grid - value) / self.width) ** 2)
        held = self.grid[np.nan_to_num(rest) >= self.one]
        return (float(held[0]), float(held[-1])) if held.size else self.bulk()


@dataclass(frozen=True)
class Path:
    """Eigenvalues along training: ``values`` and ``residuals`` are ``(steps, ranks)``.

    ``missed`` steps have not converged.
    """

    label: str
    steps: Values
    values: Values
    residuals: Values
    smallest: Values | None
    smallest_residuals: Values | None
    threshold: Values | None
    attrs: dict[str, Any]
    missed: int = 0


@dataclass(frozen=True)
class Map:
    """Both ends of the spectrum over a plane, rows ``beta`` and columns ``alpha``; ``missed`` have not converged."""

    label: str
    alpha: Values
    beta: Values
    largest: Values
    smallest: Values
    residuals: tuple[Values, Values]
    unconverged: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    loss: Values | None
    attrs: dict[str, Any]
    missed: int = 0

    @property
    def ratio(self) -> Values:
        """``|smallest / largest|``; NaN where the largest is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return _gaps(np.abs(self.smallest / self.largest))


@dataclass(frozen=True)
class Gauge:
    """A sharpness relative to the edge of stability; NaN where it is not known."""

    label: str
    value: float
    low: float
    high: float
    rule: str


def read_spectra(top: Spectra, lowest: Spectra | None) -> tuple[list[Spectrum], list[str]]:
    """Spectra by rank, and the names of the ranks: from the top, then the lower end up to ``P``.

    Raises:
        ValueError: no spectrum, lengths that differ, nothing finite, or an unknown label.
    """
    if not top:
        raise ValueError("nothing to draw: expected at least one spectrum")
    lowest = lowest or {}
    _known(lowest, top, "lowest")
    upper = {label: _triple(label, given) for label, given in top.items()}
    lower = {label: _triple(label, given) for label, given in lowest.items()}
    above = max(len(v) for v, _, _ in upper.values())
    below = max((len(v) for v, _, _ in lower.values()), default=0)
    spectra = []
    for label, (values, residuals, errors) in upper.items():
        ranks = list(range(1, len(values) + 1))
        if label in lower:  # the smallest, given first, stands last
            ranks += [above + below - i for i in range(len(lower[label][0]))]
            more = lower[label]
            if (errors is None) != (more[2] is None):
                blank = [np.full(len(part), np.nan) for part in (values, more[0])]
                errors = blank[0] if errors is None else errors
                more = (*more[:2], blank[1] if more[2] is None else more[2])
            values, residuals = np.append(values, more[0]), np.append(residuals, more[1])
            errors = None if errors is None or more[2] is None else np.append(errors, more[2])
        spectra.append(Spectrum(label, ranks, values, residuals, errors))
    if not any(np.isfinite(s.values).any() for s in spectra):
        raise ValueError("nothing to draw: no eigenvalue is finite")
    names = [str(k) for k in range(1, above + 1)]
    return spectra, names + [f"P−{k}" if k else "P" for k in reversed(range(below))]


def read_densities(densities: Datasets) -> list[Density]:
    """Densities as arrays.

    Raises:
        TypeError: not a Dataset.
        ValueError: a variable or ``params`` is missing, or nothing is finite.
    """
    return [_density(one, i) for i, one in enumerate(labelled(densities, "density"))]


def read_bulk(bulk: Mapping[str, xr.Dataset] | None, spectra: Spectra) -> dict[str, Density]:
    """The densities that belong to spectra.

    Raises:
        ValueError: a label without a spectrum.
    """
    _known(bulk or {}, spectra, "bulk")
    return {label: read_densities({label: one})[0] for label, one in (bulk or {}).items()}


def read_paths(paths: Datasets) -> list[Path]:
    """Eigenvalues along training as arrays.

    Raises:
        TypeError: not a Dataset.
        ValueError: a variable is missing, or nothing is finite.
    """
    out = []
    for i, path in enumerate(labelled(paths, "path")):
        label = _label(path, "run", i)
        values = _array(path, label, "eigenvalue", ("step", "rank"))
        residuals = _array(path, label, "residual", ("step", "rank"))
        if values.size == 0 or not np.isfinite(values).any():
            raise ValueError(f"{label!r} has no finite eigenvalue to draw")
        small, error, threshold = (
            _array(path, label, name, ("step",)) if name in path else None
            for name in ("smallest", "smallest_residual", "threshold")
        )
        steps = np.asarray(path["step"].values, np.float64)
        missed = int((path["converged"].values == 0).sum()) if "converged" in path else 0
        found = (values, residuals, small, error, threshold, dict(path.attrs), missed)
        out.append(Path(label, steps, *found))
    return out


def read_maps(maps: Datasets) -> list[Map]:
    """Both ends of the spectrum over a plane as arrays.

    Raises:
        TypeError: not a Dataset.
        ValueError: a variable is missing, nothing is finite, or maps that must not be compared.
    """
    many = labelled(maps, "map")
    require_comparable(many)
    out = []
    for i, one in enumerate(many):
        label = _label(one, "map", i)
        names = ("lambda_max", "lambda_min", "lambda_max_residual", "lambda_min_residual")
        top, low, *residuals = (_array(one, label, name, ("beta", "alpha")) for name in names)
        if not (np.isfinite(top).any() and np.isfinite(low).any()):
            raise ValueError(f"{label!r} has no finite eigenvalue to draw")
        tol = float(one.attrs.get("tol", math.inf))
        alpha, beta = (np.asarray(one[name].values, np.float64) for name in ("alpha", "beta"))
        loss = _array(one, label, "loss", ("beta", "alpha")) if "loss" in one else None
        bad = [
            np.isfinite(v) & ~(r <= tol * np.abs(v))
            if math.isfinite(tol)
            else np.zeros(v.shape, bool)
            for v, r in zip((top, low), residuals, strict=True)
        ]
        pair, marks = (residuals[0], residuals[1]), (bad[0], bad[1])
        missed = int((one["converged"].values == 0).sum()) if "converged" in one else 0
        found = (top, low, pair, marks, loss, dict(one.attrs), missed)
        out.append(Map(label, alpha, beta, *found))
    return out


def read_gauges(gauges: Mapping[str, Mapping[str, Any]]) -> list[Gauge]:
    """Gauges as numbers.

    Raises:
        ValueError: no gauge, no value, a negative one, or an interval that does not hold it.
    """
    if not gauges:
        raise ValueError("nothing to draw: expected at least one gauge")
    out = []
    for label, given in gauges.items():
        if "value" not in given:
            raise ValueError(f"{label!r} has no 'value': expected sharpness over its threshold")
        value = float(given["value"])
        low, high = (float(given[k]) if k in given else value for k in ("low", "high"))
        if math.isfinite(value) and not low <= value <= high:
            raise ValueError(
                f"{label!r} has value {value:g} outside its interval [{low:g}, {high:g}]"
            )
        out.append(Gauge(label, value, low, high, str(given.get("rule", ""))))
    return out


def common(attrs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Settings for a footnote: one value where all agree, else all of them in order.

    >>> common([{"seed": 0, "probes": 10}, {"seed": 1, "probes": 10}],
    ...        {"probes": "{} probes", "seed": "seed {}"})
    ['10 probes', 'seed 0, 1']
    """
    parts = []
    for name, words in names.items():
        have = [_short(a[name]) for a in attrs if a.get(name) is not None]
        if have:
            parts.append(words.format(have[0] if len(set(have)) == 1 else ", ".join(have)))
    return parts


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _triple(label: str, given: Sequence[Sequence[float]]) -> tuple[Values, Values, Values | None]:
    if len(given) not in (2, 3):
        raise ValueError(
            f"{label!r} has {len(given)} lists; expected (eigenvalues, residuals) or "
            "(eigenvalues, residuals, standard errors)"
        )
    parts = [np.asarray([float(v) for v in part], np.float64) for part in given]
    for part, name in zip(parts[1:], ("residual", "standard error"), strict=False):
        if len(parts[0]) == 0 or len(part) != len(parts[0]):
            raise ValueError(
                f"{label!r} has {len(parts[0])} eigenvalues and {len(part)} {name}s; "
                f"expected one {name} per eigenvalue, and at least one of them"
            )
    return _gaps(parts[0]), parts[1], parts[2] if len(parts) == 3 else None


def _density(one: xr.Dataset, index: int) -> Density:
    label = _label(one, "density", index)
    if "density" not in one or one["density"].ndim != 1:
        raise ValueError(f"{label!r} has no variable 'density' over one dimension")
    if not int(one.attrs.get("params", 0)) >= 1:
        raise ValueError(f"{label!r} has no attribute 'params', the number of eigenvalues")
    (dim,) = one["density"].dims
    grid = np.asarray(one[dim].values, np.float64)
    density, cumulative = (_array(one, label, n, (dim,)) for n in ("density", "cumulative"))
    if not (np.isfinite(density).any() and np.isfinite(grid).all()):
        raise ValueError(f"{label!r} has no finite density to draw")
    bands = [
        (_array(one, label, f"{n}_low", (dim,)), _array(one, label, f"{n}_high", (dim,)))
        if f"{n}_low" in one and f"{n}_high" in one
        else None
        for n in ("density", "cumulative")
    ]
    outliers, residuals = (
        _array(one, label, name, one[name].dims) if name in one else np.zeros(0)
        for name in ("outlier", "outlier_residual")
    )
    if residuals.shape != outliers.shape or outliers.ndim != 1:
        raise ValueError(f"{label!r} needs one outlier_residual per outlier")
    width = one.attrs.get("width")
    return Density(
        label,
        grid,
        density,
        cumulative,
        (bands[0], bands[1]),
        outliers,
        residuals,
        int(one.attrs["params"]),
        float(width) if width else None,
        json.loads(one.attrs.get("settings", "{}")) | dict(one.attrs),
    )


def labelled(given: Datasets, noun: str) -> list[xr.Dataset]:
    """One Dataset or several as a list; labels of a mapping become their attribute ``label``.

    Raises:
        TypeError: not Datasets.
        ValueError: none; the message names the ``noun``.
    """
    if isinstance(given, xr.Dataset):
        many = [given]
    elif isinstance(given, Mapping):
        many = [_named(one, str(label)) for label, one in given.items()]
    else:
        many = list(given)
    if not many:
        raise ValueError(f"nothing to draw: expected at least one {noun}")
    for one in many:
        if not isinstance(one, xr.Dataset):
            raise TypeError(f"expected an xarray.Dataset, got {type(one).__name__}")
    return many


def _named(one: Any, label: str) -> Any:
    return one.assign_attrs(label=label) if isinstance(one, xr.Dataset) else one


def _label(one: xr.Dataset, noun: str, index: int) -> str:
    return str(one.attrs.get("label") or f"{noun} {index + 1}")


def _array(one: xr.Dataset, label: str, name: str, dims: tuple[Any, ...]) -> Values:
    if name not in one or set(one[name].dims) != set(dims):
        has = f"{name}{tuple(one[name].dims)}" if name in one else f"no variable {name!r}"
        raise ValueError(f"{label!r} has {has}, this figure draws {name} over {' and '.join(dims)}")
    return _gaps(np.asarray(one[name].transpose(*dims).values, np.float64))


def _gaps(values: Values) -> Values:
    return np.where(np.isfinite(values), values, np.nan)


def _known(given: Mapping[str, Any], spectra: Mapping[str, Any], name: str) -> None:
    for label in given:
        if label not in spectra:
            raise ValueError(
                f"{name} names {label!r}, which has no spectrum; expected {', '.join(spectra)}"
            )
