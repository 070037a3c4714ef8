"""Whose statistics normalize the queries: a network whose batch norms listen to the first examples only.

Batch norms with batch statistics tie the examples of a batch together, so what a network says about one
query depends on the other queries (transduction; Bronskill et al. 2020). The three answers:

- ``"query"``: all queries of the episode as one batch (transductive; Finn et al. 2017's code).
- ``"support"``: at every layer the statistics of the support set under the adapted weights; queries are
  normalized by them and add nothing (inductive).
- ``"one-by-one"``: each query alone, in one batch with the support set (non-transductive Reptile,
  Nichol et al. 2018).

The support set is its own batch during adaptation in all three.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape.norms import BATCH_NORM
from sharpmaml.models import BatchStatNorm

NORMS = ("query", "support", "one-by-one")


def batch_norms(model: nn.Module) -> list[str]:
    """Dotted names of the layers that normalize with the statistics of the batch they see.

    >>> batch_norms(nn.Sequential(BatchStatNorm(3), nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)))
    ['0', '2']
    """
    return [name for name, module in model.named_modules() if _uses_batch(module)]


def leading(model: nn.Module, count: int) -> nn.Module:
    """A copy whose batch statistics are those of the first ``count`` examples of each batch.

    The others are normalized by them and have no influence on anything but their own outputs.

    >>> x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    >>> net = leading(BatchStatNorm(2), 4)
    >>> torch.equal(net(x)[:4], net(x[:4]))
    True
    """
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if _uses_batch(module):
            module.forward = partial(_normalized, module, count)
    return copied


def _uses_batch(module: nn.Module) -> bool:
    if isinstance(module, BATCH_NORM):
        return module.training or module.running_mean is None
    return isinstance(module, BatchStatNorm)


def _normalized(module: Any, count: int, x: Tensor) -> Tensor:
    dims = (0, *range(2, x.ndim))
    variance, mean = torch.var_mean(x[:count], dims, correction=0, keepdim=True)
    result: Tensor = (x - mean) * torch.rsqrt(variance + module.eps)
    if module.weight is not None:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        result = result * module.weight.view(shape) + module.bias.view(shape)
    return result
