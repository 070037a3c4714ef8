"""The instructions of pickle protocol 2 on stand-ins: nothing is imported, called or built.

Python's ``pickletools`` documents each instruction. These are the ones that ``torch.load`` knows with
``weights_only=True``; what they mean for classes, calls and storages is left to a subclass.
"""

from __future__ import annotations

import pickle
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

BUDGET = 1 << 29  # bytes that what is not tensors may take
STEP = 256  # bytes that one instruction may take: an empty set, a memo slot
PARTS = 1000  # of a tuple that is a key: tuples hash all their parts, each time
_BIG_INTEGERS = 1000  # beyond 64 bits: they can be chosen to collide in a dictionary
_LINE = 500  # characters of a name


class Refused(ValueError):
    """A file asks for something that no state dict needs; the text says what."""


class Held:
    """A tuple, list or dictionary; ``parts`` counts what hashing a tuple visits."""

    __slots__ = ("items", "kind", "parts")

    def __init__(self, kind: type, items: list[Any], parts: int = 1) -> None:
        self.kind = kind
        self.items = items
        self.parts = parts


OTHER = object()  # a number, a tensor: nothing that later instructions may look into
FOREIGN = object()  # made by a class that the user allowed, or that ends in a refusal anyway


class PickleMachine(ABC):
    """Runs the pickles of one file, one after another."""

    def __init__(self) -> None:
        self.spent = 0
        self._big = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._stream: BinaryIO

    def load(self, stream: BinaryIO) -> Any:
        """Run one pickle from where the stream stands.

        Returns:
            A stand-in for what it builds; the stream stands behind the pickle.

        Raises:
            Refused: the pickle is damaged, of a newer protocol, or asks for too much.
        """
        self._stream, self._stack, self._marks, self._memo = stream, [], [], {}
        try:
            return self._run(stream.read)
        except Refused:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, struct.error) as error:
            raise Refused(f"its pickle is damaged ({type(error).__name__})") from None

    def spend(self, size: int) -> None:
        """Count bytes that the pickle would take beside tensors.

        Raises:
            Refused: they are too many.
        """
        self.spent += size
        if self.spent > BUDGET:
            raise Refused(f"what it holds beside tensors would take over {BUDGET >> 20} MiB")

    @abstractmethod
    def named(self, name: str) -> Any:
        """A class or function by its full name."""

    @abstractmethod
    def call(self, function: Any, arguments: Held) -> Any:
        """What a call gives."""

    @abstractmethod
    def new(self, made: Any) -> Any:
        """What an instance made without a call is."""

    @abstractmethod
    def storage(self, reference: Held) -> Any:
        """The bytes that a persistent name stands for."""

    def _run(self, read: Callable[[int], bytes]) -> Any:
        instructions = self._INSTRUCTIONS
        while (op := read(1)) != pickle.STOP:
            instruction = instructions.get(op)
            if instruction is None:
                raise Refused(
                    "it is not written by torch.save as it is: "
                    f"instruction {op!r} is of another pickle protocol than 2"
                    if op
                    else "it ends in the middle"
                )
            instruction(self)
            self.spent += STEP
            if self.spent > BUDGET:
                self.spend(0)
        return self._stack.pop()

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise Refused("it ends in the middle")
        return data

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _proto(self) -> None:
        self._read(1)

    def _put(self) -> None:
        self._memo[self._read(1)[0]] = self._stack[-1]

    def _long_put(self) -> None:
        self._memo[struct.unpack("<I", self._read(4))[0]] = self._stack[-1]

    def _get(self) -> None:
        self._stack.append(self._memo[self._read(1)[0]])

    def _long_get(self) -> None:
        self._stack.append(self._memo[struct.unpack("<I", self._read(4))[0]])

    def _int(self) -> None:
        self._stack.append(struct.unpack("<i", self._read(4))[0])

    def _int1(self) -> None:
        self._stack.append(self._read(1)[0])

    def _int2(self) -> None:
        self._stack.append(struct.unpack("<H", self._read(2))[0])

    def _long(self) -> None:
        count = self._read(1)[0]
        if count > 9:
            self._big += 1
            if self._big > _BIG_INTEGERS:
                raise Refused(f"it holds over {_BIG_INTEGERS} integers of more than 64 bits")
        self._stack.append(pickle.decode_long(self._read(count)))

    def _float(self) -> None:
        self._read(8)
        self._stack.append(OTHER)

    def _text(self) -> None:
        count = struct.unpack("<I", self._read(4))[0]
        self.spend(4 * count)
        self._stack.append(str(self._read(count), "utf-8", "surrogatepass"))

    def _old_text(self) -> None:
        self._stack.append(self._read(self._read(1)[0]).decode())

    def _none(self) -> None:
        self._stack.append(None)

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self) -> None:
        self._stack.append(_held(self._marked()))

    def _tuple0(self) -> None:
        self._stack.append(Held(tuple, []))

    def _tuple1(self) -> None:
        self._stack[-1] = _held([self._stack[-1]])

    def _tuple2(self) -> None:
        self._stack[-2:] = [_held([self._stack[-2], self._stack[-1]])]

    def _tuple3(self) -> None:
        self._stack[-3:] = [_held([self._stack[-3], self._stack[-2], self._stack[-1]])]

    def _list(self) -> None:
        self._stack.append(Held(list, []))

    def _dict(self) -> None:
        self._stack.append(Held(dict, []))

    def _append(self) -> None:
        item = self._stack.pop()
        self._fill([item])

    def _appends(self) -> None:
        self._fill(self._marked())

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        check_hashable([key])
        self._fill([key, value])

    def _set_items(self) -> None:
        items = self._marked()
        check_hashable(items[::2])
        self._fill(items)

    def _fill(self, items: list[Any]) -> None:
        if self._stack[-1] is not FOREIGN:  # torch itself says which classes it cannot fill
            self._stack[-1].items.extend(items)

    def _global(self) -> None:
        lines = [self._stream.readline(_LINE) for _ in ("module", "name")]
        if not all(line.endswith(b"\n") for line in lines):
            raise Refused("it ends in the middle of a name, or the name has no end")
        module, name = (line[:-1].decode() for line in lines)
        # Protocol 2 still writes the name that this module had in Python 2.
        self._stack.append(
            self.named(f"{'builtins' if module == '__builtin__' else module}.{name}")
        )

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        self._stack[-1] = self.call(self._stack[-1], arguments)

    def _new(self) -> None:
        self._stack.pop()
        self._stack[-1] = self.new(self._stack[-1])

    def _build(self) -> None:
        self._stack.pop()
        made = self._stack[-1]
        if made is not FOREIGN and not (isinstance(made, Held) and made.kind is dict):
            raise Refused("it changes a tensor after building it")

    def _persistent(self) -> None:
        self._stack.append(self.storage(self._stack.pop()))

    _INSTRUCTIONS: ClassVar[dict[bytes, Callable[[PickleMachine], None]]] = {
        pickle.PROTO: _proto, pickle.BINPUT: _put, pickle.LONG_BINPUT: _long_put,
        pickle.BINGET: _get, pickle.LONG_BINGET: _long_get, pickle.BININT: _int,
        pickle.BININT1: _int1, pickle.BININT2: _int2, pickle.LONG1: _long, pickle.BINFLOAT: _float,
        pickle.BINUNICODE: _text, pickle.SHORT_BINSTRING: _old_text, pickle.NONE: _none,
        pickle.NEWTRUE: _none, pickle.NEWFALSE: _none, pickle.MARK: _mark, pickle.TUPLE: _tuple,
        pickle.EMPTY_TUPLE: _tuple0, pickle.TUPLE1: _tuple1, pickle.TUPLE2: _tuple2,
        pickle.TUPLE3: _tuple3, pickle.EMPTY_LIST: _list, pickle.EMPTY_SET: _list,
        pickle.EMPTY_DICT: _dict, pickle.APPEND: _append, pickle.APPENDS: _appends,
        pickle.SETITEM: _set_item, pickle.SETITEMS: _set_items, pickle.GLOBAL: _global,
        pickle.REDUCE: _reduce, pickle.NEWOBJ: _new, pickle.BUILD: _build,
        pickle.BINPERSID: _persistent,
    }  # fmt: skip


def check_hashable(keys: list[Any]) -> None:
    """Refuse keys of a dictionary that take long to hash.

    Raises:
        Refused: a tuple with too many parts, counted through the tuples in it.
    """
    for key in keys:
        if isinstance(key, Held) and key.parts > PARTS:
            raise Refused(f"a key of a dictionary has over {PARTS} parts")


def _held(items: list[Any]) -> Held:
    parts = 1
    for item in items:
        if isinstance(item, Held):
            parts += item.parts
    return Held(tuple, items, min(parts, PARTS + 1))
