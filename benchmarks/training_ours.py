"""Our meta-updates by method and executor; a process that ``training.py`` talks to.

    python benchmarks/training_ours.py
    python benchmarks/training_ours.py training PROBLEM DEVICE

A candidate is ``METHOD/EXECUTOR``, as ``maml/loop`` or ``low, detach/auto``. The second form runs the training loop
itself, episodes, log and all, and prints what a meta-update of it costs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from training_problem import ADAM, PROBLEMS, Batch, Given, Learner, clock, serve

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.adaptable import adapted_mask
from sharpmaml.ascent import UpperAscent
from sharpmaml.data import Episode
from sharpmaml.execution.choice import choose
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Upper
from sharpmaml.plan import Plan
from sharpmaml.tasks import NetworkTasks
from sharpmaml.trainer.optimizer import Adam

RADIUS = 0.05
EVERY = 5  # meta-updates, where the upper ascent is taken at some of them
Settings = dict[str, Any]
METHODS: dict[str, tuple[Settings, float, Settings]] = {
    "maml": ({}, 0.0, {}),
    "fomaml": ({"first_order": True}, 0.0, {}),
    "low, detach": ({"lower": RADIUS}, 0.0, {}),
    "low, through": ({"lower": RADIUS, "eps_grad": "through"}, 0.0, {}),
    "up": ({}, RADIUS, {}),
    "both, detach": ({"lower": RADIUS}, RADIUS, {}),
    "both, through": ({"lower": RADIUS, "eps_grad": "through"}, RADIUS, {}),
    "up, ascent by momentum": ({}, RADIUS, {"gradient": "momentum"}),
    "up, ascent of first order": ({}, RADIUS, {"gradient": "first-order"}),
    "up, ascent at every 5th": ({}, RADIUS, {"every": EVERY}),
    "up, ascent at every 5th, reused": ({}, RADIUS, {"every": EVERY, "reuse": 0.5}),
    "up, ascent of the head": ({}, RADIUS, {"part": "head"}),
}
"""Inner loop, upper radius and the settings of the upper ascent."""


class Ours(Learner):
    """As the training loop: an upper ascent of an executor's passes, and Adam on the flat parameters."""

    def __init__(self, candidate: str, given: Given) -> None:
        method, _, executor = candidate.partition("/")
        problem = given.problem
        inner, radius, ascent = METHODS[method]
        self.kind = "classification" if problem.channels else "regression"
        arguments: Settings = {"ways": problem.ways, "channels": problem.channels}
        model = models.build(*(("conv4", arguments) if problem.channels else ("mlp", {})))
        self.model = model.to(given.theta)
        self.space = ParameterSpace.from_module(self.model)
        self.theta = given.theta.clone().requires_grad_()
        self.plan = Plan(InnerLoop(problem.steps, problem.rate, **inner))
        self.period = EVERY if "every" in ascent else 1
        if "part" in ascent:
            ascent = {**ascent, "part": adapted_mask(self.space, ascent["part"])}
        self.ascent = UpperAscent(Upper(radius), **ascent)
        self.iteration = 0
        chosen = choose(executor, self._tasks(given.batches[0]), given.theta, self.plan)
        self.executor = chosen.executor
        self.note = f"{chosen.name}: {chosen.reason}" if executor == "auto" else ""
        super().__init__([self.theta])
        self.adam = Adam([self.theta.detach()])  # the training loop's own; same numbers

    def meta_gradient(self, batch: Batch) -> None:
        """From the episodes as they come: what an executor prepares of them is in the time."""
        theta = self.theta.detach()
        tasks = self._tasks(batch)
        self.theta.grad = self.ascent(
            tasks, theta, self.plan, self.executor, self.iteration
        ).gradient
        self.iteration += 1

    def update(self, batch: Batch) -> None:
        """One meta-update, by Adam."""
        self.meta_gradient(batch)
        assert self.theta.grad is not None
        self.adam.step([self.theta.grad], ADAM)

    def _tasks(self, batch: Batch) -> NetworkTasks:
        return NetworkTasks.of_stack(self.model, self.space, Episode(*batch), self.kind)


def training(name: str, device: str, updates: int = 0) -> dict[str, Any]:
    """Seconds of a meta-update of ``sharpmaml train``: the median over a short run, validation left out."""
    from sharpmaml.config import TrainConfig
    from sharpmaml.training import train

    torch.set_num_threads(1)
    problem = PROBLEMS[name]
    count = updates or (200 if not problem.channels else 4 if problem.slow else 16)
    config = TrainConfig(
        data=problem.data, ways=problem.ways, shots=problem.shots, queries=problem.queries,
        iterations=count, meta_batch=problem.tasks, inner_steps=problem.steps, inner_rate=problem.rate,
        channels=problem.channels or None, validate_every=count, validation_episodes=1,
        checkpoint_every=count, device=device,
    )  # fmt: skip
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", progress=lambda _: ticks.append(clock(device)))
    seconds = [after - before for before, after in itertools.pairwise(ticks[:-1])]
    return {"seconds": statistics.median(seconds), "updates": count}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    match sys.argv[1:]:
        case []:
            serve(Ours, {"torch": torch.__version__}, answers)
        case ["training", name, device] if name in PROBLEMS:
            print(json.dumps(training(name, device)), file=answers)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
