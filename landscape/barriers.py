"""The barrier between two solutions: how far the loss rises on the way from one to the other."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

DEFINITIONS = ("linear", "mean")
"""What the loss on the way is compared with; see :func:`barrier`."""

_ON_GRID = 1e-9
_LOSSES = ("loss",)  # higher is worse; every other metric counts as higher is better


@dataclass(frozen=True)
class Barrier:
    """The barrier along a line or curve between two solutions.

    Attributes:
        height: rise above the ends, in units of the variable; 0 where nothing rises above them. NaN
            where no point between them is finite.
        at: where it is, between 0 and 1.
        stderr: standard error of the height at that point; NaN where there is none. Where the terms are in
            the file it is that of the paired combination; elsewhere an upper bound of it.
        error: ``"paired"``, ``"bound"`` or ``"none"``.
        definition: one of :data:`DEFINITIONS`.
        variable: ``"loss"``, ``"accuracy"``, ...
        ends: the variable at 0 and at 1.
        points: how many points lie between the ends.
        not_finite: how many of them are NaN or infinite, and left out.
        cautions: why it should not be trusted, one sentence each.
    """

    height: float
    at: float
    stderr: float
    error: str
    definition: str
    variable: str
    ends: tuple[float, float]
    points: int
    not_finite: int
    cautions: tuple[str, ...] = ()

    def text(self) -> str:
        """The barrier in one line for people."""
        share = self.variable != "loss"

        def unit(value: float) -> str:
            return f"{value:.2%}" if share else f"{value:.4g}"

        spread = {
            "paired": f" ± {unit(self.stderr)}",
            "bound": f" ± at most {unit(self.stderr)}",
            "none": "",
        }[self.error]
        against = {"linear": "the straight line between the ends", "mean": "the mean of the ends"}
        which = "below" if share else "above"
        words = (
            f"{self.variable} barrier {unit(self.height)}{spread if self.stderr else ''} {which} "
            f"{against[self.definition]}, at {self.at:.3g}"
        )
        if self.not_finite:
            words += f" ({self.not_finite} of {self.points} points are not finite and left out)"
        return words

    def document(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "height": self.height,
            "at": self.at,
            "stderr": self.stderr,
            "error": self.error,
            "definition": self.definition,
            "variable": self.variable,
            "ends": list(self.ends),
            "points": self.points,
            "not_finite": self.not_finite,
            "cautions": list(self.cautions),
        }


def barrier(surface: xr.Dataset, variable: str = "loss", definition: str = "linear") -> Barrier:
    """The barrier on a line or curve that has its ends at ``alpha = 0`` and ``alpha = 1``.

    ========== ========================================================================================
    ``linear`` ``max_α [L(α) - (1 - α) L(0) - α L(1)]`` (Entezari et al. 2022, definition 1)
    ``mean``   ``max_α L(α) - (L(0) + L(1)) / 2`` (Frankle et al. 2020, sec. 2, there of the test error)
    ========== ========================================================================================

    The maximum is over the points of the grid from 0 to 1, ends included, so that ``linear`` is never
    negative. For accuracy it is the fall below the ends. The highest of many noisy points is high in part
    by chance; ``stderr`` is that of one point and does not know how many there were.

    Args:
        surface: a Dataset over ``alpha`` alone.
        variable: ``"loss"``, or a metric of which more is better, such as ``"accuracy"``.
        definition: one of :data:`DEFINITIONS`.

    Raises:
        ValueError: not a line, no such variable, ends that are not on the grid, not evaluated or not
            finite, or an unknown definition.

    >>> line = xr.Dataset({"loss": ("alpha", [1.0, 4.0, 3.0])}, coords={"alpha": [0.0, 0.5, 1.0]})
    >>> found = barrier(line)
    >>> found.height, found.at, barrier(line, definition="mean").height
    (2.0, 0.5, 2.0)
    """
    if definition not in DEFINITIONS:
        raise ValueError(
            f"unknown definition {definition!r}: expected one of {', '.join(DEFINITIONS)}"
        )
    if variable not in surface or surface[variable].dims != ("alpha",):
        raise ValueError(
            f"the surface has no {variable!r} along one axis: expected a line between two points"
        )
    alpha = np.asarray(surface["alpha"].values, np.float64)
    first, last = (_index(alpha, end) for end in (0.0, 1.0))
    inside = np.arange(first, last + 1)
    _require_known(surface, inside)
    sign = 1.0 if variable in _LOSSES else -1.0
    values = np.asarray(surface[variable].values, np.float64)[inside]
    place = alpha[inside]
    ends = float(values[0]), float(values[-1])
    if not np.isfinite(ends).all():
        raise ValueError(f"the {variable} at the ends is {ends[0]:g} and {ends[1]:g}: no barrier")
    share = place if definition == "linear" else np.full_like(place, 0.5)
    rises = sign * (values - (1 - share) * ends[0] - share * ends[1])
    finite = np.isfinite(rises)
    at = int(np.argmax(np.where(finite, rises, -math.inf)))
    stderr, error = _error(surface, variable, inside, at, float(share[at]))
    between = np.ones(len(inside), bool)
    between[[0, -1]] = False
    return Barrier(
        height=float(rises[at]),
        at=float(place[at]),
        stderr=stderr,
        error=error,
        definition=definition,
        variable=variable,
        ends=ends,
        points=int(between.sum()),
        not_finite=int((between & ~finite).sum()),
        cautions=cautions_of(surface),
    )


def cautions_of(surface: xr.Dataset) -> tuple[str, ...]:
    """Why a surface should not be trusted, said by its plane."""
    return tuple(
        said
        for name in ("refusals", "cautions")
        for said in json.loads(surface.attrs.get(name, "[]"))
    )


def _index(alpha: np.ndarray[Any, Any], end: float) -> int:
    near = np.flatnonzero(np.abs(alpha - end) <= _ON_GRID)
    if not len(near):
        raise ValueError(
            f"alpha = {end:g} is not on the grid: evaluate an interpolation with the default span, or with "
            "(0, 1)"
        )
    return int(near[0])


def _require_known(surface: xr.Dataset, inside: np.ndarray[Any, Any]) -> None:
    if "evaluated" not in surface:
        return
    known = surface["evaluated"].values != 0
    if "interpolated" in surface:
        known = known | (surface["interpolated"].values != 0)
    missing = int((~known[inside]).sum())
    if missing:
        raise ValueError(
            f"{missing} of {len(inside)} points between the ends are not evaluated yet: finish the line first"
        )


def _error(
    surface: xr.Dataset, variable: str, inside: np.ndarray[Any, Any], at: int, share: float
) -> tuple[float, str]:
    """Standard error of ``L(at) - (1 - share) L(first) - share L(last)``."""
    if variable != "loss":
        return math.nan, "none"
    here, first, last = inside[at], inside[0], inside[-1]
    if here in (first, last) and share == float(here == last):
        return 0.0, "paired"  # an end against itself
    if "terms" in surface:
        terms = np.asarray(surface["terms"].values, np.float64)
        combined = terms[here] - (1 - share) * terms[first] - share * terms[last]
        if len(combined) > 1:
            return float(combined.std(ddof=1) / math.sqrt(len(combined))), "paired"
    # The spread of a sum is at most the sum of the spreads, however the terms are correlated.
    if "rise_stderr" in surface and surface["alpha"].values[first] == 0:
        errors = np.asarray(surface["rise_stderr"].values, np.float64)
        bound = errors[here] + share * errors[last]
    elif "loss_stderr" in surface:
        errors = np.asarray(surface["loss_stderr"].values, np.float64)
        bound = errors[here] + (1 - share) * errors[first] + share * errors[last]
    else:
        return math.nan, "none"
    return (float(bound), "bound") if math.isfinite(bound) else (math.nan, "none")
