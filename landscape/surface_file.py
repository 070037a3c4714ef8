"""The file of a surface while it is computed: whole now and then, and every round of points in a journal at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import grid
from landscape.grid import Index
from landscape.holding import Hold
from landscape.journal import Entry, Journal
from landscape.store import load, save

_IDENTITY = ("fingerprint", "points", "axes", "created_at", "shard")


class SurfaceFile:
    """Keeps an unfinished surface: what a process that is killed has lost is the round it was computing.

    The journal lies beside the file as ``.NAME.points`` and is gone when the surface is whole.

    Args:
        path: NetCDF file.
        hold: the right to write it.
    """

    def __init__(self, path: Path, hold: Hold) -> None:
        self.path = path
        self._hold = hold
        self._journal: Journal | None = None

    def recover(self) -> None:
        """Bring what an earlier process left in the journal into the file.

        Raises:
            ValueError: the file is no surface.
        """
        left = _journal_file(self.path)
        if not (self.path.exists() and left.exists()):
            return
        surface = load(self.path)
        journal = Journal(left, _identity(surface))
        for number in range(len(journal)):
            _replay(surface, journal[number])
        if len(journal):
            save(surface, self.path)
        journal.clear()

    def note(
        self, surface: xr.Dataset, indices: Sequence[Index], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Keep the points of a round; the surface need not have them yet.

        Raises:
            WriteError: the disk refuses; what was kept before is kept.
            HeldError: the file was removed meanwhile, and another process writes it now.
        """
        if self._journal is None or not self.path.exists():
            self.save(surface)  # the journal is worth nothing without the file it goes with
        assert self._journal is not None
        numbers = [{k: float(v) for k, v in row.items() if not np.shape(v)} for row in rows]
        lists = {k: np.stack([row[k] for row in rows]) for k in rows[0] if np.shape(rows[0][k])}
        self._journal.append({"points": [list(i) for i in indices], "rows": numbers}, lists)

    def save(self, surface: xr.Dataset) -> None:
        """Write the whole surface, and begin a new journal.

        A folder that was removed while the surface was computed is made again: what is known is kept.

        Raises:
            WriteError: the disk refuses.
            HeldError: the file was removed meanwhile, and another process writes it now.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._hold.confirm()
        save(surface, self.path)
        if self._journal is None:
            self._journal = Journal(_journal_file(self.path), _identity(surface))
        self._journal.clear()


def _journal_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.points")


def _identity(surface: xr.Dataset) -> dict[str, Any]:
    return {name: surface.attrs.get(name) for name in _IDENTITY}


def _replay(surface: xr.Dataset, entry: Entry) -> None:
    words, lists = entry
    for number, (index, row) in enumerate(zip(words["points"], words["rows"], strict=True)):
        grid.store(surface, tuple(index), {**row, **{k: v[number] for k, v in lists.items()}})
