"""Made-up Datasets of curvature, and what is read off their figures."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from matplotlib.text import Text

WIDTH, PARAMS = 0.05, 1000
EVIL = "<script>alert(1)</script>"


def cloud(
    label: str | None = "a", scale: float = 1.0, outliers: tuple[float, ...] = (10.0, -4.0)
) -> Any:
    """A normal bulk of deviation 1 with exact outliers, as ``Density.to_dataset`` writes it."""
    grid = np.unique(
        np.concatenate([np.linspace(-6, 6, 481), *(x + np.arange(-4, 5) * WIDTH for x in outliers)])
    )
    share = (PARAMS - len(outliers)) / PARAMS
    bulk = share * np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    below = share * np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in grid])
    for x in outliers:
        z = (grid - x) / WIDTH
        bulk += np.exp(-z * z / 2) / (WIDTH * math.sqrt(2 * math.pi)) / PARAMS
        below += (grid >= x) / PARAMS
    columns = {
        "density": bulk / scale,
        "density_low": bulk / scale / 2,
        "density_high": bulk / scale * 2,
    }
    columns |= {
        "cumulative": below,
        "cumulative_low": below - 0.01,
        "cumulative_high": below + 0.01,
    }
    ends = np.array(outliers) * scale
    attrs = {
        "params": PARAMS,
        "width": WIDTH * scale,
        "products": 99,
        "seed": 7,
        "settings": json.dumps({"probes": 10, "steps": 80}),
    }
    return xr.Dataset(
        {k: ("grid", v) for k, v in columns.items()}
        | {"outlier": ("outliers", ends), "outlier_residual": ("outliers", np.abs(ends) * 1e-3)},
        {"grid": grid * scale},
        attrs | ({"label": label} if label else {}),
    )


def path(label: str = "run", factor: float = 1.0) -> xr.Dataset:
    values = factor * np.array([[1.0, 0.5], [4.0, 2.0], [np.nan, 3.0], [9.0, 3.5]])
    return xr.Dataset(
        {
            "eigenvalue": (("step", "rank"), values),
            "residual": (("step", "rank"), np.full((4, 2), 0.25)),
            "smallest": ("step", [-1.0, -2.0, -2.5, -3.0]),
            "smallest_residual": ("step", np.full(4, 0.1)),
            "threshold": ("step", [8.0, 8.0, 8.0, 12.0]),
        },
        {"step": [0, 10, 20, 30], "rank": [1, 2]},
        {"label": label, "seed": 3, "threshold_rule": "2/η"},
    )


def sheet(label: str = "map", factor: float = 1.0, **attrs: Any) -> xr.Dataset:
    grid = np.linspace(-1, 1, 5)
    top = factor * (2 + grid[None, :] ** 2 + 3 * grid[:, None] ** 2 + 0.1 * grid[None, :])
    low = -0.5 * top + grid[None, :]
    dims = ("beta", "alpha")
    return xr.Dataset(
        {
            "lambda_max": (dims, top),
            "lambda_min": (dims, low),
            "lambda_max_residual": (dims, top * 1e-5),
            "lambda_min_residual": (dims, np.abs(low) * 1e-5),
        },
        {"alpha": grid, "beta": grid},
        {
            "label": label,
            "normalize": "filter",
            "ignore": ["bias"],
            "seed": 3,
            "span": 1.0,
            "points": 5,
            "axes": 2,
            "tol": 1e-3,
        }
        | attrs,
    )


def words(figure: Any) -> str:
    """All texts of a figure."""
    if isinstance(figure, go.Figure):
        return figure.layout.title.text + figure.layout.title.subtitle.text
    return " ".join(t.get_text().replace("\n", " · ") for t in figure.findobj(match=Text))


def named(figure: go.Figure, part: str) -> list[Any]:
    return [t for t in figure.data if part in (t.name or "")]
