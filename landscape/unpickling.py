"""Files of ``torch.save`` read without running code from them, and without letting them fill the memory."""

from __future__ import annotations

import pkgutil
import re
import struct
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from landscape.dry_run import DryRun
from landscape.pickle_machine import BUDGET, Held, Refused
from landscape.wording import listed, printable
from landscape.zip_layout import check_stored, records

_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of torch.save before 1.6
_NEVER = ("os.", "posix.", "nt.", "sys.")  # torch takes nothing from these, allowed or not
_OTHERS = (
    (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file (Keras?)"), (b"\x93NUMPY", "a NumPy array"), (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
    (b"<!DOCTYPE", "a web page"), (b"<html", "a web page"), (b"7z\xbc\xaf", "a 7z archive"),
)  # fmt: skip


class TrustWarning(UserWarning):
    """A file is unpickled with whatever code it names."""


def read_pickled(path: Path, allow: Collection[str] = (), trust_pickle: bool = False) -> Any:
    """What a file of ``torch.save`` holds, on the CPU and mapped from the file where its format lets it.

    Args:
        path: the file.
        allow: ``package.module.Class`` names; unpickling runs the code of these classes and of no others.
        trust_pickle: unpickle whatever the file says, which may run any code.

    Raises:
        ValueError: the file is not one of ``torch.save``, damaged, names other classes, or asks for more
            memory than its tensors fill.
    """
    found: set[str] = set()
    try:
        with path.open("rb") as file:
            zipped = _kind(file)
            if trust_pickle:
                warnings.warn(
                    f"{path} is unpickled on your word: code that it names runs with your rights",
                    TrustWarning,
                    stacklevel=3,
                )
            run = DryRun(allow, _storages(file) if zipped else None)
            try:
                if not trust_pickle:
                    _rehearse(file, run, zipped)
            finally:
                found = run.refused
            if not found:
                return _load(path, allow, trust_pickle, zipped)
    except Refused as error:
        if not found:
            text = printable(error, 400)
            raise ValueError(f"checkpoint {path} cannot be read: {text}") from None
    except (OSError, MemoryError, OverflowError, struct.error) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from None
    raise ValueError(f"checkpoint {path} is refused: it holds {_advice(found)}")


def _kind(file: BinaryIO) -> bool:
    """Whether the file is a zip of ``torch.save``; ``False`` for the format before it."""
    head = file.read(300)
    file.seek(0)
    if head.startswith(b"PK"):
        return True
    if head.startswith(_MAGIC):
        return False
    if not head:
        raise Refused("it is empty")
    for start, what in _OTHERS:
        if head.startswith(start):
            raise Refused(f"it is {what}")
    if head[257:262] == b"ustar":
        raise Refused("it is a tar archive; torch.save wrote such files before 0.2: unpack it")
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        _bare(file)
    text = not set(head) - set(range(32, 127)) - set(b"\t\n\r")
    raise Refused(
        "it is a text file" if text else "its first bytes are of no format that torch.save writes"
    )


def _bare(file: BinaryIO) -> None:
    run = DryRun()
    with suppress(Refused):  # damaged or not, it is no file of torch.save
        run.load(file)
    names = f" that names {listed(sorted(run.refused))}" if run.refused else ""
    raise Refused(f"it is a bare pickle{names}, not written by torch.save as it is")


def _storages(file: BinaryIO) -> dict[str, int]:
    """Sizes of the storages in a zip of ``torch.save``, by key."""
    found = records(file)
    names = {record.name.partition("/")[2] for record in found}
    if "constants.pkl" in names:
        raise Refused(
            "it is a TorchScript archive, which is a program: open it with torch.jit.load if you trust "
            "it, and save its state_dict()"
        )
    if "data.pkl" not in names:
        arrays = any(record.name.endswith(".npy") for record in found)
        raise Refused("it is an .npz of NumPy arrays" if arrays else "it is a zip of other things")
    root = found[0].name.partition("/")[
        0
    ]  # torch takes the first record's folder for the archive's
    check_stored(found, file.seek(0, 2))
    return {
        record.name.removeprefix(f"{root}/data/"): record.size
        for record in found
        if record.name.startswith(f"{root}/data/")
    }


def _rehearse(file: BinaryIO, run: DryRun, zipped: bool) -> None:
    """Run the pickles of the file on stand-ins."""
    file.seek(0)
    if not zipped:
        for _ in range(3):  # the magic number, the version, facts of the machine
            run.load(file)
        run.load(file)
        keys = run.load(file)
        if not isinstance(keys, Held):
            raise Refused("it does not list its storages")
        if not run.refused:
            _check_bytes(file, run, keys.items)
        return
    found = records(file)
    root = found[0].name.partition("/")[0]
    record = next((record for record in found if record.name == f"{root}/data.pkl"), None)
    if record is None:
        raise Refused("it has no data.pkl where torch looks for it")
    if record.size > BUDGET:
        raise Refused(f"its data.pkl has {record.size} bytes, over {BUDGET >> 20} MiB")
    file.seek(record.start + 26)
    name, extra = struct.unpack("<2H", file.read(4))
    file.seek(record.start + 30 + name + extra)
    run.load(file)


def _check_bytes(file: BinaryIO, run: DryRun, keys: list[Any]) -> None:
    """Refuse storages of the old format without bytes of their own in the file."""
    position, end = file.tell(), file.seek(0, 2)
    for key in keys:
        storage = run.storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise Refused("it lists a storage that no tensor uses")
        file.seek(position)
        count = file.read(8)
        position += 8 + storage.size
        if position > end:
            raise Refused("it ends in the middle")
        if struct.unpack("<q", count)[0] * storage.item != storage.size:
            raise Refused(f"storage {printable(key)} has two sizes")
    if set(run.storages) - set(keys):
        raise Refused("a tensor uses a storage that has no bytes in the file")


def _load(path: Path, allow: Collection[str], trust_pickle: bool, zipped: bool) -> Any:
    try:
        with warnings.catch_warnings(), _allowed(allow):
            warnings.simplefilter("ignore", UserWarning)  # remarks on how the file was pickled
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle, mmap=zipped)
    except Refused:
        raise
    except Exception as error:  # torch raises many kinds, and a stranger's file may raise any
        reason = _reason(error)
    raise Refused(f"it is damaged or not written by torch.save as it is: {reason}")


