"""How much the loss rises within a ball: one ascent step (SAM, ASAM), or many."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.directions import generator
from landscape.sharpness.measurement import VALUE_COST, Measurement, Point, length

_STATIONARY = "the gradient is zero: there is no ascent direction"


def sam(point: Point, rho: float = 0.05) -> Measurement:
    """Rise of the loss after one normalized ascent step.

    ``L(w + ρ g/‖g‖) − L(w)``

    Foret et al. 2021 (Sharpness-Aware Minimization), eq. 2 and 3. On ``½ wᵀAw`` it is
    ``ρ‖g‖ + ½ρ² gᵀAg/‖g‖²``.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]).double())
    >>> round(sam(Point(bowl), rho=0.1).value, 9)  # 0.1 * 10 + 0.1 ** 2
    1.01
    """
    _positive("sam", rho=rho)
    return _rise(point, "sam", sam_step(point, rho), {"rho": rho})


def asam(point: Point, rho: float = 0.5, eta: float = 0.0) -> Measurement:
    """Rise of the loss after one ascent step measured relative to each weight.

    ``L(w + ρ T²g/‖Tg‖) − L(w), T = diag(|w| + η)``

    Kwon et al. 2021 (ASAM), eq. 8; with ``η = 0`` it does not change when the weights of a ReLU
    network are rescaled without changing its function, and a weight of exactly zero stays zero.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([2.0, 0.0]).double())
    >>> round(asam(Point(bowl), rho=0.5).value, 9)  # w = 2 moves by 0.5 * 2
    5.0
    """
    _positive("asam", rho=rho)
    if not eta >= 0:
        raise ValueError(f"asam: eta is {eta}, expected 0 or more")
    scale = point.theta.abs() + eta
    norm = length(scale * point.gradient)
    step = torch.zeros_like(point.theta) if norm == 0 else scale**2 * point.gradient * (rho / norm)
    return _rise(point, "asam", step, {"rho": rho, "eta": eta})


def worst_l2(point: Point, rho: float = 0.05, steps: int = 20) -> Measurement:
    """Largest rise of the loss within a ball, by projected gradient ascent.

    ``max over ‖δ‖ ≤ ρ of L(w + δ) − L(w)``

    Andriushchenko et al. 2023 (A Modern Look at Sharpness), with the steps of Auto-PGD (Croce & Hein
    2020): first ``2ρ``, halved whenever the loss does not rise. Two starts, the SAM point (where a
    start at zero arrives with its first step) and a random point of the sphere, which is what finds
    the sharp direction at an exact minimum. The best point ever seen counts, so the value is a lower
    bound of the maximum and never below ``sam`` of the same radius.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(worst_l2(Point(bowl), rho=0.1).value, 9)  # at a minimum: rho ** 2 / 2 * lambda_max
    0.05
    """
    _positive("worst_l2", rho=rho)
    if steps < 1:
        raise ValueError(f"worst_l2: steps is {steps}, expected at least 1")
    drawn = generator(point.seed, "worst_l2").standard_normal(point.theta.numel())
    random = torch.from_numpy(drawn).to(point.theta)
    starts = [sam_step(point, rho), random * (rho / length(random))]
    best = max(
        (_climb(point, start, rho, steps) for start in starts),
        key=lambda rise: float(rise.mean()),
    )
    cost = 1 + 2 * (steps * (1 + VALUE_COST) + VALUE_COST)
    if float(best.mean()) < 0:  # the ball holds its own centre
        best = torch.zeros_like(best)
    return Measurement(
        "worst_l2",
        float(best.mean()),
        point.paired_error(best),
        settings={"rho": rho, "steps": steps},
        cost=cost,
        note="lower bound of the maximum; the error is paired over the data at the point found",
    )


def sam_step(point: Point, rho: float) -> Tensor:
    """``ρ g/‖g‖``, or zero where the gradient is zero."""
    norm = length(point.gradient)
    return torch.zeros_like(point.theta) if norm == 0 else point.gradient * (rho / norm)


def _climb(point: Point, start: Tensor, rho: float, steps: int) -> Tensor:
    """The largest rise seen on the way up from ``start``, by terms."""
    place, best = start, point.rise(start)
    size = 2 * rho
    for _ in range(steps):
        gradient = point.objective.gradient(point.theta + place)
        norm = length(gradient)
        if norm == 0:
            break
        trial = place + gradient * (size / norm)
        reach = length(trial)
        trial = trial * (rho / reach) if reach > rho else trial
        rise = point.rise(trial)
        if float(rise.mean()) > float(best.mean()):
            place, best = trial, rise
        else:
            size /= 2
    return best


def _rise(point: Point, name: str, step: Tensor, settings: dict[str, float]) -> Measurement:
    rise = point.rise(step)
    note = "" if bool(step.any()) else _STATIONARY
    return Measurement(
        name, float(rise.mean()), point.paired_error(rise), None, settings, 1 + VALUE_COST, note
    )


def _positive(name: str, **settings: float) -> None:
    for key, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name}: {key} is {value}, expected a positive number")
