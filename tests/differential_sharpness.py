"""Sharpness measures of the library against their formulas, on one random network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import naive
import naive_sharpness as formulas
import numpy as np
from differential import CURVATURE, VALUE, Finding, Subject, relative
from random_networks import Pooled
from scipy.stats import t as student

from landscape.sharpness import Measurement, NotApplicable, Point
from landscape.sharpness.registry import MEASURES

CHANCE = 1e-6
"""Probability that a mean over random draws is further off than it may be."""


def most(draws: int) -> float:
    """Standard errors that a mean of so many draws may be off, by Student's t."""
    return float(student.ppf(1 - CHANCE / 2, max(draws - 1, 1)))


def first_order(subject: Subject) -> Iterator[Finding]:
    """Gradient norm, SAM, ASAM and the Fisher-Rao norm."""
    case, w, g = subject.case, subject.vector, subject.gradient
    point = Point(subject.objective)
    rise = formulas.rise_of(case, w)
    size = abs(naive.value(case, w))
    yield Finding(
        "gradient_norm", relative(MEASURES["gradient_norm"](point).value, np.linalg.norm(g)), VALUE
    )
    for name, scale, rho in (("sam", np.ones_like(w), 0.05), ("asam", np.abs(w), 0.5)):
        expected = formulas.one_step(rise, g, scale, rho)
        found = MEASURES[name](point, rho=rho).value
        yield Finding(name, relative(found, expected, size + abs(expected)), VALUE)
    if not case.coupled:
        squares = (naive.gradients(case, w) @ w) ** 2
        try:
            found = MEASURES["fisher_rao"](point).value
        except NotApplicable:
            return
        yield Finding("fisher_rao", relative(found, squares.mean()), VALUE)


def curvature(subject: Subject) -> Iterator[Finding]:
    """Measures of the Hessian, with as many products as make them exact."""
    w, hessian, n, size = subject.vector, subject.hessian, len(subject.vector), subject.size
    point = Point(subject.objective)
    values, _ = subject.spectrum
    options: dict[str, Any] = {"tol": 1e-6, "k": min(3, n)}
    found = MEASURES["lambda_max"](point, **options)
    top = [found.value, *(variant.value for variant in found.variants)]
    yield Finding("lambda_max", relative(top, values[::-1][: len(top)], size), CURVATURE)
    low = MEASURES["lambda_min"](point, **options, within=1e-5)
    yield Finding("lambda_min", relative(low.value, values[0], size), CURVATURE)
    scaled = np.abs(w)[:, None] * hessian * np.abs(w)
    large = float(np.linalg.norm(scaled, 2))
    found = MEASURES["adaptive_lambda_max"](point, **options)
    yield Finding(
        "adaptive_lambda_max",
        relative(found.value, np.linalg.eigvalsh(scaled)[-1], large),
        CURVATURE,
    )
    exact = {**options, "probes": max(n, 2)}
    absolute = float(np.abs(values).sum())
    yield Finding(
        "trace, measure",
        relative(MEASURES["trace"](point, **exact).value, values.sum(), absolute),
        CURVATURE,
    )
    found = MEASURES["adaptive_trace"](point, **exact)
    whole = float(np.abs(np.linalg.eigvalsh(scaled)).sum())
    yield Finding("adaptive_trace", relative(found.value, np.trace(scaled), whole), CURVATURE)
    found = MEASURES["frobenius"](point, **exact)
    yield Finding("frobenius", relative(found.value, np.sqrt((values**2).sum())), CURVATURE)
    expected = formulas.smallest_trace(subject.case.model, hessian)
    try:
        found = MEASURES["minimum_sharpness"](point, **exact)
        yield Finding("minimum_sharpness", relative(found.value, expected or np.nan), 1e-6)
    except NotApplicable:
        yield Finding("minimum_sharpness", 0.0 if expected is None else np.inf, 1e-6)
    yield from of_the_spectrum(subject, point, values)


def of_the_spectrum(
    subject: Subject, point: Point, values: np.ndarray[Any, Any]
) -> Iterator[Finding]:
    """Those made by quadrature, every eigenvalue deflated where there are few, else within their errors."""
    n = len(values)
    high = np.maximum(values, 0)
    unit = float(np.abs(values).max())
    expected: dict[str, tuple[float, dict[str, float]]] = {
        "negative_mass": (float(np.maximum(-values, 0).sum() / np.abs(values).sum()), {}),
        "effective_dimension": (float((high / (high + unit / 3)).sum()), {"alpha": unit / 3}),
        "log_determinant": (float(0.5 * np.log1p(high / unit).sum()), {"gamma": unit}),
    }
    for name, (truth, options) in expected.items():
        found = MEASURES[name](
            point, steps=min(n, 20), probes=6, tol=1e-4, k=min(n - 1, 5), **options
        )
        yield within(name, found, truth, 1e-6)


def head(subject: Subject) -> Iterator[Finding]:
    """Relative flatness, where the last linear layer is that of the head."""
    case = subject.case
    linear = case.model.head.out if isinstance(case.model.head, Pooled) else None
    if linear is None or not linear.weight.requires_grad:
        return
    truth = formulas.relative_flatness(case, subject.vector, subject.hessian, linear)
    found = MEASURES["relative_flatness"](Point(subject.objective))
    yield within("relative_flatness", found, truth, 1e-6 * max(abs(truth), subject.size))


