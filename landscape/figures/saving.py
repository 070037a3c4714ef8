"""Captions of paper figures, and files with the caption beside the figure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from landscape.plot import style
from landscape.plot.sheet import refused
from landscape.store import writable
from landscape.writing import replacing, write_text

# What would write the time into a file: the same figure gives the same bytes.
_TIMELESS: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
    ".png": {},
}


def described(
    figure: Figure,
    words: str,
    shown: Sequence[xr.Dataset],
    group: str = "",
    more: Sequence[str] = (),
) -> Figure:
    """The figure with its caption.

    Args:
        figure: changed in place; its label becomes the caption.
        words: what is seen, without a full stop.
        shown: what is drawn; all of their attributes go into the caption.
        group: which data the loss was taken on.
        more: further lines.
    """
    first = f"{words} ({group})." if group else f"{words}."
    lines = [first, ""]
    if shown and (note := style.footnote(shown[0].attrs, group, refused=refused(shown))):
        lines += [note, ""]
    lines += [*more, ""] if more else []
    for one in shown:
        lines.append(str(one.attrs.get("label") or "unnamed"))
        lines += [f"  {k}: {v}" for k, v in sorted(one.attrs.items()) if k != "label"]
    figure.set_label("\n".join(lines).rstrip() + "\n")
    return figure


def caption(figure: Figure) -> str:
    """The caption of a figure made here: what is seen, and every setting; empty for others."""
    return str(figure.get_label() or "")


def save(figure: Figure, path: str | os.PathLike[str]) -> list[Path]:
    """Write a figure, and its caption as text beside it.

    Args:
        figure: of this module, or any of matplotlib.
        path: ends in .pdf or .svg (vectors) or .png.

    Returns:
        The figure's file and, where there is a caption, the ``.txt`` of the same name.

    Raises:
        ValueError: another kind of file, or no such folder.
        WriteError: the disk refuses; files that were there are as they were.
    """
    file = writable(path)
    if file.suffix not in _TIMELESS:
        raise ValueError(f"{file}: expected a name ending in {', '.join(_TIMELESS)}")
    kind = file.suffix.removeprefix(".")
    # The kind of the fonts is decided on saving.
    settings = mpl.rc_context({**style.PAPER, "svg.hashsalt": "landscape"})
    with settings, replacing(file) as temporary:
        figure.savefig(temporary, format=kind, metadata=_TIMELESS[file.suffix], dpi=300)
    if not caption(figure):
        return [file]
    return [file, write_text(file.with_suffix(".txt"), caption(figure))]
