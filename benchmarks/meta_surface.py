"""Cost of a surface of the meta objective: every evaluator against the plain loop over points and tasks.

    python benchmarks/meta_surface.py --data-root DIR [--checkpoint RUN] [--points 25] [--tasks 32]

Omniglot, 5-way 1-shot with 15 queries, conv4 with 32 channels; strokes where no data are given. CPU
seconds of this process on one thread, median of five rounds with the candidates interleaved, and the
whole grid end to end for the fastest; Markdown on standard output.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from landscape.directions import random_plane
from landscape.space import ParameterSpace
from sharpmaml import checkpoint, models
from sharpmaml.data import TaskSource, make_source
from sharpmaml.inner import InnerLoop
from sharpmaml.objective import MetaObjective
from sharpmaml.tasks import NetworkTasks

ROUNDS = 5
WAYS, SHOTS, QUERIES, RATE = 5, 1, 15, 0.4
SETTINGS = (("max", 3), ("max", 1), ("stride", 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", help="folder or file of Omniglot; strokes without it")
    parser.add_argument("--checkpoint", help="run or checkpoint whose weights are the origin")
    parser.add_argument("--points", type=int, default=25, help="of the grid, on each axis")
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--no-grid", action="store_true", help="leave out the whole grids")
    given = parser.parse_args()
    torch.set_num_threads(1)
    name = "omniglot" if given.data_root else "strokes"
    source = make_source(
        name, ways=WAYS, shots=SHOTS, queries=QUERIES, split="test", root=given.data_root
    )
    print(
        f"{name}, {WAYS}-way {SHOTS}-shot, {QUERIES} queries, {given.tasks} tasks, conv4 of 32 channels, float32,\n"
        f"1 thread, torch {torch.__version__}, {platform.machine()}; median of {ROUNDS}.\n"
    )
    found = checkpoint.read(given.checkpoint) if given.checkpoint else None
    for downsample, steps in SETTINGS:
        theta = None
        if found and found.meta["model"]["arguments"].get("downsample", "max") == downsample:
            theta = found.theta
        objective = meta(source, downsample, steps, given.tasks, theta)
        where = "at initialization" if theta is None else f"at {given.checkpoint}"
        print(f"### {downsample}, {steps} inner steps, {where}\n")
        report(objective, given.points, not given.no_grid)


def meta(
    source: TaskSource, downsample: str, steps: int, tasks: int, theta: torch.Tensor | None
) -> MetaObjective:
    model = models.build("conv4", {"ways": WAYS, "downsample": downsample})
    space = ParameterSpace.from_module(model)
    if theta is None:
        theta = space.flatten(dict(model.named_parameters()))
    network = NetworkTasks(
        model, space, tuple(source.episode(i) for i in range(tasks)), source.kind
    )
    return MetaObjective(network.tasks(), theta, space, InnerLoop(steps, RATE), {}, network)


def report(objective: MetaObjective, points: int, whole: bool) -> None:
    plane = random_plane(objective, seed=0)
    axis = np.linspace(-1, 1, points)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    chosen = grid[:: max(1, len(grid) // ROUNDS)][: ROUNDS + 1]
    evaluators = {name: build() for name, build in objective.evaluators(plane).items()}
    candidates: dict[str, Callable[[np.ndarray], object]] = {
        "metrics(theta)": lambda place: objective.metrics(plane.point(*place[0])),
        **evaluators,
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for place in chosen:
        for name, run in candidates.items():
            seconds[name].append(spent(lambda run=run, place=place: run(place[None])))
    base = statistics.median(seconds["metrics(theta)"][1:])  # the first round warms up
    print("| evaluator | CPU seconds a point | ratio | lowest to highest | setup |")
    print("| --- | ---: | ---: | --- | ---: |")
    medians = {}
    for name, values in seconds.items():
        medians[name] = statistics.median(values[1:])
        ratios = sorted(
            b / v for v, b in zip(values[1:], seconds["metrics(theta)"][1:], strict=True)
        )
        setup = evaluators[name].setup_seconds if name in evaluators else 0.0
        print(
            f"| {name} | {medians[name]:.3f} | {base / medians[name]:.2f} "
            f"| {ratios[0]:.2f} to {ratios[-1]:.2f} | {setup:.2f} s |"
        )
    fastest = min(evaluators, key=lambda name: medians[name])
    if whole:
        build = objective.evaluators(plane)[fastest]
        total = spent(lambda: build()(grid))
        print(
            f"\nThe whole {points}x{points} grid with {fastest}, preparations included: {total:.0f} CPU seconds;"
            f" {base * len(grid):.0f} by the plain loop's cost of a point: {base * len(grid) / total:.2f} times."
        )
    print(flush=True)


def spent(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
