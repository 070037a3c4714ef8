"""Omniglot 5-way and 20-way 1-shot: MAML against the Sharp-MAMLs, trained, scored and measured.

    python benchmarks/omniglot.py --data-root DIR [--jobs 2] [--ways 5 20] [--seeds 0 1]

`DIR` holds Omniglot in any layout that `sharpmaml train --data omniglot` reads. Runs go to `runs/omniglot`;
each is what the `sharpmaml train` command printed beside it makes, so one that is there already, or cut
short, is continued. The tables go to standard output as Markdown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from landscape.plot.table import Cell
from landscape.sharpness import SharpnessReport
from sharpmaml.checkpoint import LABELS, read
from sharpmaml.config import TrainConfig
from sharpmaml.evaluation import Evaluation
from sharpmaml.study import Study
from sharpmaml.training import train

METHODS = ("maml", "sharp-low", "sharp-up", "sharp-both")
RUNS = Path("runs/omniglot")
# Cut to what two CPU cores do in an hour and a half; a GPU takes the papers' 60,000 iterations.
BUDGET = {5: {"iterations": 1000, "meta_batch": 4}, 20: {"iterations": 600, "meta_batch": 2}}
TASKS = {5: 12, 20: 4}
SURFACE = {5: 13, 20: 9}


def config(method: str, ways: int, seed: int, root: str) -> TrainConfig:
    return TrainConfig(
        method=method, data="omniglot", data_root=root, ways=ways, shots=1, queries=5, seed=seed,
        downsample="stride", inner_steps=1, test_steps=3, inner_rate=0.4, alpha_low=0.05, alpha_up=0.05,
        validate_every=250, checkpoint_every=250, **BUDGET[ways],
    )  # fmt: skip


def command(c: TrainConfig) -> str:
    return (
        f"sharpmaml train --method {c.method} --data omniglot --data-root DIR --ways {c.ways} --shots 1 "
        f"--queries 5 --seed {c.seed} --downsample stride --meta-batch {c.meta_batch} --iterations {c.iterations} "
        f"--validate-every 250 --checkpoint-every 250 --out {run_folder(c)}"
    )


def run_folder(c: TrainConfig) -> Path:
    return RUNS / f"{c.ways}way-{c.method}-seed{c.seed}"


def study(ways: int, seed: int) -> Study:
    return Study(
        out=RUNS / f"study-{ways}way-seed{seed}",
        test_episodes=600,
        tasks=TASKS[ways],
        points=SURFACE[ways] if seed == 0 else 0,
        line_points=21 if seed == 0 else 0,
        measures=("gradient_norm", "lambda_max", "trace", "sam", "asam", "average"),
        settings={
            "lambda_max": {"tol": 1e-2},
            "trace": {"probes": 6, "tol": 1e-2},
            "average": {"pairs": 6},
        },
    )


def one(method: str, ways: int, seed: int, root: str) -> str:
    torch.set_num_threads(1)
    c = config(method, ways, seed, root)
    run = train(c, run_folder(c), resume=True)
    study(ways, seed).measure(LABELS[method], run.path)
    return command(c)


def rows(ways: int, seed: int) -> list[str]:
    s = study(ways, seed)
    together, lines = s.comparison(), []
    scores: dict[str, dict[str, Evaluation]] = {}
    for method in METHODS:
        label, path = LABELS[method], RUNS / f"{ways}way-{method}-seed{seed}"
        scores[method] = s.measure(label, path, into=together)
        test = scores[method]["test"]
        cells = [f"{seed}", label, f"{100 * test.mean:.1f} ± {100 * test.ci95:.1f}"]
        if method == "maml":
            cells.append("–")
        else:
            mean, ci = test.difference(scores["maml"]["test"])
            cells.append(f"{100 * mean:+.1f} ± {100 * ci:.1f}")
        for split in ("train", "test"):
            cells += numbers(together.report(f"{split} episodes", label))
        lines.append("| " + " | ".join([*cells, f"`{read(path).fingerprint}`"]) + " |")
    return lines


def numbers(report: SharpnessReport) -> list[str]:
    top, trace, sam = report["lambda_max"], report["trace"], report["sam"]
    low, high = top.interval or (None, None)
    cells = [
        Cell(top.value, low=low, high=high),
        Cell(trace.value, trace.stderr),
        Cell(sam.value, sam.stderr),
    ]
    return [str(cell) for cell in cells]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--ways", type=int, nargs="+", default=[5, 20], choices=[5, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    jobs = [(m, w, s, given.data_root) for s in given.seeds for w in given.ways for m in METHODS]
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(one, *zip(*jobs, strict=True)):
            print(done, file=sys.stderr, flush=True)
    head = ["seed", "method", "accuracy, %", "against MAML, paired"]
    for split in ("train", "test"):
        head += [f"λ max, {split}", f"trace, {split}", f"SAM, {split}"]
    for ways in given.ways:
        print(f"\n### {ways}-way 1-shot\n")
        print("| " + " | ".join([*head, "weights"]) + " |")
        print("|" + " --- |" * (len(head) + 1))
        for seed in given.seeds:
            print("\n".join(rows(ways, seed)))
            if study(ways, seed).line_points:
                study(ways, seed).page(
                    {LABELS[m]: RUNS / f"{ways}way-{m}-seed{seed}" for m in METHODS},
                    title=f"Omniglot {ways}-way 1-shot: is Sharp-MAML's solution flatter?",
                    recipe="python benchmarks/omniglot.py --data-root DIR",
                )


if __name__ == "__main__":
    main()
