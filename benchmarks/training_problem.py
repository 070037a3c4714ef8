"""The problems of ``training.py``, and the process that one environment's candidates run in: torch and NumPy only.

A server of this kind answers one question a line, both ways as JSON: what a meta-update costs in its own
process, or where a meta-gradient was written. That keeps everything warm while candidates of two environments
take turns. The networks here are those of the peers' own examples; ours have the same parameters in the
same order, so a flat vector of weights fits all.
"""

from __future__ import annotations

import gc
import json
import math
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch
from torch import Tensor, nn

ADAM = 1e-3
CHECKED = 2  # tasks whose meta-gradients are compared, where they are images


@dataclass(frozen=True)
class Problem:
    """A meta-batch.

    Attributes:
        title: for people.
        data: of `sharpmaml.data.make_source`.
        tasks: in a meta-batch.
        steps: in the inner loop, of the given rate.
        channels: of the four convolutions; 0 is the regression network 1-40-40-1.
        slow: whether a meta-update takes seconds.
    """

    title: str
    data: str = "strokes"
    ways: int = 5
    shots: int = 1
    queries: int = 15
    tasks: int = 4
    steps: int = 5
    rate: float = 0.4
    channels: int = 32
    slow: bool = False


PROBLEMS = {
    "conv4-32x4": Problem("Conv4-32, 5-way 1-shot, meta-batch 4"),
    "conv4-64x4": Problem("Conv4-64, 5-way 1-shot, meta-batch 4", channels=64),
    "20way-x2": Problem("Conv4-32, 20-way 1-shot, meta-batch 2", ways=20, tasks=2),
    "conv4-32x32": Problem("Conv4-32, 5-way 1-shot, meta-batch 32", tasks=32, slow=True),
    "conv4-64x32": Problem(
        "Conv4-64, 5-way 1-shot, meta-batch 32", channels=64, tasks=32, slow=True
    ),
    "sinusoid": Problem(
        "Sinusoid, MLP 1-40-40-1, 10-shot, 25 tasks, 1 step",
        data="sinusoid", ways=1, shots=10, queries=10, tasks=25, steps=1, rate=0.01, channels=0,
    ),
}  # fmt: skip


class Batch(NamedTuple):
    """Episodes, the tasks as the first axis."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def first(self, count: int) -> Batch:
        """The first tasks."""
        return Batch(*(column[:count] for column in self))


class Given(NamedTuple):
    """A problem as it is handed to every candidate: the same weights and episodes."""

    problem: Problem
    theta: Tensor
    batches: list[Batch]


class Learner:
    """A candidate on one problem: subclasses leave the mean meta-gradient in the ``grad`` of the parameters.

    ``period`` is the number of meta-updates after which the costs repeat.
    """

    period = 1

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.optimizer = torch.optim.Adam(parameters, lr=ADAM)

    def meta_gradient(self, batch: Batch) -> None:
        """Of the mean over the tasks of ``batch``, at the weights as they are."""
        raise NotImplementedError

    def update(self, batch: Batch) -> None:
        """One meta-update, by Adam."""
        self.optimizer.zero_grad()
        self.meta_gradient(batch)
        self.optimizer.step()

    def flat_gradient(self, batch: Batch) -> Tensor:
        """The meta-gradient as one vector."""
        self.optimizer.zero_grad()
        self.meta_gradient(batch)
        return torch.cat([p.grad.reshape(-1) for p in self.parameters if p.grad is not None])


Make = Callable[[str, Given], Learner]


def network(problem: Problem) -> nn.Module:
    """As the peers' examples write it, with torch's own batch normalization; convolutions without bias.

    A bias before a batch normalization has no effect, and ours has none.
    """
    if not problem.channels:
        sizes = [(1, 40), (40, 40)]
        body = [part for size in sizes for part in (nn.Linear(*size), nn.ReLU())]
        return nn.Sequential(*body, nn.Linear(40, 1))
    blocks: list[nn.Module] = []
    for at in range(4):
        blocks += [
            nn.Conv2d(1 if at == 0 else problem.channels, problem.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(problem.channels, track_running_stats=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]  # fmt: skip
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(problem.channels, problem.ways))


def loss(problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    """Of network output and target."""
    return nn.functional.cross_entropy if problem.channels else nn.functional.mse_loss


def weighted(problem: Problem, theta: Tensor) -> nn.Module:
    """The network with the given weights."""
    model = network(problem).to(theta)
    nn.utils.vector_to_parameters(theta, model.parameters())
    return model


def load(folder: str, name: str, dtype: str, device: str) -> Given:
    """What ``training.py`` wrote for a problem."""
    with np.load(Path(folder) / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}

    def moved(value: Tensor) -> Tensor:
        return value.to(device, getattr(torch, dtype) if value.is_floating_point() else None)

    columns = [moved(arrays[field]) for field in Batch._fields]
    batches = [Batch(*parts) for parts in zip(*columns, strict=True)]
    return Given(PROBLEMS[name], moved(arrays["theta"]), batches)


def clock(device: str) -> float:
    """Seconds: of the processor, or by the wall when everything queued on the GPU is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(learner: Learner, given: Given, device: str, least: float) -> dict[str, Any]:
    """Seconds of a meta-update, over at least ``least`` seconds of them, after one that warms up."""
    began = clock(device)
    learner.update(given.batches[0])
    first = clock(device) - began
    again = math.ceil(least / max(first, 1e-5))
    calls = learner.period * min(max(1, math.ceil(again / learner.period)), 400)
    began = clock(device)
    for call in range(calls):
        # Other episodes every time: nothing may be kept from one meta-update to the next.
        learner.update(given.batches[call % len(given.batches)])
    return {"seconds": (clock(device) - began) / calls, "calls": calls}


