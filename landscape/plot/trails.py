"""Paths of training as arrays ready to draw: what every figure of them reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from landscape.plot import style
from landscape.plot.readings import Datasets, labelled
from landscape.plot.sheet import Scale, Sheet

Values = NDArray[np.float64]

# On viridis: warm hues, told apart with every common colour vision deficiency by their lightness too.
COLOURS = ("#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
WARN_SHARE = 0.5
"""Share of a checkpoint's distance that may lie off the plane before a figure says so."""

_NEEDED = ("alpha", "beta", "residual_share", "loss")


@dataclass(frozen=True)
class Measured:
    """A sharpness measure along a path, ``(steps,)`` each; NaN where it is not known."""

    name: str
    value: Values
    low: Values
    high: Values
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Trail:
    """One path over a plane, ``(steps,)`` each."""

    label: str
    steps: Values
    alpha: Values
    beta: Values
    share: Values
    loss: Values
    stderr: Values | None
    surface_loss: Values | None
    accuracy: Values | None
    measures: tuple[Measured, ...]
    attrs: dict[str, Any]
    among: bool = False
    """Whether it is drawn among others: then its end has its label beside it, else the steps."""

    def sizes(self, small: float, large: float) -> Values:
        """Sizes of markers: the larger, the more of the distance lies off the plane."""
        return small + (large - small) * np.nan_to_num(self.share)

    def ends(self) -> list[tuple[int, str, bool]]:
        """Indices of the first and the last step, the words beside them, and whether these stand above.

        Among other paths the label stands at the last step alone: most have begun at one point.

        They stand on the side that the path does not take.
        """
        last = len(self.steps) - 1
        rises = {
            0: self.beta[min(1, last)] > self.beta[0],
            last: self.beta[last - 1] > self.beta[last],
        }
        if self.among:
            return [(last, self.label, not rises[last])]
        return [(i, f"step {self.steps[i]:.0f}", not rise) for i, rise in sorted(rises.items())]


def read_trails(paths: Datasets) -> list[Trail]:
    """Paths as arrays.

    Raises:
        TypeError: not a Dataset.
        ValueError: no path, or a variable is missing.
    """
    read = [_trail(one, i) for i, one in enumerate(labelled(paths, "trajectory"))]
    return [replace(one, among=len(read) > 1) for one in read]


def colour(index: int) -> str:
    """The colour of the path at ``index`` over a surface, as ``#rrggbb``."""
    return COLOURS[index % len(COLOURS)]


def reaching(sheet: Sheet, trails: Sequence[Trail]) -> Sheet:
    """The sheet with a vertical range that holds the true losses of the paths too."""
    known = [v for t in trails for v in (t.loss, t.surface_loss) if v is not None]
    finite = np.concatenate([np.asarray([sheet.low, sheet.high]), *known])
    finite = finite[np.isfinite(finite)]
    if sheet.low > 0:  # a logarithmic scale must not be lost to a single point
        finite = finite[finite > 0]
    return replace(sheet, low=float(finite.min()), high=float(finite.max()))


def lowest_corner(sheet: Sheet) -> tuple[int, int]:
    """The corner of the first surface where the loss is lowest: signs of alpha and beta."""
    loss = np.nan_to_num(sheet.panels[0].loss, nan=np.inf)
    corners = {
        (x, y): float(loss[0 if y < 0 else -1, 0 if x < 0 else -1])
        for x in (-1, 1)
        for y in (-1, 1)
    }
    x, y = min(corners, key=lambda corner: corners[corner])
    return x, y


def place(values: Any, log: bool) -> Values:
    """Positions on a vertical scale; what a logarithm cannot place is NaN."""
    known: Values = np.asarray(values, np.float64)
    if not log:
        return known
    positive: Values = np.where(known > 0, known, np.nan)
    return np.asarray(np.log10(positive), np.float64)


def span_of(scale: Scale, log: bool) -> float:
    """The height of a scale, or of its counterpart on the other kind of axis."""
    ends = np.array([scale.low, scale.high])
    if scale.log and not log:
        ends = 10.0**ends
    elif log and not scale.log:
        ends = np.log10(ends)
    return float(ends[1] - ends[0])


def stems(trail: Trail) -> tuple[Values, Values, Values]:
    """From the loss in the plane up (or down) to the true one: ``x, y, z`` with NaN between stems."""
    foot = trail.loss if trail.surface_loss is None else trail.surface_loss
    gap = np.full(len(trail.steps), np.nan)
    x, y = (np.stack([v, v, gap], axis=1).ravel() for v in (trail.alpha, trail.beta))
    return x, y, np.stack([foot, trail.loss, gap], axis=1).ravel()


def require_plane(surface: xr.Dataset, paths: Datasets) -> None:
    """Refuse paths that were projected on another plane.

    Raises:
        ValueError: the hashes of origin or directions differ.
    """
    for path in labelled(paths, "trajectory"):
        for name, what in (("origin_sha256", "origin"), ("basis_sha256", "directions")):
            ours, theirs = (one.attrs.get(name) for one in (surface, path))
            if ours is not None and theirs is not None and ours != theirs:
                raise ValueError(
                    f"the trajectory {path.attrs.get('label', '')!r} lies over another plane: its "
                    f"{what} differ from the surface's; project it again with landscape.follow"
                )


def variance_words(attrs: dict[str, Any], subject: str = "plane") -> str:
    """How much of the path's variance the plane holds; empty where that is not known.

    >>> variance_words({"variance": [0.72, 0.2]}, "the plane")
    'the plane holds 92% of the variance'
    """
    shares = attrs.get("variance")
    if shares is None:
        return ""
    return f"{subject} holds {float(np.sum(shares)):.0%} of the variance"


def trail_note(trails: Sequence[Trail]) -> list[str]:
    """What the footnote of a surface says of the paths on it."""
    parts = [words for t in trails[:1] if (words := variance_words(t.attrs))]
    worst = max(float(np.nan_to_num(t.share).max()) for t in trails)
    return [*parts, f"larger markers: farther off (at most {worst:.0%})"]


def _trail(path: xr.Dataset, index: int) -> Trail:
    label = str(path.attrs.get("label") or f"run {index + 1}")
    missing = [name for name in _NEEDED if name not in path]
    if missing or "step" not in path.coords or path.sizes["step"] == 0:
        raise ValueError(
            f"{label!r} has no variable {(missing or ['step'])[0]!r} over step to draw"
        )

    def array(name: str) -> Values | None:
        if name not in path:
            return None
        values = np.asarray(path[name].values, np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def needed(name: str) -> Values:
        values = array(name)
        return np.full(path.sizes["step"], np.nan) if values is None else values

    measures = []
    for name in style.words(path.attrs.get("measures")):
        if name in path and np.isfinite(needed(name)).any():
            flag = f"{name}_converged"
            good = path[flag].values == 1 if flag in path else np.isfinite(needed(name))
            low, high = needed(f"{name}_low"), needed(f"{name}_high")
            measures.append(Measured(name, needed(name), low, high, good))
    return Trail(
        label=label,
        steps=np.asarray(path["step"].values, np.float64),
        alpha=needed("alpha"),
        beta=needed("beta"),
        share=needed("residual_share"),
        loss=needed("loss"),
        stderr=array("loss_stderr"),
        surface_loss=array("surface_loss"),
        accuracy=array("accuracy"),
        measures=tuple(measures),
        attrs=dict(path.attrs),
    )
