"""Names on a command line that carry arguments: ``file.py:factory(width=16)``."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any, NamedTuple

from landscape.wording import printable

_FORM = re.compile(r"((?:.*?:)?[A-Za-z_][\w.\-]*)\((.*)\)", re.DOTALL)


class Call(NamedTuple):
    """A name and the arguments beside it.

    Attributes:
        name: what stands before the parentheses.
        args: positional arguments.
        kwargs: keyword arguments.
        given: whether there were parentheses at all.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody writes to
    given: bool = False


def parse(text: str, what: str) -> Call:
    """``name(1, width=16)`` -> the name and its arguments; literals only, nothing is evaluated.

    Args:
        text: what the user typed; without parentheses at its end it is all name.
        what: what it is for, such as ``"--model"``: named in errors.

    Raises:
        ValueError: an argument is not a literal of Python.

    >>> parse("net.py:make(3, width=16)", "--model")
    Call(name='net.py:make', args=(3,), kwargs={'width': 16}, given=True)
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return Call(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's parser, on escapes in texts
            call = ast.parse(f"f({match[2]})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        args = tuple(ast.literal_eval(argument) for argument in call.args)
        kwargs = {str(pair.arg): ast.literal_eval(pair.value) for pair in call.keywords}
        if any(pair.arg is None for pair in call.keywords):
            raise ValueError
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(
            f"{what} '{printable(text, 200)}' has arguments that are not literals: expected numbers, texts in quotes, "
            "True, False, None, and lists or mappings of these, such as width=16"
        ) from None
    return Call(match[1], args, kwargs, True)
