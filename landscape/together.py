"""Where training went: the ways of several runs on one plane, over the one function that all are measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from torch import Tensor

from landscape.objective import Objective
from landscape.pca import pca_plane
from landscape.projection import project, window
from landscape.surface import evaluate
from landscape.trajectory import follow

Way = Sequence[tuple[int, Tensor]]
"""Checkpoints of one run: ``(step, theta)``."""


@dataclass(frozen=True)
class Together:
    """Ways of training over one plane.

    Attributes:
        surface: the loss over the plane through most of the checkpoints.
        paths: the way of each run, labelled (schema ``landscape.trajectory/1``).
    """

    surface: xr.Dataset
    paths: tuple[xr.Dataset, ...]


def together(
    objective: Objective,
    ways: Mapping[str, Way],
    stem: Path,
    *,
    points: int = 25,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Together:
    """The loss over the first two principal components of all checkpoints of all runs, and each run's way on it.

    The origin is the last checkpoint of the first run. All losses are those of ``objective``: this is a picture of
    one function, so runs that were trained on other losses (Sharp-MAML's, say) are seen on it too.

    Args:
        objective: the function.
        ways: label -> checkpoints, in the order of training; at least three in all.
        stem: beginning of the names of the files that keep it: ``STEM-together.nc``, ``STEM-together-LABEL.nc``.
        points: on each axis.
        seed: recorded; nothing is drawn.
        progress: called as ``progress(done, total, what)``.

    Raises:
        ValueError: too few checkpoints, one that does not fit, or files that hold something else.
    """
    (first, *others) = ways.items()
    # The last of all is the origin.
    thetas = [theta for _, way in (*others, first) for _, theta in way]
    plane = pca_plane(objective, thetas)
    surface = evaluate(
        objective,
        plane,
        window(project(plane, thetas).coordinates, points),
        points,
        out=f"{stem}-together.nc",
        label="all runs",
        executor="repeatable",  # a page made again shows the same digits
        progress=lambda done, total: progress(done, total, "where training went"),
    )
    paths = [
        follow(objective, way, plane, seed=seed, label=label, out=f"{stem}-together-{i}.nc")
        for i, (label, way) in enumerate(ways.items(), 1)
    ]
    return Together(surface, tuple(paths))
