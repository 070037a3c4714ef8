"""Optimizer states as linear dynamics: beyond which curvature a step is unstable, and in which metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.space import ParameterSpace

RULES = ("sgd", "adam", "adamw", "rmsprop")
"""Optimizers whose stability is known."""

Group = Mapping[str, Any]
State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What an optimizer does to a quadratic function: unstable where ``λ₁(R (H + W) R) > threshold``.

    Attributes:
        rule: one of :data:`RULES`.
        threshold: of the largest eigenvalue.
        scale: diagonal of ``R``, ``(params,)``: the square root of each coordinate's step, relative to
            that of a coordinate with ``threshold``; ``None`` where all are 1.
        decay: diagonal of ``W``, the part of coupled weight decay: ``(params,)``, or a number.
        text: rule, settings and threshold in words.
    """

    rule: str
    threshold: float
    scale: Tensor | None
    decay: Tensor | float
    text: str


def dynamics(
    state: Mapping[str, Any],
    space: ParameterSpace,
    *,
    rule: str | None = None,
    param_names: Sequence[str] | None = None,
) -> Dynamics:
    """The dynamics of an optimizer by the ``state_dict()`` that it saved.

    =================  ====================================  ======================================
    rule               preconditioner ``P``                  unstable where ``λ₁(P⁻¹ H)`` is above
    =================  ====================================  ======================================
    SGD                1                                     ``2 / η``
    SGD, heavy ball    1                                     ``(2 + 2 β) / ((1 - dampening) η)``
    SGD, Nesterov      1                                     ``(2 + 2 β) / ((1 + 2 β) η)``
    Adam, AdamW        ``(1 - β₁ᵗ) (√(v / (1 - β₂ᵗ)) + ε)``  ``(2 + 2 β₁) / ((1 - β₁) η)``
    RMSprop            ``√v + ε``                            ``(2 + 2 momentum) / η``
    =================  ====================================  ======================================

    (Cohen et al. 2021, sec. 2 and appendix B; Cohen et al. 2022, sec. 3, for preconditioners, taken as
    constant.) Bias corrections are those of torch, ``amsgrad`` and ``centered`` included. Weight decay
    that enters the gradient is a part of the curvature, ``H + wd``; that of AdamW is neglected. Where
    groups have several learning rates, ``P`` holds their ratios, and ``η`` is the largest.

    Args:
        state: ``{"param_groups": [...], "state": {...}}``, or the settings of SGD alone, such as
            ``{"lr": 0.1, "momentum": 0.9}``.
        space: names and shapes of the coordinates.
        rule: one of :data:`RULES`; left out, it is told by the keys of the state.
        param_names: name of each of the optimizer's parameters, in the order of its groups. Left out, the
            names in the state are taken; else a single flat vector, or one group over the tensors of
            ``space`` in their order.

    Returns:
        The dynamics. Coordinates that the optimizer does not move have a scale of 0.

    Raises:
        ValueError: an optimizer that is not known, a state that is empty or does not fit ``space`` (the
            first tensor that does not is named), or groups with different momentum.

    >>> space = ParameterSpace.of_vector(2)
    >>> dynamics({"lr": 0.1, "momentum": 0.9}, space).text
    'SGD lr 0.1, momentum 0.9: unstable above (2+2β)/η = 38'
    """
    groups = state.get("param_groups", [{**state, "params": [0]}])
    states: Mapping[int, State] = state.get("state", {})
    if not groups or any("lr" not in group for group in groups):
        raise ValueError("the optimizer state has no learning rate: expected param_groups with lr")
    rule = _rule(groups[0]) if rule is None else rule
    if rule not in RULES:
        raise ValueError(f"unknown optimizer {rule!r}: expected one of {', '.join(RULES)}")
    if any(group.get("maximize") for group in groups):
        raise ValueError("the optimizer maximizes: give it an objective of the other sign")
    largest = max(float(group["lr"]) for group in groups)
    if not largest > 0:
        raise ValueError(f"the learning rate is {largest}: expected a positive number")
    threshold, text = _threshold(rule, groups)
    placed = _placed(groups, states, space, param_names)
    pieces, decays = [], []
    for name, shape in zip(space.names, space.shapes, strict=True):
        group, own = placed.get(name, (None, None))
        moves = group is not None and not (rule != "sgd" and own is None and states)
        step = torch.zeros(shape, dtype=torch.float64)
        if moves and group is not None:
            step += float(group["lr"]) / largest / _preconditioner(rule, group, own, name)
        pieces.append(step.reshape(-1))
        coupled = float(group.get("weight_decay", 0)) if group and _couples(rule, group) else 0.0
        decays.append(torch.full_like(pieces[-1], coupled))
    scale, decay = torch.cat(pieces).sqrt(), torch.cat(decays)
    still = [name for name in space.names if name not in placed]
    if still:
        text += f"; {len(still)} of {len(space.names)} tensors are not the optimizer's and stay"
    return Dynamics(
        rule,
        threshold,
        None if bool((scale == 1).all()) else scale,
        float(decay[0]) if bool((decay == decay[0]).all()) else decay,
        text,
    )


