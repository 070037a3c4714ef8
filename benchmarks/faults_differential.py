"""Random small networks: everything computed twice, by the package and naively, and compared.

    python benchmarks/faults_differential.py --count 200 --json differential.json

One Markdown table on standard output, progress on standard error; exit status 1 if anything disagrees.
With ``--json`` the outcome of every network is kept, and a second run goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import differential  # noqa: E402
import differential_sharpness  # noqa: E402
import meta_differential  # noqa: E402
import torch  # noqa: E402
from differential import Finding, Subject  # noqa: E402
from random_networks import Case, network  # noqa: E402

DENSE = 40  # parameters up to which matrices and measures are computed
EVERY = 10  # one network in so many also goes through torch.compile, and through meta-learning

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=50, help="networks")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--json", type=Path, help="keep the outcome of every network here, and go on"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile too, for some (minutes)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Row] = {}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text())
    for seed in range(options.first, options.first + options.count):
        if str(seed) in kept:
            continue
        began = time.monotonic()
        kept[str(seed)] = row = tried(seed, options.compile)
        told = f"{len(row['failed'])} failures" if row["failed"] else "agree"
        print(f"{seed}: {time.monotonic() - began:.1f} s, {told}", file=sys.stderr, flush=True)
        for line in row["failed"]:
            print(f"  {line}", file=sys.stderr, flush=True)
        if options.json:
            part = options.json.with_suffix(".part")
            part.write_text(json.dumps(kept))
            part.replace(options.json)
    rows = [kept[str(s)] for s in range(options.first, options.first + options.count)]
    print(table(rows))
    raise SystemExit(1 if any(row["failed"] for row in rows) else 0)


def tried(seed: int, compiled: bool) -> Row:
    """All comparisons on the networks of one seed."""
    case = network(seed)
    row: Row = {
        "params": case.params, "layers": list(case.layers), "loss": case.task.name, "norm": case.norm,
        "about": str(case), "failed": [], "worst": {}, "compared": 0,
    }  # fmt: skip
    subject = Subject(case)
    for name in ("values", "differences"):
        note(row, case, name, lambda name=name: differential.CHECKS[name](subject))
    rules = [differential.RULES[(seed + i) % len(differential.RULES)] for i in range(2)]
    ways = differential.WAYS + (("compile",) if compiled and seed % EVERY == 0 else ())
    note(row, case, "surfaces", lambda: differential.surfaces(subject, rules, ways))
    small = subject if case.params <= DENSE else Subject(network(seed, most=DENSE))
    checks = {
        **{name: differential.CHECKS[name] for name in ("products", "other_operators", "spectra")},
        **differential_sharpness.MEASURE_CHECKS,
        "noise": lambda subject: differential_sharpness.noise(subject, pairs=10),
    }
    for name, check in checks.items():
        note(row, small.case, name, lambda check=check: check(small))
    if seed % EVERY == 0:
        made = meta_differential.problem(seed // EVERY, most=20)
        for name, check in meta_differential.CHECKS.items():
            note(row, made.case, name, lambda check=check: check(made))
    return row


def note(row: Row, case: Case, name: str, findings: Callable[[], Iterable[Finding]]) -> None:
    """Keep the largest disagreements, and what is beyond its tolerance."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for found in findings():
                row["compared"] += 1
                least = row["worst"].get(found.quantity, [0.0, found.tolerance])
                row["worst"][found.quantity] = [max(least[0], found.error), found.tolerance]
                if found.failed:
                    row["failed"].append(
                        f"{found.quantity}: {found.error:.1e}, allowed {found.tolerance:.0e}; {case}"
                    )
    except Exception as error:  # whatever it is, it is a disagreement
        row["failed"].append(f"{name}: {type(error).__name__}: {str(error)[:200]}; {case}")


def table(rows: list[Row]) -> str:
    """What was compared, and how far it was apart at most."""
    layers = sorted({name for row in rows for name in row["layers"]})
    losses = sorted({row["loss"] for row in rows})
    failed = [line for row in rows for line in row["failed"]]
    sizes = [row["params"] for row in rows]
    lines = [
        f"{len(rows)} networks of {min(sizes)} to {max(sizes)} parameters, "
        f"{sum(row['compared'] for row in rows)} comparisons, {len(failed)} failures.",
        "",
        f"Layers ({len(layers)}): {', '.join(layers)}.",
        "",
        f"Losses ({len(losses)}): {', '.join(losses)}.",
        "",
        "| quantity | networks | largest disagreement | allowed |",
        "| --- | --: | --: | --: |",
    ]
    quantities = dict.fromkeys(q for row in rows for q in row["worst"])
    for quantity in quantities:
        found = [row["worst"][quantity] for row in rows if quantity in row["worst"]]
        worst, allowed = max(error for error, _ in found), found[0][1]
        lines.append(f"| {quantity} | {len(found)} | {worst:.1e} | {allowed:.0e} |")
    if failed:
        lines += ["", *(f"- {line}" for line in failed)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
