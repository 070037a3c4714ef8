"""Two checkpoints on the same data: which is flatter, and whether the difference is more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import t as student

from landscape.sharpness.measurement import Measurement
from landscape.sharpness.remarks import differing, settings_text
from landscape.sharpness.report import SharpnessReport
from landscape.sharpness.verdicts import (
    FLATTER,
    LEVEL,
    NEITHER,
    SHARPER,
    UNDECIDED,
    Difference,
    Differences,
)

_OF_THE_POINT = (
    "checkpoint",
    "model",
    "fixed_sha256",
    "tasks_at_once",
    "dtype",
    "precision",
    "batches",
)
"""Settings of an objective that belong to the checkpoint or to the way it is computed, not to the data."""


def differences(
    a: SharpnessReport, b: SharpnessReport, first: str = "A", second: str = "B"
) -> Differences:
    """Each measure of ``b`` minus that of ``a``, paired term by term and draw by draw.

    The terms of the data are the same for both, so what an example adds to both values cancels; so do
    draws, where both have as many parameters. Holm's correction is over all verdicts, variants included;
    variants of one measure are strongly dependent, which makes it err on the safe side.

    Raises:
        ValueError: other data or another seed, or no measure in common at the same settings.
    """
    _same_question(a, b, first, second)
    sizes = a.context.get("params"), b.context.get("params")
    alike = sizes[0] == sizes[1] and None not in sizes
    rows: list[Difference] = []
    missing = [name for name in (*a, *b) if name not in a or name not in b]
    for name in a:
        if name not in b:
            continue
        if a.asked.get(name) != b.asked.get(name):
            missing.append(name)
            continue
        sign = int(a.about.get(name, {}).get("orientation", 0))
        theirs = {_key(v): v for v in b[name].variants}
        pairs: list[tuple[Measurement, Measurement, dict[str, Any]]] = [(a[name], b[name], {})] + [
            (v, theirs[_key(v)], differing(a[name], v))
            for v in a[name].variants
            if _key(v) in theirs
        ]
        rows += [difference(x, y, sign, draws=alike, settings=told) for x, y, told in pairs]
    if not rows:
        raise ValueError(
            f"{first} and {second} have no measure in common at the same settings: "
            "nothing to compare"
        )
    return Differences(tuple(_corrected(rows)), first, second, tuple(missing))


def difference(
    a: Measurement,
    b: Measurement,
    orientation: int = 1,
    *,
    draws: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Difference:
    """``b`` minus ``a`` with the error of the *paired* difference.

    To first order a value moves with each term and each draw as its influence says, and the difference
    moves with the differences of the influences: ``Σ wᵢ (bᵢ − aᵢ)``.

    Args:
        a: the first, of the same measure on the same data.
        b: the second.
        orientation: 1 where larger is sharper, -1 where larger is flatter, 0 for no verdict.
        draws: whether equal numbers of draws are the same draws.
        settings: what tells the row apart.

    >>> from landscape.sharpness.measurement import Influence, estimate
    >>> a, b = (estimate("x", v, Influence((-1.0, 1.0), of="examples"), {}) for v in (1.0, 0.5))
    >>> both = difference(a, b)  # each is uncertain by 1, their difference is not
    >>> both.value, both.stderr, both.verdict
    (-0.5, 0.0, 'flatter')
    """
    data, pairs_data = _over(
        a.influence.terms,
        b.influence.terms,
        _may_pair(a, b),
        a.influence.weights,
        b.influence.weights,
    )
    if a.data_error == 0 and b.data_error == 0 and not data:
        data = [(0.0, 1)]  # nothing was sampled
    drawn, pairs_draws = _over(a.influence.draws, b.influence.draws, draws)
    known = [*data, *drawn]
    value, bound = b.value - a.value, a.bound + b.bound
    stderr = math.hypot(*(error for error, _ in known)) if known else None
    freedom = _freedom(known)
    interval = None
    if stderr is not None or bound > 0:
        half = bound + (student.ppf(1 - LEVEL / 2, freedom) * stderr if stderr else 0.0)
        interval = (value - half, value + half)
    verdict = _verdict(interval, orientation)
    p = None
    if orientation and stderr and math.isfinite(stderr) and math.isfinite(value):
        p = float(2 * student.sf(max(abs(value) - bound, 0.0) / stderr, freedom))
    paired = " and ".join(
        word for word, done in (("data", pairs_data), ("draws", pairs_draws)) if done
    )
    return Difference(
        a.name, dict(settings or {}), a.value, b.value, value, stderr, interval, verdict, p,
        verdict in (FLATTER, SHARPER), paired, bool(data), bool(drawn),
    )  # fmt: skip


def same_data(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The first setting that shows two objectives to be about other data; empty where none does."""
    if a.get("objective") == b.get("objective") == "function":
        return ""
    names = {*a, *b} - set(_OF_THE_POINT)
    if "data_sha256" in a and "data_sha256" in b:
        names &= {"objective", "data_sha256", "loss", "norm", "examples"}
    for name in sorted(names, key=lambda name: (name.endswith("sha256"), name)):
        if a.get(name) != b.get(name):
            return name
    return ""