_COMMON = {
    "params", "param_names", "lr", "weight_decay", "maximize", "foreach", "differentiable", "fused",
    "capturable", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr",
}  # fmt: skip
# Keys that a group has, and those that it may have besides: other optimizers share some of them.
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "sgd": ({"lr"}, {"momentum", "dampening", "nesterov"}),
    "adam": ({"betas", "eps", "amsgrad"}, {"decoupled_weight_decay"}),
    "rmsprop": ({"alpha", "eps", "centered"}, {"momentum"}),
}


def _rule(group: Group) -> str:
    """The optimizer by the keys that its group has."""
    keys = set(group)
    fits = [
        rule
        for rule, (needed, allowed) in _KEYS.items()
        if needed <= keys <= needed | allowed | _COMMON
    ]
    if not fits:
        raise ValueError(
            f"an optimizer with the settings {', '.join(sorted(keys - {'params'}))} is not known; "
            f"known are {', '.join(RULES)}: where it is one of them, say so with rule="
        )
    rule = fits[0]
    if rule != "adam" or group.get("decoupled_weight_decay"):
        return "adamw" if rule == "adam" else rule
    if "decoupled_weight_decay" not in group and group.get("weight_decay"):
        raise ValueError(
            "the optimizer state does not say whether it is of Adam or AdamW, which differ in weight "
            "decay: give rule='adam' or rule='adamw'"
        )
    return "adam"


def _threshold(rule: str, groups: Sequence[Group]) -> tuple[float, str]:
    """Threshold at the largest learning rate, and the sentence."""
    momenta = [_momentum(rule, group) for group in groups]
    if any(momentum != momenta[0] for momentum in momenta):
        raise ValueError(
            "the groups have different momentum, so there is no single threshold: expected the same "
            "momentum, dampening, nesterov or betas in all groups"
        )
    beta, dampening, nesterov = momenta[0]
    rates = [float(group["lr"]) for group in groups]
    eta = max(rates)
    formula, factor = "(2+2β)", 2 + 2 * beta
    if rule in ("adam", "adamw"):
        formula, factor = "(2+2β₁)/(1-β₁)", factor / (1 - beta)
    elif nesterov:
        formula, factor = "(2+2β)/(1+2β)", factor / (1 + 2 * beta)
    elif dampening:
        if not dampening < 1:
            raise ValueError(f"dampening is {dampening}: expected less than 1")
        formula, factor = f"(2+2β)/(1-{dampening:g})", factor / (1 - dampening)
    elif not beta:
        formula = "2"
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}[rule]
    words = f"{name} lr {eta:g}"
    if min(rates) < eta:
        words += f" (η; down to {min(rates):g} in other groups)"
    if beta:
        words += f", {'β₁' if rule.startswith('adam') else 'momentum'} {beta:g}"
    if nesterov:
        words += " (Nesterov)"
    decays = sorted({float(group.get("weight_decay", 0)) for group in groups})
    if decays[-1]:
        share = "neglected" if not _couples(rule, groups[0]) else "part of the curvature"
        words += f", weight decay {decays[-1]:g} ({share})"
    return factor / eta, f"{words}: unstable above {formula}/η = {factor / eta:.4g}"


