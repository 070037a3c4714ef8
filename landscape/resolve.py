"""Names on a command line -> the objects they name."""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
import sysconfig
import traceback
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
    file = Path(place) if place.endswith(".py") else None
    if file and not file.is_file():
        raise ValueError(f"{what}: the file {file} does not exist")
    beside = str(file.resolve().parent if file else Path.cwd())
    if beside not in sys.path:
        sys.path.insert(0, beside)  # as `python` has it: the user's own modules beside them
    try:
        return getattr(_module(file), attribute) if file else pkgutil.resolve_name(name)
    except Exception as error:  # the user's own code runs here, and may raise anything
        raise ValueError(f"{what} {name!r} cannot be imported: {said(error)}") from error


def said(error: BaseException) -> str:
    """An error of the user's code in one line, with the line of that code where it came up.

    >>> said(KeyError("x"))
    "KeyError: 'x'"
    """
    text = " ".join(str(error).split())
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    others = (str(Path(__file__).parent), *_INSTALLED, "<")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others)
    ]
    return (
        f"{told} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else told
    )


_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


def _module(file: Path) -> Any:
    # A name of its own: the file may be called as some package is.
    name = f"{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their own module
    spec.loader.exec_module(module)
    return module