def worst(subject: Subject) -> Iterator[Finding]:
    """Largest rises in small balls against the exact maximum of the quadratic model, and in boxes between bounds."""
    case, w, g, hessian = subject.case, subject.vector, subject.gradient, subject.hessian
    point = Point(subject.objective)
    rho = 1e-3 / max(1.0, subject.size / max(float(np.linalg.norm(g)), 1e-3))
    for name, scale in (("worst_l2", np.ones_like(w)), ("worst_l2_adaptive", np.abs(w))):
        expected = formulas.largest_of_model(scale * g, scale[:, None] * hessian * scale, rho)
        found = MEASURES[name](point, rho=rho, ladder=(), m=None, steps=40).value
        yield Finding(name, relative(found, expected), 1e-2)
    rise = formulas.rise_of(case, w)
    corner = rise(rho * np.abs(w) * np.sign(g))
    bound = rho * np.abs(w * g).sum() + 0.5 * rho**2 * np.abs(w) @ np.abs(hessian) @ np.abs(w)
    found = MEASURES["worst_linf_adaptive"](point, rho=rho, ladder=(), m=None).value
    outside = max(corner - found, found - bound, 0.0)
    yield Finding("worst_linf_adaptive", outside / bound, 1e-3)
    if naive.value(case, w) > -0.5:
        expected = formulas.keskar(case, w, g, 1e-3)
        found = MEASURES["keskar"](point, epsilon=1e-3, ladder=()).value
        yield Finding("keskar", relative(found, expected), 1e-2)


def noise(subject: Subject, pairs: int = 24) -> Iterator[Finding]:
    """Mean rises under noise, each a mean over draws of its own on either side."""
    case, w = subject.case, subject.vector
    point, rise, seed = (
        Point(subject.objective, seed=case.seed),
        formulas.rise_of(case, w),
        case.seed,
    )
    kinds: dict[str, tuple[formulas.Noise, dict[str, Any]]] = {
        "average": (formulas.gaussian(0.02, np.ones_like(w)), {"sigma": 0.02, "ladder": ()}),
        "average_adaptive": (formulas.gaussian(0.1, np.abs(w)), {"sigma": 0.1, "ladder": ()}),
        "filter_average": (formulas.by_filter(case.model, 0.1), {"radius": 0.1, "ladder": ()}),
        "layer_relative": (formulas.by_layer(case.model, 0.1), {"xi": 0.1, "worst": 0.0}),
    }
    for name, (draws, options) in kinds.items():
        own = formulas.sampled(rise, draws, pairs, seed)
        found = MEASURES[name](point, pairs=pairs, **options)
        yield off(name, found, own)
    own = formulas.gibbs(rise, formulas.gaussian(0.05, np.ones_like(w)), pairs, seed)
    found = MEASURES["local_entropy"](point, gamma=400.0, pairs=pairs)
    spread = np.hypot(
        own.std(ddof=1) / np.sqrt(pairs) / own.mean(), found.influence.draw_error() or 0.0
    )
    yield Finding(
        "local_entropy, in standard errors",
        abs(found.value + np.log(own.mean())) / spread,
        most(pairs),
    )
    yield from budget(subject, point, rise, pairs)


def budget(subject: Subject, point: Point, rise: formulas.Rise, pairs: int) -> Iterator[Finding]:
    """The noise of PAC-Bayes costs what it is said to cost."""
    w, allowed = subject.vector, 0.02
    try:
        found = MEASURES["pac_bayes"](point, deviation=allowed, quantity="loss", pairs=pairs)
    except NotApplicable:
        return
    sigma = found.value**-0.5
    own = formulas.sampled(
        rise, formulas.gaussian(sigma, np.ones_like(w)), pairs, subject.case.seed + 1
    )
    # A small relative move of σ moves the rise twice as much: the error of 1/σ² is that of the rise.
    own_error = own.std(ddof=1) / np.sqrt(pairs)
    spread = np.hypot(
        own_error, 1.5 * allowed * (found.influence.draw_error() or 0.0) / found.value
    )
    yield Finding(
        "pac_bayes, in standard errors",
        abs(own.mean() - allowed) / (spread + 0.01 * allowed),
        most(pairs),
    )


def within(name: str, found: Measurement, truth: float, rounding: float) -> Finding:
    """Against a number that is known, by the error over the draws and the bound of the quadrature."""
    error = found.influence.draw_error() or 0.0
    allowed = (
        most(len(found.influence.draws)) * error
        + (found.bound or 0.0)
        + rounding * max(abs(truth), 1.0)
    )
    return Finding(f"{name}, of its error", abs(found.value - truth) / allowed, 1.0)


def off(name: str, found: Measurement, own: np.ndarray[Any, Any]) -> Finding:
    """Two means over draws, by the errors of both."""
    spread = np.hypot(own.std(ddof=1) / np.sqrt(len(own)), found.influence.draw_error() or 0.0)
    gap = abs(found.value - own.mean())
    return Finding(
        f"{name}, in standard errors", gap / spread if spread > 0 else gap, most(len(own))
    )


def quiet(check: Callable[[Subject], Iterator[Finding]]) -> Callable[[Subject], Iterator[Finding]]:
    """Without warnings of searches that end at eigenvalues of 0, of which no relative residual is small."""

    def checked(subject: Subject) -> Iterator[Finding]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(check(subject))
        return iter(found)

    return checked


MEASURE_CHECKS = {
    check.__name__: quiet(check) for check in (first_order, curvature, head, worst, noise)
}
