"""Folders that appear whole or not at all, also when the process is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from landscape.writing import flush, write_error

_PARTIAL, _BEFORE = ".partial", ".before"


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` to fill; it takes the name where the block ends without an error.

    Files and names are on the disk before the block ends. Another folder of that name is gone only then.

    Raises:
        WriteError: the disk refuses. What was there before is still there, and nothing else is left.
    """
    partial, before = (target.with_name(f".{target.name}{end}") for end in (_PARTIAL, _BEFORE))
    try:
        sweep(target.parent, target.name)
        partial.mkdir(parents=True)
        yield partial
        for file in partial.iterdir():
            flush(file)
        flush(partial)
        if target.exists():
            target.rename(before)  # removed in place it would be half a folder for a while
        partial.rename(target)
        flush(target.parent)
    except OSError as error:
        raise write_error(target, error) from None
    finally:
        with suppress(OSError):  # the error that led here says more
            sweep(target.parent, target.name)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what a process that was killed left of folders it was writing; nobody may be writing them.

    Args:
        folder: where they are.
        name: of the folders.
    """
    for partial in folder.glob(f".{name}{_PARTIAL}"):
        shutil.rmtree(partial)
    for before in folder.glob(f".{name}{_BEFORE}"):
        target = before.with_name(before.name.removeprefix(".").removesuffix(_BEFORE))
        if target.exists():
            # Under the name of what is of no use: half removed, it must never be put back.
            partial = before.rename(before.with_name(f".{target.name}{_PARTIAL}"))
            shutil.rmtree(partial)
        else:
            before.rename(target)
