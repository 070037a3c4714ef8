"""Properties that every right tool for loss surfaces has, tried on networks whose loss is a formula.

Each check returns a sentence where it passes and raises :class:`FailedError` where it does not.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import torch
from tools import Array, Grid, NotOfferedError, Task, Tool, quiet, record, shaped, state
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from truth_problems import Problem, problems, product, quadratic, root, short_batch

TOLERANCE = 1e-6  # of the range of the surface; everything is float64 where nothing else is said


class FailedError(Exception):
    """The check failed; the message says by how much."""


def demand(condition: bool, reason: str) -> str:
    """``reason`` where the condition holds, else the failure with it."""
    if not condition:
        raise FailedError(reason)
    return reason


def task_of(problem: Problem, batch_size: int | None = None) -> Task:
    """The problem as a tool gets it: a loader that is not shuffled, one batch unless the cut is the point."""
    data = TensorDataset(problem.x, problem.y)
    loader = DataLoader(data, batch_size=batch_size or len(problem.x))
    return Task(problem.model, loader, problem.criterion)


def image_task(dtype: torch.dtype = torch.float32, fresh: bool = False) -> Task:
    """A small net of convolution, batch norm and a linear layer; ``fresh`` has the zero shifts of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)]
        model = nn.Sequential(*layers)
        x, y = torch.randn(24, 2, 6, 6), torch.randint(3, (24,))
        if not fresh:
            nn.init.uniform_(layers[1].bias, 0.1, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(layers[1].running_var, 0.5, 1.5)  # type: ignore[arg-type]
        model.to(dtype)
        for name, parameter in model.named_parameters():  # float64 weights that float32 cannot hold
            if name != "1.bias":
                parameter.data += 1e-3 * torch.randn_like(parameter)
    loader = DataLoader(TensorDataset(x.to(dtype), y), batch_size=12)
    return Task(model.eval(), loader, nn.functional.cross_entropy)


def whole_loss(task: Task) -> float:
    """The mean loss over all examples at the task's model."""
    x, y = task.whole()
    with torch.no_grad():
        return float(task.loss(task.model(x), y))


def spread(values: Array) -> float:
    """The range of what is finite."""
    finite = values[np.isfinite(values)]
    return float(finite.max() - finite.min()) if finite.size else 0.0


def formula(problem: Problem) -> Callable[[Tool], str]:
    """Along given directions each value is the formula's at its labels."""

    def check(tool: Tool) -> str:
        grid = tool.given(task_of(problem), problem.directions, problem.span, 7)
        wrong, right = difference(grid, problem)
        if not np.array_equal(np.isnan(grid.loss), np.isnan(right)):
            counts = np.isnan(grid.loss).sum(), np.isnan(right).sum()
            raise FailedError(
                f"{counts[0]} of 49 values are NaN, {counts[1]} should be, or in other places"
            )
        return demand(wrong <= TOLERANCE, f"largest error {wrong:.1e} of the range")

    return check


def difference(grid: Grid, problem: Problem) -> tuple[float, Array]:
    """The largest error as a share of the range, and the surface that should have come out."""
    if grid.alpha is None or grid.beta is None:
        raise NotOfferedError("returns no positions")
    right = problem.grid(grid.alpha * grid.unit[0], grid.beta * grid.unit[1])
    return float(np.nanmax(np.abs(grid.loss - right))) / spread(right), right


def labels(points: int) -> Callable[[Tool], str]:
    """The labels returned are the positions at which the network was evaluated."""

    def check(tool: Tool) -> str:
        problem = quadratic()
        task = task_of(problem)
        seen = record(task.model)
        grid = tool.given(task, problem.directions, 1.0, points)
        if not grid.labelled:
            raise NotOfferedError("returns no positions")
        wrong, _ = difference(grid, problem)
        if wrong <= TOLERANCE:
            return "the values are those of the labels"
        places = np.linalg.lstsq(problem.directions.T, (np.array(seen) - problem.theta).T)[0]
        evaluated = np.unique(np.round(places[0] / grid.unit[0], 6)).tolist()
        labelled = np.round(np.asarray(grid.alpha), 6).tolist()
        raise FailedError(f"labelled {labelled}, evaluated at {evaluated}")

    return check


def parabola(values: Array) -> str:
    """Second differences of a quadratic are constant."""
    size = spread(values)
    demand(size > 0, "the surface is constant")
    worst = max(spread(np.diff(values, 2, axis=axis)) for axis in range(values.ndim))
    if values.ndim == 2:
        worst = max(worst, spread(np.diff(np.diff(values, axis=0), axis=1)))
    return demand(
        worst <= TOLERANCE * size, f"second differences vary by {worst / size:.1e} of the range"
    )


def drawn_parabola(tool: Tool) -> str:
    return parabola(tool.drawn(task_of(quadratic()), 1.0, 7).loss)


def line_parabola(tool: Tool) -> str:
    return parabola(tool.line(task_of(quadratic()), 7))


def centre(tool: Tool) -> str:
    task = task_of(quadratic())
    right = whole_loss(task)
    found = float(tool.drawn(task, 1.0, 7).loss[3, 3])
    return demand(
        abs(found - right) <= TOLERANCE * right, f"{found:.6g} where the loss is {right:.6g}"
    )


def orientation(tool: Tool) -> str:
    problem = quadratic()
    grid = tool.given(task_of(problem), problem.directions, 1.0, 7)
    if grid.table is None:
        raise NotOfferedError("does not list its points with their positions")
    alpha, beta, loss = grid.table
    one, two = grid.unit
    named = np.abs(problem.surface(alpha * one, beta * two) - loss).max() / spread(loss)
    swapped = np.abs(problem.surface(beta * one, alpha * two) - loss).max() / spread(loss)
    return demand(
        named < swapped,
        f"error {named:.1e} of the range as listed, {swapped:.1e} with the axes swapped",
    )


def barrier(tool: Tool) -> str:
    problem = product()
    end = copy.deepcopy(problem.model)
    with torch.no_grad():
        next(end.parameters()).fill_(-1.0)
    place, values = tool.between(task_of(problem), end, 4 if tool.one_batch else 5)
    right = ((1 - 2 * place) ** 2 - 1) ** 2
    wrong = float(np.abs(values - right).max())
    return demand(wrong <= TOLERANCE and 1 in right, f"largest error {wrong:.1e} at a barrier of 1")


def kept_nan(tool: Tool) -> str:
    problem = root()
    task = task_of(problem)
    seen = record(task.model)
    values = tool.given(task, problem.directions, problem.span, 9).loss
    beyond = int(np.isnan(problem.grid(*[np.linspace(-2, 2, 9)] * 2)).sum())
    if seen and len(seen) % values.size == 0:  # where this tool really went
        beyond = sum(theta[0] < 0 for theta in seen[:: len(seen) // values.size])
    found = int(np.isnan(values).sum())
    return demand(found == beyond > 0, f"{found} values are NaN where {beyond} evaluations were")


def short(tool: Tool) -> str:
    if not tool.loader:
        raise NotOfferedError("takes one batch, or a function of the user's")
    problem = short_batch()
    task = task_of(problem, problem.batch_size)
    right = whole_loss(task)
    found = float(tool.drawn(task, 1.0, 3, careful=True).loss[1, 1])
    return demand(
        abs(found - right) <= TOLERANCE * right, f"{found:.6g} where the mean is {right:.6g}"
    )


def unmoved(tool: Tool) -> str:
    for dtype in (torch.float32, torch.float64):
        task = image_task(dtype)
        before = state(task.model)
        tool.drawn(task, 1.0, 3)
        changes = [
            float((value.double() - before[name].double()).abs().max())
            for name, value in task.model.state_dict().items()
        ]
        demand(max(changes) == 0, f"{str(dtype)[6:]} weights changed by up to {max(changes):.1e}")
    return "every bit the same, float32 and float64"


def same_mode(tool: Tool) -> str:
    task = image_task()
    task.model.train()
    tool.drawn(task, 1.0, 3)
    demand(task.model.training, "a model in train mode is left in eval mode")
    wanted = all(p.requires_grad for p in task.model.parameters())
    return demand(wanted, "requires_grad as before" if wanted else "requires_grad is left off")


def same_statistics(tool: Tool) -> str:
    if tool.function:
        raise NotOfferedError("the user's function evaluates the model")
    task = image_task()
    task.model.train()
    before = [b.clone() for b in task.model.buffers()]
    tool.drawn(task, 1.0, 3)
    moved = max(
        float((a - b).abs().max()) for a, b in zip(before, task.model.buffers(), strict=True)
    )
    return demand(moved == 0, f"running statistics and counters changed by up to {moved:.2g}")


def finite(tool: Tool) -> str:
    values = tool.drawn(image_task(), 1.0, 9, careful=True).loss
    bad = int((~np.isfinite(values)).sum())
    return demand(bad == 0, f"{bad} of {values.size} values are not finite")


def fresh(tool: Tool) -> str:
    values = tool.drawn(image_task(fresh=True), 1.0, 3, careful=True).loss
    return demand(values.shape == (3, 3), "draws it")


def repeats(tool: Tool) -> str:
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  what the tools draw from
        random.seed(0)
        results.append(tool.drawn(image_task(), 1.0, 3, careful=True).loss)
    return demand(
        np.array_equal(*results, equal_nan=True), "two runs, every global generator seeded"
    )


def own_seed(tool: Tool) -> str:
    one, two, other = (tool.seeded(image_task(), seed) for seed in (1, 1, 2))
    demand(np.array_equal(one, two), "two runs with one seed differ")
    return demand(not np.array_equal(one, other), "one seed, one draw; another seed, another")


def right_angle(tool: Tool) -> str:
    if not tool.orthogonal:
        raise NotOfferedError("does not claim it")
    cosines = []
    for seed in range(5):
        torch.manual_seed(seed)
        one, two = tool.directions(image_task())
        cosines.append(abs(one @ two) / np.linalg.norm(one) / np.linalg.norm(two))
    return demand(
        max(cosines) < 1e-2, f"|cos| from {min(cosines):.2g} to {max(cosines):.2g} over five draws"
    )


def filters(tool: Tool) -> str:
    if not tool.filters:
        raise NotOfferedError("does not claim it")
    task = image_task()
    (row, _) = tool.directions(task)
    ratios: list[float] = []
    for d, w in zip(shaped(task.model, row), task.model.parameters(), strict=True):
        if w.dim() > 1:
            ratios += (norms(d) / norms(w.detach())).tolist()
    ratio = max(ratios) / min(ratios)
    return demand(ratio < 1.01, f"||d|| / ||w|| of the filters: largest over smallest {ratio:.3g}")


def norms(weights: Tensor) -> Tensor:
    """One norm an output channel or neuron."""
    return weights.flatten(1).norm(dim=1)


CHECKS: dict[str, Callable[[Tool], str]] = {
    **{
        f"Given directions: {p.name}": formula(p)
        for p in problems()
        if p.name != "short last batch"
    },
    "Labels are the positions evaluated, 5 points": labels(5),
    "Labels are the positions evaluated, 6 points": labels(6),
    "The axes are not swapped in its own list of points": orientation,
    "Its random plane of a quadratic is a quadratic": drawn_parabola,
    "Its random line of a quadratic is a parabola": line_parabola,
    "The centre of its plane is the model": centre,
    "The barrier between two minima": barrier,
    "NaN stays NaN": kept_nan,
    "A short last batch weighs by its size": short,
    "Weights and buffers unmoved": unmoved,
    "Mode and requires_grad unmoved": same_mode,
    "Statistics of a model in train mode unmoved": same_statistics,
    "A net with batch norm: all values finite": finite,
    "A fresh net with batch norm can be drawn": fresh,
    "Same global seeds, same numbers": repeats,
    "Its seed argument fixes the draw": own_seed,
    "Orthogonal directions, where claimed": right_angle,
    "Filter-normalized directions, where claimed": filters,
}
"""What is checked, in the order of the table."""


def run(tool: Tool) -> dict[str, tuple[str, str]]:
    """Each check's outcome (``pass``, ``fail`` or ``not offered``) and its reason."""
    results = {}
    for title, check in CHECKS.items():
        torch.manual_seed(0)
        try:
            with quiet():
                outcome = "pass", check(tool)
        except NotOfferedError as reason:
            outcome = "not offered", str(reason)
        except FailedError as reason:
            outcome = "fail", str(reason)
        except Exception as error:  # whatever a tool may raise
            outcome = "fail", f"{type(error).__name__}: {str(error).splitlines()[0]}"
        results[title] = outcome
    return results
