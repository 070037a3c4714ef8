"""The table of all measures: what each is called, what it says, and about what it costs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from landscape.objective import Objective
from landscape.sharpness.ascent import asam, sam
from landscape.sharpness.average import (
    average,
    average_adaptive,
    filter_average,
    layer_relative,
    local_entropy,
)
from landscape.sharpness.curvature import (
    adaptive_lambda_max,
    adaptive_trace,
    lambda_max,
    lambda_min,
    trace,
)
from landscape.sharpness.edge import edge_of_stability
from landscape.sharpness.gradient import gradient_norm
from landscape.sharpness.keskar import keskar, keskar_subspace
from landscape.sharpness.layers import fisher_rao, minimum_sharpness, relative_flatness
from landscape.sharpness.measurement import Measurement
from landscape.sharpness.pac_bayes import pac_bayes, pac_bayes_magnitude
from landscape.sharpness.spectral import (
    effective_dimension,
    frobenius,
    log_determinant,
    negative_mass,
)
from landscape.sharpness.worst import worst_l2, worst_l2_adaptive, worst_linf_adaptive

WORST_CASE = "worst case"
"""Family of the largest rises."""

WORK = {
    "gradient": 1.0, "eigenvectors": 55.0, "probes": 32.0, "quadrature": 190.0, "eigenvectors of DHD": 55.0,
    "probes of DHD": 32.0,
}  # fmt: skip
"""What several measures have in common, and about what it costs in FB."""

_SLOPE, _TOP, _TOP_D = ("gradient",), ("eigenvectors",), ("eigenvectors of DHD",)
_PROBED, _PROBED_D, _SPECTRUM = (*_TOP, "probes"), (*_TOP_D, "probes of DHD"), (*_TOP, "quadrature")

_EFFORT = ("steps", "pairs", "probes", "draws", "iterations", "bisections", "repeats")
"""Settings that a measure's cost is about proportional to."""


@dataclass(frozen=True)
class Entry:
    """One measure of the table.

    Attributes:
        measure: ``(point, **settings) -> Measurement``.
        title: what it is, in a few words.
        family: ``"gradient"``, ``"curvature"``, ``"worst case"``, ``"average case"``, ``"PAC-Bayes"``,
            ``"function"``, or ``"own"`` for a measure that the objective brings.
        orientation: 1 where a larger value is sharper, -1 where it is flatter, 0 where it says neither.
        forecast: about what it costs at its defaults, on its own, in FB.
        rise: what the value is, where it is a rise of the loss: ``"l2"``, ``"adaptive l2"`` or ``"adaptive linf"``
            for the rise within that ball of radius ``rho``, ``"mean"`` for a mean rise; empty elsewhere.
        shared: the parts of that cost, by name, that it shares with other measures; see :data:`WORK`.
    """

    measure: Callable[..., Measurement]
    title: str
    family: str
    orientation: int
    forecast: float
    rise: str = ""
    shared: tuple[str, ...] = ()


@runtime_checkable
class WithMeasures(Protocol):
    """An objective that brings measures of its own, such as those of a meta objective.

    The first line of a measure's docstring is its title; an attribute ``orientation`` (see
    :class:`Entry`) makes its differences verdicts, an attribute ``forecast`` tells its cost.
    """

    def measures(self) -> Mapping[str, Callable[..., Measurement]]:
        """Name -> ``(point, **settings) -> Measurement``."""


_OWN_FORECAST = 10.0

