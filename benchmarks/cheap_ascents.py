"""Are the cheap upper ascents as good as the full one: score, paired difference, flatness and cost of trained runs.

    python benchmarks/cheap_ascents.py --data sinusoid --iterations 10000 --seeds 0 1 2

Every variant is trained from the same weights on the same episodes, and tested on the same 600 episodes
(last checkpoint, no selection). The variants take turns: each trains a fifth of its way, then the next, so
that the pace of the machine is shared, and costs are relative to MAML in the same round. Runs and what was
measured of them lie under `--out`; whatever is there is not made again. Markdown on standard output;
`--table` trains nothing and shows the seeds whose runs are all there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharpmaml.config import TrainConfig
from sharpmaml.evaluation import evaluate
from sharpmaml.objective import meta_objective
from sharpmaml.perturb import sam
from sharpmaml.reproduction.statistics import Mean, mean_of
from sharpmaml.training import train

Array = NDArray[np.float64]

UP, BOTH = {"method": "sharp-up"}, {"method": "sharp-both"}
VARIANTS: dict[str, dict[str, Any]] = {
    "MAML": {},
    "up": UP,
    "up, along the momentum": {**UP, "ascent_gradient": "momentum"},
    "up, every 5th": {**UP, "ascent_every": 5},
    "up, every 5th, reuse 0.7": {**UP, "ascent_every": 5, "ascent_reuse": 0.7},
    "up, first-order ascent": {**UP, "ascent_gradient": "first-order"},
    "up, head only": {**UP, "ascent_part": "head"},
    "both": BOTH,
    "both, along the momentum": {**BOTH, "ascent_gradient": "momentum"},
}
# The test adapts as far as `sharpmaml reproduce` does on that kind of data.
SETTINGS: dict[str, dict[str, Any]] = {
    "sinusoid": {
        "shots": 10, "queries": 10, "meta_batch": 25, "inner_rate": 0.01, "test_steps": 1, "executor": "compile",
    },
    "strokes": {"downsample": "stride", "channels": 32},
    "omniglot": {"downsample": "stride", "channels": 32},
}  # fmt: skip
ITERATIONS = {"sinusoid": 15_000, "strokes": 500, "omniglot": 1000}
ROUNDS = 5
BLOCK = 10  # meta-updates; a whole number of cycles of every variant
WARM_UP = 2  # blocks of a round that are not timed: compilation, caches


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        metric: ``accuracy`` or ``mse``.
        scores: of the test episodes, ``(episodes,)``.
        rises: of the query loss of fixed test tasks one full SAM step away, ``(tasks,)``.
        seconds: wall time of a meta-update in each round, median over blocks.
        passes: over the meta-batch, a meta-update.
    """

    metric: str
    scores: Array
    rises: Array
    seconds: list[float]
    passes: float


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    found: dict[int, dict[str, Measured]] = {}
    for seed in given.seeds:
        if not given.table:
            train_all(seed, given)
        runs = {name: made(name, seed, given) for name in VARIANTS}
        kept = {name: run for name, run in runs.items() if run is not None}
        if len(kept) == len(VARIANTS):
            found[seed] = kept
    if not found:
        raise SystemExit(
            f"no seed of {given.seeds} has all runs under {given.out}: leave out --table"
        )
    first = config_of("up", given.seeds[0], given)
    print(
        f"{given.data}, {given.iterations} meta-updates of {first.meta_batch} tasks, radii {given.alpha}, "
        f"{first.shots}-shot, inner rate {first.inner_rate}, executor {first.executor}; seeds "
        f"{', '.join(map(str, found))}; {given.episodes} test episodes after {first.test_steps} steps; "
        f"rise over {given.tasks} test tasks; torch {torch.__version__}, one thread.\n"
    )
    print("\n".join(table(list(found.values()))))


def config_of(name: str, seed: int, given: argparse.Namespace) -> TrainConfig:
    """Settings of one run."""
    settings = {
        "data": given.data, "data_root": given.data_root, "seed": seed, "iterations": given.iterations,
        "alpha_low": given.alpha, "alpha_up": given.alpha, "checkpoint_every": given.iterations // ROUNDS,
        # Validation would select nothing: the last checkpoint is tested. The same length of training for all.
        "validate_every": given.iterations, "validation_episodes": 2, "guard": False,
    }  # fmt: skip
    return TrainConfig.from_dict({**settings, **SETTINGS[given.data], **VARIANTS[name]})


def label_of(name: str, seed: int, given: argparse.Namespace) -> str:
    """Name of one run's folder."""
    slug = name.lower().replace(", ", "-").replace(" ", "-")
    return f"{given.data}-{given.iterations}-alpha{given.alpha:g}-{slug}-seed{seed}"


def train_all(seed: int, given: argparse.Namespace) -> None:
    """Train all variants of a seed, in turns."""
    for number in range(1, ROUNDS + 1):
        until = given.iterations * number // ROUNDS
        for name in list(VARIANTS)[:: 1 if number % 2 else -1]:
            folder = given.out / label_of(name, seed, given)
            if not (folder / "checkpoints" / f"step_{until:06d}").is_dir():
                train(replace(config_of(name, seed, given), iterations=until), folder, resume=True)
        print(
            f"<!-- {given.data} seed {seed}: {until} at {time.strftime('%H:%M:%S')} -->", flush=True
        )


