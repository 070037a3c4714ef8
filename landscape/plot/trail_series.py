"""What is drawn over the steps of training: panels of curves, with the scale that shows them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.plot import style
from landscape.plot.trails import Trail, Values, variance_words


@dataclass(frozen=True)
class Curve:
    """One curve over the steps of a path: ``kind`` is empty for what the checkpoints themselves have."""

    owner: int
    kind: str
    values: Values
    low: Values | None = None
    high: Values | None = None
    converged: NDArray[np.bool_] | None = None

    def symbols(self, good: str, bad: str) -> str | list[str]:
        """A marker for each step; another one where the value is not converged."""
        if self.converged is None or self.converged.all():
            return good
        return [good if ok else bad for ok in self.converged]


@dataclass(frozen=True)
class Series:
    """One panel of curves over steps: its title, its curves, and the scale that shows them all."""

    title: str
    curves: tuple[Curve, ...]
    share: bool = False

    @property
    def log(self) -> bool:
        """Whether the values range over more than two decades."""
        finite = self._finite()
        if self.share or finite.min() <= 0:
            return False
        return bool(finite.max() / finite.min() > style.LOG_WHEN_ABOVE)

    @property
    def floor(self) -> float:
        """What stands in for a lower edge that a logarithmic axis cannot place; it lies below the axis."""
        return float(self._finite().min()) / 100

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the vertical axis, in units of the values."""
        finite = self._finite()
        edges = [finite]
        for curve in self.curves:
            for edge in (curve.low, curve.high):
                if edge is not None and not self.log:
                    edges.append(edge[np.isfinite(edge)])
        every = np.concatenate(edges)
        low, high = float(every.min()), float(every.max())
        if self.log:
            return low / 1.3, high * 1.3
        # A very wide interval at one step must not flatten all the others.
        room = max(float(finite.max() - finite.min()), self._width()) or abs(high) or 1.0
        low = max(low, float(finite.min()) - room)
        high = min(high, float(finite.max()) + room)
        return low - 0.06 * room, high + 0.06 * room

    def _width(self) -> float:
        """Median width of the intervals."""
        widths = [c.high - c.low for c in self.curves if c.low is not None and c.high is not None]
        every = np.concatenate([np.zeros(0), *widths])
        every = every[np.isfinite(every)]
        return float(np.median(every)) if every.size else 0.0

    def _finite(self) -> Values:
        values = np.concatenate([curve.values for curve in self.curves])
        values = values[np.isfinite(values)]
        return values if values.size else np.zeros(1)


def series(trails: Sequence[Trail]) -> list[Series]:
    """The panels of several paths: loss, distance off the plane, and every measure that one of them has."""
    losses = []
    for i, t in enumerate(trails):
        half = None if t.stderr is None else style.Z95 * t.stderr
        band = (None, None) if half is None else (t.loss - half, t.loss + half)
        losses.append(Curve(i, "", t.loss, *band))
        if t.surface_loss is not None:
            losses.append(Curve(i, "in the plane", t.surface_loss))
    shares = tuple(Curve(i, "", t.share) for i, t in enumerate(trails))
    rows = [
        Series("loss", tuple(losses)),
        Series("share of the distance that lies off the plane", shares, share=True),
    ]
    for name in dict.fromkeys(m.name for t in trails for m in t.measures):
        curves = [
            Curve(i, "", m.value, m.low, m.high, m.converged)
            for i, t in enumerate(trails)
            for m in t.measures
            if m.name == name
        ]
        rows.append(Series(_titled(name, trails), tuple(curves)))
    return rows


def _titled(name: str, trails: Sequence[Trail]) -> str:
    """A measure's name with what it is, where a file says it."""
    for trail in trails:
        text = trail.attrs.get("measure_titles")
        title = json.loads(text).get(name) if isinstance(text, str) else None
        if title:
            return f"{name}: {title}"
    return name


def series_note(rows: Sequence[Series], trails: Sequence[Trail]) -> str:
    """The footnote of curves over steps."""
    parts = [f"bands: 95% (loss: ±{style.Z95} standard errors)"]
    parts += [words for t in trails[:1] if (words := variance_words(t.attrs, "the plane"))]
    if any(c.converged is not None and not c.converged.all() for r in rows for c in r.curves):
        parts.append("×: not converged")
    if any(r.curves[0].low is not None for r in rows[2:]):
        parts.append(f"seed {trails[0].attrs.get('seed', 0)}")
    return " · ".join(parts)
