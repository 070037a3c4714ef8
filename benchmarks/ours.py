"""Our own tool behind the interface of ``tools.py``, so that it goes through the same checks as the others."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from tools import Array, Grid, Task, Tool, flat
from torch import nn

import landscape


class Landscape(Tool):
    """``landscape.evaluate(objective, plane)``."""

    package = "sharp-landscape"
    filters = loader = True

    def _objective(self, task: Task) -> landscape.DataObjective:
        return landscape.DataObjective(task.model, task.data, loss=task.loss)

    def _grid(self, surface: xr.Dataset) -> Grid:
        points = surface["loss"].stack(point=("beta", "alpha"))
        table = points["alpha"].values, points["beta"].values, points.values
        axes = surface["alpha"].values, surface["beta"].values
        return Grid(surface["loss"].values, *axes, table=table)

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """By a ``Plane`` of them."""
        objective = self._objective(task)
        plane = landscape.Plane(objective.theta, torch.from_numpy(directions).to(objective.theta))
        return self._grid(landscape.evaluate(objective, plane, span=span, points=points))

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """By ``random_plane``, filter-normalized."""
        objective = self._objective(task)
        plane = landscape.random_plane(objective)
        return self._grid(landscape.evaluate(objective, plane, span=span, points=points))

    def line(self, task: Task, points: int) -> Array:
        """By ``random_plane(axes=1)``."""
        objective = self._objective(task)
        plane = landscape.random_plane(objective, axes=1)
        return np.asarray(landscape.evaluate(objective, plane, points=points)["loss"].values)

    def between(self, task: Task, end: nn.Module, points: int) -> tuple[Array, Array]:
        """By ``interpolation``."""
        objective = self._objective(task)
        plane = landscape.interpolation(objective, objective.theta, torch.from_numpy(flat(end)))
        surface = landscape.evaluate(objective, plane, span=(0.0, 1.0), points=points)
        return surface["alpha"].values, surface["loss"].values

    def directions(self, task: Task) -> Array:
        """The basis of ``random_plane``."""
        return landscape.random_plane(self._objective(task)).basis.numpy()

    def seeded(self, task: Task, seed: int) -> Array:
        """``random_plane(seed=...)``."""
        return landscape.random_plane(self._objective(task), seed=seed).basis.numpy()
