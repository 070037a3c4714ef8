"""Which layers of a network may be rescalable, and what a rescaling does to their tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from landscape.batches import Batch
from landscape.data_objective import DataObjective
from landscape.space import ParameterSpace

Factors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Two layers, and what a factor for each channel between them does to their tensors.

    Attributes:
        pair: names of the modules.
        width: channels.
        before_norm: the first alone is scaled, the norm after it takes that back up to its ``eps``.
        scale: factors ``(width,)`` -> a factor by tensor, of a shape that broadcasts.
    """

    pair: tuple[str, str]
    width: int
    before_norm: bool
    scale: Callable[[Tensor], Factors]


def candidates(objective: DataObjective, theta: Tensor, batch: Batch) -> list[Candidate]:
    """Pairs of layers that may be rescalable, as ``batch`` runs through them; nothing is verified yet."""
    usable = _own_tensors(objective.module, objective.space)
    found = []
    ran = _ran_once(objective, theta, batch)
    for (first, a), (second, b) in itertools.pairwise(ran):
        for make in (_through, _before_norm):
            candidate = make(first, a, second, b)
            if candidate is not None:
                found.append(candidate)
    for name, module in objective.module.named_modules():
        if isinstance(module, nn.MultiheadAttention):  # its output projection is never called
            found.append(_attention(name, module))
    return [c for c in found if usable.issuperset(c.scale(torch.ones(c.width)))]


def _own_tensors(module: nn.Module, space: ParameterSpace) -> set[str]:
    """Names of the tensors of the space that one module alone holds."""
    holders: dict[int, int] = {}
    for owner in module.modules():
        for parameter in owner._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    named = dict(module.named_parameters())
    return {name for name in space.names if holders[id(named[name])] == 1}


def _ran_once(objective: DataObjective, theta: Tensor, batch: Batch) -> list[tuple[str, nn.Module]]:
    """The layers of known kinds that a batch runs through exactly once, in that order."""
    names = {m: name for name, m in objective.module.named_modules() if _outputs(m) or _inputs(m)}
    calls: list[nn.Module] = []
    state = objective.state(theta)
    hooks = [m.register_forward_hook(lambda m, *_: calls.append(m)) for m in names]
    try:
        with torch.no_grad():
            objective.call(state, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names[m], m) for m in calls if calls.count(m) == 1]


def _through(first: str, a: nn.Module, second: str, b: nn.Module) -> Candidate | None:
    """What ``a`` puts out times the factors, what ``b`` takes in divided by them."""
    out, into = _outputs(a), _inputs(b)
    if not out or not into:
        return None
    fused = out == 3 * into  # queries, keys and values in one: the values go on to the output
    if not fused and into % out:
        return None
    width = into if fused else out

    def scale(factors: Tensor) -> Factors:
        whole = torch.cat([torch.ones(2 * into), factors]) if fused else factors
        # After a flattening, the entries of one channel lie side by side.
        arriving = factors.repeat_interleave(into // width)
        return {**_scaled_output(first, a, whole), **_scaled_input(second, b, 1 / arriving)}

    return Candidate((first, second), width, False, scale)


def _before_norm(first: str, a: nn.Module, second: str, b: nn.Module) -> Candidate | None:
    """What ``a`` puts out times the factors: a norm with statistics of its input divides by them."""
    out = _outputs(a)
    if not out or _is_norm(a) or not _is_norm(b):
        return None
    return Candidate((first, second), out, True, lambda factors: _scaled_output(first, a, factors))


def _attention(name: str, module: nn.MultiheadAttention) -> Candidate:
    """Values times the factors, columns of the output projection divided by them."""
    width = module.embed_dim
    stem = f"{name}." if name else ""

    def scale(factors: Tensor) -> Factors:
        whole = torch.cat([torch.ones(2 * width), factors])
        found = {f"{stem}out_proj.weight": (1 / factors).view(1, -1)}
        if module._parameters["in_proj_weight"] is None:  # keys or values of widths of their own
            found[f"{stem}v_proj_weight"] = factors.view(-1, 1)
        else:
            found[f"{stem}in_proj_weight"] = whole.view(-1, 1)
        if module._parameters["in_proj_bias"] is not None:
            found[f"{stem}in_proj_bias"] = whole
        return found

    return Candidate((name, f"{stem}out_proj"), width, False, scale)


def _is_norm(module: nn.Module) -> bool:
    # By the name of the class, as the roles of a space are: it also catches those of other libraries.
    return "norm" in type(module).__name__.lower() and not list(module.children())


def _is_transposed(module: nn.Module) -> bool:
    """Whether the weight is ``(in, out)``."""
    return isinstance(module, nn.Embedding) or type(module).__name__ == "Conv1D"


def _outputs(module: nn.Module) -> int:
    """Channels that come out of a layer whose outputs can be scaled; 0 for others."""
    weight = module._parameters.get("weight")
    if weight is None:
        return 0
    if isinstance(module, _ConvNd):
        return module.out_channels
    if _is_norm(module):
        return len(weight) if weight.dim() == 1 else 0
    if isinstance(module, nn.Linear) or _is_transposed(module):
        return weight.shape[1 if _is_transposed(module) else 0]
    return 0


def _inputs(module: nn.Module) -> int:
    """Channels that go into a layer whose inputs can be scaled; 0 for others."""
    if isinstance(module, nn.RNNBase):
        return module.input_size
    if _is_norm(module) or isinstance(module, nn.Embedding) or not _outputs(module):
        return 0
    if isinstance(module, _ConvNd):
        return module.in_channels
    weight = module._parameters["weight"]
    assert weight is not None  # it has outputs
    return weight.shape[0 if _is_transposed(module) else 1]


def _scaled_output(name: str, module: nn.Module, factors: Tensor) -> Factors:
    stem = f"{name}." if name else ""
    weight = module._parameters["weight"]
    assert weight is not None
    if isinstance(module, _ConvTransposeNd):  # (in, out / groups, kernel...)
        each = module.in_channels // module.groups
        rows = factors.view(module.groups, -1).repeat_interleave(each, 0)
    else:
        rows = factors.view(1, -1) if _is_transposed(module) else factors.view(-1, 1)
    found = {f"{stem}weight": _filled(rows, weight) if weight.dim() > 1 else factors}
    if module._parameters.get("bias") is not None:
        found[f"{stem}bias"] = factors
    return found


def _scaled_input(name: str, module: nn.Module, factors: Tensor) -> Factors:
    stem = f"{name}." if name else ""
    if isinstance(module, nn.RNNBase):
        leaves = [leaf for leaf in module._parameters if leaf.startswith("weight_ih_l0")]
        return {f"{stem}{leaf}": factors.view(1, -1) for leaf in leaves}
    weight = module._parameters["weight"]
    assert weight is not None
    if isinstance(module, _ConvTransposeNd) or _is_transposed(module):
        columns = factors.view(-1, 1)
    elif isinstance(module, _ConvNd):  # (out, in / groups, kernel...)
        each = module.out_channels // module.groups
        columns = factors.view(module.groups, -1).repeat_interleave(each, 0)
    else:
        columns = factors.view(1, -1)
    return {f"{stem}weight": _filled(columns, weight)}


def _filled(factors: Tensor, weight: Tensor) -> Tensor:
    """``factors`` with further axes, as many as ``weight`` has."""
    return factors.reshape(*factors.shape, *[1] * (weight.dim() - factors.dim()))
