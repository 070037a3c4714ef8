"""A picture of a surface that is still being computed: coarse at first, finer with every save."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import xarray as xr

from landscape import plot
from landscape.writing import write_text

_REFRESH = 10  # seconds after which the browser reads the page again


class LivePage:
    """Rewrites an HTML page with all that is known of a surface; give it to ``evaluate(observer=)``.

    Points still to come take the value of the nearest one that is there, as in a picture that loads;
    the title says how many are known and how long the rest will take. The page reads itself again every
    ten seconds and does not once the surface is complete.

    Args:
        path: the page; it is replaced whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._began: tuple[float, int] | None = None

    def __call__(self, surface: xr.Dataset) -> None:
        """Draw what is known."""
        done = int(surface["evaluated"].values.sum())
        if not np.isfinite(surface["loss"].values).any():
            return
        draw = plot.surface3d if surface["loss"].ndim == 2 else plot.line
        figure = draw(preview(surface), title=self._title(surface, done))
        html = figure.to_html(include_plotlyjs=True, full_html=True)
        if "health" not in surface.attrs:
            again = f'<head><meta http-equiv="refresh" content="{_REFRESH}">'
            html = html.replace("<head>", again, 1)
        write_text(self._path, html)

    def _title(self, surface: xr.Dataset, done: int) -> str:
        total = surface["evaluated"].size
        if done == total or "health" in surface.attrs:
            return "Loss surface"
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done)
        began, first = self._began
        words = f"Preview: {done} of {total} points"
        if "tolerance" in surface.attrs:  # it is not known how many will be needed
            return words
        left = (total - done) * (now - began) / (done - first) if done > first else None
        return words if left is None else f"{words}, about {_duration(left)} left"


def preview(surface: xr.Dataset) -> xr.Dataset:
    """A copy in which points still to come have the loss of the nearest evaluated one (for display only)."""
    from scipy.spatial import cKDTree

    shown = surface.copy(deep=True)
    done = surface["evaluated"].values != 0
    known = np.argwhere(done)
    missing = np.argwhere(~done)
    if len(known) and len(missing):
        nearest = cKDTree(known).query(missing)[1]
        values = shown["loss"].values
        values[tuple(missing.T)] = values[tuple(known[nearest].T)]
    return shown


def _duration(seconds: float) -> str:
    """A time for people: ``"40 s"``, ``"12 min"``, ``"3.5 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
