"""How much noise the weights bear before the network is noticeably worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from landscape.sharpness.draws import check_pairs, drawn, even_parts, pieces_of
from landscape.sharpness.measurement import Measurement, NotApplicable, estimate
from landscape.sharpness.point import Point, measured, positive
from landscape.sharpness.radius import Crossing, crossing
from landscape.sharpness.skewness import corrected

QUANTITIES = ("auto", "error", "loss")


@measured
def pac_bayes(
    point: Point, deviation: float = 0.1, quantity: str = "auto", pairs: int = 16, tol: float = 0.01
) -> Measurement:
    """Inverse variance of the Gaussian noise on the weights that raises the error by a given amount.

    ``1/σ², σ the largest with E[err(w + δ)] ≤ err(w) + deviation, δ ~ N(0, σ² I)``

    The flatness term of the PAC-Bayes bounds of Jiang et al. 2020 (Fantastic Generalization Measures),
    eq. 53, whose deviation is 0.1 in 0/1 error. Large is sharp. The bound itself is not given: it needs the
    initial weights and the size of the whole training set. With a budget of loss ``ε`` on ``½ wᵀAw``,
    ``σ² = 2ε / tr A`` in expectation.

    **Published numbers.** The code behind several published comparisons (nitarshan's, and kampmichael's
    copy of it) draws with ``torch.normal(0, sigma**2)``, whose second argument is a standard deviation:
    its sigma is the square root of the standard deviation of its noise. Where it reports ``s``, our
    ``σ`` is ``s²`` and our value ``1/s⁴``. It also folds batch norms into the weights before the noise and
    leaves biases and norm layers out of its norms; here every trainable tensor gets noise as it is.

    **The search.** The draws are fixed by the seed, so the mean rise ``R(σ)`` is a function, and its root
    is found by secants in a few values (:func:`landscape.sharpness.radius.crossing`), beginning with the
    radii of :func:`landscape.sharpness.average`, which are paid once. A 0/1 error is a step
    function of σ: the root is known within ``tol``.

    **The error** is that of the root (delta method): deviations of ``R`` over draws and terms, divided
    by the slope of ``R``, which is taken over a finite distance in σ (a factor of 1.1 or more) as the 0/1 error has
    no derivative. If the curve is not monotone there can
    be several roots; one is found.

    Args:
        point: where.
        deviation: allowed rise; a share of the examples, or in units of the loss.
        quantity: ``"error"`` (0/1), ``"loss"``, or ``"auto"``: the error where there is an accuracy.
        pairs: of draws ``±δ``, on all pieces of the data together, as in
            :mod:`landscape.sharpness.average`; all radii have the same.
        tol: of the rise at the root, relative to the deviation, or of σ.

    Returns:
        The note holds σ, in units of the weights.

    Raises:
        NotApplicable: the deviation is not reached with any radius up to 1000, or exceeded down to 1e-6; or
            the error is asked for and there is no accuracy.
        ValueError: a setting out of range.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2).double())  # tr A = 4
    >>> row = pac_bayes(Point(bowl), deviation=0.08, pairs=400)  # 1/σ² = 4 / 0.16
    >>> abs(row.value - 25) < 4 * row.stderr
    True
    """
    return _measure(
        point, "pac_bayes", deviation, quantity, pairs, tol, "plain", (0.01, 0.02, 0.05, 0.1)
    )


@measured
def pac_bayes_magnitude(
    point: Point,
    deviation: float = 0.1,
    quantity: str = "auto",
    pairs: int = 16,
    tol: float = 0.01,
    epsilon: float = 1e-3,
) -> Measurement:
    """As :func:`pac_bayes`, with noise in proportion to each weight.

    ``1/σ², σ the largest with E[err(w + δ)] ≤ err(w) + deviation, δ ~ N(0, diag(σ² w² + ε²))``

    Jiang et al. 2020, eq. 61, with their ``ε = 1e-3``, in units of the weights; σ has no unit. Unchanged by
    function-preserving rescaling of a ReLU network as far as ``ε`` is small beside ``σ|w|``. With a budget
    of loss on ``½ wᵀAw``, ``σ² = (2 deviation − ε² tr A) / Σ wᵢ² aᵢᵢ`` in expectation. What is said of
    published numbers there holds here too: the published code takes ``σ² w² + ε²`` for the standard
    deviation.

    Args:
        point: where.
        deviation: as there.
        quantity: as there.
        pairs: as there.
        tol: as there.
        epsilon: standard deviation of the noise on a weight of zero; 0 for none.

    Raises:
        NotApplicable: as there; also where ``ε`` alone is too much noise, or all weights are zero.
        ValueError: a setting out of range.
    """
    if not epsilon >= 0:
        raise ValueError(f"pac_bayes_magnitude: epsilon is {epsilon}, expected 0 or more")
    return _measure(
        point, "pac_bayes_magnitude", deviation, quantity, pairs, tol,
        "adaptive", (0.05, 0.1, 0.2, 0.4), epsilon,
    )  # fmt: skip


def _measure(
    point: Point,
    name: str,
    deviation: float,
    quantity: str,
    pairs: int,
    tol: float,
    scaling: str,
    ladder: Sequence[float],
    floor: float | None = None,
) -> Measurement:
    positive(name, deviation=deviation, tol=tol)
    check_pairs(name, pairs)
    column, sign = _column(point, name, quantity)
    settings = {
        "deviation": deviation, "quantity": "error" if sign < 0 else "loss", "tol": tol,
        **drawn(point, pairs),
    } | ({} if floor is None else {"epsilon": floor})  # fmt: skip

    def rises(sigma: float) -> Tensor:
        return sign * even_parts(point, scaling, sigma, pairs, floor or 0.0, column)

    found = crossing(lambda sigma: float(rises(sigma).mean()), deviation, ladder, tol)
    value, at = 1 / found.radius**2, rises(found.radius)
    # d log(1/σ²) = -2 d log σ = 2 dR / (dR/d log σ)
    scale = 2 * value / found.slope
    influence = point.influence(scale * at.mean(0), scale * at.mean(1))
    if math.isnan(scale):
        influence = point.influence()
    bound = value * math.expm1(2 * found.error)
    row = estimate(
        name, value, influence, settings,
        bound=bound, note=_note(found, at), converged=found.converged,
    )  # fmt: skip
    if row.interval is None or math.isnan(scale):
        return replace(row, stderr=None, interval=None)
    low, high = corrected(row).interval or row.interval
    return replace(row, interval=(max(low, 0.0), high))


def _column(point: Point, name: str, quantity: str) -> tuple[str, float]:
    """The column of scores, and the sign with which it gets worse."""
    if quantity not in QUANTITIES:
        raise ValueError(
            f"{name}: unknown quantity {quantity!r}: expected one of {', '.join(QUANTITIES)}"
        )
    classes = "accuracy" in pieces_of(point)[0].scores
    if quantity == "error" and not classes:
        raise NotApplicable("the objective has no accuracy: use quantity='loss'")
    return ("accuracy", -1.0) if classes and quantity != "loss" else ("loss", 1.0)


def _note(found: Crossing, rises: Tensor) -> str:
    note = f"sigma = {found.radius:.4g}, where the mean rise is {float(rises.mean()):.4g}"
    if math.isnan(found.slope):
        note += "; no error: the curve has no slope there"
    return note if found.converged else f"{note}; the search ended before its tolerance"
