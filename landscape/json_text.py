"""JSON that strangers wrote: a document, or one ValueError, whatever is in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from landscape.wording import one_line

_DEPTH = 100  # levels; ours have 8
MAX_BYTES = 1 << 25  # a list of empty lists takes 30 times as much memory as text


def parsed(text: str | bytes) -> Any:
    """The document that a text is.

    Raises:
        ValueError: not JSON, nested too deep, or too large.

    >>> parsed('[1, {"a": null}]')
    [1, {'a': None}]
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has {len(text)} bytes, over {MAX_BYTES}")
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        found = json.loads(text)
        deep = text.count("[") + text.count("{") > _DEPTH and _deep(found)
    except RecursionError:
        deep = True
    except ValueError as error:
        raise ValueError(f"it is not JSON: {one_line(error, 120)}") from None
    if deep:
        raise ValueError("it is nested too deep")
    return found


def _deep(found: Any) -> bool:
    """Whether there are more levels than what recurses over a document can take."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [part for parts in inner for part in parts if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def read(path: Path) -> Any:
    """The document in a file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: not JSON, nested too deep, or too large; the file is named.
    """
    try:
        with path.open("rb") as file:
            return parsed(file.read(MAX_BYTES + 1))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
