"""Which evaluator to use: candidates are run on the first points, checked against the plain one, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.evaluator import Columns, Evaluator, PointByPoint
from landscape.executors import Unsupported, candidates
from landscape.objective import Objective

_HOPELESS = (
    8.0  # times the plain way's time for a point: vmap over convolutions on a CPU, as a rule
)
_TRIAL_SECONDS = 2.0  # what a trial of one candidate may cost, roughly
_MAX_TRIAL_POINTS = 16
_WORTH_MEASURING = 16  # with fewer points than this a trial costs more than it can save
_WORTH_COMPILING = 120.0  # seconds of plain evaluation; a compilation takes half a minute and more
_REPEATABLE = ("stacked", "fused")  # the fast ways that serve most, in this order
_TOLERANCES = {"float64": 1e-8, "float32": 1e-3}  # of the loss, against the plain evaluator


@dataclass(frozen=True)
class Choice:
    """An evaluator and why it was chosen.

    Attributes:
        evaluator: ready to use.
        seconds: per point, for each candidate that was timed.
        setup_seconds: of each candidate that was built.
        differences: greatest relative difference of the loss from the plain evaluator's.
        left_out: why a candidate was not used.
    """

    evaluator: Evaluator
    seconds: dict[str, float] = field(default_factory=dict)
    setup_seconds: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """Everything but the evaluator itself, JSON-able."""
        return {
            "executor": self.evaluator.name,
            "seconds_per_point": self.seconds,
            "setup_seconds": self.setup_seconds,
            "differences": self.differences,
            "left_out": self.left_out,
        }


def available(objective: Objective, plane: Plane) -> dict[str, Callable[[], Evaluator]]:
    """The evaluators that can be tried for an objective on a plane, by name, ``"plain"`` among them.

    An objective of another package offers its own through a method ``evaluators(plane)``.
    """
    offered = getattr(objective, "evaluators", None)
    if offered is not None:
        return dict(offered(plane))
    if isinstance(objective, DataObjective):
        return candidates(objective, plane)
    return {"plain": lambda: PointByPoint(objective, plane)}


def choose(
    objective: Objective, plane: Plane, places: np.ndarray[Any, Any], executor: str = "auto"
) -> Choice:
    """The evaluator named, or the fastest of those that agree with the plain one on the first points.

    Args:
        objective: the function.
        plane: where the points lie.
        places: all coordinates that will be asked for, ``(points, axes)``, the first first.
        executor: a name, ``"auto"`` or ``"repeatable"``. Under ``auto``, compilation is tried only where the
            plain way would take minutes, and nothing is tried for a handful of points. ``repeatable`` asks
            no clock: the first of the fast ways that serves and agrees, so that two runs agree to the bit.

    Raises:
        ValueError: an unknown name, or one that cannot serve this objective (the reason is named).
    """
    offered = available(objective, plane)
    if executor == "repeatable":
        return _repeatable(offered, places, _tolerance(objective))
    if executor != "auto":
        if executor not in offered:
            raise ValueError(
                f"unknown executor {executor!r}: expected auto, repeatable or one of "
                f"{', '.join(offered)}"
            )
        try:
            evaluator = offered[executor]()
        except Unsupported as error:
            raise ValueError(
                f"executor {executor!r} cannot serve this objective: {error}"
            ) from None
        return Choice(evaluator, setup_seconds={executor: evaluator.setup_seconds})
    plain = offered.pop("plain")()
    if len(places) < _WORTH_MEASURING or not offered:
        return Choice(plain)
    return _measured(plain, offered, places, _tolerance(objective))


def _repeatable(
    offered: dict[str, Callable[[], Evaluator]], places: np.ndarray[Any, Any], tolerance: float
) -> Choice:
    plain, some = offered["plain"](), places[:3]
    result = Choice(plain)
    for name in _REPEATABLE:
        if name not in offered or not len(some):
            continue
        try:
            evaluator = offered[name]()
            difference = _difference(evaluator(some), plain(some))
        except Unsupported as error:
            result.left_out[name] = str(error)
            continue
        if difference <= tolerance:
            return Choice(evaluator, left_out=result.left_out)
        result.left_out[name] = f"differs from plain by {difference:.1g}"
    return result


def _measured(
    plain: Evaluator,
    offered: dict[str, Callable[[], Evaluator]],
    places: np.ndarray[Any, Any],
    tolerance: float,
) -> Choice:
    start = time.perf_counter()
    plain(places[:2])
    per_point = (time.perf_counter() - start) / 2
    some = places[
        : int(np.clip(_TRIAL_SECONDS / per_point, 2, min(_MAX_TRIAL_POINTS, len(places))))
    ]
    expected, each = _timed(plain, some)
    result = Choice(plain, {plain.name: each}, {plain.name: plain.setup_seconds})
    best, least = plain, each * len(places)
    for name, build in offered.items():
        if name == "compile" and least < _WORTH_COMPILING:
            result.left_out[name] = f"the surface takes {least:.0f} s without it"
            continue
        try:
            evaluator = build()
            if name != "compile" and evaluator.setup_seconds > _HOPELESS * (each + 0.1):
                took = f"{evaluator.setup_seconds:.1f} s for its first point"
                result.left_out[name] = f"{took}, plain takes {each:.2g} s"
                continue
            evaluator(some[:2])  # the first call of its kind sets things up
            found, seconds = _timed(evaluator, some)
        except Unsupported as error:
            result.left_out[name] = str(error)
            continue
        except Exception as error:  # a compiler's or a user's code runs here; the plain way remains
            words = (str(error).splitlines() or [""])[0]
            result.left_out[name] = f"{type(error).__name__}: {words}"
            continue
        difference = _difference(found, expected)
        result.differences[name] = difference
        result.seconds[name] = seconds
        result.setup_seconds[name] = evaluator.setup_seconds
        if not difference <= tolerance:
            result.left_out[name] = f"differs from plain by {difference:.1g}"
        elif seconds * len(places) < least:
            best, least = evaluator, seconds * len(places)
    return Choice(best, result.seconds, result.setup_seconds, result.differences, result.left_out)


def _timed(evaluator: Evaluator, places: np.ndarray[Any, Any]) -> tuple[Columns, float]:
    """The numbers, and seconds a point: the better of two halves, since a busy machine only slows down."""
    halves = []
    found: list[Columns] = []
    for half in np.array_split(places, 2):
        start = time.perf_counter()
        found.append(evaluator(half))
        halves.append((time.perf_counter() - start) / len(half))
    return {"loss": np.concatenate([part["loss"] for part in found])}, min(halves)


def _difference(found: Columns, expected: Columns) -> float:
    """Greatest difference of the loss relative to its size; NaN where only one of them is finite."""
    a, b = found["loss"], expected["loss"]
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = np.abs(b) + 0.01  # a loss near zero is the rounding of large logits
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(same, 0.0, np.abs(a - b) / scale)))


def _tolerance(objective: Objective) -> float:
    dtype = str(objective.settings.get("precision", objective.settings.get("dtype", "float32")))
    return _TOLERANCES.get(dtype, 3e-2)
