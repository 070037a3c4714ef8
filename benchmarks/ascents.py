"""What every reading of Sharp-MAML, every cheap ascent and every method costs, in meta-updates of MAML.

    python benchmarks/ascents.py --steps 1 5

CPU seconds of this process on one thread. Candidates are interleaved; each is divided by MAML in the same
round, and the median over rounds is printed with the lowest and highest; Markdown on standard output. A
form that climbs only now and then is measured over its whole cycle. Costs are of meta-gradients: the
optimizer's own step is the same for all.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.adaptable import initial_rates
from sharpmaml.config import TrainConfig
from sharpmaml.data import make_source
from sharpmaml.execution.loop import Loop
from sharpmaml.plan import Executor, Plan
from sharpmaml.plans import ascent_of, plan_of
from sharpmaml.tasks import NetworkTasks

UP, BOTH = {"method": "sharp-up"}, {"method": "sharp-both"}
READINGS: dict[str, dict[str, Any]] = {
    "MAML": {},
    "low, detach": {"method": "sharp-low"},
    "low, through": {"method": "sharp-low", "eps_grad": "through"},
    "up": UP,
    "up, asam": {**UP, "perturbation": "asam"},
    "both, detach, reuse (paper)": {**BOTH, "eps_m": "reuse"},
    "both, detach, recompute": BOTH,
    "both, through, recompute (released code)": {**BOTH, "eps_grad": "through"},
}
CHEAP: dict[str, dict[str, Any]] = {
    "up, first-order ascent": {**UP, "ascent_gradient": "first-order"},
    "up, along the momentum": {**UP, "ascent_gradient": "momentum"},
    "up, every 5th": {**UP, "ascent_every": 5},
    "up, every 10th": {**UP, "ascent_every": 10},
    "up, every 10th, reuse 0.7 (LookSAM)": {**UP, "ascent_every": 10, "ascent_reuse": 0.7},
    "up, first-order ascent, every 5th": {
        **UP,
        "ascent_gradient": "first-order",
        "ascent_every": 5,
    },
    "up, head only": {**UP, "ascent_part": "head"},
    "both, first-order ascent, reuse": {
        **BOTH,
        "ascent_gradient": "first-order",
        "eps_m": "reuse",
    },
    "both, along the momentum": {**BOTH, "ascent_gradient": "momentum"},
}
METHODS: dict[str, dict[str, Any]] = {
    "FOMAML": {"method": "fomaml"},
    "ANIL (head)": {"method": "anil"},
    "BOIL (body)": {"adapted": "body"},
    "norm layers not adapted": {"adapt_norm_affine": False},
    "Meta-SGD": {"method": "meta-sgd"},
    "MAML++, first meta-update": {"method": "maml++"},
    "Reptile": {"method": "reptile"},
    "iMAML, 5 solver steps": {"method": "imaml"},
}


@dataclass
class Candidate:
    """One way to train, ready to make its next meta-updates."""

    config: TrainConfig
    batch: NetworkTasks
    theta: Tensor
    executor: str
    iteration: int = 0
    passes: int = 0

    def __post_init__(self) -> None:
        space, config = self.batch.space, self.config
        self.ascent = ascent_of(config, space)
        self.rates = initial_rates(
            space, config.chosen("rates"), config.inner_steps, config.inner_rate, self.theta.dtype
        )
        self.run = executor_of(self.executor, self.batch, self.theta, self.plan())

    def plan(self) -> Plan:
        """Of the next meta-update."""
        return plan_of(self.config, self.batch.space, self.rates, self.iteration, "cpu")

    def seconds(self) -> float:
        """Of one meta-update, the mean over a cycle."""
        cycle = self.config.ascent_every
        began = time.process_time()
        for _ in range(cycle):
            result = self.ascent(self.batch, self.theta, self.plan(), self.run, self.iteration)
            self.iteration += 1
            self.passes += result.passes
        return (time.process_time() - began) / cycle


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    source = make_source("strokes", ways=5, shots=1, queries=given.queries)
    size = {"ways": 5, "channels": given.channels, "downsample": given.downsample}
    model = models.build("conv4", size)
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))
    episodes = tuple(source.episode(i) for i in range(given.tasks))
    batch = NetworkTasks(model, space, episodes, source.kind)
    print(
        f"conv4 ({given.downsample}, {given.channels} channels, {space.size} parameters), 5-way 1-shot, "
        f"{given.queries} queries a class, {given.tasks} tasks, float32, executor {given.executor}, one "
        f"thread, torch {torch.__version__}, {platform.machine()}; {given.rounds} rounds."
    )
    for steps in given.steps:
        print(f"\n### {steps} inner step{'s' * (steps > 1)}\n")
        for title, settings in (("reading", READINGS), ("ascent", CHEAP), ("method", METHODS)):
            made = {
                name: Candidate(
                    TrainConfig.from_dict({"inner_steps": steps, **each}), batch, theta, given.executor
                )
                for name, each in {"MAML": {}, **settings}.items()
            }  # fmt: skip
            print("\n".join(rows(title, made, given.rounds)), flush=True)
            print()


def rows(title: str, made: dict[str, Candidate], rounds: int) -> Iterator[str]:
    """A table of costs relative to the candidate ``MAML``."""
    for candidate in made.values():
        candidate.seconds()  # the first cycle warms up
        candidate.iteration = candidate.passes = 0
    ratios: dict[str, list[float]] = {name: [] for name in made}
    seconds = []
    for number in range(rounds):
        # MAML before and after the others: a change of the machine's pace shows in both.
        others = list(made)[1:]
        before = made["MAML"].seconds()
        found = {name: made[name].seconds() for name in others[:: 1 if number % 2 else -1]}
        after = made["MAML"].seconds()
        seconds += [before, after]
        unit = (before + after) / 2
        ratios["MAML"] += [before / unit, after / unit]
        for name, value in found.items():
            ratios[name].append(value / unit)
    yield f"| {title} | in meta-updates of MAML | lowest to highest | passes |"
    yield "| --- | ---: | --- | ---: |"
    for name, values in ratios.items():
        passes = made[name].passes / made[name].iteration
        spread = f"{min(values):.2f} to {max(values):.2f}"
        yield f"| {name} | {statistics.median(values):.2f} | {spread} | {passes:.3g} |"
    yield f"\nMAML: {statistics.median(seconds):.3f} s."


def executor_of(name: str, sample: NetworkTasks, theta: Tensor, plan: Plan) -> Executor:
    """The executor of that name, as training would choose it for this plan."""
    if name == "loop":
        return Loop()
    from sharpmaml.execution.choice import choose

    chosen: Executor = choose(name, sample, theta, plan).executor
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5], help="inner steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--downsample", choices=("max", "stride"), default="stride")
    parser.add_argument("--executor", default="loop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