def paired(
    learner: Learner, base: Learner, given: Given, device: str, least: float
) -> dict[str, Any]:
    """Seconds of a meta-update of two candidates that take turns call by call: for their ratio."""
    began = clock(device)
    learner.update(given.batches[0])
    first = clock(device) - began
    calls = learner.period * min(max(1, math.ceil(least / max(first, 1e-5) / learner.period)), 400)
    base.update(given.batches[0])
    spent = {"base": 0.0, "seconds": 0.0}
    for call in range(calls):
        batch = given.batches[call % len(given.batches)]
        for key, one in (("base", base), ("seconds", learner)):
            began = clock(device)
            one.update(batch)
            spent[key] += clock(device) - began
    return {key: value / calls for key, value in spent.items()}


def peak(make: Make, candidate: str, given: Given, device: str) -> dict[str, float]:
    """MiB that two meta-updates take beyond weights, data and libraries, in a process of its own."""
    if device != "cpu":
        learner = make(candidate, given)
        learner.update(given.batches[0])
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        learner.update(given.batches[-1])
        torch.cuda.synchronize(device)
        return {"mib": (torch.cuda.max_memory_allocated(device) - before) / 2**20}
    one = Batch(*(column[:1, :1] for column in given.batches[0]))
    model = weighted(given.problem, given.theta)
    with torch.no_grad():
        model(one.support_x[0])  # kernels are loaded before the count begins
    learner = make(candidate, given)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for batch in given.batches[:2]:
        learner.update(batch)
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def serve(make: Make, versions: Mapping[str, str], answers: TextIO) -> None:
    """Answer the questions on standard input, one a line, until it ends."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # as in our training: the same arithmetic for all
    print(json.dumps({"versions": dict(versions)}), file=answers, flush=True)
    known: dict[str, tuple[Given, dict[str, Learner]]] = {}
    for line in sys.stdin:
        try:
            answer = _answered(make, json.loads(line), known)
        except Exception as error:  # a candidate that fails is a row, not the end of the run
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


def _answered(
    make: Make, asked: Mapping[str, Any], known: dict[str, tuple[Given, dict[str, Learner]]]
) -> dict[str, Any]:
    name, device = asked["problem"], asked["device"]
    if asked["what"] == "gradient":
        given = load(asked["folder"], name, "float64", device)
        checked = (
            given.batches[0] if not given.problem.channels else given.batches[0].first(CHECKED)
        )
        learner = make(asked["candidate"], given._replace(batches=[checked]))
        np.save(asked["out"], learner.flat_gradient(checked).detach().cpu().numpy())
        return {}
    key = f"{name} {asked.get('steps')}"
    if key not in known:
        known.clear()
        given = load(asked["folder"], name, "float32", device)
        if asked.get("steps"):
            given = given._replace(problem=_with_steps(given.problem, asked["steps"]))
        known[key] = (given, {})
    given, learners = known[key]
    if asked["what"] == "memory":
        return peak(make, asked["candidate"], given, device)
    if asked["what"] == "pair":
        pair = [learners.setdefault(n, make(n, given)) for n in (asked["candidate"], asked["base"])]
        return paired(pair[0], pair[1], given, device, asked["least"])
    began = clock(device)
    fresh = asked["candidate"] not in learners
    if fresh:
        learners[asked["candidate"]] = make(asked["candidate"], given)
        learners[asked["candidate"]].update(given.batches[0])
    start = clock(device) - began
    found = timed(learners[asked["candidate"]], given, device, asked["least"])
    note = getattr(learners[asked["candidate"]], "note", "")
    return {**found, "start": start if fresh else 0.0, "note": note}


def _with_steps(problem: Problem, steps: int) -> Problem:
    return Problem(**{**problem.__dict__, "steps": steps})
