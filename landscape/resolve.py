"""Names on a command line -> the objects they name."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import Any


def resolve(name: str, what: str) -> Any:
    """``package.module:attribute`` or ``file.py:attribute`` -> the object.

    Args:
        name: what the user typed.
        what: what it is for, such as ``"--model"``: named in errors.

    Raises:
        ValueError: the form, the module, the file or the attribute is wrong.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise ValueError(f"{what} is {name!r}: expected package.module:factory or file.py:factory")
    if place.endswith(".py"):
        module = _module_from_file(Path(place), what)
        if not hasattr(module, attribute):
            raise ValueError(f"{what}: {place} has no {attribute!r}")
        return getattr(module, attribute)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(
            0, str(Path.cwd())
        )  # as `python -m` has it: the user's own module beside them
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{what} {name!r} cannot be imported: {error}") from None


def _module_from_file(path: Path, what: str) -> Any:
    if not path.is_file():
        raise ValueError(f"{what}: the file {path} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{what}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
