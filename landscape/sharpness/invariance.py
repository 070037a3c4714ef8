"""Which measures change when a network is rescaled without changing its function."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from landscape.data_objective import DataObjective
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.selftest import require
from landscape.operators.symmetric import SymmetricOperator
from landscape.sharpness.measurement import Measurement, NotApplicable
from landscape.sharpness.point import Point
from landscape.sharpness.rescaling import rescalings
from landscape.spectra.eigenpairs import ConvergenceWarning

TOLERANCE = 0.01
"""A measure whose value moves by at most this share of itself is invariant."""

_ROUNDING = 1e-4  # agreement that no measure reaches by chance, however much its draws scatter
_MOST: dict[str, float] = {
    "pairs": 8,
    "probes": 4,
    "draws": 8,
    "steps": 10,
    "iterations": 5,
    "repeats": 2,
    "k": 2,
}
_LEAST: dict[str, float] = {"tol": 1e-2}

Measures = Mapping[str, Callable[..., Measurement]]


@dataclass(frozen=True)
class Mark:
    """What one rescaling did to one measure; ``str(mark)`` is how it is printed.

    Attributes:
        invariant: whether the value stayed within :data:`TOLERANCE`; ``None`` where that cannot be told.
        ratio: value at the rescaled point over the value at the point; infinite from a value of 0.
        reason: why it cannot be told.

    >>> str(Mark(True, 1.0)), str(Mark(False, 147.2)), str(Mark(None, reason="no layers"))
    ('yes', 'no (x147)', '-')
    """

    invariant: bool | None
    ratio: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.invariant is None:
            return "-"
        return "yes" if self.invariant else f"no (x{self.ratio:.3g})"


@dataclass(frozen=True)
class Invariance:
    """Marks of one measure.

    Attributes:
        layers: under one factor a pair of layers.
        neurons: under a factor for each channel between them.
    """

    layers: Mark
    neurons: Mark


@dataclass(frozen=True)
class Invariances(Mapping[str, Invariance]):
    """Marks by measure.

    Attributes:
        marks: by name, in the order asked for.
        pairs: names of the modules that were rescaled.
        reason: why there is no whole-layer or no per-neuron rescaling; empty where there are both.
        examples: on how many terms the measures were compared.
        cost: what all of it took, in FB over all data of the objective.
    """

    marks: Mapping[str, Invariance]
    pairs: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    examples: int = 0
    cost: float = 0.0

    def __getitem__(self, name: str) -> Invariance:
        return self.marks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.marks)

    def __len__(self) -> int:
        return len(self.marks)

    def plain(self) -> dict[str, dict[str, Any]]:
        """By measure: ``layers`` and ``neurons`` (``True``, ``False``, ``None``), ratios and reasons."""
        return {
            name: {
                "layers": row.layers.invariant,
                "neurons": row.neurons.invariant,
                "layers_ratio": row.layers.ratio,
                "neurons_ratio": row.neurons.ratio,
                "reason": row.layers.reason or row.neurons.reason,
            }
            for name, row in self.marks.items()
        }


def invariances(
    objective: Objective,
    names: Iterable[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    theta: Tensor | None = None,
    examples: int = 128,
    measures: Measures | None = None,
) -> Invariances:
    """Compute measures at a point and at rescaled points of the same function (Dinh et al. 2017).

    On the first piece of the data and with few draws and steps, because a ratio needs less than a value;
    all three points share their draws, so that a measure that is invariant agrees to rounding.
    Networks are rescaled by :func:`landscape.sharpness.rescaling.rescalings`. Where examples are coupled by
    the statistics of their batch, the piece is at least one batch.

    Args:
        objective: the loss of a network over data; others have a ``reason`` and no marks.
        names: measures.
        settings: by measure, as in a report; numbers of draws, probes and steps are cut down.
        seed: of every random draw.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        examples: size of the piece.
        measures: by name; those of the report when left out.

    Raises:
        ValueError: an unknown measure, or a setting out of range.
    """
    if measures is None:
        # Here and not above: the table of all measures is made of modules that report on these marks.
        from landscape.sharpness.registry import available

        measures = {name: entry.measure for name, entry in available(objective).items()}
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in measures]
    if unknown:
        raise ValueError(f"unknown measure {unknown[0]!r}: expected any of {', '.join(measures)}")
    found = rescalings(objective, theta, seed)
    if found.layers is None and found.neurons is None:
        nothing = Invariance(*[Mark(None, reason=found.reason)] * 2)
        return Invariances(dict.fromkeys(names, nothing), reason=found.reason, cost=found.cost)
    whole = Point(objective, theta, seed)
    piece = _first_piece(whole, examples)
    before = _Here(piece.objective, whole.theta, seed, ledger=whole.ledger, share=piece.share)
    moved = [
        None if theta is None
        else _Elsewhere(piece.objective, theta, seed, ledger=whole.ledger, share=piece.share)
        for theta in (found.layers, found.neurons)
    ]  # fmt: skip
    marks = {
        name: _compared(measures[name], (settings or {}).get(name, {}), before, moved, found.reason)
        for name in names
    }
    count = int(piece.objective.settings.get("examples", 0))
    return Invariances(marks, found.pairs, found.reason, count, found.cost + whole.ledger.spent)


class _Here(Point):
    """A point whose account holds the test of its Hessian too."""

    @cached_property
    def hessian(self) -> SymmetricOperator:
        operator = operator_of(self.objective, self.theta, check=False)
        self.pay(require(operator).cost)
        return operator


class _Elsewhere(Point):
    """A rescaled point: the Hessian of the same function, which was tested where it is better scaled."""

    @cached_property
    def hessian(self) -> SymmetricOperator:
        return operator_of(self.objective, self.theta, check=False)


def _first_piece(whole: Point, examples: int) -> Point:
    pieces = whole.pieces(examples)
    if not pieces and isinstance(whole.objective, DataObjective):  # batches that are not to be cut
        pieces = whole.pieces(max(batch.size for batch in whole.objective.batches))
    return pieces[0] if pieces else whole


def _compared(
    measure: Callable[..., Measurement],
    chosen: Mapping[str, Any],
    point: Point,
    moved: Iterable[Point | None],
    missing: str,
) -> Invariance:
    settings = _cheap(measure, chosen)
    with warnings.catch_warnings():
        # An eigenvalue to few digits is enough, and its residual is part of what a mark allows for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            before = measure(point, **settings)
        except NotApplicable as error:
            return Invariance(*[Mark(None, reason=str(error))] * 2)
        return Invariance(*(_moved(measure, settings, before, other, missing) for other in moved))


def _moved(
    measure: Callable[..., Measurement],
    settings: Mapping[str, Any],
    before: Measurement,
    point: Point | None,
    missing: str,
) -> Mark:
    if point is None:
        return Mark(None, reason=missing)
    try:
        after = measure(point, **settings)
    except (ValueError, RuntimeError) as error:  # it worked at the point itself
        return Mark(None, reason=f"fails where the network is rescaled: {error}")
    return _mark(before, after)


def _cheap(measure: Callable[..., Measurement], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings chosen, with no ladder, few draws and a loose tolerance."""
    known = {
        name: parameter.default
        for name, parameter in list(inspect.signature(measure).parameters.items())[1:]
    }
    settings = dict(chosen)
    for limits, nearer in ((_MOST, min), (_LEAST, max)):
        for key in known.keys() & limits.keys():
            value = settings.get(key, known[key])
            settings[key] = limits[key] if value is None else nearer(value, limits[key])
    return settings | ({"ladder": ()} if "ladder" in known else {})


