"""Evaluation data of every usual form -> batches that are kept on the device and read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TARGET_KEYS = ("labels", "label", "target", "targets", "y")
"""Entry of a mapping that is the target; the others are the network's keyword arguments."""

_CHUNK = 256

Data = Iterable[Any] | tuple[Any, Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that go through the network in one call, ``model(*args, **kwargs)``.

    Attributes:
        args: positional inputs.
        kwargs: keyword inputs.
        target: what the loss compares the output with; any nesting of tensors, or ``None``.
        size: number of examples.
        whole: what it was cut from.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Any
    size: int
    whole: Batch | None = None

    def split(self, size: int) -> list[Batch]:
        """The same examples in order, at most ``size`` a piece; every tensor is cut along dimension 0."""
        if size >= self.size:
            return [self]
        pieces = []
        for start in range(0, self.size, size):
            stop = min(start + size, self.size)

            def cut(t: Tensor, start: int = start, stop: int = stop) -> Tensor:
                return t[start:stop] if t.dim() and len(t) == self.size else t

            args, kwargs, target = map_tensors(cut, (self.args, dict(self.kwargs), self.target))
            pieces.append(Batch(args, kwargs, target, stop - start, self))
        return pieces

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with ``function`` of every tensor in it."""
        args, kwargs, target = map_tensors(function, (self.args, dict(self.kwargs), self.target))
        return Batch(args, kwargs, target, self.size)

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, inputs first."""
        yield from tensors_in((self.args, dict(self.kwargs), self.target))


def materialize(data: Data, batch_size: int | None, whole: bool, like: Tensor) -> list[Batch]:
    """Read ``data`` once and keep it on the device of ``like``.

    Floating-point inputs take the dtype of ``like``; integers (tokens, labels) stay what they are.

    Args:
        data: an iterable of batches, or one pair ``(x, y)`` or one mapping that holds all examples. A
            batch is ``(x, y)``, ``(x1, x2, ..., y)``, or a mapping whose target is under one of
            `TARGET_KEYS`; in ``(x, y)``, ``x`` may be a tensor, a tuple of tensors or a mapping.
        batch_size: how one pair or one mapping is cut.
        whole: one pair or one mapping is not cut unless ``batch_size`` says so.
        like: any tensor of the device and dtype wanted.

    Raises:
        ValueError: there is no example, a batch of an unknown form, or one whose tensors do not agree in
            their length.

    >>> batches = materialize((torch.zeros(5, 2), torch.zeros(5)), 2, False, torch.zeros(0))
    >>> [batch.size for batch in batches]
    [2, 2, 1]
    """

    def place(tensor: Tensor) -> Tensor:
        dtype = like.dtype if tensor.is_floating_point() else None
        # A copy: a loader may fill one tensor again and again, and the caller may change it later.
        return tensor.detach().to(device=like.device, dtype=dtype, copy=True)

    if is_whole(data):
        one = _batch(data)
        size = batch_size or (one.size if whole else _CHUNK)
        placed = one.map(place).split(max(size, 1)) if one.size else []
    else:
        # A DataLoader draws from the global generator as soon as it is iterated.
        with torch.random.fork_rng(devices=[]):
            placed = [_batch(item).map(place) for item in data]
        placed = [batch for batch in placed if batch.size]
    if not placed:
        raise ValueError("the data hold no example: pass (x, y) batches or a pair of tensors")
    return placed


def recut(batches: Sequence[Batch], size: int) -> list[Batch]:
    """The same examples in order, at most ``size`` a piece; what was cut from one whole is cut anew."""
    whole = batches[0].whole
    pieces = sum(batch.size for batch in batches if batch.whole is whole)
    if whole is not None and pieces == whole.size:
        return whole.split(size)
    return [piece for batch in batches for piece in batch.split(size)]


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same nesting of tuples, lists and mappings with ``function`` of every tensor in it."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: map_tensors(function, value) for name, value in tree.items()}
    if isinstance(tree, tuple | list):
        items = [map_tensors(function, value) for value in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor in a nesting of tuples, lists and mappings, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_in(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from tensors_in(value)


def is_whole(data: Data) -> bool:
    """Whether ``data`` is one pair or one mapping of all examples, and not batches."""
    if isinstance(data, Mapping):
        return True
    return isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor)


def _batch(item: Any) -> Batch:
    if isinstance(item, Mapping):
        found = [name for name in TARGET_KEYS if name in item]
        kwargs = {str(name): value for name, value in item.items() if name not in found[:1]}
        return _sized((), kwargs, item[found[0]] if found else None)
    if not isinstance(item, Sequence) or len(item) < 2:
        raise ValueError(
            f"a batch is a {type(item).__name__}, expected (x, y), (x1, x2, ..., y) or a mapping with "
            f"the target under one of {', '.join(TARGET_KEYS)}"
        )
    *inputs, target = item
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return _sized((), inputs[0], target)
    if len(inputs) == 1 and isinstance(inputs[0], tuple | list):
        return _sized(tuple(inputs[0]), {}, target)
    return _sized(tuple(inputs), {}, target)


def _sized(args: tuple[Any, ...], kwargs: Mapping[str, Any], target: Any) -> Batch:
    if isinstance(target, Tensor):
        size = target.shape[0] if target.dim() else 1
    else:
        size = next((len(t) for t in tensors_in((target, args, dict(kwargs))) if t.dim()), 1)
    lengths = {len(t) for t in tensors_in((args, dict(kwargs))) if t.dim()}
    if size not in lengths and any(lengths):
        raise ValueError(
            f"a batch has {size} targets for inputs of {sorted(lengths)} examples: "
            "expected as many targets as examples, along dimension 0"
        )
    return Batch(args, kwargs, target, size)
