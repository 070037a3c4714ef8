"""Perturbation-based sharpness as curvature, over the radius: where the quadratic model ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from landscape.sharpness.measurement import Measurement

CONSISTENCY = "landscape.consistency/1"


class Relation(NamedTuple):
    """A measure with a radius, and the eigenvalue or trace that ``2 · rise / radius²`` tends to."""

    measure: str
    radius: str
    limit: str
    text: str


RELATIONS = (
    Relation("average", "sigma", "trace", "average case → trace"),
    Relation("average_adaptive", "sigma", "adaptive_trace", "adaptive average → adaptive trace"),
    Relation("worst_l2", "rho", "lambda_max", "worst case → λ max"),
    Relation("worst_l2_adaptive", "rho", "adaptive_lambda_max", "adaptive worst → adaptive λ max"),
)
"""On ``½ wᵀAw`` at its minimum all four are equalities at every radius (Andriushchenko et al. 2023)."""


def consistency(rows: Mapping[str, Measurement], label: str = "") -> xr.Dataset:
    """``2 · rise / radius²`` over the radius, beside the curvature that it tends to as the radius shrinks.

    While the two agree, a finite radius says what the Hessian says; where they part, the radius has left
    the region in which the loss is quadratic, and the measure answers another question. A gradient that
    is not zero bends the worst case upwards at small radii, by up to ``2‖g‖ / radius``.

    Args:
        rows: a sharpness report; relations of which either side is missing are left out.
        label: of the checkpoint.

    Returns:
        Over ``relation`` and ``rung``: ``radius``, ``curvature`` and its 95 % interval ``curvature_low``,
        ``curvature_high``; over ``relation``: ``limit``, ``limit_low``, ``limit_high`` and ``text``. Radii
        ascend; NaN where a relation has fewer rungs.

    Raises:
        ValueError: the rows hold no relation.
    """
    found = [r for r in RELATIONS if r.measure in rows and r.limit in rows]
    if not found:
        pairs = ", ".join(f"{r.measure} with {r.limit}" for r in RELATIONS)
        raise ValueError(f"no radius to hold against a curvature: expected any of {pairs}")
    ladders = [_ladder(rows[r.measure], r.radius) for r in found]
    rungs = max(map(len, ladders))
    grid = np.full((4, len(found), rungs), math.nan)
    for i, ladder in enumerate(ladders):
        for j, (radius, row) in enumerate(ladder):
            low, high = row.interval or (math.nan, math.nan)
            grid[0, i, j] = radius
            grid[1:, i, j] = np.array([row.value, low, high]) * (2 / radius**2)
    limits = np.array([_with_ends(rows[r.limit]) for r in found]).T
    names = ("radius", "curvature", "curvature_low", "curvature_high")
    variables: dict[str, Any] = {
        name: (("relation", "rung"), values) for name, values in zip(names, grid, strict=True)
    }
    for name, values in zip(("limit", "limit_low", "limit_high"), limits, strict=True):
        variables[name] = ("relation", values)
    variables["text"] = ("relation", [r.text for r in found])
    coords = {"relation": [r.measure for r in found]}
    return xr.Dataset(variables, coords, {"schema": CONSISTENCY, "label": label})


def quadratic_up_to(dataset: xr.Dataset, tolerance: float = 0.25) -> dict[str, tuple[float, float]]:
    """The range of radii over which each relation holds within ``tolerance``.

    A rung agrees if its interval and that of the limit, as shares of the limit, are not more than
    ``tolerance`` apart.

    Returns:
        Measure -> smallest and largest radius of the longest run of rungs that agree; NaN where none does.
    """
    told: dict[str, tuple[float, float]] = {}
    for name in dataset["relation"].values.tolist():
        one = dataset.sel(relation=name)
        limit, low, high = (float(one[f"limit{end}"]) for end in ("", "_low", "_high"))
        best: list[float] = []
        run: list[float] = []
        for radius, below, above in zip(
            one["radius"].values, one["curvature_low"].values, one["curvature_high"].values,
            strict=True,
        ):  # fmt: skip
            gap = max(below - high, low - above, 0.0)
            run = [*run, float(radius)] if gap <= tolerance * abs(limit) else []
            best = max(best, run, key=len)
        told[name] = (best[0], best[-1]) if best else (math.nan, math.nan)
    return told


def _ladder(row: Measurement, key: str) -> list[tuple[float, Measurement]]:
    """Radii and rows over all data, ascending; those of other batch sizes (``m``) are another measure."""
    rungs = {float(row.settings[key]): row}
    for variant in row.variants:
        if variant.settings.get("m") in (None, "all", row.settings.get("m")) and key in (
            variant.settings
        ):
            rungs.setdefault(float(variant.settings[key]), variant)
    return sorted(rungs.items())


def _with_ends(row: Measurement) -> tuple[float, float, float]:
    low, high = row.interval or (row.value, row.value)
    return row.value, low, high
