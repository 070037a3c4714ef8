"""The figure of a surface's topology: its minima and passes, and what of them stands out of the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from landscape.plot.curvature import Backend, wants_plotly
from landscape.plot.sheet import Scale, Sheet, gather

Array = NDArray[np.float64]

_TICKS = 7  # a panel is narrow


@dataclass(frozen=True)
class Minima:
    """Minima as arrays ready to draw; NaN where there is no pass.

    Attributes:
        number: of each, by persistence.
        alpha: position.
        beta: position; None on a line.
        loss: at each.
        saddle_alpha: position of its pass.
        saddle_beta: likewise; None on a line.
        saddle_loss: level of its pass.
        threshold: what its persistence must exceed.
        significant: whether it does.
        doubtful: on the edge of the window, or beside a gap.
        attrs: of the analysis.
    """

    number: NDArray[np.int64]
    alpha: Array
    beta: Array | None
    loss: Array
    saddle_alpha: Array
    saddle_beta: Array | None
    saddle_loss: Array
    threshold: Array
    significant: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    attrs: Mapping[str, Any]

    def remarks(self) -> list[str]:
        """What the marks mean, for the footnote."""
        count = int(self.significant.sum())
        told = [
            f"{count} of {len(self.loss)} minima stand out of the noise (band: "
            f"{float(self.attrs['z']):.3g} standard errors)",
            f"{self.attrs['connectivity']} neighbours",
        ]
        if (self.doubtful & self.significant).any():
            told.append("square: on the edge of the window or beside a gap")
        return told

    def hover(self, i: int) -> str:
        """One minimum in words."""
        beta = "" if self.beta is None else f", β {self.beta[i]:.3g}"
        text = f"minimum {self.number[i]}<br>α {self.alpha[i]:.3g}{beta}<br>loss {self.loss[i]:.4g}"
        if not np.isfinite(self.saddle_loss[i]):
            return f"{text}<br>no pass to a deeper one"
        height = self.saddle_loss[i] - self.loss[i]
        return (
            f"{text}<br>pass {self.saddle_loss[i]:.4g}<br>persistence {height:.3g}"
            f" (noise: {self.threshold[i]:.2g})"
        )

    def diagram(self, log: bool | None) -> Diagram:
        """Where the minima stand in the persistence diagram."""
        with_pass = np.isfinite(self.saddle_loss)
        both = np.concatenate([self.loss, self.saddle_loss[with_pass]])
        low, high = float(both.min()), float(both.max())
        if not high > low:
            high = low + max(abs(low) * 0.01, 1e-6)
        sheet = Sheet((), low, high, {}, "")
        scale = sheet.scale(sheet.choose_log(log if low > 0 else False))
        bottom, top = scale.padded(0.06, 0.24)
        never = scale.high + 0.15 * (scale.high - scale.low)
        order = np.argsort(self.loss, kind="stable")
        order = order[with_pass[order]]
        x = placed(scale, self.loss[order])
        with np.errstate(invalid="ignore"):
            edge = np.minimum(placed(scale, self.loss[order] + self.threshold[order]), top)
        if len(order):  # the band goes on to both ends as it is at the first and the last minimum
            wide = edge - x
            x = np.concatenate([[bottom], x, [top]])
            edge = np.minimum(np.concatenate([[bottom + wide[0]], edge, [top + wide[-1]]]), top)
        y = np.where(with_pass, placed(scale, np.where(with_pass, self.saddle_loss, 1.0)), never)
        thin = slice(None, None, -(-len(scale.ticks) // _TICKS))
        scale = replace(scale, ticks=scale.ticks[thin], labels=scale.labels[thin])
        return Diagram(scale, bottom, top, never, placed(scale, self.loss), y, x, edge)


@dataclass(frozen=True)
class Diagram:
    """A persistence diagram: positions on one scale for both axes.

    Attributes:
        scale: of losses.
        bottom: lower end of both axes.
        top: their upper end.
        never: height at which minima without a pass stand.
        x: each minimum's own loss.
        y: its pass.
        band_x: where the upper edge of the noise band is known.
        band_y: that edge; the lower one is the diagonal.
    """

    scale: Scale
    bottom: float
    top: float
    never: float
    x: Array
    y: Array
    band_x: Array
    band_y: Array


def placed(scale: Scale, values: Array) -> Array:
    """Positions on a scale, in double precision."""
    return np.asarray(np.log10(values) if scale.log else values, np.float64)


def topology(
    surface: xr.Dataset,
    found: Any,
    backend: Backend = "plotly",
    *,
    title: str = "Minima and barriers",
    group: str | None = None,
    log: bool | None = None,
) -> Any:
    """A persistence diagram with its noise band, beside the surface with its minima and passes.

    In the diagram a minimum stands at its own loss and at the loss of the lowest pass to a deeper one: its
    height over the diagonal is its persistence. Minima inside the band are not told from noise; on the
    surface they are small dots.

    Args:
        surface: what was analyzed, a plane or a line.
        found: a ``landscape.topology.Topology``, or its Dataset.
        backend: ``"plotly"`` or ``"matplotlib"``.
        title: short title of the figure.
        group: which data the loss was taken on, stated in the footnote.
        log: scale of the losses; None: logarithmic above two decades.

    Returns:
        A ``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``.

    Raises:
        TypeError: not a Dataset, or nothing with ``to_dataset``.
        ValueError: nothing finite to draw, or an analysis of another kind of surface.
    """
    flat = isinstance(surface, xr.Dataset) and "beta" in surface.dims
    sheet = gather(surface, axes=2 if flat else 1, group=group)
    minima = read_minima(found)
    if (minima.beta is not None) != flat:
        raise ValueError("the analysis is of a line and the surface is a plane, or the reverse")
    if wants_plotly(backend):
        from landscape.plot import minima_interactive

        return minima_interactive.topology(sheet, minima, title, log)
    from landscape.plot import minima_static

    return minima_static.topology(sheet, minima, title, log)


def read_minima(found: Any) -> Minima:
    """The arrays of an analysis.

    Raises:
        TypeError: neither a Dataset nor anything with ``to_dataset``.
        ValueError: a variable is missing.
    """
    data = found.to_dataset() if hasattr(found, "to_dataset") else found
    if not isinstance(data, xr.Dataset):
        raise TypeError(f"expected landscape.topology.analyze(surface), got {type(found).__name__}")

    def read(name: str) -> Array:
        if name not in data:
            raise ValueError(f"not an analysis of minima: variable {name!r} is missing")
        return np.asarray(data[name].values, np.float64)

    flat = "beta" in data
    return Minima(
        np.arange(data.sizes["minimum"]),
        read("alpha"),
        read("beta") if flat else None,
        read("loss"),
        read("saddle_alpha"),
        read("saddle_beta") if flat else None,
        read("saddle_loss"),
        read("threshold"),
        read("significant") != 0,
        (read("on_boundary") != 0) | (read("beside_gap") != 0),
        data.attrs,
    )
