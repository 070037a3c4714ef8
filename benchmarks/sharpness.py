"""Sharpness of ResNet-20: what the published measures cost, and what they find, through the published code and ours.

    python benchmarks/sharpness.py --data DATA --code CODE --peers PEERS/bin/python --cache CACHE [--examples 1024]

Five measures of https://github.com/tml-epfl/sharpness-vs-generalization (CODE is a checkout) at the radii of its
script for ResNets, 20 draws or 20 steps, batches of 128 training images, eval mode; one run a radius, as the script
makes them, and of the worst case a second one over all examples at once. PyHessian's five eigenvalues and trace at
their defaults. Ours: the same measures at the same radii in one report. One FB is a forward and a backward pass over
all the examples: "passes" counts the examples that go through the network and come back (a third, two thirds),
"operations" is torch's FLOP counter, "ledger" is what our report says.
DATA holds ``cifar10.npz`` and ``checkpoints/resnet20-12fca82f.th``. Every run is kept in CACHE and made only once, so
that a run that was cut off goes on; ``--parts``, ``--measures`` and ``--radii`` take it in pieces. Peers need an
environment of their own (``benchmarks/peers.txt``). Markdown on standard output.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sharpness_problem import BATCH, RADII, Passes, Watched, counted, gradient_flops, load
from surfaces import measured

Row = dict[str, Any]

PEERS = str(Path(__file__).parent / "sharpness_peers.py")
CURVATURE = {"top5": "lambda_max", "trace": "trace"}
"""What PyHessian computes -> our measure."""
SETTINGS: dict[str, dict[str, Any]] = {
    "average": {},
    "average_adaptive": {},
    "worst_l2": {"m": BATCH},
    "worst_l2_adaptive": {"m": BATCH},
    "worst_linf_adaptive": {"m": BATCH},
    "lambda_max": {},
    "trace": {},
}
"""Settings of ours beside the radii."""
BAR = 3.0


def kept(cache: str, name: str, run: Callable[[], Row | None]) -> Row | None:
    """What ``run`` returned the first time."""
    path = Path(cache) / f"{name}.json"
    if not path.exists():
        found = run()
        if found is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        print(f"made {path.name}", file=sys.stderr)
    return dict(json.loads(path.read_text()))


def ours(options: argparse.Namespace) -> Row:
    """Every measure in one report: value and error a radius, costs a measure."""
    from landscape.data_objective import DataObjective
    from landscape.sharpness import MEASURES, Point

    torch.set_num_threads(1)
    model, batches = load(options.data, options.examples)
    unit = gradient_flops(model, batches)
    passes = Passes()
    point = Point(DataObjective(Watched(model, passes), batches), seed=options.seed)
    found: Row = {}
    for name in options.measures + [CURVATURE[what] for what in options.curvature]:
        settings = dict(SETTINGS[name])
        if name in RADII:
            first, *others = RADII[name][: options.radii]
            settings |= {"sigma" if name.startswith("average") else "rho": first, "ladder": others}
        with counted(passes, options.examples, unit) as costs:
            row = MEASURES[name](point, **settings)
        values = {
            str(at): _at(row, *at, options.examples) for at in rungs(name, options) if name in RADII
        }
        found[name] = {
            "values": values,
            "value": row.value,
            "draw_error": row.draw_error,
            "ledger": row.paid,
            **costs,
        }
        print(f"ours: {name}, {row.paid:.1f} FB", file=sys.stderr)
    return found


def rungs(name: str, options: argparse.Namespace) -> list[tuple[float, int]]:
    """Radius and size of the batches of every row of a measure."""
    radii = RADII.get(name, ())[: options.radii]
    whole = options.examples > BATCH and name.startswith("worst")
    sizes = [BATCH, options.examples] if whole else [BATCH]
    return [(radius, size) for size in sizes for radius in radii]


def _at(row: Any, radius: float, size: int, examples: int) -> Row:
    """The row of one radius, and of one m where there is an m, among the variants."""
    wanted = "all" if size == examples else size
    for found in (row, *row.variants):
        at = found.settings.get("sigma", found.settings.get("rho"))
        if at == radius and found.settings.get("m", wanted) == wanted:
            return {"value": found.value, "draw_error": found.draw_error}
    raise SystemExit(f"{row.name}: no row at radius {radius} and m = {wanted}")


def published(options: argparse.Namespace, name: str, radius: float, size: int) -> Row | None:
    """One measure at one radius by the published code."""
    words = [PEERS, "published", options.code, options.data, str(options.examples)]
    words += [name, str(radius), str(size), str(options.seed)]
    key = f"published-{options.examples}-{options.seed}-{name}-{radius}-{size}"
    return kept(options.cache, key, lambda: measured(options.peers, "-W", "ignore", *words))


def pyhessian(options: argparse.Namespace, what: str) -> Row | None:
    """The five eigenvalues, or the trace, by PyHessian."""
    words = [PEERS, "pyhessian", options.data, str(options.examples), what, str(options.seed)]
    key = f"pyhessian-{options.examples}-{options.seed}-{what}"
    return kept(options.cache, key, lambda: measured(options.peers, "-W", "ignore", *words))


def costs(mine: Row, theirs: dict[str, list[Row]]) -> None:
    """One line a measure, and the sums."""
    print("\n### Cost\n")
    print(
        "| measure | runs | published, FB by passes | by operations | s | ours, FB by ledger | by passes | "
        "by operations | s | ratio by operations |\n| --- |" + " ---: |" * 9
    )
    for label, names in groups(theirs).items():
        runs = [run for name in names for run in theirs[name]]
        of = [mine[name] for name in names if name in mine]
        if not runs or len(of) < len(names):
            continue
        # Products of Hessians are no passes: there the operations speak.
        passes = "" if any("passes" not in run for run in runs) else f"{_sum(runs, 'passes'):.1f}"
        counted_ = f"{_sum(of, 'passes'):.1f}" if passes else ""
        ratio = _sum(runs, "flops") / _sum(of, "flops")
        print(
            f"| {label} | {len(runs)} | {passes} | {_sum(runs, 'flops'):.1f} | {_sum(runs, 'seconds'):.0f} | "
            f"{_sum(of, 'ledger'):.1f} | {counted_} | {_sum(of, 'flops'):.1f} | {_sum(of, 'seconds'):.0f} | "
            f"{ratio:.2f} |"
        )


def groups(theirs: dict[str, list[Row]]) -> dict[str, list[str]]:
    """Label of a line -> the measures in it."""
    average = [name for name in theirs if name.startswith("average")]
    worst = [name for name in theirs if name.startswith("worst")]
    lines = {name: [name] for name in theirs}
    if average and worst:
        lines["**average case**"] = average
        lines["**worst case**"] = worst
        lines["**average and worst case**"] = average + worst
    if set(theirs) - {*average, *worst}:
        lines["**all**"] = list(theirs)
    return lines


def values(mine: Row, theirs: dict[str, dict[tuple[float, int], Row]]) -> bool:
    """One line a measure and radius; whether ours is nowhere worse."""
    print("\n### Values\n")
    print(
        "| measure | radius | m | published | ± | ours | ± | ours is |\n| --- |"
        + " ---: |" * 6
        + " --- |"
    )
    good = True
    for name, runs in theirs.items():
        for (radius, size), run in runs.items():
            row = mine[name]["values"][str((radius, size))]
            error = row["draw_error"]
            if name.startswith("average"):
                fine = error is not None and error <= run["stderr"]
                word = "as precise" if fine else f"{error / run['stderr']:.1f} x less precise"
                apart = abs(row["value"] - run["value"]) / math.hypot(error, run["stderr"])
                word += f"; {apart:.1f} errors apart"
                spread = f"{run['stderr']:.2g}"
            else:
                fine, spread = row["value"] >= run["value"], ""
                word = f"{row['value'] / run['value'] - 1:+.1%}"
            good = good and fine
            print(
                f"| {name} | {radius:g} | {size} | {run['value']:.5g} | {spread} | {row['value']:.5g} | "
                f"{'' if error is None else f'{error:.2g}'} | {word} |"
            )
    return good


def curvature(mine: Row, theirs: dict[str, Row]) -> None:
    """Eigenvalues and traces side by side."""
    print("\n### PyHessian\n")
    for what, run in theirs.items():
        row = mine[CURVATURE[what]]
        given = run.get("values") or [run["value"]]
        numbers = ", ".join(f"{value:.4g}" for value in given)
        error = f" ± {run['stderr']:.2g}" if "stderr" in run else ""
        print(
            f"- {what}: PyHessian {numbers}{error} ({run['products']} products), "
            f"ours {row['value']:.4g}"
            + (f" ± {row['draw_error']:.2g}" if row["draw_error"] else "")
        )


def _sum(rows: list[Row], key: str) -> float:
    return float(sum(row[key] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of cifar10.npz and checkpoints/")
    parser.add_argument("--code", help="checkout of tml-epfl/sharpness-vs-generalization")
    parser.add_argument("--peers", help="interpreter of the peers' environment")
    parser.add_argument("--cache", required=True, help="folder of finished runs")
    parser.add_argument("--examples", type=int, default=1024, help=f"a multiple of {BATCH}")
    parser.add_argument("--measures", default=",".join(RADII))
    parser.add_argument("--curvature", default=",".join(CURVATURE), help="PyHessian's, or nothing")
    parser.add_argument("--radii", type=int, default=4, help="how many of each ladder")
    parser.add_argument("--parts", default="published,pyhessian,ours", help="what may be run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.measures = [name for name in options.measures.split(",") if name]
    options.curvature = [name for name in options.curvature.split(",") if name]
    parts = options.parts.split(",")
    unknown = {*options.measures} - {*RADII} | {*options.curvature} - {*CURVATURE}
    if unknown:
        parser.error(
            f"unknown measure {min(unknown)!r}: expected any of {', '.join([*RADII, *CURVATURE])}"
        )
    runs: dict[str, dict[tuple[float, int], Row]] = {}
    for name in options.measures if "published" in parts else ():
        made = {at: published(options, name, *at) for at in rungs(name, options)}
        runs[name] = {at: row for at, row in made.items() if row is not None}
    spectra: dict[str, Row] = {}
    for what in options.curvature if "pyhessian" in parts else ():
        row = pyhessian(options, what)
        if row is not None:
            spectra[what] = row
    if "ours" not in parts:
        return
    asked = "+".join([*options.measures, *options.curvature])
    mine = kept(
        options.cache,
        f"ours-{options.examples}-{options.seed}-{options.radii}-{asked}",
        lambda: ours(options),
    )
    assert mine is not None
    print(
        f"torch {torch.__version__}, {platform.machine()}, float32, one thread, {options.examples} examples; "
        "seconds are processor time of one run, counters at work."
    )
    theirs = {name: list(rows.values()) for name, rows in runs.items()}
    costs(mine, theirs | {CURVATURE[what]: [row] for what, row in spectra.items()})
    good = values(mine, runs)
    if spectra:
        curvature(mine, spectra)
    both = [name for name in runs if runs[name]]
    if both:
        ratio = sum(_sum(theirs[name], "flops") for name in both) / _sum(
            [mine[n] for n in both], "flops"
        )
        met = ratio >= BAR and good
        print(
            f"\nAverage and worst case: {ratio:.2f} x cheaper by operations (bar {BAR:g}), ours "
            f"{'nowhere' if good else 'somewhere'} less sharp or less precise: {'met' if met else 'missed'}."
        )


if __name__ == "__main__":
    main()
