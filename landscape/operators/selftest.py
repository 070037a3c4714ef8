"""A test that an operator is what it says, for a few products, before many are spent on it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.directions import generator
from landscape.norms import native_norms
from landscape.operators.padding import moving
from landscape.operators.summed import PartsOperator
from landscape.operators.symmetric import SymmetricOperator

SMOOTH_LIMIT = 1e-2
COARSE_LIMIT = 0.9

_ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}
_VANISHING = 1e-150  # the squares of smaller entries, and so their norm, are zero in float64
_HALF = 0.1  # where the network itself runs in bfloat16
_FINE_STEPS = (1e-6, 1e-8, 1e-4, 1e-3)
_FINEST_STEPS = (1e-10, 1e-8)  # where kinks are many
_NEARBY = 1e-5  # relative to the parameters: off a kink, and hardly another point
_COARSE_STEPS = (1e-2, 1e-3, 1e-1)

Gradient = Callable[[Tensor], Tensor]


class OperatorError(ValueError):
    """An operator failed its test: numbers made from it would be wrong."""


@dataclass(frozen=True)
class SelfTest:
    """What the test of an operator found; errors are relative, 0 where all is zero.

    Attributes:
        symmetry: ``|u·Av - v·Au|`` by the larger of ``‖Au‖`` and ``‖Av‖``, for random unit vectors.
        linearity: ``‖A(au + bv) - aAu - bAv‖`` by the norms of the two terms.
        repeatability: ``‖Au - Au'‖`` by ``‖Au‖``, where ``Au'`` is computed anew, without kept graphs.
        difference: ``‖(g(w + hd) - g(w - hd)) / 2h - Hd‖`` by the larger of the two norms; ``None``
            where there is no gradient to compare with (a GGN, a matrix).
        limits: of these four.
        products: made by the test.
        cost: of the test in gradients of the loss (FB); a gradient in float64 counts double.
        passed: all errors are within their limits.
        reasons: one for each that is not.
    """

    symmetry: float
    linearity: float
    repeatability: float
    difference: float | None
    limits: tuple[float, float, float, float]
    products: int
    cost: float
    passed: bool
    reasons: tuple[str, ...]


def require(operator: SymmetricOperator, seed: int = 0) -> SelfTest:
    """The test's result, if the operator passes it.

    Raises:
        OperatorError: it does not; the message says what was found and what to do.
    """
    result = check(operator, seed)
    if not result.passed:
        raise OperatorError(
            f"the {operator.kind} fails its test: {'; '.join(result.reasons)}. {_advice(operator, result)}"
        )
    return result


def check(operator: SymmetricOperator, seed: int = 0) -> SelfTest:
    """Test an operator: symmetry, linearity, repeatability, and a Hessian against its gradient.

    Four products and two gradients; six products where the difference must be coarse, and two gradients
    more for each smaller or larger step that is tried after one that disagrees. They leave
    ``operator.products`` and its cost as they were, and the global random state too.

    The difference is taken in float64 along a random direction where the objective has ``double()``, or
    is float64 itself; then anything wrong by more than 1 % is seen, such as derivatives through torch's
    native norm layers. Padding rows of an ``Embedding``, which reverse mode holds constant, stay where they
    are. A gradient in float32 is too noisy for that: there the direction is nearly that of the largest
    curvature and the limit 90 %: only gross mistakes are seen. Kinks (ReLU) between the two points
    enter the difference but not the Hessian; the smallest steps of float64 hardly meet any. Where the point
    itself lies on kinks (units that are exactly zero), the difference is taken beside it, and the
    product at the point is compared with that in float64. What no part of the test can see: a wrong
    loss, whose gradient and Hessian agree.

    Args:
        operator: of any kind; the difference is for those of kind ``"hessian"`` with an ``objective``.
        seed: of the random vectors.

    Raises:
        ValueError: a product is not finite.

    >>> from landscape.operators.symmetric import MatrixOperator
    >>> check(MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))).passed
    True
    >>> check(MatrixOperator(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))).passed
    False
    """
    with _uncounted(operator) as spent, _same_random_state(operator.device):
        u, v = _unit(operator, seed, "u"), _unit(operator, seed, "v")
        a, b = 0.6, -0.8
        au, av, mixed = operator.rows(torch.stack([u, v, a * u + b * v]))
        _reseed(seed, operator.device)
        again = _anew(operator, spent).matvec(u)
        size = max(_norm(au), _norm(av))
        symmetry = _ratio(abs(float(u.double() @ av.double() - v.double() @ au.double())), size)
        linearity = _ratio(_norm(mixed - a * au - b * av), a * _norm(au) - b * _norm(av))
        repeatability = _ratio(_norm(again - au), max(_norm(again), _norm(au)))
        rounding = _rounding(operator)
        difference, limit = None, SMOOTH_LIMIT
        if operator.kind == "hessian" and repeatability <= rounding:
            difference, limit = _difference(operator, u, au, spent)
    limits = (rounding, rounding, rounding, limit)
    errors = (symmetry, linearity, repeatability, difference)
    says = (
        "products are not symmetric",
        "products are not linear",
        "the same product comes out different, so the loss is random",
        "products disagree with differences of the gradient",
    )
    reasons = tuple(
        f"{text} (relative error {error:.1e}, limit {most:.0e})"
        for text, error, most in zip(says, errors, limits, strict=True)
        if error is not None and not error <= most
    )
    return SelfTest(
        symmetry, linearity, repeatability, difference, limits,
        spent.products, spent.cost, not reasons, reasons,
    )  # fmt: skip


@dataclass
class _Spent:
    products: int = 0
    cost: float = 0.0


def _difference(
    operator: SymmetricOperator, u: Tensor, au: Tensor, spent: _Spent
) -> tuple[float | None, float]:
    """The error of a Hessian product against differences of the gradient, and its limit."""
    if isinstance(operator, PartsOperator) and not operator.has_gradient:
        return None, SMOOTH_LIMIT
    bfloat16 = _rounding(operator) == _HALF
    promoted = _promoted(operator)
    if promoted is not None:
        try:
            compared = promoted.gradient, promoted.theta, u, au
            error = _agreement(*compared, (*_FINE_STEPS[:2], _FINEST_STEPS[0]), SMOOTH_LIMIT)
            if error > SMOOTH_LIMIT:
                error = min(error, _beside(promoted, u, au))
            if error > SMOOTH_LIMIT:
                error = min(error, _agreement(*compared, _FINE_STEPS[2:], SMOOTH_LIMIT))
        except RuntimeError:
            pass  # a loss that holds float32 tensors of its own
        else:
            spent.cost += promoted.cost * (1 if operator.dtype == torch.float64 else 2)
            # What a network in bfloat16 differs by from the same one in float64 is rounding.
            return error, COARSE_LIMIT if bfloat16 else SMOOTH_LIMIT
    gradient = _gradient(operator, spent)
    if gradient is None or bfloat16:
        return None, COARSE_LIMIT
    if operator.dtype == torch.float64:
        return _agreement(gradient, operator.theta, u, au, _FINE_STEPS, SMOOTH_LIMIT), SMOOTH_LIMIT
    direction = _unit_of(au)
    if direction is None:
        return _agreement(
            gradient, operator.theta, u, au, _COARSE_STEPS, COARSE_LIMIT
        ), COARSE_LIMIT
    direction = _unit_of(operator.matvec(direction))
    if direction is None:
        return None, COARSE_LIMIT
    image = operator.matvec(direction)
    error = _agreement(gradient, operator.theta, direction, image, _COARSE_STEPS, COARSE_LIMIT)
    return error, COARSE_LIMIT


def _agreement(
    gradient: Gradient,
    theta: Tensor,
    direction: Tensor,
    image: Tensor,
    steps: tuple[float, ...],
    limit: float,
) -> float:
    """Relative error of ``image`` against central differences; the best over steps, until one agrees."""
    direction, image = direction.to(theta), image.to(theta)
    scale = _norm(theta) or 1.0
    best = math.inf
    for step in steps:
        h = step * scale
        forth, back = gradient(theta + h * direction), gradient(theta - h * direction)
        slope = (forth - back) / (2 * h)
        # A gradient is no better than its rounding: differences below that say nothing.
        noise = 16 * torch.finfo(theta.dtype).eps * max(_norm(forth), _norm(back)) / h
        error = max(_norm(slope - image) - noise, 0.0)
        best = min(best, _ratio(error, max(_norm(slope), _norm(image))))
        if best <= limit:
            break
    return best


def _beside(promoted: PartsOperator, u: Tensor, au: Tensor) -> float:
    """The error at a generic point nearby, or that of the product itself against float64, if it is larger.

    For points on a kink, where the gradient jumps and no step is small enough: units whose input is exactly
    zero on all data, as weight decay leaves them behind.
    """
    exact = promoted.matvec(u)
    rounding = _ratio(_norm(exact - au.to(exact)), max(_norm(exact), _norm(au)))
    moved = promoted.anew()
    noise = _unit(promoted, 0, "nearby")
    moved.theta = promoted.theta + _NEARBY * (_norm(promoted.theta) or 1.0) * noise
    image = moved.matvec(u)
    found = _agreement(moved.gradient, moved.theta, u, image, _FINEST_STEPS, SMOOTH_LIMIT)
    promoted.cost += moved.cost
    return max(rounding, found)


def _promoted(operator: SymmetricOperator) -> PartsOperator | None:
    """The operator of the same objective in float64, where that can be had."""
    if not isinstance(operator, PartsOperator):
        return None
    if operator.dtype == torch.float64 and _rounding(operator) != _HALF:
        return operator.anew()
    double = getattr(operator.objective, "double", None)
    try:
        return operator.anew(double()) if callable(double) else None
    except ValueError:  # some objectives of its kind cannot be brought to float64
        return None


def _gradient(operator: SymmetricOperator, spent: _Spent) -> Gradient | None:
    """The gradient by the operator's coordinates, where it has an objective."""
    if isinstance(operator, PartsOperator):
        return operator.gradient
    objective = getattr(operator, "objective", None)
    if objective is None or tuple(objective.theta.shape) != tuple(operator.theta.shape):
        return None

    def gradient(theta: Tensor) -> Tensor:
        spent.cost += 1.0
        made: Tensor = objective.gradient(theta)
        return made

    return gradient


