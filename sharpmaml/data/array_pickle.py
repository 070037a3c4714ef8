"""Pickles of numpy arrays and lists, read without running what they name: `landscape.array_pickle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from landscape import array_pickle
from landscape.array_pickle import MAX_BYTES, MAX_STEPS
from sharpmaml.data.episodes import DataError


def read_array_pickle(path: Path) -> Any:
    """Return what a pickle holds: dicts, lists, tuples, str, bytes, numbers and numeric arrays.

    Texts of Python 2 come as str (latin-1). Protocols 0 to 5 are read, as far as such data needs them.

    Raises:
        DataError: if the file is missing, damaged, over 8 GB, or holds anything else; a class or
            function that it wants to use is named, and was not used.
    """
    try:
        return array_pickle.read_array_pickle(path, max_bytes=MAX_BYTES, max_steps=MAX_STEPS)
    except ValueError as error:
        raise DataError(str(error)) from None