def _same_question(a: SharpnessReport, b: SharpnessReport, first: str, second: str) -> None:
    name = same_data(a.objective, b.objective)
    if name:
        theirs, ours = (str(r.objective.get(name))[:16] for r in (a, b))
        raise ValueError(
            f"{first} and {second} were measured on other data: {name} is {theirs} and {ours}; "
            "measure both on the same"
        )
    if a.seed != b.seed:
        raise ValueError(
            f"{first} and {second} were measured with other draws: seed is {a.seed} and {b.seed}; "
            "measure both with the same"
        )


def _may_pair(a: Measurement, b: Measurement) -> bool:
    # Weights of parts come from float32 sums on some devices, so they need not agree to the last digit.
    one, two = a.influence, b.influence
    return (
        one.of == two.of
        and len(one.weights) == len(two.weights)
        and bool(np.allclose(one.weights, two.weights, rtol=1e-6))
    )


def _over(
    a: Sequence[float],
    b: Sequence[float],
    pair: bool,
    first: Sequence[float] = (),
    second: Sequence[float] = (),
) -> tuple[list[tuple[float, int]], bool]:
    """Standard errors with their degrees of freedom, and whether they are of one paired difference."""
    if pair and len(a) == len(b) > 1:
        return [_error(np.subtract(b, a), first)], True
    if min(len(a), len(b)) < 2:  # one error alone would pass for that of the difference
        return [], False
    return [_error(np.asarray(x), w) for x, w in ((a, first), (b, second))], False


def _error(values: Any, weights: Sequence[float]) -> tuple[float, int]:
    shares = np.asarray(weights) if len(weights) else np.full(len(values), 1 / len(values))
    return math.sqrt(float(shares @ values**2) / (len(values) - 1)), len(values) - 1


def _freedom(known: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of independent errors (Satterthwaite 1946)."""
    total = sum(error**2 for error, _ in known)
    return total**2 / sum(error**4 / count for error, count in known) if total else math.inf


def _verdict(interval: tuple[float, float] | None, orientation: int) -> str:
    if not orientation:
        return NEITHER
    if interval is None or not all(map(math.isfinite, interval)) or interval[0] <= 0 <= interval[1]:
        return UNDECIDED
    return SHARPER if (interval[0] > 0) == (orientation > 0) else FLATTER


def _corrected(rows: Sequence[Difference]) -> list[Difference]:
    """Holm 1979: the ``k``-th smallest of ``n`` has to be below ``0.05 / (n - k + 1)``, and all before it."""
    order = sorted((i for i, row in enumerate(rows) if row.p is not None), key=lambda i: rows[i].p)  # type: ignore[arg-type, return-value]
    passed = set()
    for rank, i in enumerate(order):
        if rows[i].p > LEVEL / (len(order) - rank):  # type: ignore[operator]
            break
        passed.add(i)
    return [
        row if row.p is None else replace(row, holm=row.holm and i in passed)
        for i, row in enumerate(rows)
    ]


def _key(row: Measurement) -> str:
    return " ".join(settings_text(dict(sorted(row.settings.items()))))
