"""Other tools behind the interface of ``tools.py``, each called as its README does; and what a point costs them.

    PEERS/bin/python benchmarks/peers.py cost PEER NET      # one JSON document; PEERS as in peers.txt

Nothing of theirs is copied or changed. Packages that they import but that draw no surface are stubbed
(:data:`STUBS`). Everything runs on the CPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import copy
import importlib
import json
import resource
import statistics
import sys
import tempfile
import time
import types
from typing import Any

import numpy as np
import torch
from tools import Array, Grid, Task, Tool, flat, joined, moved, quiet, record, shaped, state
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STUBS = {
    "landscaper": ("topopy", "nglpy", "gudhi", "coloraide", "drawsvg"),
    "pylandscape": ("brevitas", "brevitas.nn", "brevitas.nn.quant_layer"),
}
"""Topology and quantization, which the import of these packages asks for."""


class LossLandscapes(Tool):
    """loss-landscapes, marcellodebernardi: ``random_plane(model, metric)`` over one resident batch."""

    package = "loss-landscapes"
    filters = one_batch = True

    def _metric(self, task: Task) -> Any:
        from loss_landscapes.metrics import Loss

        return Loss(task.loss, *task.whole())

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """By ``planar_interpolation``; the comment in its source places sample ``i`` at ``i`` steps."""
        from loss_landscapes import planar_interpolation

        start = flat(task.model) - span * directions.sum(0)
        step = 2 * span / (points - 1)
        corners = [
            moved(task.model, start + points * step * row)
            for row in (0 * directions[0], *directions)
        ]
        values = planar_interpolation(*corners, self._metric(task), steps=points)
        axis = -span + step * np.arange(points)
        return Grid(values.T, axis, axis, labelled=False)

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """``span`` is its own ``distance``; it returns no positions."""
        from loss_landscapes import random_plane

        options = {"deepcopy_model": True} if careful else {}
        values = random_plane(
            task.model, self._metric(task), span, points, normalization="filter", **options
        )
        return Grid(values.T)

    def line(self, task: Task, points: int) -> Array:
        """From the model outwards."""
        from loss_landscapes import random_line

        values: Array = random_line(task.model, self._metric(task), 1, points)
        return values

    def between(self, task: Task, end: nn.Module, points: int) -> tuple[Array, Array]:
        """Its sample ``i`` lies ``i + 1`` steps from the start, which is not sampled itself."""
        from loss_landscapes import linear_interpolation

        values = linear_interpolation(task.model, end, self._metric(task), steps=points)
        return np.arange(1, points + 1) / points, values

    def directions(self, task: Task) -> Array:
        """Read off the weights at which it evaluates the first three points of a 2 by 2 plane."""
        task = Task(copy.deepcopy(task.model), task.data, task.loss)
        seen = record(task.model)
        self.drawn(task, 1, 2)
        second = seen[1] - seen[0]
        return np.stack([seen[2] - seen[1] + second, second])


class Landscaper(Tool):
    """landscaper, Vis4SciML: ``LossLandscape.compute(model, data, directions, function, ...)``."""

    package = "landscaper"
    orthogonal = one_batch = function = True

    def _compute(self, task: Task, rows: list[list[Tensor]], span: float, points: int) -> Any:
        from landscaper import LossLandscape

        def value(net: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
            return task.loss(net(batch[0]), batch[1]).item()

        options = {"steps": points, "distance": span, "dim": len(rows), "device": "cpu"}
        return LossLandscape.compute(task.model, task.whole(), rows, value, **options)

    def _grid(self, surface: Any, unit: tuple[float, float]) -> Grid:
        alpha, beta = surface.coords.T
        table = (alpha, beta, surface.loss.reshape(-1))
        return Grid(surface.loss.T, *surface.ranges, unit=unit, table=table)

    def _random(self, model: nn.Module, count: int) -> list[list[Tensor]]:
        from landscaper.utils import generate_random_orthogonal_directions

        rows: list[list[Tensor]] = generate_random_orthogonal_directions(model, n=count)
        return rows

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """Its unit is the norm of all parameters, along each direction."""
        rows = [shaped(task.model, row) for row in directions]
        size = np.linalg.norm(flat(task.model))
        one, two = (float(size / np.linalg.norm(row)) for row in directions)
        return self._grid(self._compute(task, rows, span, points), (one, two))

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """Along its own ``generate_random_orthogonal_directions``."""
        surface = self._compute(task, self._random(task.model, 2), span, points)
        return self._grid(surface, (1.0, 1.0))

    def line(self, task: Task, points: int) -> Array:
        """The same with ``dim=1``."""
        values: Array = self._compute(task, self._random(task.model, 1), 1.0, points).loss
        return values

    def directions(self, task: Task) -> Array:
        """As its function returns them."""
        return np.stack([joined(row) for row in self._random(task.model, 2)])


class LossLandscape3d(Tool):
    """loss-landscape-3d, ArnavAgarwal-Mr-AR: ``LossLandscapeCalculator(...).calculate(...)``."""

    package = "loss-landscape-3d"
    filters = loader = True

    def _calculate(self, task: Task, rows: Any, centre: Any, span: float, points: int) -> Grid:
        from loss_landscape_3d import LossLandscapeCalculator

        axis = np.linspace(-span, span, points)
        calculator = LossLandscapeCalculator(task.model, task.data, task.loss)
        values = calculator.calculate(axis, axis, *rows, center_state=centre)
        return Grid(values.T, axis, axis)

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """With a copy of the weights as ``center_state``."""
        names = [name for name, _ in task.model.named_parameters()]
        rows = [dict(zip(names, shaped(task.model, row), strict=True)) for row in directions]
        return self._calculate(task, rows, state(task.model), span, points)

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """Its README passes ``center_state=model.state_dict()``; ``careful`` passes a copy."""
        from loss_landscape_3d import generate_random_directions

        rows = generate_random_directions(task.model, normalize=True)
        centre = state(task.model) if careful else task.model.state_dict()
        return self._calculate(task, rows, centre, span, points)

    def between(self, task: Task, end: nn.Module, points: int) -> tuple[Array, Array]:
        """By ``calculate_1d_path`` from copies of both states."""
        from loss_landscape_3d import LossLandscapeCalculator

        place = np.linspace(0, 1, points)
        calculator = LossLandscapeCalculator(task.model, task.data, task.loss)
        return place, calculator.calculate_1d_path(place, state(task.model), state(end))

    def directions(self, task: Task) -> Array:
        """As its function returns them, the buffers left out."""
        from loss_landscape_3d import generate_random_directions

        rows = generate_random_directions(task.model, normalize=True)
        names = [name for name, _ in task.model.named_parameters()]
        return np.stack([joined(row[name] for name in names) for row in rows])


class Losscape(Tool):
    """losscape, alxndrTL: ``create_3D_losscape(model, loader, ...)``, which prints and writes a picture."""

    package = "losscape"
    filters = loader = True

    def _surface(self, task: Task, rows: Any, span: float, points: int) -> Grid:
        from losscape.create_landscape import create_3D_losscape

        with tempfile.TemporaryDirectory() as folder:
            x, y, values = create_3D_losscape(
                task.model, task.data, directions=rows, criterion=task.loss, num_batches=len(task.data),
                save_only=True, output_path=folder, output_h5=False,
                x_min=-span, x_max=span, y_min=-span, y_max=span, num_points=points,
            )  # fmt: skip
        table = (x.reshape(-1), y.reshape(-1), values.reshape(-1))
        return Grid(values, x[0], y[:, 0], table=table)

    def _line(self, task: Task, rows: Any, low: float, points: int) -> tuple[Array, Array]:
        from losscape.create_landscape import create_2D_losscape

        with tempfile.TemporaryDirectory() as folder:
            place, values = create_2D_losscape(
                task.model, task.data, direction=rows, criterion=task.loss, num_batches=len(task.data),
                save_only=True, output_path=folder, x_min=low, x_max=1.0, num_points=points,
            )  # fmt: skip
        return place, np.array(values)

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """With ``num_batches`` set to all of them (its default is 8)."""
        return self._surface(task, [shaped(task.model, row) for row in directions], span, points)

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """Along directions of its own."""
        return self._surface(task, None, span, points)

    def line(self, task: Task, points: int) -> Array:
        """By ``create_2D_losscape``."""
        return self._line(task, None, -1.0, points)[1]

    def between(self, task: Task, end: nn.Module, points: int) -> tuple[Array, Array]:
        """By ``create_2D_losscape`` along the difference of the two."""
        row = shaped(task.model, flat(end) - flat(task.model))
        return self._line(task, [row], 0.0, points)

    def directions(self, task: Task) -> Array:
        """As its function returns them."""
        from losscape.create_directions import create_random_directions

        return np.stack([joined(row) for row in create_random_directions(task.model)])


class PyLandscape(Tool):
    """pylandscape, balditommaso: ``Surface(model, criterion, loader).random_surface((low, high), steps)``."""

    package = "pylandscape"
    orthogonal = loader = True
    one_batch = True  # it evaluates the first batch of the loader only

    def given(self, task: Task, directions: Array, span: float, points: int) -> Grid:
        """By its public ``Surface.get_params``, which moves a model along given directions."""
        from pylandscape import Surface

        surface = Surface(task.model, task.loss, task.data)
        axis = np.linspace(-span, span, points)
        rows = [shaped(task.model, row) for row in directions]
        values = np.empty((points, points))
        for j, i in np.ndindex(points, points):
            net = Surface.get_params(task.model, rows, [axis[i], axis[j]])
            values[j, i] = task.loss(net(surface.inputs), surface.targets).item()
        return Grid(values, axis, axis)

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """Uniform directions, orthogonalized tensor by tensor, of unit norm.

        ``careful`` takes ``random_hyperplane``: the other one checks its own directions and, in float32 on a
        large net, often finds them not orthogonal and stops.
        """
        from pylandscape import Surface

        surface = Surface(task.model, task.loss, task.data)
        if careful:
            axis, values = surface.random_hyperplane((-span, span), points, n=2)
            return Grid(values.T, axis, axis)
        alpha, beta, values = surface.random_surface((-span, span), points)
        return Grid(values.T, alpha, beta)

    def line(self, task: Task, points: int) -> Array:
        """By ``random_line``."""
        from pylandscape import Surface

        surface = Surface(task.model, task.loss, task.data)
        values: Array = surface.random_line((-1.0, 1.0), points)[1]
        return values

    def directions(self, task: Task) -> Array:
        """What ``random_surface`` hands to its own loop."""
        return self._watched(task)

    def seeded(self, task: Task, seed: int) -> Array:
        """Its directions with ``Surface(seed=...)``."""
        return self._watched(task, seed=seed)

    def _watched(self, task: Task, **options: Any) -> Array:
        from pylandscape import Surface

        seen: list[Any] = []

        class Watched(Surface):  # type: ignore[misc]
            def _compute_hyperplane(self, v: Any, steps: Any) -> Any:
                seen.extend([t.clone() for t in row] for row in v)  # its loop overwrites the second
                return super()._compute_hyperplane(v, steps)

        Watched(task.model, task.loss, task.data, **options).random_surface((-1.0, 1.0), 2)
        return np.stack([joined(row) for row in seen])


class Reference(Tool):
    """The loop of tomgoldstein/loss-landscape, written from its conventions; for costs only.

    Its directions are here NumPy arrays in memory (it reads them from its file at every point), and the
    data a loader without workers (its default is two).
    """

    package = "reference"

    def drawn(self, task: Task, span: float, points: int, careful: bool = False) -> Grid:
        """Standard normal directions: how they are scaled does not change the cost."""
        generator = torch.Generator().manual_seed(123)
        weights = [p.data for p in task.model.parameters()]
        rows = [[torch.randn(w.shape, generator=generator).numpy() for w in weights] for _ in "xy"]
        axis = np.linspace(-span, span, points)
        values = np.empty((points, points))
        for j, i in np.ndindex(points, points):
            changes = [x * axis[i] + y * axis[j] for x, y in zip(*rows, strict=True)]
            for p, w, d in zip(task.model.parameters(), weights, changes, strict=True):
                p.data = w + torch.Tensor(d)
            values[j, i] = self._loss(task)
        for p, w in zip(task.model.parameters(), weights, strict=True):
            p.data = w
        return Grid(values, axis, axis)

    def _loss(self, task: Task) -> float:
        total, count, correct = 0.0, 0, 0
        task.model.eval()
        with torch.no_grad():
            for x, y in task.data:
                output = task.model(x)
                total += task.loss(output, y).item() * len(x)
                correct += output.argmax(1).eq(y).sum().item()
                count += len(x)
        return total / count


PEERS: dict[str, Tool] = {
    tool.package: tool
    for tool in (LossLandscapes(), Landscaper(), LossLandscape3d(), Losscape(), PyLandscape())
}
"""By the name to install."""


def prepare(name: str) -> None:
    """Stub what the import of a peer asks for and no surface needs, and draw without a screen.

    What is installed is not stubbed.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    for module in STUBS.get(name, ()):
        try:
            importlib.import_module(module)
        except ImportError:
            stub = types.ModuleType(module)
            stub.__path__ = []  # a package, so that what lies under it can be imported
            stub.__getattr__ = _empty_class  # type: ignore[method-assign]
            sys.modules[module] = stub


