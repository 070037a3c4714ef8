"""Eigenvalues and traces of Hessians: what they cost and how good they are, ours against each peer, in one run.

    python benchmarks/curvature.py [--peers PEERS/bin/python] [--problems small-conv,mlp,...] [--rounds 3]

The same trained weights and data for every tool, each in a process of its own on one thread. One FB is
the cost of one gradient of the loss over the same data: by operations (torch's FLOP counter), and by processor
time, median of the rounds, each a run of everything one after the other, the gradient timed in the same
process. Ratios are against ours without the self-test, which no peer has. Errors are against float64
(``spectra_problems.reference``), residuals from products of our own making, ``||H v - value v|| / value``,
the worst of the five. A tool has equal accuracy where its worst error is at most 1e-4 or its worst
residual at most 1e-3. Peers need an environment of their own (``benchmarks/peers.txt``). Markdown on standard output.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from spectra_ours import PAIRS as OURS
from spectra_ours import TRACES as OUR_TRACES
from spectra_ours import VECTORS
from spectra_peers import PAIRS, SLOW, TRACES
from spectra_problems import PROBLEMS, dense, load, reference
from surfaces import measured

HERE = Path(__file__).parent
MINE = str(HERE / "spectra_ours.py")
PEERS = str(HERE / "spectra_peers.py")
COMPARED = [name for name in PROBLEMS if name != "tiny-conv"]
ERROR, RESIDUAL = 1e-4, 1e-3  # equal accuracy: within either
BASE = "ours, graphs kept"  # like the peers, without a test of the operator
LONG = 150  # FB from which a row is timed in the first round only

Row = dict[str, Any]


def run(options: argparse.Namespace, row: str, problem: str, what: str, k: int = 5) -> Row | None:
    """One tool on one problem: ``what`` is ``"count"`` or ``"time"``."""
    if row in OURS:
        words = ["pairs", options.cache, problem, row, str(options.seed), str(k), what]
        return measured(sys.executable, MINE, *words)
    words = ["pairs", options.cache, problem, row, str(options.seed), what]
    return measured(options.peers, "-W", "ignore", PEERS, *words)


def chosen(options: argparse.Namespace, names: list[str]) -> list[str]:
    """The rows that were asked for."""
    wanted = (options.rows or "").split(";")
    return [name for name in names if any(part in name for part in wanted)]


def compare(options: argparse.Namespace, problem: str) -> None:
    """The top five of one problem by every tool."""
    exact = reference(options.cache, problem)
    names = list(OURS)
    if options.peers:
        names += [name for name in PAIRS if name not in SLOW or problem in options.slow]
    names = chosen(options, names)
    rows: dict[str, Row] = {}
    for name in names:
        found = run(options, name, problem, "count")
        if found is not None:
            pairs = zip(found["values"], exact["values"], strict=False)
            found["error"] = max(abs(value - true) / abs(true) for value, true in pairs)
            found["residual"] = max(found["residuals"])
            found["equal"] = found["error"] <= ERROR or found["residual"] <= RESIDUAL
            rows[name] = found | {"seconds": [], "fb_time": [], "gradient": []}
    for round_ in range(options.rounds):
        for name, row in rows.items():
            again = round_ == 0 or row["fb"] < LONG
            found = run(options, name, problem, "time") if again else None
            for key in ("seconds", "fb_time", "gradient") if found else ():
                row[key].append(found[key])  # type: ignore[index]
    given = load(options.cache, problem)
    values = ", ".join(f"{value:.4g}" for value in exact["values"][:5])
    print(f"\n### {problem}: top 5\n")
    print(
        f"{given.size:,} parameters, {given.examples} examples in {len(given.batches)} batches; eigenvalues "
        f"{values}; smallest {exact['least']:.2g} (reference residual {exact['residual']:.0e}).\n"
    )
    print(
        "| tool | products | FB | FB in time | s | worst error | worst residual | "
        "FB x ours | time x ours |\n| --- |" + " ---: |" * 8
    )
    medians = {
        name: {key: statistics.median(row[key]) for key in ("seconds", "fb_time")}
        for name, row in rows.items()
        if row["seconds"]
    }
    base = medians.get(BASE)
    for name, row in sorted(rows.items(), key=lambda item: item[1]["fb"]):
        label = f"**{name}**" if name in OURS else f"{name} ({row['version']})"
        time = medians.get(name, {"seconds": float("nan"), "fb_time": float("nan")})
        ratios = ["not equal", ""]
        if row["equal"] and BASE in rows:
            ratios[0] = f"{row['fb'] / rows[BASE]['fb']:.2f}"
            ratios[1] = f"{time['seconds'] / base['seconds']:.2f}" if base else ""
        print(
            f"| {label} | {row['products']} | {row['fb']:.0f} | {time['fb_time']:.0f} | {time['seconds']:.2f} | "
            f"{row['error']:.0e} | {row['residual']:.0e} | {ratios[0]} | {ratios[1]} |"
        )
    verdict(rows, medians)


def verdict(rows: dict[str, Row], medians: dict[str, dict[str, float]]) -> None:
    """The best peer at equal accuracy, by operations and by time."""
    peers = {
        name: row
        for name, row in rows.items()
        if row["equal"] and name not in OURS and name in medians
    }
    if not peers or BASE not in medians:
        return
    least = min(peers, key=lambda name: peers[name]["fb"])
    fastest = min(peers, key=lambda name: medians[name]["seconds"])
    fewer = peers[least]["fb"] / rows[BASE]["fb"]
    faster = medians[fastest]["seconds"] / medians[BASE]["seconds"]
    print(
        f"\nBest peer at equal accuracy: {least} by operations ({fewer:.2f} x ours), "
        f"{fastest} by time ({faster:.2f} x ours)."
    )


def top_ten(options: argparse.Namespace) -> None:
    """Ours for ten eigenpairs."""
    print("\n### Top 10, ours\n")
    print("| problem | products | FB | worst error | worst residual |\n| --- |" + " ---: |" * 4)
    for problem in options.problems:
        for name in chosen(options, list(OURS)):
            found = run(options, name, problem, "count", k=10)
            if found is None:
                continue
            exact = reference(options.cache, problem)["values"]
            pairs = zip(found["values"], exact, strict=True)
            error = max(abs(value - true) / abs(true) for value, true in pairs)
            print(
                f"| {problem}, {name} | {found['products']} | {found['fb']:.0f} | {error:.0e} | "
                f"{max(found['residuals']):.0e} |"
            )


def trace_table(options: argparse.Namespace) -> None:
    """Products until the root mean square error of a trace is 1 % of the sum of ``|eigenvalue|``."""
    dense(options.cache)
    print("\n### Trace to 1 % of the sum of |eigenvalue|, tiny-conv\n")
    print("| estimate | products | error there |\n| --- | ---: | ---: |")
    found: list[tuple[str, Row | None]] = [
        (f"**{row}**", measured(sys.executable, MINE, "trace", options.cache, row))
        for row in OUR_TRACES
    ]
    if options.peers:
        words = ("-W", "ignore", PEERS, "trace", options.cache)
        found += [(row, measured(options.peers, *words, row)) for row in TRACES]
    for label, row in found:
        if row is not None:
            products = "not reached" if row["products"] is None else f"{row['products']:.0f}"
            print(f"| {label} | {products} | {row['error']:.2%} |")


def costs() -> None:
    """A product with the meta-Hessian, and what a Lanczos run keeps in memory."""
    meta = measured(sys.executable, MINE, "meta")
    if meta is not None:
        print("\n### Meta-Hessian: a product in meta-gradients\n")
        print("| | by operations | by time |\n| --- | ---: | ---: |")
        print(f"| operator, after its first | {meta['product']:.2f} | {meta['product_time']:.2f} |")
        print(f"| one by itself | {meta['hvp']:.2f} | {meta['hvp_time']:.2f} |")
    one, many = (measured(sys.executable, MINE, "memory", what) for what in ("product", "pairs"))
    if one is not None and many is not None:
        vectors = (VECTORS + 1) * one["params"] * 4 / 2**20
        stated = one["peak_mb"] + vectors
        print("\n### Memory of a Lanczos run\n")
        print(
            f"{one['params']:,.0f} parameters, {many['products']} products, graph kept: peak {many['peak_mb']:.0f} MB; "
            f"one product alone {one['peak_mb']:.0f} MB, {VECTORS + 1} vectors {vectors:.0f} MB, together "
            f"{stated:.0f} MB: {many['peak_mb'] / stated - 1:+.0%}."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="interpreter of the peers' environment")
    parser.add_argument("--problems", default=",".join(COMPARED))
    parser.add_argument("--rounds", type=int, default=3, help="0: no times")
    parser.add_argument("--seed", type=int, default=0, help="of the start vectors")
    parser.add_argument(
        "--slow", default="small-conv,mlp", help="problems for the rows of many hundred products"
    )
    parser.add_argument("--rows", help="parts of the names of rows, separated by semicolons")
    parser.add_argument("--cache", help="folder of weights and references, made where missing")
    parser.add_argument("--parts", default="pairs,ten,trace,costs", help="which tables")
    options = parser.parse_args()
    options.problems = [name for name in options.problems.split(",") if name]
    options.slow = options.slow.split(",")
    parts = options.parts.split(",")
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {platform.machine()}, float32, one thread, median of {options.rounds} rounds."
    )
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        options.cache = options.cache or folder
        for problem in options.problems if "pairs" in parts else ():
            compare(options, problem)
            sys.stdout.flush()
        if "ten" in parts:
            top_ten(options)
        if "trace" in parts:
            trace_table(options)
        if "costs" in parts:
            costs()


if __name__ == "__main__":
    main()
