"""How often the 95 % intervals of the sharpness measures hold the true value, on problems where it is known.

    python benchmarks/coverage.py [--repetitions 400] --cache CACHE [--problems small,...] [--measures average,...]

Each problem is a population of quadratic terms (``coverage_problems.py``); 400 of them are a data set, in
float64, in 8 batches. "draws": the objective is the population's mean, a formula, only the random draws (seeds) change,
and the interval is that of the error over them. "data": data and draws change, the truth is the closed form of the
population. The intervals are those that are reported. Outside 93 to 97 % a coverage is bold.
Markdown on standard output; finished repetitions are kept in CACHE, so that a run goes on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage_problems import POPULATIONS, Quadratic, ball, box

from landscape.sharpness import MEASURES, Point

LOW, HIGH = 0.93, 0.97

Row = dict[str, Any]
Rows = dict[str, dict[str, Row]]
"""Seed -> case -> what came out."""
Truth = Callable[[Quadratic], float]


@dataclass(frozen=True)
class Case:
    """A measure on a problem, with its settings and its closed form."""

    measure: str
    truth: Truth
    settings: dict[str, Any] = field(default_factory=dict)
    problem: str = "small"
    formula: bool = True
    """Whether the closed form also holds for a formula without data."""

    @property
    def key(self) -> str:
        """What its rows are kept under."""
        return f"{self.measure} {self.settings}"


@dataclass
class Hits:
    """What came out of the repetitions."""

    held: int = 0
    total: int = 0
    errors: list[float] = field(default_factory=list)  # of the values
    stderrs: list[float] = field(default_factory=list)

    def add(self, row: Row, truth: float) -> None:
        """One repetition."""
        low, high = row["interval"]
        slack = 1e-9 * max(1.0, abs(truth))  # rounding
        self.held += low - slack <= truth <= high + slack
        self.total += 1
        self.errors.append(row["value"] - truth)
        self.stderrs.append(row["stderr"] or 0.0)

    def summary(self) -> dict[str, float]:
        """Coverage; bias and scatter of the values in standard errors."""
        stderr = math.sqrt(np.mean(np.square(self.stderrs))) or math.nan
        return {
            "coverage": self.held / self.total,
            "total": self.total,
            "bias": float(np.mean(self.errors)) / stderr,
            "scatter": float(np.std(self.errors)) / stderr,
        }


def sam_rise(q: Quadratic, scale: np.ndarray, rho: float) -> float:
    """After one ascent step, ``scale`` the lengths that it is measured in."""
    step = scale**2 * q.g * rho / np.linalg.norm(scale * q.g)
    return q.rise(step)


def spectrum(f: Callable[[np.ndarray], np.ndarray]) -> Truth:
    """A sum over the positive eigenvalues."""
    return lambda q: float(np.sum(f(np.maximum(q.eigenvalues, 0))))


def entropy(q: Quadratic, gamma: float) -> float:
    """``½ Σ log(1 + λ/γ) − ½ gᵀ(A + γI)⁻¹g``."""
    shifted = q.a + gamma * np.eye(len(q.g))
    log = np.linalg.slogdet(shifted / gamma)[1]
    return float(0.5 * log - 0.5 * q.g @ np.linalg.solve(shifted, q.g))


def adaptive_trace(q: Quadratic) -> float:
    """``Σ wᵢ² aᵢᵢ``."""
    return float(np.trace(q.adaptive))


def least_trace(q: Quadratic) -> float:
    """``ℓ (Π tr A_l)^(1/ℓ)``."""
    traces = [np.trace(q.a[i, i]) for i in q.tensors()]
    return len(traces) * float(np.prod(traces)) ** (1 / len(traces))


def negative(q: Quadratic) -> float:
    """``Σ|λ⁻| / Σ|λ|``."""
    return float(-np.sum(np.minimum(q.eigenvalues, 0)) / np.sum(np.abs(q.eigenvalues)))


def head_flatness(q: Quadratic) -> float:
    """``‖w‖² tr A`` of one output."""
    return float(q.w @ q.w * np.trace(q.a))


def scaled_flatness(q: Quadratic) -> float:
    """The same with inputs of standard deviation 1, which ``A`` holds twice the squares of."""
    return float(len(q.w) * np.sum(q.w**2 * np.diag(q.a)))


ONE = {"ladder": (), "m": None}
"""One radius, one ball for all the data."""

CASES = [
    Case("gradient_norm", lambda q: float(np.linalg.norm(q.g))),
    Case("gradient_norm", lambda q: float(np.linalg.norm(q.g)), {}, "near a minimum"),
    Case("fisher_rao", lambda q: q.square),
    Case("fisher_rao", lambda q: q.square, {}, "least squares"),
    Case("relative_flatness", head_flatness, {"scaled": False}, "least squares"),
    Case("relative_flatness", scaled_flatness, {"scaled": True}, "least squares", formula=False),
    Case("trace", lambda q: float(np.trace(q.a)), {}, "least squares"),
    Case("lambda_max", lambda q: q.eigenvalues[-1], {}, "wide"),
    Case("lambda_min", lambda q: q.eigenvalues[0], {}, "wide"),
    Case("trace", lambda q: float(np.trace(q.a)), {}, "wide"),
    Case("frobenius", lambda q: float(np.linalg.norm(q.a)), {}, "wide"),
    Case("effective_dimension", spectrum(lambda x: x / (x + 1)), {"alpha": 1.0}, "wide"),
    Case("log_determinant", spectrum(lambda x: 0.5 * np.log1p(x)), {"gamma": 1.0}, "wide"),
    Case("negative_mass", negative, {}, "wide"),
    Case("adaptive_lambda_max", lambda q: float(np.linalg.eigvalsh(q.adaptive)[-1]), {}, "wide"),
    Case("adaptive_trace", adaptive_trace, {}, "wide"),
    Case("minimum_sharpness", least_trace, {}, "wide"),
    Case("edge_of_stability", lambda q: q.eigenvalues[-1] * 0.05, {"optimizer": {"lr": 0.1}}, "wide"),
    Case("sam", lambda q: sam_rise(q, np.ones_like(q.w), 0.05), {"rho": 0.05}),
    Case("sam", lambda q: sam_rise(q, np.ones_like(q.w), 0.05), {"rho": 0.05}, "near a minimum"),
    Case("asam", lambda q: sam_rise(q, q.c, 0.5), {"rho": 0.5, "eta": 0.0}),
    Case("asam", lambda q: sam_rise(q, q.c, 0.05), {"rho": 0.05, "eta": 0.0}, "near a minimum"),
    Case("average", lambda q: 0.5 * 0.1**2 * float(np.trace(q.a)), {"sigma": 0.1, "ladder": ()}),
    Case("average", lambda q: 0.5 * 0.1**2 * float(np.trace(q.a)), {"sigma": 0.1, "ladder": ()}, "wide"),
    Case("average_adaptive", lambda q: 0.5 * 0.1**2 * adaptive_trace(q), {"sigma": 0.1, "ladder": ()}),
    Case("filter_average", lambda q: q.sphere(q.filters(), 0.1), {"radius": 0.1, "ladder": ()}),
    Case("layer_relative", lambda q: q.sphere(q.tensors(), 0.5), {"xi": 0.5, "worst": 0}),
    Case("local_entropy", lambda q: entropy(q, 100.0), {"gamma": 100.0}),
    Case("pac_bayes", lambda q: float(np.trace(q.a)) / 0.2, {"deviation": 0.1, "quantity": "loss"}),
    Case(
        "pac_bayes_magnitude", lambda q: adaptive_trace(q) / 0.2,
        {"deviation": 0.1, "quantity": "loss", "epsilon": 0.0},
    ),
    Case("worst_l2", lambda q: ball(q.a, q.g, 0.25), {"rho": 0.25, **ONE}),
    Case("worst_l2", lambda q: ball(q.a, q.g, 0.25), {"rho": 0.25, **ONE}, "near a minimum"),
    Case("worst_l2_adaptive", lambda q: ball(q.adaptive, q.c * q.g, 0.25), {"rho": 0.25, **ONE}),
    Case("worst_linf_adaptive", lambda q: box(q.a, q.g, 0.1 * q.c), {"rho": 0.1, **ONE}),
    Case("keskar", lambda q: 100 * box(q.a, q.g, 0.1 * (q.c + 1)) / (1 + q.loss()), {"epsilon": 0.1, "ladder": ()}),
]  # fmt: skip


def repetition(problem: str, seed: int, redrawn: bool, cases: list[Case]) -> dict[str, Row]:
    """All cases of a problem at one point, as a report computes them: what they share is computed once."""
    population = POPULATIONS[problem]
    objective = population.sample(seed)[0] if redrawn else population.mean.formula()[0]
    point = Point(objective, seed=seed)
    found: dict[str, Row] = {}
    for case in cases:
        row = MEASURES[case.measure](point, **case.settings)
        found[case.key] = {
            "value": row.value,
            "interval": row.interval,
            "stderr": row.stderr,
            "draw_error": row.draw_error,
        }
    return found


def gather(options: argparse.Namespace, problem: str, redrawn: bool, cases: list[Case]) -> Rows:
    """The rows of every repetition, those of an earlier run included."""
    path = (
        Path(options.cache)
        / f"coverage-{problem.replace(' ', '-')}-{'data' if redrawn else 'draws'}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: Rows = json.loads(path.read_text()) if path.exists() else {}
    began = saved = time.monotonic()
    for seed in range(options.repetitions):
        known = rows.setdefault(str(seed), {})
        first = rows["0"]
        todo = [
            case
            for case in cases
            if case.key not in known
            # Where nothing is drawn, once is enough.
            and (redrawn or case.formula)
            and (redrawn or seed == 0 or first[case.key]["draw_error"] is not None)
        ]
        if not todo:
            continue
        known |= repetition(problem, seed, redrawn, todo)
        if time.monotonic() - saved > 30:
            path.write_text(json.dumps(rows))
            saved = time.monotonic()
            print(f"{path.stem}: {seed + 1} in {saved - began:.0f} s", file=sys.stderr)
    path.write_text(json.dumps(rows))
    return {seed: row for seed, row in rows.items() if int(seed) < options.repetitions}


def judge(case: Case, drawn: Rows, redrawn: Rows) -> dict[str, Any]:
    """Both coverages of one case."""
    mean = POPULATIONS[case.problem].mean
    exact, truth = case.truth(mean.formula()[1]), case.truth(mean)
    draws, data, silent = Hits(), Hits(), 0
    first = drawn["0"].get(case.key)
    for rows in drawn.values() if first and first["draw_error"] is not None else ():
        draws.add(rows[case.key], exact)
    for found in (rows[case.key] for rows in redrawn.values()):
        if found["interval"] is None:
            silent += 1
        else:
            data.add(found, truth)
    return {
        "gap": abs(first["value"] / exact - 1) if first else None,
        "draws": draws.summary() if draws.total else None,
        "data": data.summary() if data.total else None,
        "silent": silent,
    }


def line(case: Case, found: dict[str, Any]) -> str:
    """One line of the table."""

    def cell(hits: dict[str, float] | None) -> str:
        if hits is None:
            return "-"
        fine = LOW <= hits["coverage"] <= HIGH
        return f"{hits['coverage']:.1%}" if fine else f"**{hits['coverage']:.1%}**"

    draws, data = found["draws"], found["data"]
    drawn = cell(draws) if draws or found["gap"] is None else f"off by {found['gap']:.0e}"
    settings = " ".join(f"{key}={value}" for key, value in case.settings.items())
    extra = f"; no interval in {found['silent']}" if found["silent"] else ""
    bias = "" if data is None else f"{data['bias']:+.2f}"
    scatter = "" if data is None else f"{data['scatter']:.2f}"
    return f"| {case.measure} | {settings} | {drawn} | {cell(data)}{extra} | {bias} | {scatter} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--measures", help="some of them, separated by commas")
    parser.add_argument("--problems", default=",".join(POPULATIONS))
    parser.add_argument("--cache", required=True, help="folder of finished repetitions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a search that did not converge says so in its row
    wanted = options.measures.split(",") if options.measures else list(MEASURES)
    problems = options.problems.split(",")
    cases = [case for case in CASES if case.measure in wanted and case.problem in problems]
    found: dict[str, list[str]] = {}
    for problem in problems:
        own = [case for case in cases if case.problem == problem]
        drawn = gather(options, problem, False, own)
        redrawn = gather(options, problem, True, own)
        found[problem] = [line(case, judge(case, drawn, redrawn)) for case in own]
    error = 1.96 * math.sqrt(0.95 * 0.05 / options.repetitions)
    print(f"{options.repetitions} repetitions: a coverage of 95 % is measured to ±{error:.1%}.")
    for problem, lines in found.items():
        print(
            f"\n### {problem}\n\n| measure | settings | draws | data | bias / stderr | scatter / stderr |\n"
            "| --- | --- |" + " ---: |" * 4
        )
        print("\n".join(lines))
    missing = sorted({*wanted} - {case.measure for case in CASES})
    if missing:
        print(f"\nWithout a closed form here: {', '.join(missing)}.")


if __name__ == "__main__":
    main()