def _empty_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def cost(name: str, net: str, repeats: int = 5) -> dict[str, Any]:
    """Processor seconds of one grid point on one thread, start-up and drawing left out.

    A clock in the network's forward pass tells where points begin; of a 3x3 plane the time from the
    second point to the ninth counts. The data are in their natural form: one batch where the README
    keeps one, else a loader with batches of 128.
    """
    import nets

    torch.set_num_threads(1)
    prepare(name)
    tool = Reference() if name == "reference" else PEERS[name]
    model, x, y = nets.build(net)
    loader = DataLoader(TensorDataset(x, y), batch_size=len(x) if tool.one_batch else 128)
    data = [(x, y)] if tool.one_batch and name != "pylandscape" else loader
    ticks: list[float] = []
    model.register_forward_pre_hook(lambda *_: ticks.append(time.process_time()))
    seconds = []
    for _ in range(repeats):
        ticks.clear()
        with quiet():
            tool.drawn(Task(model, data, nn.functional.cross_entropy), 1.0, 3, careful=True)
        starts = ticks[:: len(data)]
        if len(starts) != 9:
            raise RuntimeError(f"{name}: {len(ticks)} forward passes, expected 9 x {len(data)}")
        seconds.append((starts[8] - starts[1]) / 7)
    return {
        "peer": name,
        "version": "none" if name == "reference" else tool.version,
        "net": net,
        "seconds_per_point": statistics.median(seconds),
        "all": seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(arguments: list[str]) -> None:
    match arguments:
        case ["cost", name, net] if name in (*PEERS, "reference"):
            print(json.dumps(cost(name, net)))
        case _:
            names = ", ".join((*PEERS, "reference"))
            raise SystemExit(f"usage: peers.py cost PEER NET, with PEER one of {names}")


if __name__ == "__main__":
    main(sys.argv[1:])