def _anew(operator: SymmetricOperator, spent: _Spent) -> SymmetricOperator:
    """The operator without kept graphs: a frozen random draw would repeat itself in those."""
    if not isinstance(operator, PartsOperator):
        return operator
    spent.products += 1
    spent.cost += operator.anew().product_cost
    return operator.anew()


@contextmanager
def _uncounted(operator: SymmetricOperator) -> Iterator[_Spent]:
    """Count what is spent inside apart from the operator's own counts."""
    spent = _Spent()
    products, cost = operator.products, getattr(operator, "cost", None)
    try:
        yield spent
    finally:
        made = operator.products - products
        spent.products += made
        spent.cost += made * operator.product_cost if cost is None else operator.cost - cost
        operator.products = products
        if cost is not None:
            operator.cost = cost


@contextmanager
def _same_random_state(device: torch.device) -> Iterator[None]:
    """Leave the global random states as they were, whatever a random loss draws."""
    plain, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002


def _reseed(seed: int, device: torch.device) -> None:
    """Another random state than any that a kept graph was made in: what is random then shows."""
    drawn = int(generator(seed, "selftest", "state").integers(2**32))
    torch.default_generator.manual_seed(drawn)  # torch.manual_seed reaches every GPU
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(drawn)
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002


def _rounding(operator: SymmetricOperator) -> float:
    settings = getattr(getattr(operator, "objective", None), "settings", {})
    return (
        _HALF if settings.get("precision") == "bfloat16" else _ROUNDING.get(operator.dtype, _HALF)
    )