def _momentum(rule: str, group: Group) -> tuple[float, float, bool]:
    """``(β, dampening, nesterov)``."""
    if rule in ("adam", "adamw"):
        return float(group["betas"][0]), 0.0, False
    beta = float(group.get("momentum", 0))
    if rule == "rmsprop" or not beta:  # torch dampens the momentum, so without it nothing
        return beta, 0.0, False
    return beta, float(group.get("dampening", 0)), bool(group.get("nesterov", False))


def _couples(rule: str, group: Group) -> bool:
    return rule != "adamw" and not group.get("decoupled_weight_decay")


def _preconditioner(rule: str, group: Group, state: State | None, name: str) -> Tensor:
    if rule == "sgd":
        return torch.ones((), dtype=torch.float64)
    squares = "square_avg" if rule == "rmsprop" else "exp_avg_sq"
    if state is None or squares not in state:
        raise ValueError(
            f"the optimizer state has no {squares} of {name!r}: take a checkpoint after the first step"
        )
    eps = float(group["eps"])
    if rule == "rmsprop":
        v = state["square_avg"].double()
        if group.get("centered"):
            v = v - state["grad_avg"].double().square()
        return v.sqrt() + eps
    v = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"].double()
    first, second = (1 - float(beta) ** float(state["step"]) for beta in group["betas"])
    denominator: Tensor = ((v / second).sqrt() + eps) * first
    return denominator


def _placed(
    groups: Sequence[Group],
    states: Mapping[int, State],
    space: ParameterSpace,
    names: Sequence[str] | None,
) -> dict[str, tuple[Group, State | None]]:
    """Group and state of each tensor of ``space`` that the optimizer has."""
    owners = [(group, states.get(i)) for group in groups for i in group["params"]]
    if names is None and all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    if names is None and len(owners) == 1 and len(space.names) > 1:
        return _of_flat(*owners[0], space)
    if names is None and len(groups) > 1:
        raise ValueError(
            f"the optimizer has {len(groups)} groups of parameters and no names for them: give "
            "param_names, one for each in the order of the groups"
        )
    names = space.names if names is None else list(names)
    if len(names) != len(owners):
        raise ValueError(
            f"the optimizer has {len(owners)} parameters, and {len(names)} names are known: give "
            "param_names, one for each in the order of its groups"
        )
    if not set(names) & set(space.names):
        raise ValueError(
            f"no parameter of the optimizer is one of the objective's: its first is {names[0]!r}, the "
            f"objective's {space.names[0]!r}"
        )
    shapes = dict(zip(space.names, space.shapes, strict=True))
    placed = {}
    for name, (group, own) in zip(names, owners, strict=True):
        if name not in shapes:  # frozen in the objective
            continue
        for key, shape in _shapes(own):
            if shape != shapes[name]:
                raise ValueError(
                    f"{key} of {name!r} has shape {shape} in the optimizer, the tensor {shapes[name]}: "
                    "give param_names in the order of the optimizer's groups"
                )
        placed[name] = (group, own)
    return placed


def _of_flat(
    group: Group, state: State | None, space: ParameterSpace
) -> dict[str, tuple[Group, State | None]]:
    """The state of a single vector that holds all coordinates, cut into tensors."""
    if not _fits(state, (space.size,)):
        key, shape = _shapes(state)[0]
        raise ValueError(
            f"{key} of the optimizer's only parameter has shape {shape}: expected ({space.size},), all "
            "of the objective's; where it is one tensor of several, name it with param_names"
        )
    if state is None:
        return dict.fromkeys(space.names, (group, None))
    cut = {key: space.unflatten(state[key]) for key, _ in _shapes(state)}
    return {
        name: (group, {**state, **{key: pieces[name] for key, pieces in cut.items()}})
        for name in space.names
    }


def _shapes(state: State | None) -> list[tuple[str, tuple[int, ...]]]:
    """Those tensors of a state that are of the shape of the parameter."""
    items = [] if state is None else list(state.items())
    return [(k, tuple(v.shape)) for k, v in items if isinstance(v, Tensor) and k != "step"]


def _fits(state: State | None, shape: tuple[int, ...]) -> bool:
    return all(found == shape for _, found in _shapes(state))
