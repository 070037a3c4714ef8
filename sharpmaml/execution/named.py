"""Executors by their names."""

from __future__ import annotations

from collections.abc import Callable

from sharpmaml.execution.adjoint import Adjoint
from sharpmaml.execution.compiled import Compiled
from sharpmaml.execution.loop import Loop
from sharpmaml.execution.stacked import Stacked
from sharpmaml.execution.vectorized import Vectorized
from sharpmaml.plan import Executor

MAKERS: dict[str, Callable[[int], Executor]] = {
    "loop": lambda _: Loop(),
    "vmap": Vectorized,
    "adjoint": Adjoint,
    "stacked": Stacked,
    "compile": Compiled,
}
"""Number of tasks at once (0: all, or what the executor finds best) -> executor."""


def made(name: str, tasks_at_once: int = 0) -> Executor:
    """The executor of that name.

    Args:
        name: one of `MAKERS`.
        tasks_at_once: tasks that it takes together; `sharpmaml.execution.loop.Loop` always takes one.

    Raises:
        ValueError: an unknown name, or a negative number of tasks.
    """
    if name not in MAKERS:
        raise ValueError(f"unknown executor {name!r}: expected one of {', '.join(MAKERS)}")
    return MAKERS[name](tasks_at_once)
