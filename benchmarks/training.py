"""What a meta-update costs: ours by executor and method against torchopt, higher and learn2learn, in one run.

    python benchmarks/training.py --cache CACHE [--peers PEERS/bin/python] [--problems conv4-32x4,...]
        [--parts updates,sharp,memory,steps,training] [--only "auto;torchopt"] [--rounds 5] [--device cpu]

A meta-update is the second-order meta-gradient of a prepared meta-batch and a step of Adam, the same weights and
episodes for all. First the meta-gradients are compared in float64 (of images, those of the first two tasks): the
column "difference" is the norm of the difference from our ``loop`` over the norm, and what is off by more than 1e-8
is not timed. Then one process for ours and one for the peers (``training_peers.py`` says how to make their
environment) stay warm while their candidates take turns, round after round: processor seconds of one thread, on a GPU
seconds by the clock with everything queued waited for; medians of the rounds, and ratios within each round, against
the fastest of the peers' own examples ("torchopt in vmap" was put together here, from its functional SGD and torch's
transforms). "start" is the first meta-update, choice of the executor and compilation included.

``sharp`` is the methods in units of MAML, the two taking turns call by call. ``memory`` is the peak of two meta-updates
above libraries, weights and data, in a fresh process each (on a GPU: of the allocator), ``steps`` the same by inner
steps. ``training`` is whole meta-updates of the training loop, with episodes and log. Measurements are kept in CACHE
and made only once, so that a run that was cut off goes on: take a new one for new code. Markdown on standard output.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import platform
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from training_problem import PROBLEMS, Batch
from training_run import EXAMPLES, PEERS, Row, Run

EXECUTORS = ("auto", "stacked", "loop", "vmap", "adjoint", "compile")
SHARP = (
    "low, detach", "low, through", "up", "both, detach", "both, through", "fomaml",
    "up, ascent by momentum", "up, ascent of first order", "up, ascent at every 5th",
    "up, ascent at every 5th, reused", "up, ascent of the head",
)  # fmt: skip
STEPS = (1, 5, 10, 25)
EQUAL = 1e-8
BARS = {"low, detach": 1.35, "up": 2.05, "both, detach": 2.5}
PARTS = ("updates", "sharp", "memory", "steps", "training")


def prepare(folder: Path, name: str) -> None:
    """Weights and two meta-batches of a problem, for both environments."""
    from sharpmaml import models
    from sharpmaml.data import make_source

    path, problem = folder / f"{name}.npz", PROBLEMS[name]
    if path.exists():
        return
    source = make_source(
        problem.data, ways=problem.ways, shots=problem.shots, queries=problem.queries, seed=0
    )
    arguments = {"ways": problem.ways, "channels": problem.channels}
    model = models.build(*(("conv4", arguments) if problem.channels else ("mlp", {})))
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    episodes = [source.episode(i) for i in range(2 * problem.tasks)]
    columns = {
        field: torch.stack([getattr(e, field) for e in episodes])
        .unflatten(0, (2, problem.tasks))
        .numpy()
        for field in Batch._fields
    }
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".npz", delete=False) as file:
        np.savez(file, theta=theta.numpy(), **columns)
    Path(file.name).replace(path)


def updates(run: Run, problem: str) -> None:
    """Ours by executor, and the peers."""
    names = run.candidates([f"maml/{executor}" for executor in EXECUTORS] + list(PEERS))
    true = run.gradient(problem, "maml/loop")
    differences = {}
    for name in names:
        found = run.gradient(problem, name)
        if found is not None:
            differences[name] = float(np.linalg.norm(found - true) / np.linalg.norm(true))
    right = [name for name, value in differences.items() if value <= EQUAL]
    rows = run.rounds("updates", problem, right)
    medians = {name: _median(found) for name, found in rows.items()}
    theirs = [name for name in medians if name in EXAMPLES]
    best = min(theirs, key=medians.__getitem__) if theirs else None
    print(f"\n### {problem}: {PROBLEMS[problem].title}\n")
    print(
        "| | meta-updates a second | lowest to highest | x fastest example | start, s | peak, MiB | difference |"
    )
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name in sorted(medians, key=medians.__getitem__):
        rates = sorted(1 / row["seconds"] for row in rows[name])
        ratio = f"{_ratio(rows[best], rows[name]):.2f}" if best else ""
        peak = (
            None
            if "auto" in name or "memory" not in run.options.parts
            else run.memory(problem, name)
        )
        print(
            f"| {_shown(name)} | {statistics.median(rates):.4g} | {rates[0]:.4g} to {rates[-1]:.4g} | {ratio} | "
            f"{rows[name][0]['start']:.1f} | {'' if peak is None else f'{peak:.0f}'} | {differences[name]:.0e} |"
        )
    for name in names:
        if name not in differences:
            print(f"\n{_shown(name)}: failed, see standard error.")
        elif name not in right:
            print(
                f"\n{_shown(name)}: not timed, its meta-gradient differs by {differences[name]:.1e}."
            )
    for name in medians:
        if rows[name][0].get("note"):
            print(f"\n{_shown(name)} is {rows[name][0]['note']}")


def sharp(run: Run, problem: str, executor: str) -> None:
    """The methods in units of MAML by the same executor."""
    base = f"maml/{executor}"
    names = run.candidates([f"{method}/{executor}" for method in SHARP])
    rows = run.rounds("sharp", problem, names, base)
    print(f"\n### {problem}, Sharp-MAML by {executor}\n")
    print("| | in meta-updates of MAML | lowest to highest | bar |")
    print("| --- | ---: | --- | --- |")
    for name, found in rows.items():
        method = name.partition("/")[0]
        ratios = sorted(row["seconds"] / row["base"] for row in found)
        middle, bar = statistics.median(ratios), BARS.get(method)
        verdict = "" if bar is None else f"{bar}: {'met' if middle <= bar else 'missed'}"
        print(f"| {method} | {middle:.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} | {verdict} |")


def by_steps(run: Run, problem: str) -> None:
    """Peak memory by inner steps, of the chain and of the loop."""
    print(f"\n### {problem}: peak memory by inner steps, MiB\n")
    print(f"| | {' | '.join(str(k) for k in STEPS)} | largest over smallest |")
    print("| --- | " + "---: | " * (len(STEPS) + 1))
    for name in run.candidates([f"maml/{executor}" for executor in ("adjoint", "loop", "stacked")]):
        peaks = [run.memory(problem, name, steps) for steps in STEPS]
        known = [peak for peak in peaks if peak]
        shown = " | ".join("failed" if peak is None else f"{peak:.0f}" for peak in peaks)
        spread = f"{max(known) / min(known):.2f}" if len(known) == len(peaks) else ""
        print(f"| {_shown(name)} | {shown} | {spread} |")


def training(run: Run, problems: Sequence[str]) -> None:
    """The whole loop, as a user runs it."""
    print("\n### The training loop\n")
    print("| | meta-updates a second |\n| --- | ---: |")
    for problem in problems:
        found = [
            run.once(("training", problem, at), lambda name=problem: run.training(name))  # type: ignore[misc]
            for at in range(run.options.rounds)
        ]
        rates = sorted(1 / row["seconds"] for row in found if "error" not in row)
        shown = (
            f"{statistics.median(rates):.4g} ({rates[0]:.4g} to {rates[-1]:.4g})"
            if rates
            else "failed"
        )
        print(f"| {PROBLEMS[problem].title} | {shown} |")


def _median(rows: Sequence[Row]) -> float:
    return statistics.median(row["seconds"] for row in rows)


def _ratio(one: Sequence[Row], other: Sequence[Row]) -> float:
    """Median over the rounds of the seconds of one over those of the other."""
    pairs = zip(one, other, strict=False)
    return statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)


def _shown(name: str) -> str:
    return name if name in PEERS else f"**ours, {name.partition('/')[2]}**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True, help="where measurements are kept")
    parser.add_argument("--peers", help="interpreter of the peers' environment")
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--only", help="parts of the names of the candidates, by semicolons")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--least", type=float, default=0.5, help="seconds of a measurement, at least"
    )
    parser.add_argument(
        "--sharp", default="conv4-32x4", help="problem of the parts sharp and steps"
    )
    parser.add_argument("--executors", default="auto,loop", help="of the part sharp")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    run = Run(options)
    problems = options.problems.split(",")
    for name in {*problems, options.sharp}:
        prepare(run.cache, name)
    machine = (
        torch.cuda.get_device_name(options.device)
        if options.device != "cpu"
        else platform.machine()
    )
    print(f"torch {torch.__version__}, {machine}, one thread, {options.rounds} rounds, float32.")
    if options.peers:
        print(", ".join(f"{k} {v}" for k, v in run.server(PEERS[0]).versions.items()) + ".")
    if "updates" in options.parts:
        for problem in problems:
            updates(run, problem)
    if "sharp" in options.parts:
        for executor in options.executors.split(","):
            sharp(run, options.sharp, executor)
    if "steps" in options.parts:
        by_steps(run, options.sharp)
    if "training" in options.parts:
        training(run, problems)


if __name__ == "__main__":
    main()