ENTRIES: dict[str, Entry] = {
    entry.measure.__name__: entry
    for entry in (
        Entry(gradient_norm, "length of the gradient", "gradient", 0, 2, shared=_SLOPE),
        Entry(sam, "rise after one ascent step", WORST_CASE, 1, 3.7, "l2", _SLOPE),
        Entry(
            asam, "rise after one relative ascent step", WORST_CASE, 1, 3.7, "adaptive l2", _SLOPE
        ),
        Entry(lambda_max, "largest eigenvalue of the Hessian", "curvature", 1, 60, shared=_TOP),
        Entry(lambda_min, "smallest eigenvalue of the Hessian", "curvature", 0, 60, shared=_TOP),
        Entry(fisher_rao, "mean squared slope along w", "function", 1, 2, shared=_SLOPE),
        Entry(average, "mean rise, Gaussian noise", "average case", 1, 27, "mean"),
        Entry(average_adaptive, "mean rise, noise by weight", "average case", 1, 27, "mean"),
        Entry(trace, "trace of the Hessian", "curvature", 1, 90, shared=_PROBED),
        Entry(
            adaptive_lambda_max,
            "largest eigenvalue of DHD, D = |w|",
            "curvature",
            1,
            60,
            shared=_TOP_D,
        ),
        Entry(adaptive_trace, "trace of DHD, D = |w|", "curvature", 1, 90, shared=_PROBED_D),
        Entry(worst_l2, "largest rise in a ball", WORST_CASE, 1, 90, "l2"),
        Entry(
            worst_l2_adaptive, "largest rise in a ball by weight", WORST_CASE, 1, 90, "adaptive l2"
        ),
        Entry(
            worst_linf_adaptive,
            "largest rise in a box by weight",
            WORST_CASE,
            1,
            90,
            "adaptive linf",
        ),
        Entry(keskar, "largest rise in a box, in percent", WORST_CASE, 1, 28),
        Entry(relative_flatness, "curvature of the head, by its weights", "curvature", 1, 5),
        Entry(filter_average, "mean rise, noise by filter", "average case", 1, 22, "mean"),
        Entry(layer_relative, "mean rise, noise by layer", "average case", 1, 28, "mean"),
        Entry(pac_bayes, "1/sigma^2 of the noise that costs 10 %", "PAC-Bayes", 1, 25),
        Entry(pac_bayes_magnitude, "1/sigma^2 of such noise by weight", "PAC-Bayes", 1, 25),
        Entry(local_entropy, "local entropy", "average case", 1, 11),
        Entry(frobenius, "Frobenius norm of the Hessian", "curvature", 1, 90, shared=_PROBED),
        Entry(negative_mass, "share of negative curvature", "curvature", 0, 250, shared=_SPECTRUM),
        Entry(effective_dimension, "directions above alpha", "curvature", 1, 250, shared=_SPECTRUM),
        Entry(
            log_determinant, "log-determinant of I + H/gamma", "curvature", 1, 250, shared=_SPECTRUM
        ),
        Entry(
            minimum_sharpness, "smallest trace by layer scales", "curvature", 1, 90, shared=_PROBED
        ),
        Entry(keskar_subspace, "largest rise in a random box, in percent", WORST_CASE, 1, 145),
        Entry(edge_of_stability, "curvature by what the steps bear", "curvature", 0, 60),
    )
}
"""Every measure by name, the most informative for its cost first."""

MEASURES: dict[str, Callable[..., Measurement]] = {
    name: entry.measure for name, entry in ENTRIES.items()
}
"""Every measure by name; its keyword arguments are its settings."""


def available(objective: Objective) -> dict[str, Entry]:
    """The table for an objective: :data:`ENTRIES`, then the measures that it brings itself.

    Raises:
        ValueError: one of its own measures has the name of another.
    """
    own = objective.measures() if isinstance(objective, WithMeasures) else {}
    taken = [name for name in own if name in ENTRIES]
    if taken:
        raise ValueError(f"the objective's measure {taken[0]!r} has the name of another: rename it")
    return ENTRIES | {
        name: Entry(
            measure,
            (inspect.getdoc(measure) or name).splitlines()[0].rstrip("."),
            "own",
            getattr(measure, "orientation", 0),
            getattr(measure, "forecast", _OWN_FORECAST),
        )
        for name, measure in own.items()
    }


def defaults(entry: Entry) -> dict[str, Any]:
    """Settings of a measure with their defaults.

    >>> defaults(ENTRIES["gradient_norm"])
    {}
    """
    parameters = list(inspect.signature(entry.measure).parameters.values())[1:]
    return {p.name: None if p.default is p.empty else p.default for p in parameters}


def resolved(
    entries: Mapping[str, Entry], chosen: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """All settings of each entry: the defaults, and what was chosen instead.

    Raises:
        ValueError: an unknown measure or setting.
    """
    unknown = [name for name in chosen if name not in entries]
    if unknown:
        raise ValueError(unknown_measure(unknown[0], entries))
    full = {}
    for name, entry in entries.items():
        known = defaults(entry)
        for key in chosen.get(name, {}):
            if key not in known:
                raise ValueError(
                    f"unknown setting {key!r} of {name}: "
                    f"expected any of {', '.join(known) or '(it has none)'}"
                )
        full[name] = known | dict(chosen.get(name, {}))
    return full


def unknown_measure(name: str, entries: Mapping[str, Entry]) -> str:
    """The line that says which measures there are."""
    return f"unknown measure {name!r}: expected any of {', '.join(entries)}"


def forecast(entry: Entry, settings: Mapping[str, Any], done: Collection[Entry] = ()) -> float:
    """About what a measure costs at these settings after others have run, in FB.

    >>> average, trace = ENTRIES["average"], ENTRIES["trace"]
    >>> round(forecast(average, {"pairs": 160}) / forecast(average, {}))
    10
    >>> forecast(trace, {}), forecast(trace, {}, [ENTRIES["lambda_max"]])
    (90.0, 35.0)
    """
    share = 1.0
    for key, usual in defaults(entry).items():
        value = settings.get(key, usual)
        if key in _EFFORT and usual and isinstance(value, int | float):
            share *= max(value, 0) / usual
        elif key == "ladder" and usual:
            share *= (1 + len(value)) / (1 + len(usual))
    paid = set(entry.shared) & {block for other in done for block in other.shared}
    return max(float(entry.forecast) - sum(WORK[block] for block in paid), 0.0) * share
