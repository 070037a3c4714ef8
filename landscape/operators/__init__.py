"""An objective, or an operator already made -> the operator that spectral computations work on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from landscape.objective import Objective
from landscape.operators.gauss_newton import FisherOperator, GGNOperator
from landscape.operators.hessian import HessianOperator
from landscape.operators.selftest import require
from landscape.operators.symmetric import Record, SymmetricOperator

KINDS: dict[str, type[SymmetricOperator]] = {
    "hessian": HessianOperator,
    "ggn": GGNOperator,
    "fisher": FisherOperator,
}
"""Operators by name."""


def operator_of(
    source: Objective | SymmetricOperator,
    theta: Tensor | None = None,
    *,
    kind: str = "hessian",
    check: bool = True,
    record: Record | None = None,
    **options: Any,
) -> SymmetricOperator:
    """The operator of ``kind`` of an objective at ``theta``; an operator is returned as it is.

    Args:
        source: an objective, or an operator.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        kind: one of :data:`KINDS`.
        check: test an operator that is made here first, for about a dozen gradients
            (:func:`landscape.operators.selftest.check`); one that was given counts as tested.
        record: keeps the products on disk (:func:`landscape.recording`).
        options: of that kind; see :class:`landscape.operators.summed.PartsOperator`.

    Raises:
        ValueError: an unknown kind, an option out of range, or options beside an operator.
        OperatorError: the operator fails its test; a ``ValueError`` too.
    """
    if isinstance(source, SymmetricOperator):
        if theta is not None or options or record is not None or kind != "hessian":
            raise ValueError(
                "an operator was given: its point and options are its own, leave out theta, kind, record and "
                f"{', '.join(options) or 'all others'}"
            )
        return source
    if kind not in KINDS:
        raise ValueError(f"unknown operator {kind!r}: expected one of {', '.join(KINDS)}")
    make: Any = KINDS[kind]
    operator: SymmetricOperator = make(source, theta, **options)
    operator.record = record
    if check:
        require(operator)
    return operator