def _mark(before: Measurement, after: Measurement) -> Mark:
    if not (math.isfinite(before.value) and math.isfinite(after.value)):
        return Mark(None, reason="the value is not finite")
    if before.value == 0:
        return Mark(False, math.inf) if after.value else Mark(None, reason="the value is 0")
    ratio = after.value / before.value
    off, noise = abs(ratio - 1), _noise(before, after, ratio)
    if off <= _ROUNDING or max(off, noise) <= TOLERANCE:
        return Mark(True, ratio)
    if off > TOLERANCE + 2 * noise:
        return Mark(False, ratio)
    return Mark(None, ratio, f"the ratio {ratio:.3g} ± {noise:.2g} is too uncertain")


def _noise(before: Measurement, after: Measurement, ratio: float) -> float:
    """Uncertainty of the ratio: scatter over the draws, paired where it can be, and numerical bounds."""
    one, two = (np.asarray(row.influence.draws) for row in (before, after))
    if one.shape == two.shape and len(one) > 1:
        scatter = float(np.std(two - ratio * one, ddof=1)) / math.sqrt(len(one))
    else:
        scatter = math.hypot(after.draw_error or 0.0, ratio * (before.draw_error or 0.0))
    return (scatter + after.bound + abs(ratio) * before.bound) / abs(before.value)
