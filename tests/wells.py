"""Surfaces with wells of known depths, for the tests of topology."""

from __future__ import annotations

import numpy as np
import xarray as xr


def plane(loss, half=1.0, **variables) -> xr.Dataset:
    loss = np.asarray(loss, float)
    dims = ("beta", "alpha")[-loss.ndim :]
    grids = {d: np.linspace(-half, half, n) for d, n in zip(dims, loss.shape, strict=True)}
    data = {"loss": (dims, loss)}
    for name, value in variables.items():
        data[name] = ((*dims, "term") if np.ndim(value) > loss.ndim else dims, value)
    attrs = {"schema": "landscape.surface/1", "label": "wells", "span": half, "points": loss.shape[0],
             "axes": loss.ndim, "normalize": "filter", "ignore": ["bias"], "seed": 0}  # fmt: skip
    data["evaluated"] = (dims, np.ones(loss.shape, np.int8))
    return xr.Dataset(data, grids, attrs)


def wells(points=41) -> np.ndarray:
    """A basin of depth 2 at (-0.5, -0.5), one of 1 at (0.5, 0.5), and a bowl around both."""
    a = np.linspace(-1, 1, points)
    x, y = np.meshgrid(a, a)
    one = 2 * np.exp(-((x + 0.5) ** 2 + (y + 0.5) ** 2) / 0.08)
    two = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.08)
    return 3 + (x**2 + y**2) / 10 - one - two
