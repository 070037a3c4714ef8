"""Interactive figures of differences of surfaces (plotly): where one solution's loss rises more than another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, add_switch, dress, safe
from landscape.plot.grid import arrange, axis_key
from landscape.plot.sheet import require_comparable
from landscape.plot.signed import MAX_DECADES, Axis, Values
from landscape.refusals import refusals

# Blue where the second is lower, orange-red where it is higher: told apart with every common colour vision deficiency.
DIVERGING = "RdBu_r"
MOST_DOTS = 25  # an axis; more would hide the colours


@dataclass(frozen=True)
class Contrast:
    """One difference, as arrays ready to draw.

    Attributes:
        label: ``B − A``.
        alpha: coordinates of the columns.
        beta: coordinates of the rows.
        values: the difference; NaN where it is not known.
        errors: its standard error; NaN where it is not known.
        paired: whether the errors are those of paired differences.
        refused: why one of the two surfaces cannot be vouched for.
    """

    label: str
    alpha: Values
    beta: Values
    values: Values
    errors: Values
    paired: bool
    refused: tuple[str, ...] = ()

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Where the 95 % interval holds zero."""
        half = style.Z95 * self.errors
        return np.isfinite(self.values) & np.isfinite(half) & (np.abs(self.values) <= half)

    def dots(self) -> tuple[Values, Values]:
        """Coordinates of marks on what is undecided, on at most `MOST_DOTS` points of each axis."""
        steps = [max(1, -(-n // MOST_DOTS)) for n in self.values.shape]
        kept = np.zeros(self.values.shape, bool)
        kept[:: steps[0], :: steps[1]] = True
        rows, columns = np.nonzero(kept & self.undecided)
        return self.alpha[columns], self.beta[rows]


def read(differences: Sequence[xr.Dataset], of: str) -> list[Contrast]:
    """The differences as arrays.

    Raises:
        TypeError: not a Dataset.
        ValueError: none given, not planes, not comparable, or nothing finite to draw.
    """
    if not differences:
        raise ValueError("nothing to draw: expected at least one difference")
    name = {"rise": "rise_difference", "loss": "difference"}.get(of)
    if name is None:
        raise ValueError(f"of is {of!r}: expected 'rise' or 'loss'")
    made = []
    for given in differences:
        if not isinstance(given, xr.Dataset):
            raise TypeError(
                f"expected an xarray.Dataset (landscape.surface_difference gives one), got {type(given).__name__}"
            )
        if name not in given or set(given[name].dims) != {"alpha", "beta"}:
            raise ValueError(
                f"{given.attrs.get('label', 'a Dataset')!r} has no {name} over alpha and "
                "beta: expected the difference of two surfaces"
            )
        made.append(
            Contrast(
                str(given.attrs.get("label", "difference")),
                np.asarray(given["alpha"].values, np.float64),
                np.asarray(given["beta"].values, np.float64),
                _gaps(given[name].transpose("beta", "alpha").values),
                _gaps(given[f"{name}_stderr"].transpose("beta", "alpha").values),
                given.attrs.get("paired") == "terms",
                tuple(refusals(given)),
            )
        )
    require_comparable(list(differences))
    if not any(np.isfinite(c.values).any() for c in made):
        raise ValueError(
            "no finite difference to draw (of='rise' needs the centre on the grid: an odd number of points)"
        )
    return made


def refused_of(contrasts: Sequence[Contrast]) -> list[str]:
    """Why some of what is drawn cannot be vouched for."""
    return list(dict.fromkeys(reason for c in contrasts for reason in c.refused))


def axes_of(contrasts: Sequence[Contrast]) -> dict[bool, Axis]:
    """One symmetric axis for all panels, linear and signed logarithmic.

    The logarithmic one is linear within the size that a tenth of the differences do not exceed, at most six
    decades under the largest.
    """
    sizes = np.abs(np.concatenate([c.values[np.isfinite(c.values)] for c in contrasts]))
    size = float(sizes.max()) or 1.0
    unit = min(max(float(np.quantile(sizes, 0.1)), size * 10.0**-MAX_DECADES), 0.1 * size)
    return {log: Axis(log, -size, size, unit) for log in (False, True)}


def starts_log(contrasts: Sequence[Contrast], log: bool | None) -> bool:
    """Logarithmic where half of the differences are under a twentieth of the largest."""
    if log is not None:
        return log
    flat = np.abs(np.concatenate([c.values[np.isfinite(c.values)] for c in contrasts]))
    return bool(np.median(flat) < 0.05 * flat.max())


def note_of(contrasts: Sequence[Contrast]) -> str:
    """What the dots are, and whether errors are paired."""
    if not any(np.isfinite(c.errors).any() for c in contrasts):
        return "no errors known"
    kind = "paired" if all(c.paired for c in contrasts) else "not paired, so too wide"
    return f"dots: cannot be told from 0 (95 % intervals, {kind})"


def difference(
    contrasts: Sequence[Contrast],
    attrs: dict[str, Any],
    group: str,
    title: str,
    log: bool | None,
    of: str,
) -> go.Figure:
    """Heat maps side by side on one diverging scale; see `landscape.plot.difference`."""
    start, axes = starts_log(contrasts, log), axes_of(contrasts)
    what = "rise" if of == "rise" else "loss"
    figure = go.Figure()
    for i, c in enumerate(contrasts):
        where = {"xaxis": axis_key("x", i), "yaxis": axis_key("y", i)}
        shown = [c.values, c.errors]
        figure.add_trace(
            go.Heatmap(
                x=c.alpha,
                y=c.beta,
                z=np.asarray(axes[start].place(c.values), np.float32),
                customdata=np.asarray(np.stack(shown, axis=-1), np.float32),
                meta={"columns": [f"{what} difference", "stderr"]},
                hovertemplate=f"<b>{safe(c.label)}</b><br>α %{{x:.3g}}, β %{{y:.3g}}<br>"
                f"difference of {what}s %{{customdata[0]:.4g}} ± %{{customdata[1]:.2g}}<extra></extra>",
                zsmooth="best",
                hoverongaps=False,
                coloraxis="coloraxis",
                name=safe(c.label),
                **where,
            )
        )
    for i, c in enumerate(contrasts):
        where = {"xaxis": axis_key("x", i), "yaxis": axis_key("y", i)}
        x, y = c.dots()
        quiet = {"mode": "markers", "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(
            go.Scatter(x=x, y=y, marker={"size": 2.6, "color": style.MUTED}, **quiet, **where)
        )
        figure.add_trace(
            go.Scatter(
                x=[0],
                y=[0],
                marker={"symbol": "cross-thin", "size": 11, "line": {"width": 2, "color": "black"}},
                **quiet,
                **where,
            )
        )
        plain = {
            "showgrid": False,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 4,
            "nticks": 5,
            "constrain": "domain",
        }
        figure.layout[axis_key("xaxis", i)] = {
            **plain, "anchor": axis_key("y", i), "title": {"text": style.axis_title("α", attrs), "standoff": 6},
        }  # fmt: skip
        figure.layout[axis_key("yaxis", i)] = {
            **plain, "anchor": axis_key("x", i), "scaleanchor": axis_key("x", i),
            "title": {"text": style.axis_title("β", attrs), "standoff": 2},
        }  # fmt: skip
    dress(figure, title, style.footnote(attrs, group, [note_of(contrasts)], refused_of(contrasts)))
    figure.layout.coloraxis = {"colorscale": DIVERGING, **_colours(axes[start])}
    figure.layout.coloraxis.colorbar.update(
        title={"text": "difference"}, thickness=12, outlinewidth=0
    )
    arrange(figure, [c.label for c in contrasts], kind="axis", title_height=TITLE_HEIGHT)
    count = list(range(len(contrasts)))
    states: list[list[Any]] = []
    for state in (False, True):
        z = [
            [[float(f"{v:.5g}") for v in row] for row in axes[state].place(c.values).tolist()]
            for c in contrasts
        ]
        bar = _colours(axes[state])
        layout = {f"coloraxis.{k}": bar[k] for k in ("cmin", "cmax")}
        layout |= {f"coloraxis.colorbar.{k}": v for k, v in bar["colorbar"].items()}
        states.append([{"z": z}, layout, count])
    add_switch(figure, states, start)
    return figure


def _colours(axis: Axis) -> dict[str, Any]:
    low, high = (float(v) for v in axis.place([axis.low, axis.high]))
    values, labels = axis.ticks(5, 0.12)
    return {
        "cmin": low,
        "cmax": high,
        "colorbar": {"tickvals": axis.place(values).tolist(), "ticktext": labels},
    }


def _gaps(values: Any) -> Values:
    given = np.asarray(values, np.float64)
    return np.where(np.isfinite(given), given, np.nan)
