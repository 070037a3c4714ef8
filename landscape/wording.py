"""Words of strangers' files made fit for one line of a message."""

from __future__ import annotations

from collections.abc import Collection


def printable(text: object, limit: int = 80) -> str:
    r"""One line without escapes, cut to ``limit`` characters.

    >>> printable("a" + chr(27) + "[31m\n", 4)
    'a?[…'
    """
    raw = str(text)
    line = "".join(char if char.isprintable() else "?" for char in raw[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def one_line(error: BaseException, limit: int = 300) -> str:
    r"""What an error says, in one line; its type where it says nothing.

    >>> one_line(KeyError("a")), one_line(ValueError("two\nlines")), one_line(EOFError())
    ("'a'", 'two lines', 'EOFError')
    """
    return printable(" ".join(str(error).split()), limit) or type(error).__name__


def listed(names: Collection[str], most: int = 5) -> str:
    """The first few names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    some = [printable(name) for name in list(names)[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(some) + more
