"""Norm layers written from elementary operations, whose derivatives of every order are right.

In torch 2.13 (CPU), third derivatives through native batch norm with batch statistics, instance norm and
layer norm are silently wrong, and so is ``torch.func.hessian`` through batch statistics; group norm, RMS
norm and batch norm with stored statistics are right (``tests/landscape/test_norms.py`` holds the facts).
Through weight norm along the first or last dimension even plain second derivatives are silently wrong: the
backward pass takes the length of the weights for a constant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

BATCH_NORM: type[nn.Module] = nn.modules.batchnorm._BatchNorm
INSTANCE_NORM: type[nn.Module] = nn.modules.instancenorm._InstanceNorm


def with_primitive_norms(model: nn.Module) -> nn.Module:
    """A deep copy whose norm layers have right derivatives of every order.

    ``BatchNorm1d/2d/3d``, ``InstanceNorm1d/2d/3d``, ``LayerNorm`` and what torch's ``weight_norm`` attaches
    to a layer are replaced by subclasses of themselves with the same parameters, buffers, hooks and values
    within rounding; state dicts load both ways. Other modules, subclasses of these included, stay as they are.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    >>> native_norms(net), native_norms(with_primitive_norms(net))
    (['1'], [])
    """
    return use_primitive_norms(copied(model))


def use_primitive_norms(model: nn.Module) -> nn.Module:
    """The same as :func:`with_primitive_norms`, in place; returns ``model``."""
    for module in model.modules():
        primitive = _PRIMITIVES.get(type(module))
        if primitive is not None:
            # The class alone changes: tensors, hooks and whatever users have attached stay.
            module.__class__ = primitive
        for hook in _weight_hooks(module):
            hook.__class__ = _PrimitiveWeightHook
    return model


def native_norms(model: nn.Module, order: int = 3) -> list[str]:
    """Dotted names of the norm layers whose derivatives torch gets wrong in the mode they are in.

    Args:
        model: any module. A subclass with a ``forward`` of its own is not judged.
        order: 3 for third derivatives; 2 for second ones by ``torch.func.hessian`` (``jvp`` of a
            ``vmap`` of backward passes), which leaves out ``LayerNorm``; weight norm counts in both.

    Raises:
        ValueError: an order other than 2 or 3.
    """
    if order not in (2, 3):
        raise ValueError(f"order is {order}: expected 2 or 3")
    return [name for name, module in model.named_modules() if _is_wrong(module, order)]


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ValueError: torch cannot copy it: the older ``torch.nn.utils.weight_norm`` keeps a weight with its graph.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied: {' '.join(str(error).split()[:14])} ...; call it once under "
            "torch.no_grad() first, or use torch.nn.utils.parametrizations.weight_norm"
        ) from None


def native_weight_norms(model: nn.Module) -> list[str]:
    """Names of the modules whose weights torch's own weight norm makes: wrong from second derivatives on."""
    return [name or "(the model)" for name, m in model.named_modules() if _weight_normed(m)]


def _weight_normed(module: nn.Module) -> bool:
    return type(module).forward is _WeightNorm.forward or bool(_weight_hooks(module))


def _is_wrong(module: nn.Module, order: int) -> bool:
    forward: Any = type(module).forward
    if _weight_normed(module):
        return True
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        inherited = forward in (BATCH_NORM.forward, nn.SyncBatchNorm.forward)
        return inherited and (module.training or module.running_mean is None)
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        inherited = forward is INSTANCE_NORM.forward and not isinstance(module, _InstanceNorm)
        return inherited and (module.training or not module.track_running_stats)
    return order == 3 and forward is nn.LayerNorm.forward