def _unit(operator: SymmetricOperator, seed: int, *key: str) -> Tensor:
    drawn = torch.from_numpy(generator(seed, "selftest", *key).standard_normal(operator.shape[0]))
    mask = moving(operator)
    if mask is not None:
        drawn *= mask.to(drawn)
    return torch.div(drawn, drawn.norm()).to(operator.theta)


def _unit_of(v: Tensor) -> Tensor | None:
    length = _norm(v)
    return torch.div(v, length) if length else None


def _norm(v: Tensor) -> float:
    return float(v.double().norm())


def _ratio(error: float, size: float) -> float:
    if error < _VANISHING:
        return 0.0
    return error / size if size else math.inf


def _advice(operator: SymmetricOperator, result: SelfTest) -> str:
    if result.repeatability > result.limits[2]:
        return (
            "Make the loss deterministic: dropout off, no augmentation or noise inside the model or the "
            "loss; check=False skips this test"
        )
    names = [name for model in _networks(operator) for name in native_norms(model)]
    if names:
        more = ", ..." if len(names) > 3 else ""
        return (
            f"Higher derivatives through native norm layers ({', '.join(names[:3])}{more}) are wrong in "
            "torch: use sharpmaml.models.with_primitive_norms(model), the same function"
        )
    return (
        "A layer or a custom function has wrong higher derivatives: for native batch, instance or layer "
        "norms use sharpmaml.models.with_primitive_norms(model), for forward mode try mode='reverse'; "
        "check=False skips this test"
    )


def _networks(operator: SymmetricOperator) -> list[nn.Module]:
    """Networks that can be reached from the operator's objective."""
    objective: Any = getattr(operator, "objective", None)
    network = getattr(objective, "network", None)
    found = (getattr(objective, "module", None), network, getattr(network, "model", None))
    return [model for model in found if isinstance(model, nn.Module)]
