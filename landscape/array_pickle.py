"""Pickles of numpy arrays and lists, read without running what they name.

A pickle is a program, and an unpickler that imports and calls what it asks for runs a stranger's code.
Here the few instructions that dictionaries, lists, texts, numbers and arrays need are carried out on
Python's own values; nothing is imported or called, arrays are made from bytes that are in the
file, and any other instruction or name ends in a refusal.
"""

from __future__ import annotations

import pickletools
import re
import warnings
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from landscape.wording import one_line, printable

MAX_BYTES = 1 << 33  # of a file; the largest in use has 0.8 GB
MAX_STEPS = 10_000_000  # instructions; the largest in use has 80,000
_DTYPE = re.compile(r"[|<=>]?(?:[bui][1248]|f[248])")
_MARK = object()
_NAMES = {
    "_codecs encode": "encode",
    "__builtin__ bytes": "no bytes",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    **{f"numpy.{core}.multiarray _reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "frombuffer" for core in ("core", "_core")},
}


class _Refused(ValueError):
    pass


class _Name:
    """A function or class that the pickle names; it stands for itself and does nothing."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Unmade:
    """An array or dtype of which the pickle has not yet said what it holds."""

    def __init__(self, kind: str, text: str = "") -> None:
        self.kind, self.text = kind, text
        self.value: NDArray[Any] | None = None


def read_array_pickle(path: Path, *, max_bytes: int = MAX_BYTES, max_steps: int = MAX_STEPS) -> Any:
    """What a pickle holds: dicts, lists, tuples, str, bytes, numbers and numeric arrays.

    Texts of Python 2 come as str (latin-1). Protocols 0 to 5 are read, as far as such data needs them.

    Args:
        path: the file.
        max_bytes: the largest file that is read.
        max_steps: the most instructions that it may have.

    Raises:
        ValueError: the file is missing, damaged, too large, or holds anything else; a class or function
            that it wants to use is named, and was not used.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            if size > max_bytes:
                raise _Refused(f"{size} bytes are more than {max_bytes}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python's parser, on escapes in texts
                return _Machine().run(_Bounded(stream, size), max_steps)
    except (
        OSError, MemoryError, ValueError, KeyError, IndexError, TypeError, AttributeError,
        OverflowError, RecursionError,
    ) as error:  # fmt: skip
        reason = one_line(error, 200)
        what = reason if isinstance(error, _Refused) else f"it is damaged: {reason}"
        raise ValueError(
            f"{printable(path, 300)} cannot be read as a pickle of arrays ({what})"
        ) from None


class _Bounded:
    """The rest of a file; a claim of more bytes than there are allocates nothing."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise _Refused(f"it claims {count} bytes where {self._left} are left")
        data = self._stream.read(count)
        self._left -= count
        return data

    def readline(self) -> bytes:
        data = self._stream.readline(1 << 16)
        self._left -= len(data)
        return data

    def tell(self) -> int:
        return self._stream.tell()


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: _Bounded, max_steps: int) -> Any:
        for step, (op, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if step > max_steps:
                raise _Refused(f"it has more than {max_steps} instructions")
            if op.name == "STOP":
                return _finished(self._stack.pop())
            if op.name in _VALUES:
                self._stack.append(argument)
            elif op.name in _OPERATIONS:
                _OPERATIONS[op.name](self, argument)
            else:
                raise _Refused(f"instruction {op.name} is nothing that arrays and lists need")
        raise _Refused("it ends in the middle")

    def marked(self) -> list[Any]:
        start = len(self._stack) - 1
        while self._stack[start] is not _MARK:  # an IndexError, where there is none
            start -= 1
            if start < 0:
                raise _Refused("a mark is missing")
        items = self._stack[start + 1 :]
        del self._stack[start:]
        return items

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count:
            raise _Refused("its stack is empty")
        del self._stack[-count:]
        return items

    def store(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def fetch(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _Refused("it appends to what is no list")
        self._stack[-1].extend(map(_finished, items))

    def update(self, items: list[Any]) -> None:
        made = self._stack[-1]
        if not isinstance(made, dict) or len(items) % 2:
            raise _Refused("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Tuples of tuples take exponential time to hash.
            if not isinstance(key, str | bytes | int):
                raise _Refused(f"a key of a dictionary is a {type(key).__name__}")
            made[key] = _finished(value)

    def name(self, name: str) -> None:
        if name not in _NAMES:
            raise _Refused(
                f"it names {'.'.join(name.split())[:100]}, which is no array: it was not run"
            )
        self._stack.append(_Name(_NAMES[name]))

    def stack_name(self) -> None:
        self.name(" ".join(self.pop(2)))

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _Refused("it calls what is no function")
        if function.name not in _CALLS:
            raise _Refused(f"it calls {function.name}")
        self._stack.append(_CALLS[function.name](*arguments))

    def build(self) -> None:
        made, state = self.pop(2)
        if not isinstance(made, _Unmade) or not isinstance(state, tuple):
            raise _Refused("it changes an object after making it")
        if made.kind == "dtype":
            order = _dtype_text(state[1])
            if order not in ("<", ">", "|", "="):
                raise _Refused("it holds an array of an unknown byte order")
            made.text = ("" if order == "=" else order) + made.text.lstrip("<>|=")
        else:
            _, shape, dtype, fortran, data = state
            made.value = _array(shape, dtype, data, bool(fortran))
        # Not a new object: the memo may hold this one already.
        self._stack.append(made)


def _dtype_text(text: Any) -> str:
    if not isinstance(text, bytes | str):
        raise _Refused(
            "it names a kind of numbers by what is no text"
        )  # whose text may have no end
    return text.decode("latin-1") if isinstance(text, bytes) else text


def _array(shape: Any, dtype: Any, data: Any, fortran: bool) -> NDArray[Any]:
    if not isinstance(dtype, _Unmade) or not _DTYPE.fullmatch(dtype.text):
        kind = repr(getattr(dtype, "text", type(dtype).__name__))[:30]
        raise _Refused(f"it holds an array of {kind}, which are no plain numbers")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _Refused("it holds an array of an impossible shape")
    content = data.encode("latin-1") if isinstance(data, str) else data
    form = np.dtype(dtype.text)
    if not isinstance(content, bytes | bytearray) or prod(shape) * form.itemsize != len(content):
        raise _Refused(f"an array {shape} of {form} does not fill its bytes")
    return np.frombuffer(content, form).reshape(shape, order="F" if fortran else "C")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused("it encodes text as other than latin-1")
    return text.encode("latin-1")


_CALLS: dict[str, Callable[..., Any]] = {
    "encode": _encoded,
    "no bytes": lambda: b"",
    "reconstruct": lambda _class, _shape, _dtype: _Unmade("array"),
    "dtype": lambda text, _align=False, _copy=True: _Unmade("dtype", _dtype_text(text)),
    "scalar": lambda dtype, data: _array((), dtype, data, False).item(),
    "frombuffer": lambda data, dtype, shape, order: _array(shape, dtype, data, order == "F"),
}


def _finished(value: Any) -> Any:
    if isinstance(value, _Unmade):
        if value.value is None:
            raise _Refused("it holds an array without content")
        return value.value
    if isinstance(value, _Name):
        raise _Refused("it holds a function")
    if isinstance(value, tuple):
        return tuple(part if isinstance(part, tuple) else _finished(part) for part in value)
    return value


_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
})  # fmt: skip

_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_MARK),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "DICT": lambda machine, _: _new(machine, {}),
    "LIST": lambda machine, _: _new(machine, []),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.update(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "MEMOIZE": lambda machine, _: machine.store(None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.store),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.fetch),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda machine, _: machine.stack_name(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def _new(machine: _Machine, made: list[Any] | dict[Any, Any]) -> None:
    items = machine.marked()
    machine.push(made)
    if isinstance(made, list):
        machine.extend(items)
    else:
        machine.update(items)
