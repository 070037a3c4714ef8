"""Rows of an embedding that torch's reverse mode holds constant: those of the padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landscape.operators.symmetric import SymmetricOperator


def moving(operator: SymmetricOperator) -> Tensor | None:
    """1 for coordinates that a product can see, 0 for padding rows, ``(params,)``; ``None`` without any.

    ``Embedding(padding_idx=...)`` uses its padding row going forward and gives it no gradient: the loss depends
    on coordinates of which reverse mode says it does not. Products are right on all others.
    """
    module = getattr(getattr(operator, "objective", None), "module", None)
    if not isinstance(module, nn.Module):
        return None
    pieces = operator.space.unflatten(torch.ones(operator.shape[0]))
    found = False
    for name, layer in module.named_modules():
        weight = pieces.get(f"{name}.weight" if name else "weight")
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None and weight is not None:
            weight[layer.padding_idx] = 0.0
            found = True
    return operator.space.join(pieces).to(operator.theta) if found else None