@contextmanager
def _allowed(names: Collection[str]) -> Iterator[None]:
    chosen: list[Any] = []
    for name in names:
        if name.startswith(_NEVER):
            raise Refused(f"--allow {name}: nothing of that module is taken from a file")
        try:
            chosen.append((pkgutil.resolve_name(name), name))
        except (ImportError, AttributeError, ValueError) as error:
            raise Refused(f"--allow {name} cannot be imported: {error}") from None
    with torch.serialization.safe_globals(chosen):
        yield


def _reason(error: Exception) -> str:
    """What the unpickler itself said; torch wraps it in advice to load the file unsafely."""
    inner = error.__context__ if isinstance(error.__context__, Exception) else error
    text = str(inner)
    kept = re.search(r"allowlisted via `add_safe_globals` but got <class '([\w.]+)'", text)
    kept = kept or re.search(r"allowlisted via `add_safe_globals`, but got <class '([\w.]+)'", text)
    if kept:
        return f"it also builds {kept[1]}: add --allow {kept[1]} if you trust that class"
    first = printable((text.splitlines() or [""])[0], 200)
    return f"{type(inner).__name__}: {first}" if first else type(inner).__name__


def _advice(names: Collection[str]) -> str:
    """The classes, and what the user may do about them."""
    hopeless = any(name.startswith(_NEVER) for name in names)
    flags = " ".join(f"--allow {printable(name)}" for name in sorted(names)[:5])
    allow = "" if hopeless else f"if you trust it, add {flags} (runs the code of these), or "
    return (
        f"{listed(sorted(names))}, which could run code; save it again as a plain state_dict or as .safetensors; "
        f"{allow}--trust-pickle runs whatever the file says"
    )