def made(name: str, seed: int, given: argparse.Namespace) -> Measured | None:
    """What was measured of a run; measured where it is not there, unless only a table is asked for."""
    label = label_of(name, seed, given)
    kept = given.out / "measured" / f"{label}.json"
    asked = {"episodes": given.episodes, "tasks": given.tasks}
    if kept.is_file():
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["asked"] == asked:
            return Measured(
                record["metric"], np.array(record["scores"]), np.array(record["rises"]),
                record["seconds"], record["passes"],
            )  # fmt: skip
    last = given.out / label / "checkpoints" / f"step_{given.iterations:06d}"
    if not last.is_dir():
        return None
    measured = measure(given.out / label, last, config_of(name, seed, given), given)
    record = {
        "asked": asked, "metric": measured.metric, "scores": measured.scores.tolist(),
        "rises": measured.rises.tolist(), "seconds": measured.seconds, "passes": measured.passes,
    }  # fmt: skip
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".part")
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(kept)
    return measured


def measure(run: Path, last: Path, config: TrainConfig, given: argparse.Namespace) -> Measured:
    """Score, rises and cost of a run that is trained."""
    found = evaluate(last, episodes=given.episodes)
    # The function that training ascends: plain steps, as many as in training.
    objective = meta_objective(last, episodes=given.tasks, steps=config.inner_steps)
    theta = objective.theta
    epsilon = sam(objective.gradient(theta), theta, given.alpha)
    with torch.no_grad():
        rises = objective.losses(theta + epsilon) - objective.losses(theta)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    seconds = [record["seconds"] for record in records]
    # A form that climbs now and then has cheap and dear meta-updates: the median is one of whole cycles.
    blocks = [statistics.fmean(seconds[at : at + BLOCK]) for at in range(0, len(seconds), BLOCK)]
    each = len(blocks) // ROUNDS
    rounds = [
        blocks[at + min(WARM_UP, each - 1) : at + each] for at in range(0, each * ROUNDS, each)
    ]
    passes = statistics.fmean(record["passes"] for record in records)
    return Measured(
        found.metric, found.scores, rises.double().numpy(), [statistics.median(r) for r in rounds], passes
    )  # fmt: skip


def table(seeds: list[dict[str, Measured]]) -> list[str]:
    """A row for each variant, the seeds together.

    Args:
        seeds: the runs of each seed by the name of the variant.
    """
    metric = seeds[0]["MAML"].metric
    scale, unit, digits = (100, " %", 2) if metric == "accuracy" else (1, "", 4)
    rows = [
        f"| | cost | passes | {metric}{unit} | minus the full one{unit} | overlap | rise at the end "
        "| minus MAML's |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for name in VARIANTS:
        runs = [seed[name] for seed in seeds]
        base = [seed["MAML"] for seed in seeds]
        costs = [
            mine / unit
            for run, maml in zip(runs, base, strict=True)
            for mine, unit in zip(run.seconds, maml.seconds, strict=True)
        ]
        spread = f"{statistics.median(costs):.2f} ({min(costs):.2f}–{max(costs):.2f})"
        score = mean_of([run.scores for run in runs])
        full = [seed[name.split(",")[0] if "," in name else "up"] for seed in seeds]
        against, overlap = "–", "–"
        if name not in ("up", "both"):
            against = signed(paired(runs, full, "scores"), scale, digits)
            other = mean_of([run.scores for run in full])
            apart = abs(score.value - other.value) > score.episodes + other.episodes
            overlap = "no" if apart else "yes"
        rise = mean_of([run.rises for run in runs])
        flatter = "–" if name == "MAML" else signed(paired(runs, base, "rises"), 1, 4)
        rows.append(
            f"| {name} | {spread} | {runs[0].passes:.3g} | {signed(score, scale, digits, '')} | {against} "
            f"| {overlap} | {rise.value:.4f} ± {rise.episodes:.4f} | {flatter} |"
        )
    rows += [
        "",
        "Cost: wall time of a meta-update in those of MAML in the same round, median (lowest to highest) over "
        f"{len(seeds) * ROUNDS} rounds. ±: half the 95 % interval over test episodes (or tasks) of the mean over "
        "seeds; in brackets over seeds (Student). Overlap: of the intervals over episodes. MAML is set against "
        "`up`. Rise: of the plain query loss one full SAM step of the training radius away, on fixed test tasks.",
    ]
    return rows


def paired(runs: list[Measured], others: list[Measured], name: str) -> Mean:
    """Mean of ``runs − others``, paired by seed and by episode or task."""
    pairs = zip(runs, others, strict=True)
    return mean_of([getattr(run, name) - getattr(other, name) for run, other in pairs])


def signed(mean: Mean, scale: float, digits: int, sign: str = "+") -> str:
    """A mean with both half widths."""
    over = "" if np.isnan(mean.seeds) else f" (± {scale * mean.seeds:.{digits}f})"
    return f"{scale * mean.value:{sign}.{digits}f} ± {scale * mean.episodes:.{digits}f}{over}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=tuple(SETTINGS), default="strokes")
    parser.add_argument("--data-root", help="folder or file of the data set, where it needs one")
    parser.add_argument("--iterations", type=int, help="meta-updates of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--alpha", type=float, default=0.05, help="radius of both levels")
    parser.add_argument("--episodes", type=int, default=600, help="of the test")
    parser.add_argument("--tasks", type=int, default=100, help="behind the rise")
    parser.add_argument("--out", type=Path, default=Path("runs/cheap_ascents"))
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    given = parser.parse_args()
    given.iterations = given.iterations or ITERATIONS[given.data]
    if given.iterations % (ROUNDS * BLOCK):
        parser.error(f"--iterations {given.iterations}: expected a multiple of {ROUNDS * BLOCK}")
    return given


if __name__ == "__main__":
    main()
