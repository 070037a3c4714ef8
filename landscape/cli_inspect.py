"""The command that looks into a checkpoint without its network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag

if TYPE_CHECKING:
    from landscape.inspection import Inspection, Row


def inspect(
    checkpoint: Path,
    /,
    *,
    json: Flag = False,
    key: str | None = None,
    allow: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    trust_pickle: Flag = False,
) -> None:
    """List what a checkpoint holds, and guess what it is of; no model is needed.

    Numbers that are not finite are listed and end with status 1.

    Args:
        checkpoint: a weights file, an index of shards, or a checkpoint folder of ours or of Hugging Face's.
        json: print one JSON document instead.
        key: entry of the file that holds the weights, when it is not the one found.
        allow: class that a pickled file may hold beside tensors, such as package.module.Class; unpickling
            runs its code; may be repeated.
        trust_pickle: unpickle whatever the file says, which may run any code.
    """
    from landscape import source as sources
    from landscape.inspection import inspect_checkpoint
    from landscape.networks import hf_checkpoint

    own = sources.describes_itself(checkpoint) is not None
    folder = sources.locate(checkpoint) if own else checkpoint
    hugging = hf_checkpoint(checkpoint) if checkpoint.is_dir() and not own else None
    file = folder / "model.safetensors" if own else hugging or checkpoint
    found = inspect_checkpoint(file, key=key, allow=allow, trust_pickle=trust_pickle)
    head: dict[str, Any] = {
        "file": str(file), "fingerprint": found.weights.fingerprint,
        "entries": sum(tensor.numel() for tensor in found.weights.tensors.values()),
        "found_under": found.weights.key, "prefix_removed": found.weights.prefix,
    }  # fmt: skip
    if own:  # what figures and pages show of such a checkpoint
        head["recorded_fingerprint"] = sources.description(folder).get("fingerprint")
    flags = () if own else (*found.flags, *_given(key, allow, trust_pickle))
    following = shlex.join(["landscape", "sharpness", str(checkpoint), *flags])
    if json:
        console.print_json({**head, **_document(found, following)})
    else:
        _print(head, found, following)
    if found.unsound:
        from landscape.wording import listed

        raise console.Untrusted(
            f"{file} has numbers that are not finite in {listed(found.unsound)}"
        )


def _given(key: str | None, allow: tuple[str, ...], trust_pickle: bool) -> list[str]:
    """The flags of reading, for another command on the same file."""
    words = ["--key", key] if key is not None else []
    words += [word for name in allow for word in ("--allow", name)]
    return [*words, "--trust-pickle"] if trust_pickle else words


def _document(found: Inspection, following: str) -> dict[str, Any]:
    return {
        "dtypes": found.dtypes,
        "ignored": len(found.weights.ignored),
        "other_weights": list(found.weights.others),
        "tied": found.tied,
        "not_finite": list(found.unsound),
        "beside": found.beside,
        "optimizer": found.optimizer,
        "guesses": {guess.about: guess.text for guess in found.guesses},
        "next_command": following,
        "tensors": [_fields(row) for row in found.rows],
    }


def _fields(row: Row) -> dict[str, Any]:
    return {
        "name": row.name, "shape": list(row.shape), "dtype": row.dtype, "norm": row.norm,
        "mean": row.mean, "std": row.std, "min": row.low, "max": row.high, "zeros": row.zeros,
        "nan": row.nan, "infinite": row.infinite,
    }  # fmt: skip


def _print(head: dict[str, Any], found: Inspection, following: str) -> None:
    from landscape.wording import printable

    lines = {name: str(value) for name, value in head.items()}
    lines["dtypes"] = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())
    if found.weights.ignored:
        lines["ignored"] = f"{len(found.weights.ignored)} entries that are no tensors"
    if found.weights.others:
        lines["other_weights"] = f"{', '.join(found.weights.others[:8])} (choose with --key)"
    for name, value in found.beside.items():
        lines[f"beside, {name}"] = value
    if found.optimizer:
        lines["optimizer"] = ", ".join(f"{name} {value}" for name, value in found.optimizer.items())
    for guess in found.guesses:
        lines[f"guess, {guess.about}"] = guess.text
    lines["next, once edited"] = following
    for name, text in lines.items():
        print(f"{printable(name)}: {printable(text, 400)}")
    for row in found.rows:
        print(_line(row))


def _line(row: Row) -> str:
    from landscape.wording import printable

    bad = "".join(f"  {n} {word}!" for n, word in ((row.nan, "NaN"), (row.infinite, "INF")) if n)
    twin = f"  same as {printable(row.same_as)}" if row.same_as else ""
    return (
        f"{printable(row.name):40} {list(row.shape)!s:22} {row.dtype:9} norm {row.norm:<10.6g}  "
        f"mean {row.mean:<10.4g} std {row.std:<10.4g} from {row.low:<10.4g} to {row.high:<10.4g} "
        f"zeros {row.zeros:.1%}{bad}{twin}"
    )
