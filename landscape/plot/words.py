"""What the figures of curvature say under their titles and beside their axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np

from landscape.plot import style
from landscape.plot.readings import Density, Map, Path, Spectrum, common

GAUGE_NOTE = "bar: interval · beyond the edge a quadratic of this curvature diverges"


def side_by_side(index: int, count: int, most: float = 0.16) -> float:
    """How far a subject stands beside its rank, so that bars of several do not overlap.

    >>> side_by_side(0, 1), side_by_side(0, 2), side_by_side(1, 2)
    (0.0, -0.08, 0.08)
    """
    spread = min(most, 0.8 / count)
    return (index - (count - 1) / 2) * spread


def rank_ticks(names: Sequence[str], bulk: bool) -> tuple[list[float], list[str]]:
    """Which ranks are named on an axis, at most about twelve of them.

    >>> rank_ticks(["1", "2", "P"], bulk=True)
    ([1.0, 2.0, 3.0, 4.0], ['1', '2', 'P', 'bulk'])
    >>> rank_ticks([str(k) for k in range(1, 31)], bulk=False)[1]
    ['1', '5', '10', '15', '20', '25', '30']
    """
    upper = [k for k, name in enumerate(names, 1) if name.isdigit()]
    lower = [k for k in range(1, len(names) + 1) if k not in upper]
    step = next((s for s in (1, 2, 5, 10, 20, 50) if len(upper) <= 12 * s), 100)
    shown = [k for k in upper if step == 1 or k == 1 or k % step == 0]
    shown += lower if len(names) <= 9 else lower[-1:]  # "P−1" needs the room of two
    places = [float(k) for k in shown] + [len(names) + 1.0] * bulk
    return places, [names[k - 1] for k in shown] + ["bulk"] * bulk


def broken(label: str, length: int = 42) -> list[str]:
    """A label in lines that fit a phone or a column of a paper.

    >>> broken("Sharp-MAML (both), after 5 inner steps, 64 episodes")
    ['Sharp-MAML (both), after 5 inner steps, 64', 'episodes']
    """
    return wrap(label, length) or [""]


def spectrum_note(
    spectra: Sequence[Spectrum], bulk: Mapping[str, Density], refused: Sequence[str] = ()
) -> str:
    """The footnote of eigenvalues by rank."""
    parts = [
        *style.distrust(refused),
        "bars: residual ‖Hv − λv‖, within which an eigenvalue must lie",
    ]
    if any(s.errors is not None for s in spectra):
        parts.append("whiskers: standard error over the data")
    if bulk:
        parts.append("bulk: 1 % to 99 % of the other eigenvalues")
        parts.append("thin and dotted: its edges")
    return " · ".join(parts)


def density_note(densities: Sequence[Density]) -> str:
    """The footnote of densities."""
    attrs = [
        {**d.attrs, "params": style.number(float(d.params)), "width": d.width} for d in densities
    ]
    names = {
        "params": "P = {}",
        "probes": "{} probes",
        "steps": "{} steps",
        "width": "kernel width {}",
        "seed": "seed {}",
    }
    parts = common(attrs, names)
    if any(b is not None for d in densities for b in d.bands):
        parts.append("band over the probes")
    parts.append("dotted: height of one eigenvalue")
    if any(len(d.outliers) for d in densities):
        parts.append("spikes: outliers of mass 1/P")
    return " · ".join(parts)


def thresholds(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The edges of stability to draw, with their colours: one alone, in ink, where all agree."""
    known = [(p, style.colour(i)) for i, p in enumerate(paths) if p.threshold is not None]
    same = len(known) > 1 and all(
        np.array_equal(p.steps, known[0][0].steps)
        and np.array_equal(p.threshold, known[0][0].threshold, equal_nan=True)  # type: ignore[arg-type]
        for p, _ in known
    )
    return [(known[0][0], style.INK)] if same else known


def path_note(paths: Sequence[Path]) -> str:
    """The footnote of eigenvalues along training."""
    missed = [f"{p.missed} of {len(p.steps)} steps are not converged" for p in paths if p.missed]
    parts = [*style.distrust(list(dict.fromkeys(missed))), "band: residual ‖Hv − λv‖"]
    if any(p.threshold is not None for p in paths):
        rules = common([p.attrs for p in paths], {"threshold_rule": "{}"})
        parts.append(f"dotted: edge of stability{' ' + rules[0] if rules else ''}")
    if any(p.smallest is not None for p in paths):
        parts.append("dashed: smallest eigenvalue")
    return " · ".join([*parts, *common([p.attrs for p in paths], {"seed": "seed {}"})])


def map_note(maps: Sequence[Map]) -> str:
    """The footnote of curvature over a plane: that of a surface, and the marks."""
    extra = []
    if any(m.loss is not None for m in maps):
        extra.append("lines: loss")
    if any(mark.any() for m in maps for mark in m.unconverged):
        tol = common([m.attrs for m in maps], {"tol": "{}"})[0]
        extra.append(f"×: residual above {tol} of the value")
    missed = [f"{m.missed} of {m.largest.size} points are not converged" for m in maps if m.missed]
    first = maps[0].attrs
    return style.footnote(first, str(first.get("group", "")), extra, list(dict.fromkeys(missed)))


def gauge_value(value: float, low: float, high: float) -> str:
    """A gauge's reading in words.

    >>> gauge_value(0.974, 0.951, 0.998), gauge_value(1.5, 1.5, 1.5), gauge_value(math.nan, 0, 0)
    ('0.974 [0.951, 0.998]', '1.5', 'not known')
    """
    if not math.isfinite(value):
        return "not known" if math.isnan(value) else "∞"
    text = f"{value:.3g}".replace("-", "−")
    return text if low == high else f"{text} [{low:.3g}, {high:.3g}]"