@contextmanager
def recording(model: nn.Module) -> Iterator[Callable[[], dict[str, Tensor]]]:
    """Let batch norms normalize by each batch and record its statistics, graph included.

    Yields a function that returns what ``torch.optim.swa_utils.update_bn`` would store for the calls made
    inside, the plain mean over them of each mean and unbiased variance, by the names of the buffers.

    Raises:
        ValueError: a batch norm that :func:`with_primitive_norms` does not know.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    norms: dict[str, _BatchNorm] = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            norms[name] = module
        elif isinstance(module, BATCH_NORM):
            raise ValueError(
                f"the statistics of {name!r} ({type(module).__name__}) cannot be differentiated; use "
                "norm='eval' or norm='batch', or one of torch's own BatchNorm layers"
            )

    def statistics() -> dict[str, Tensor]:
        made = {}
        for name, records in found.items():
            if not records:  # a layer that is never called
                continue
            dot = f"{name}." if name else ""
            means, variances = zip(*records, strict=True)
            made[f"{dot}running_mean"] = torch.stack(means).mean(0)
            made[f"{dot}running_var"] = torch.stack(variances).mean(0)
        return made

    modes = {name: norm.training for name, norm in norms.items()}
    try:
        for name, norm in norms.items():
            norm.train()
            if norm.track_running_stats and norm.running_mean is not None:
                found[name] = []
                norm.tracker = partial(_note, found[name])
        yield statistics
    finally:
        for name, norm in norms.items():
            norm.tracker = None
            norm.train(modes[name])


def _note(records: list[tuple[Tensor, Tensor]], mean: Tensor, variance: Tensor) -> None:
    records.append((mean, variance))


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Ioffe & Szegedy 2015.

    Attributes:
        tracker: called with the mean and the unbiased variance ``(channels,)`` of each batch, graph
            included, where training would update the running statistics; they then stay as they are.
    """

    tracker: Callable[[Tensor, Tensor], None] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """``(batch, channels, ...)`` -> the same shape."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        x = _accurate(input)
        if self.running_mean is not None and self.running_var is not None and not self.training:
            centred, variance = x - _channels(self.running_mean, x), self.running_var
        else:
            count = x.numel() // x.shape[1]
            if count < 2:
                raise ValueError(
                    f"one value a channel in an input of shape {tuple(input.shape)}: batch statistics "
                    "need at least two"
                )
            mean, centred, variance = _moments(x, [0, *range(2, x.dim())])
            if self.training and self.track_running_stats:
                self._track(mean.flatten(), variance.flatten() * (count / (count - 1)))
        return _scaled(centred, variance, self).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.tracker is not None:
            self.tracker(mean, variance)
            return
        share = self.momentum or 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average
                share = 1.0 / float(self.num_batches_tracked)
        _blend(self.running_mean, mean, share)
        _blend(self.running_var, variance, share)


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """Ulyanov et al. 2016."""

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        x = _accurate(input)
        if self.track_running_stats and not self.training:
            stored, mean = self.running_var, self.running_mean
            assert stored is not None and mean is not None
            return _scaled(x - _channels(mean, x), stored, self).to(input.dtype)
        count = x[0, 0].numel()
        if count < 2:
            raise ValueError(
                f"one value a channel in an input of shape {tuple(input.shape)}: instance norm needs "
                "at least two"
            )
        mean, centred, variance = _moments(x, list(range(2, x.dim())))
        if self.training and self.track_running_stats:
            share = self.momentum or 0.0
            unbiased = variance * (count / (count - 1))
            _blend(self.running_mean, mean.flatten(1).mean(0), share)
            _blend(self.running_var, unbiased.flatten(1).mean(0), share)
        return _scaled(centred, variance, self).to(input.dtype)


class PrimitiveBatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` from elementary operations."""


class PrimitiveBatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` from elementary operations."""


class PrimitiveBatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` from elementary operations."""


class PrimitiveInstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """``nn.InstanceNorm1d`` from elementary operations."""


class PrimitiveInstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """``nn.InstanceNorm2d`` from elementary operations."""


class PrimitiveInstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """``nn.InstanceNorm3d`` from elementary operations."""


class PrimitiveLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` (Ba et al. 2016) from elementary operations."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., *normalized_shape)`` -> the same shape."""
        x = _accurate(input)
        _, centred, variance = _moments(x, list(range(-len(self.normalized_shape), 0)))
        scaled = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scaled = scaled * self.weight
        if self.bias is not None:
            scaled = scaled + self.bias
        return scaled.to(input.dtype)


class PrimitiveWeightNorm(_WeightNorm):
    """The parametrization of ``weight_norm`` (Salimans & Kingma 2016) from elementary operations."""

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """Lengths and directions -> weights."""
        return weight_v * (weight_g / torch.norm_except_dim(weight_v, 2, self.dim))


class _PrimitiveWeightHook(WeightNorm):
    """The same for the hook of the older ``torch.nn.utils.weight_norm``."""

    def compute_weight(self, module: nn.Module) -> Tensor:
        g, v = (getattr(module, f"{self.name}_{letter}") for letter in "gv")
        return PrimitiveWeightNorm(self.dim)(g, v)  # type: ignore[no-any-return]


def _weight_hooks(module: nn.Module) -> list[WeightNorm]:
    return [hook for hook in module._forward_pre_hooks.values() if type(hook) is WeightNorm]


_PRIMITIVES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: PrimitiveBatchNorm1d,
    nn.BatchNorm2d: PrimitiveBatchNorm2d,
    nn.BatchNorm3d: PrimitiveBatchNorm3d,
    nn.InstanceNorm1d: PrimitiveInstanceNorm1d,
    nn.InstanceNorm2d: PrimitiveInstanceNorm2d,
    nn.InstanceNorm3d: PrimitiveInstanceNorm3d,
    nn.LayerNorm: PrimitiveLayerNorm,
    _WeightNorm: PrimitiveWeightNorm,
}


def _accurate(x: Tensor) -> Tensor:
    """In float32 at least, as native layers compute."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, centred values and biased variance over ``dims``, which are kept with size 1."""
    # Sums scaled on the small side, and products: mean(), var() and square() cost more in the second
    # backward pass.
    total = x.sum(dims, keepdim=True)
    share = total.numel() / max(x.numel(), 1)
    mean = total * share
    centred = x - mean
    return mean, centred, (centred * centred).sum(dims, keepdim=True) * share


def _scaled(centred: Tensor, variance: Tensor, module: Any) -> Tensor:
    """``centred / √(variance + eps)``, by channel, with the scale and shift of the module."""
    if variance.dim() == 1:
        variance = _channels(variance, centred)
    scale = torch.rsqrt(variance + module.eps)  # one product of the full size, not two
    if module.weight is not None:
        scale = scale * _channels(module.weight, centred)
    made = centred * scale
    return made if module.bias is None else made + _channels(module.bias, centred)


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _blend(stored: Tensor | None, new: Tensor, share: float) -> None:
    if stored is not None:
        with torch.no_grad():
            stored.copy_(stored * (1 - share) + new.detach() * share)


def use_batch_statistics(model: nn.Module) -> None:
    """Make batch norms take the statistics of each batch, in eval mode too; changes the model."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # Without stored statistics torch takes the batch's own, in eval mode too.
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
