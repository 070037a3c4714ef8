"""Filter normalization written out from Li et al. 2018, section 4; nothing here is the library's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from naive_norms import NATIVE
from torch import nn

Array = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def places(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module, nn.Module | None]]:
    """Name, parameter, the module that holds it and that one's parent: each trained tensor once."""
    seen: list[nn.Parameter] = []
    modules = dict(model.named_modules())
    for path, module in modules.items():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and not any(parameter is other for other in seen):
                seen.append(parameter)
                parent = modules[path.rpartition(".")[0]] if path else None
                yield f"{path}.{leaf}" if path else leaf, parameter, module, parent


def role(name: str, parameter: nn.Parameter, module: nn.Module) -> str:
    """``weight``, ``bias`` or ``norm``."""
    if isinstance(module, NATIVE):
        return "norm"
    return "bias" if "bias" in name.split(".")[-1] or parameter.dim() == 1 else "weight"


def filters(
    name: str, parameter: nn.Parameter, module: nn.Module, parent: nn.Module | None
) -> Labels | None:
    """The number of the filter that each entry belongs to; ``None`` where the tensor has no filters."""
    shape = tuple(parameter.shape)
    if len(shape) < 2:
        return None
    index = np.indices(shape)
    leaf = name.split(".")[-1]
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        # (inputs, outputs of a group, ...): the inputs of one group lead to the outputs of that group
        return index[0] // (shape[0] // module.groups) * shape[1] + index[1]
    if isinstance(module, nn.RNNBase):
        return index[0]
    if leaf == "in_proj_weight":  # queries, keys, values: an attention head of each
        return index[0] // (shape[1] // module.num_heads)
    if name.endswith("out_proj.weight") and isinstance(parent, nn.MultiheadAttention):
        return index[1] // (shape[1] // parent.num_heads)
    if name.endswith("qkv.weight"):
        return index[0] // (shape[1] // parent.num_heads)
    if len(shape) == 3 and shape[0] == 1:  # a table of one vector a token
        return index[1]
    return index[0]


def normalized(drawn: Array, weights: Array, rule: str, labels: Labels | None) -> Array:
    """The entries drawn for a tensor, scaled against its weights."""
    if rule == "none":
        return drawn
    if rule == "weight":
        return drawn * weights
    if rule == "layer" or labels is None:
        return drawn * (length(weights) / length(drawn)) if drawn.size else drawn
    made = np.zeros_like(drawn)
    for number in np.unique(labels):
        chosen = labels == number
        made[chosen] = drawn[chosen] * length(weights[chosen]) / (length(drawn[chosen]) + 1e-10)
    return made


def length(values: Array) -> float:
    return float(np.sqrt(np.sum(values * values)))


def direction(model: nn.Module, drawn: Array, rule: str, ignore: tuple[str, ...]) -> Array:
    """A direction from numbers drawn for all parameters."""
    made, first = [], 0
    for name, parameter, module, parent in places(model):
        size, shape = parameter.numel(), tuple(parameter.shape)
        piece = drawn[first : first + size].reshape(shape)
        first += size
        if role(name, parameter, module) in ignore:
            made.append(np.zeros(size))
            continue
        weights = parameter.detach().numpy()
        labels = filters(name, parameter, module, parent)
        made.append(normalized(piece, weights, rule, labels).reshape(-1))
    return np.concatenate(made)
