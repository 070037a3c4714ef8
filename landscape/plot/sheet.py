"""What the panels of one figure share: one range, one colour scale, one set of directions.

Two surfaces drawn on different scales cannot be compared by eye, so every figure first gathers its
surfaces into a `Sheet`, which holds what they have in common; surfaces whose directions or grids
differ are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from landscape.plot import style
from landscape.plot.marks import Mark, Path, Quadratic, marks_of, path_of, quadratic_of
from landscape.refusals import refusals

Array = NDArray[np.float32]
Surfaces = xr.Dataset | Sequence[xr.Dataset]

MUST_AGREE = ("normalize", "ignore", "span", "points", "seed")
MAX_SCENES = 4


@dataclass(frozen=True)
class Scale:
    """A vertical scale: where values are drawn, and which ticks and contour levels it has.

    Positions are losses, or log10 of losses where ``log``: the surface traces of plotly and the
    3-D axes of matplotlib have no logarithmic scale that also moves colours and contours.
    """

    log: bool
    low: float
    high: float
    ticks: list[float]
    labels: list[str]
    levels: tuple[float, float, float]

    def place(self, values: Array) -> Array:
        """Positions of ``values`` on this scale."""
        return np.log10(values) if self.log else values

    def padded(self, below: float, above: float) -> list[float]:
        """The range ``[low, high]``, widened by fractions of its height."""
        height = self.high - self.low
        return [self.low - below * height, self.high + above * height]


@dataclass(frozen=True)
class Panel:
    """One surface or line, as arrays ready to draw; NaN and infinities are gaps (NaN) here."""

    label: str
    alpha: Array
    beta: Array | None
    loss: Array
    stderr: Array | None
    accuracy: Array | None
    paired: tuple[Array, Array] | None = None  # rise over the centre, term by term, and its error
    titles: tuple[str, str] = ("α", "β")
    marks: tuple[Mark, ...] = ()
    path: Path | None = None
    quadratic: Quadratic | None = None

    def known(self) -> list[Array]:
        """The loss, then its standard error and the accuracy where the file has them."""
        return [a for a in (self.loss, self.stderr, self.accuracy) if a is not None]

    def columns(self) -> list[str]:
        """What the arrays of `known` are."""
        named = {"loss": self.loss, "stderr": self.stderr, "accuracy": self.accuracy}
        return [name for name, values in named.items() if values is not None]

    def rise(self) -> Panel:
        """A line as its rise above its own loss at the centre.

        Its standard error is that of the paired differences: the two losses are of the same terms, so
        that their errors are correlated. Without it in the file there is none.
        """
        model = None if self.quadratic is None else replace(self.quadratic, loss=0.0)
        if self.paired is not None and not self.alpha.all():
            return replace(self, loss=self.paired[0], stderr=self.paired[1], quadratic=model)
        centre = self.loss[int(np.argmin(np.abs(self.alpha)))]
        rise = np.asarray(self.loss - centre, np.float32)
        return replace(self, loss=rise, stderr=None, quadratic=model)

    def band(self, floor: float | None = None) -> tuple[Array, Array]:
        """Outline of the 95% band of a line: one closed polygon per run of finite points.

        Polygons are separated by NaN. ``floor`` stands in for a lower edge that is not positive,
        which a logarithmic axis cannot place; it lies below the axis.
        """
        xs: list[Array] = []
        ys: list[Array] = []
        if self.stderr is None:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        half = np.float32(style.Z95) * self.stderr
        low, high = self.loss - half, self.loss + half
        if floor is not None:
            low = np.where(low < floor, np.float32(floor), low)
        for run in runs(np.isfinite(high)):
            xs += [self.alpha[run], self.alpha[run][::-1], np.full(1, np.nan, np.float32)]
            ys += [high[run], low[run][::-1], np.full(1, np.nan, np.float32)]
        return np.concatenate(xs), np.concatenate(ys)


@dataclass(frozen=True)
class Sheet:
    """Panels with what they share.

    Attributes:
        panels: one per surface, in the order given.
        low: smallest finite loss over all panels.
        high: largest finite loss over all panels (above ``low`` even where all are equal).
        attrs: attributes of the first surface; the others agree in ``MUST_AGREE``.
        group: which data the loss was taken on.
        refused: why some of them cannot be vouched for.
    """

    panels: tuple[Panel, ...]
    low: float
    high: float
    attrs: dict[str, Any]
    group: str
    refused: tuple[str, ...] = ()

    @property
    def can_log(self) -> bool:
        """Whether a logarithmic scale shows every finite point."""
        return self.low > 0

    @property
    def prefers_log(self) -> bool:
        """Whether the losses range over more than two decades."""
        return self.can_log and self.high / self.low > style.LOG_WHEN_ABOVE

    def relative(self) -> Sheet:
        """Lines as their rise above the loss at their own centre."""
        panels = tuple(p.rise() for p in self.panels)
        low, high = _extent(panels)
        for panel in panels:  # the bands too: a rise and its error are of one size
            edges = panel.band()[1]
            edges = edges[np.isfinite(edges)]
            low, high = (
                min(low, float(edges.min(initial=low))),
                max(high, float(edges.max(initial=high))),
            )
        return replace(self, panels=panels, low=low, high=high)

    def with_bands(self) -> Sheet:
        """Lines with room for their bands, as far as these go beyond the lines by no more than half their height."""
        low, high = self.low, self.high
        room = (high - low) / 2
        for panel in self.panels:
            edges = panel.band()[1]
            edges = edges[np.isfinite(edges)].astype(np.float64)
            if edges.size:
                low = min(low, max(float(edges.min()), self.low - room))
                high = max(high, min(float(edges.max()), self.high + room))
        if self.can_log:  # a band must neither take the logarithmic scale away nor stretch it
            low = max(low, self.low / 2)
        return replace(self, low=low, high=high)

    def footnote(self, *extra: str) -> str:
        """The line of settings under the figure; what it cannot be trusted for comes first."""
        return style.footnote(self.attrs, self.group, extra, self.refused)

    def scale(self, log: bool) -> Scale:
        """The scale that all panels share."""
        low, high = (math.log10(v) for v in (self.low, self.high)) if log else (self.low, self.high)
        ticks, labels = style.log_ticks(low, high) if log else style.linear_ticks(low, high)
        return Scale(log, low, high, ticks, labels, style.levels(low, high))

    def choose_log(self, log: bool | None) -> bool:
        """The scale to start with: as asked, or by the range of the losses.

        Raises:
            ValueError: a logarithmic scale was asked for and a loss is not positive.
        """
        if log and not self.can_log:
            raise ValueError(
                f"log=True needs positive losses, the smallest is {self.low:g}: use log=False"
            )
        return self.prefers_log if log is None else log


def gather(surfaces: Surfaces, *, axes: int, group: str | None = None) -> Sheet:
    """Gather surfaces (``axes=2``) or lines (``axes=1``) that are to be drawn together.

    Args:
        surfaces: one Dataset or several, of the schema in ``docs/schema.md``.
        axes: the number of directions the figure can draw.
        group: which data the loss was taken on; ``attrs["group"]`` when None.

    Raises:
        TypeError: something in ``surfaces`` is not a Dataset.
        ValueError: no surface, a wrong number of axes, no finite loss at all, or surfaces that
            must not be compared because their directions or grids differ.
    """
    many = [surfaces] if isinstance(surfaces, xr.Dataset) else list(surfaces)
    if not many:
        raise ValueError("nothing to draw: expected at least one surface")
    for surface in many:
        if not isinstance(surface, xr.Dataset):
            raise TypeError(
                "expected an xarray.Dataset (landscape.load gives one), got "
                f"{type(surface).__name__}"
            )
        _require_axes(surface, axes)
    require_comparable(many)
    panels = tuple(_panel(surface, i) for i, surface in enumerate(many))
    low, high = _extent(panels)
    attrs = dict(many[0].attrs)
    where = attrs.get("group", "") if group is None else group
    return Sheet(panels, low, high, attrs, where, refused(many))


def _extent(panels: Sequence[Panel]) -> tuple[float, float]:
    finite = np.concatenate([p.loss[np.isfinite(p.loss)] for p in panels]).astype(np.float64)
    if not finite.size:
        raise ValueError(
            "no finite loss to draw: every point is NaN, infinite or not evaluated yet"
        )
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):
        high = low + max(abs(low) * 0.01, 1e-6)  # a constant still needs a scale to be drawn on
    return low, high


def require_comparable(surfaces: Sequence[xr.Dataset]) -> None:
    """Refuse surfaces whose directions or grids differ.

    Raises:
        ValueError: names the attribute of ``MUST_AGREE`` that differs, and both values.
    """
    first = surfaces[0]
    for other in surfaces[1:]:
        kinds = [_family(s) for s in (first, other)]
        if kinds[0] != kinds[1] and all(kinds):
            raise ValueError(
                f"surfaces must not be compared: the kind of plane differs ({label_of(first)!r} has "
                f"{kinds[0]!r}, {label_of(other)!r} has {kinds[1]!r}); draw them in separate figures"
            )
        for name in MUST_AGREE:
            a, b = _setting(first, name), _setting(other, name)
            if a != b:
                raise ValueError(
                    f"surfaces must not be compared: {name} differs "
                    f"({label_of(first)!r} has {a!r}, {label_of(other)!r} has {b!r}); "
                    f"evaluate them with the same {name}, or draw them in separate figures"
                )


def label_of(surface: xr.Dataset, index: int = 0) -> str:
    """The name of a surface on figures."""
    return str(surface.attrs.get("label") or f"surface {index + 1}")


def refused(surfaces: Sequence[xr.Dataset]) -> tuple[str, ...]:
    """Why some of the surfaces of a figure cannot be vouched for, each with its label where there are several."""
    many = len(surfaces) > 1
    return tuple(
        f"{label_of(surface, i)}: {reason}" if many else reason
        for i, surface in enumerate(surfaces)
        for reason in refusals(surface)
    )


def runs(good: NDArray[np.bool_]) -> list[slice]:
    """The stretches of consecutive True values.

    >>> runs(np.array([True, True, False, True]))
    [slice(0, 2, None), slice(3, 4, None)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _setting(surface: xr.Dataset, name: str) -> Any:
    value = surface.attrs.get(name)
    if name == "ignore":
        return tuple(sorted(style.words(value)))
    if isinstance(value, np.generic):
        return value.item()
    return value


def _family(surface: xr.Dataset) -> str:
    """Kind of plane; a line and a curve between the same two points may be drawn together."""
    kind = style.plane_kind(surface.attrs)
    return "interpolation" if kind == "curve" else kind


def _require_axes(surface: xr.Dataset, axes: int) -> None:
    wanted = {"alpha", "beta"} if axes == 2 else {"alpha"}
    if "loss" not in surface or set(surface["loss"].dims) != wanted:
        has = f"loss{tuple(surface['loss'].dims)}" if "loss" in surface else "no variable 'loss'"
        instead = "line" if axes == 2 else "surface3d or contour"
        raise ValueError(
            f"{label_of(surface)!r} has {has}, this figure draws loss over "
            f"{' and '.join(sorted(wanted))}; use {instead} for the other kind"
        )


def _panel(surface: xr.Dataset, index: int) -> Panel:
    flat = "beta" in surface["loss"].dims

    def array(name: str) -> Array | None:
        if name not in surface:
            return None
        variable = surface[name].transpose("beta", "alpha") if flat else surface[name]
        with np.errstate(over="ignore"):
            values = np.asarray(variable.values).astype(np.float32)
        # Infinities would break the shared range; like NaN they are shown as gaps, never replaced.
        values = np.where(np.isfinite(values), values, np.float32(math.nan))
        return values if name == "loss" or np.isfinite(values).any() else None

    loss = array("loss")
    if loss is None:  # pragma: no cover - _require_axes has refused it
        raise ValueError("the surface has no variable 'loss'")
    rise, rise_stderr = array("rise"), array("rise_stderr")
    return Panel(
        label=label_of(surface, index),
        alpha=np.asarray(surface["alpha"].values, np.float32),
        beta=np.asarray(surface["beta"].values, np.float32) if flat else None,
        loss=loss,
        stderr=array("loss_stderr"),
        accuracy=array("accuracy"),
        paired=None if rise is None or rise_stderr is None else (rise, rise_stderr),
        titles=(style.axis_title("α", surface.attrs), style.axis_title("β", surface.attrs)),
        marks=marks_of(surface.attrs),
        path=path_of(surface.attrs),
        quadratic=quadratic_of(surface.attrs),
    )
