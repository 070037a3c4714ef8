"""A dry run of a checkpoint's pickle: what it would build and how large, before any of it is built.

``torch.load(weights_only=True)`` keeps a file from running code, but not from asking for memory: a
few bytes may double a string forty times, claim a tensor of a petabyte over one number, or hash a tuple
of two tuples of two tuples. Here the same instructions run on stand-ins, and stop where a state dict would
have no reason to go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from landscape.pickle_machine import (
    FOREIGN,
    OTHER,
    STEP,
    Held,
    PickleMachine,
    Refused,
    check_hashable,
)

_TENSOR = 1024
_VIEW = 1 << 20  # bytes that a view may span beyond its storage by repeating it
_DIMENSIONS = 64

_SIZES = {
    "Double": 8, "Float": 4, "Half": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "BFloat16": 2, "ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QUInt8": 1, "QInt32": 4,
    "QUInt4x2": 1, "QUInt2x4": 1,
}  # fmt: skip
_STORAGES = {f"torch.{gpu}{name}Storage": n for name, n in _SIZES.items() for gpu in ("", "cuda.")}
_STORAGES["torch.storage.UntypedStorage"] = 1
_PASSIVE = {"torch.Tensor", "torch.nn.parameter.Parameter"} | {
    f"torch.{name}"
    for name in (
        "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
        "per_channel_affine_float_qparams",
        *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """A class or function that the pickle names."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Bytes that a tensor views."""

    key: str
    size: int
    item: int


class DryRun(PickleMachine):
    """Runs the pickles of one file.

    Args:
        allowed: names of classes and functions that the user takes responsibility for.
        records: sizes in bytes of the storages by key; ``None`` where they are not known beforehand.

    Attributes:
        refused: names of classes and functions that are neither safe nor allowed.
        storages: those that were asked for, by key.

    >>> import io
    >>> import pickle
    >>> DryRun().load(io.BytesIO(pickle.dumps([1, "a"], protocol=2))).items
    [1, 'a']
    """

    def __init__(
        self, allowed: Collection[str] = (), records: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.allowed = frozenset(allowed)
        self.records = records
        self.refused: set[str] = set()
        self.storages: dict[str, Storage] = {}
        self._calls: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._collection,
            "collections.Counter": self._collection,
            "builtins.set": self._collection,
            "builtins.bytearray": self._bytes,
            "builtins.complex": self._plain,
            "_codecs.encode": self._bytes,
            "torch.Size": self._plain,
            "torch.device": self._plain,
            "torch.serialization._get_layout": self._plain,
            "torch._utils._rebuild_tensor": self._view,
            "torch._utils._rebuild_tensor_v2": self._view,
            "torch._utils._rebuild_tensor_v3": self._view,
            "torch._utils._rebuild_qtensor": self._view,
            "torch._utils._rebuild_parameter": self._wrap,
            "torch._utils._rebuild_parameter_with_state": self._wrap,
            "torch._utils._rebuild_sparse_tensor": self._wrap,
            "torch._utils._rebuild_meta_tensor_no_storage": self._wrap,
            "torch._tensor._rebuild_from_type_v2": self._typed,
        }

    def named(self, name: str) -> Named:
        """A class or function by name; one that is neither safe nor allowed is noted."""
        known = name in self._calls or name in _STORAGES or name in _PASSIVE
        if not known and name not in self.allowed:
            self.refused.add(name)
        return Named(name)

    def call(self, function: Any, arguments: Held) -> Any:
        """What a call that torch.save writes gives; others end in an error."""
        if not isinstance(function, Named) or arguments.kind is not tuple:
            raise Refused("it calls what is no function")
        if function.name in self.refused or function.name in self.allowed:
            return FOREIGN
        if function.name not in self._calls:
            raise Refused(f"it calls {function.name}, which is not how torch.save writes tensors")
        return self._calls[function.name](*arguments.items)

    def new(self, made: Any) -> Any:
        """An instance of a class of the user's; torch.save calls for all others."""
        if isinstance(made, Named) and (made.name in self.refused or made.name in self.allowed):
            return FOREIGN
        raise Refused("it makes an object in a way that torch.save does not")

    def storage(self, reference: Held) -> Storage:
        """The bytes that a tensor refers to, which must be in the file."""
        word, kind, key, _location, count, *views = reference.items
        if len(views) != (self.records is None):  # the old format has views of storages
            raise Refused("it refers to a storage as another format does")
        if word != "storage" or kind.name not in _STORAGES or not isinstance(key, str):
            raise Refused("it refers to something that is no storage")
        item = _STORAGES[kind.name]
        storage = Storage(key, count * item, item)
        if count < 0 or self.storages.setdefault(key, storage) != storage:
            raise Refused(f"storage {key} has two sizes")
        if self.records is not None and storage.size > self.records.get(key, -1):
            there = "is missing" if key not in self.records else f"has {self.records[key]} bytes"
            raise Refused(f"storage {key} {there} where {storage.size} bytes are claimed")
        if views and views[0] is not None:
            _, offset, size = views[0].items
            if min(offset, size) < 0 or offset + size > count:
                raise Refused(f"a view of storage {key} lies outside of it")
            return Storage(key, size * item, item)
        return storage

    def _collection(self, held: Any = None) -> Held:
        items = [] if held is None else held.items
        self.spend(STEP * len(items))
        check_hashable(items)
        for item in items:  # pairs of an OrderedDict
            check_hashable(
                item.items[:1] if isinstance(item, Held) and item.kind is not dict else []
            )
        return Held(dict, [])

    def _bytes(self, text: str = "", encoding: str = "") -> str:
        if not isinstance(text, str) or encoding not in ("", "latin1", "latin-1"):
            raise Refused("it makes bytes of something that is no text")
        self.spend(4 * len(text))
        return text

    def _plain(self, *values: Any) -> object:
        for value in values:
            items = value.items if isinstance(value, Held) else []
            self.spend(8 * len(items))
            if any(isinstance(item, Held) for item in items):
                raise Refused("it makes a size of something that holds more than numbers")
        return OTHER

    def _wrap(self, *_: Any) -> object:
        self.spend(_TENSOR)
        return OTHER

    def _typed(self, function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
        return self.call(function, arguments)

    def _view(
        self, storage: Storage, offset: int, shape: Held, strides: Held, *more: Any
    ) -> object:
        self.spend(_TENSOR)
        sizes, steps = shape.items, strides.items
        whole = [offset, *sizes, *steps]
        if len(sizes) != len(steps) or len(sizes) > _DIMENSIONS or any(n < 0 for n in whole):
            raise Refused("it holds a tensor of an impossible shape")
        item = storage.item
        if len(more) > 2 and isinstance(more[2], Named):  # version 3 names its type
            item = getattr(torch, more[2].name.removeprefix("torch.")).itemsize
        end = 1 + offset + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
        claimed = prod(sizes) * item
        if (claimed and end * item > storage.size) or claimed > max(storage.size, _VIEW):
            raise Refused(
                f"a tensor of shape {tuple(sizes)} is claimed over a storage of {storage.size} bytes"
            )
        return OTHER
