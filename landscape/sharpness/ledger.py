"""What a measure costs: on its own, and given what other measures have paid for already."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Tally:
    """Cost of what was done inside :meth:`Ledger.measuring`, in FB.

    Attributes:
        paid: spent inside.
        alone: what it would have been, had nothing been computed before.
    """

    paid: float = 0.0
    alone: float = 0.0


@dataclass
class _Entry:
    value: Any
    cost: float  # without that of the entries it uses
    uses: frozenset[Hashable]


class Ledger:
    """Computes shared things once, and keeps the accounts.

    Costs are in FB: one forward and backward pass over all the data.

    >>> ledger = Ledger()
    >>> def gradient():
    ...     ledger.pay(1.0)
    ...     return "g"
    >>> with ledger.measuring() as first:
    ...     _ = ledger.once("gradient", gradient)
    >>> with ledger.measuring() as second:
    ...     _ = ledger.once("gradient", gradient)
    ...     ledger.pay(0.5)
    >>> (first.paid, first.alone), (second.paid, second.alone)
    ((1.0, 1.0), (0.5, 1.5))
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self._entries: dict[Hashable, _Entry] = {}
        self._used: list[set[Hashable]] = []  # by everything that is under way, outermost first
        self._inner = 0.0  # paid by entries made inside the one under way

    def pay(self, cost: float) -> None:
        """Note that something was computed for ``cost`` FB."""
        self.spent += cost

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of ``compute()``, computed for the first asker of ``key`` and kept."""
        for used in self._used[-1:]:
            used.add(key)
        if key not in self._entries:
            began, outer = self.spent, self._inner
            self._used.append(set())
            self._inner = 0.0
            try:
                value = compute()
            finally:
                used, inner = self._used.pop(), self._inner
                self._inner = outer
            own = self.spent - began - inner
            self._inner += self.spent - began
            self._entries[key] = _Entry(value, own, frozenset(used))
        value_of: T = self._entries[key].value
        return value_of

    def forget(self) -> None:
        """Let go of what was computed; what was spent stays."""
        self._entries.clear()

    @contextmanager
    def measuring(self) -> Iterator[Tally]:
        """Account for what is done inside; complete once the block has ended."""
        tally, known, began = Tally(), set(self._entries), self.spent
        self._used.append(set())
        try:
            yield tally
        finally:
            used = self._used.pop()
            for outer in self._used[-1:]:
                outer |= used
            tally.paid = self.spent - began
            shared = self._closure(used) & known
            tally.alone = tally.paid + sum(self._entries[key].cost for key in shared)

    def _closure(self, keys: set[Hashable]) -> set[Hashable]:
        found: set[Hashable] = set()
        open_keys = list(keys)
        while open_keys:
            key = open_keys.pop()
            if key not in found and key in self._entries:
                found.add(key)
                open_keys += self._entries[key].uses
        return found
