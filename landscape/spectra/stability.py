"""How near a run is to the edge of stability: sharpness over the threshold of its optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.checkpoint import read_content
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.summed import PartsOperator, Watch
from landscape.operators.symmetric import SymmetricOperator
from landscape.parallel import Team
from landscape.spectra.dynamics import RULES, Dynamics, dynamics
from landscape.spectra.eigenpairs import eigenpairs

__all__ = ["RULES", "Preconditioned", "Stability", "from_checkpoint", "read_optimizer", "stability"]

_ENTRIES = (
    "optimizer", "optimizer_state_dict", "optimizer_states", "optim", "opt", "optim_state_dict",
)  # fmt: skip


@dataclass(frozen=True)
class Stability:
    """Sharpness, in the metric of the optimizer, over what the optimizer bears.

    Attributes:
        ratio: ``sharpness / threshold``: the steps along the sharpest direction grow where it is above 1.
        interval: of the ratio, from the residual of the eigenvalue: it or a higher one lies within.
        sharpness: ``λ₁(P⁻¹ (H + W))``, ``P`` the preconditioner and ``W`` coupled weight decay.
        residual: of that eigenvalue.
        threshold: the largest that is stable.
        rule: ``"sgd"``, ``"adam"``, ``"adamw"`` or ``"rmsprop"``.
        text: the rule and its threshold in words.
        products: Hessian-vector products made.
        converged: the residual met the tolerance.
    """

    ratio: float
    interval: tuple[float, float]
    sharpness: float
    residual: float
    threshold: float
    rule: str
    text: str
    products: int
    converged: bool

    def gauge(self) -> dict[str, Any]:
        """What the figure of gauges draws: ``value``, ``low``, ``high`` and ``rule``."""
        low, high = self.interval
        return {"value": self.ratio, "low": low, "high": high, "rule": self.text}


class Preconditioned(SymmetricOperator):
    """``v -> R (A + W) R v`` for diagonal ``R`` and ``W``: the spectrum of ``R² (A + W)``, symmetric.

    Args:
        operator: ``A``.
        scale: diagonal of ``R``, ``(params,)``.
        decay: diagonal of ``W``, ``(params,)``, or a number.

    >>> from landscape.operators.symmetric import MatrixOperator
    >>> inner = MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    >>> (Preconditioned(inner, torch.tensor([2.0, 1.0]), 1.0) @ torch.tensor([1.0, 0.0])).tolist()
    [12.0, 2.0]
    """

    kind = "preconditioned"

    def __init__(
        self, operator: SymmetricOperator, scale: Tensor | None, decay: Tensor | float = 0.0
    ) -> None:
        super().__init__(operator.theta, operator.space)
        self.operator = operator
        self.scale = torch.ones_like(self.theta) if scale is None else scale.to(self.theta)
        self.decay = decay.to(self.theta) if isinstance(decay, Tensor) else decay
        if self.scale.shape != self.theta.shape:
            raise ValueError(
                f"scale has shape {tuple(self.scale.shape)}, expected {tuple(self.theta.shape)}"
            )
        self.settings |= {f"of_{name}": value for name, value in operator.settings.items()}
        self.watch: Watch | None = None

    @property
    def product_cost(self) -> float:
        """That of the operator inside."""
        return self.operator.product_cost

    @property
    def weights(self) -> Tensor | None:
        """Share of each part of the operator inside; ``None`` where it has none."""
        return getattr(self.operator, "weights", None)

    @property
    def team(self) -> Team:
        """Processes that share the parts of the operator inside."""
        return getattr(self.operator, "team", None) or Team()

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """See :meth:`landscape.operators.summed.PartsOperator.watching`."""
        earlier, self.watch = self.watch, watch
        try:
            yield
        finally:
            self.watch = earlier

    def _products(self, vectors: Tensor) -> Tensor:
        scaled = vectors * self.scale
        inner, watch = self.operator, self.watch

        def finish(images: Tensor) -> Tensor:
            return (images + self.decay * scaled) * self.scale

        if watch is None or not isinstance(inner, PartsOperator):
            return finish(inner.rows(scaled))
        with inner.watching(lambda part, weight, images: watch(part, weight, finish(images))):
            return finish(inner.rows(scaled))


def stability(
    objective: Objective | SymmetricOperator,
    optimizer: Mapping[str, Any] | torch.optim.Optimizer | Dynamics,
    *,
    theta: Tensor | None = None,
    rule: str | None = None,
    param_names: Sequence[str] | None = None,
    tol: float = 1e-2,
    seed: int = 0,
    **operator_options: Any,
) -> Stability:
    """The edge-of-stability ratio of an objective at a point under an optimizer.

    Full-batch training with gradient descent raises the sharpness to the threshold and holds it there
    (Cohen et al. 2021); with a preconditioner, the preconditioned sharpness (Cohen et al. 2022). The
    thresholds are those of a quadratic function with a constant preconditioner; see
    :func:`landscape.spectra.dynamics.dynamics`. Gradients of small batches are unstable earlier.

    Args:
        objective: what is trained, or an operator over all its coordinates.
        optimizer: a ``state_dict()``, an optimizer, or settings such as ``{"lr": 0.1, "momentum": 0.9}``.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        rule: one of :data:`RULES`; told by the state when left out.
        param_names: names of the optimizer's parameters in the order of its groups.
        tol: largest residual, relative to the eigenvalue.
        seed: of the start vector.
        operator_options: ``kind``, ``keep_graph``, ...: see :func:`landscape.operators.operator_of`.

    Raises:
        ValueError: an optimizer that is not known, or a state that does not fit the objective.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 9.5 * t[0] ** 2 + t[1] ** 2, torch.zeros(2))
    >>> found = stability(bowl, {"lr": 0.1, "momentum": 0.9})
    >>> round(found.ratio, 4), found.text
    (0.5, 'SGD lr 0.1, momentum 0.9: unstable above (2+2β)/η = 38')
    """
    operator = operator_of(objective, theta, **operator_options)
    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer = optimizer.state_dict()
    if not isinstance(optimizer, Dynamics):
        optimizer = dynamics(optimizer, operator.space, rule=rule, param_names=param_names)
    metric = Preconditioned(operator, optimizer.scale, optimizer.decay)
    pairs = eigenpairs(metric, k=1, which="LA", tol=tol, seed=seed)
    value, residual = float(pairs.values[0]), float(pairs.residuals[0])
    threshold = optimizer.threshold
    return Stability(
        ratio=value / threshold,
        interval=((value - residual) / threshold, (value + residual) / threshold),
        sharpness=value,
        residual=residual,
        threshold=threshold,
        rule=optimizer.rule,
        text=optimizer.text,
        products=pairs.products,
        converged=pairs.converged,
    )


def from_checkpoint(
    path: str | Path, objective: Objective | SymmetricOperator, **options: Any
) -> Stability:
    """:func:`stability` with the optimizer state that a checkpoint holds.

    Args:
        path: see :func:`read_optimizer`.
        objective: what was trained, at the weights of that checkpoint.
        options: see :func:`stability`.

    Raises:
        ValueError: no optimizer state in the file, or what :func:`stability` raises.
    """
    return stability(objective, read_optimizer(path), **options)


def read_optimizer(path: str | Path) -> dict[str, Any]:
    """The optimizer's ``state_dict()`` in a checkpoint, read without running code from it.

    Args:
        path: a folder with ``trainer.pt``, or a file of ``torch.save``: the state itself, or a mapping with
            it under ``optimizer``, ``optimizer_state_dict``, ``optim``, ... (a list of one in Lightning's).

    Raises:
        ValueError: no such file, one that cannot be read safely, or no (single) optimizer state in it.
    """
    file = Path(path) / "trainer.pt" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"{file} does not exist: expected a checkpoint that holds its optimizer")
    content = read_content(file)
    if isinstance(content, Mapping):
        for found in (content, *(content.get(name) for name in _ENTRIES)):
            if isinstance(found, list | tuple) and len(found) > 1:
                raise ValueError(
                    f"{file} has the states of {len(found)} optimizers: save the one that counts"
                )
            state = found[0] if isinstance(found, list | tuple) and found else found
            if isinstance(state, Mapping) and "param_groups" in state:
                return dict(state)
    raise ValueError(
        f"{file} holds no optimizer state: expected one under {', '.join(map(repr, _ENTRIES[:3]))}"
    )
