"""Weights out of checkpoint files, without running code from them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape import json_text
from landscape.pickle_machine import Refused
from landscape.state_dicts import candidates, entries, find, strip
from landscape.unpickling import read_pickled
from landscape.wording import listed, printable

SUFFIXES = (".pt", ".pth", ".th", ".t7", ".ckpt", ".bin", ".safetensors")
_HEADER = 1 << 24  # bytes of a safetensors header
_NAME = 200  # characters of the name of a shard
_REPEATED = 8  # times that tensors may share the bytes of the file


@dataclass(frozen=True)
class Weights:
    """Named tensors of a checkpoint.

    Attributes:
        path: the file.
        tensors: by name, as stored apart from a prefix that all names shared.
        key: entry of the file that held them; empty when the file is the weights.
        prefix: what was taken off every name.
        ignored: names beside them that hold no tensor.
        others: dotted keys of other entries that might be weights; ``key=`` chooses one.
    """

    path: Path
    tensors: dict[str, Tensor]
    key: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the sha256 over names, shapes and bytes."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().cpu().contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def named_as(self, names: Collection[str]) -> dict[str, Tensor]:
        """The tensors with as much of the prefix put back as a model of these names asks for.

        >>> weights = Weights(Path("a.pt"), {"w": torch.ones(1)}, prefix="module.model.")
        >>> list(weights.named_as(["model.w"])), list(weights.named_as(["w"]))
        (['model.w'], ['w'])
        """
        parts = self.prefix.split(".")[:-1]
        heads = ["".join(f"{part}." for part in parts[i:]) for i in range(len(parts), -1, -1)]
        best = max(heads, key=lambda head: sum(head + name in names for name in self.tensors))
        return {best + name: tensor for name, tensor in self.tensors.items()}


def read_weights(
    path: str | Path,
    *,
    key: str | None = None,
    allow: Collection[str] = (),
    trust_pickle: bool = False,
) -> Weights:
    """Read the weights of a ``.pt .pth .th .t7 .ckpt .bin .safetensors`` file, or of a sharded index.

    Weights under ``state_dict``, ``model_state_dict``, ``model``, ``net``, ``ema``, ... are found, also
    one within another; the prefixes of DataParallel (``module.``), ``torch.compile`` (``_orig_mod.``)
    and Lightning (``model.``) are removed. Tensors stay on the CPU, mapped from the file where its format
    lets them, and share memory where the file ties them.

    Args:
        path: the file, or the ``.index.json`` of one in several parts.
        key: dotted name of the entry that holds the weights; found when left out.
        allow: ``package.module.Class`` names that a pickle may build, which runs the code of these classes.
        trust_pickle: unpickle whatever the file says, which may run any code; with a warning.

    Raises:
        ValueError: the file is missing, damaged, unsafe, asks for more memory than it fills, holds no
            (dense, plain) tensors by name, or several entries that might be the weights.
    """
    path = Path(path)
    return weights_in(read_content(path, allow=allow, trust_pickle=trust_pickle), path, key)


def read_content(
    path: Path, *, allow: Collection[str] = (), trust_pickle: bool = False
) -> Mapping[Any, Any] | Any:
    """All that a checkpoint file holds; see :func:`read_weights`.

    Raises:
        ValueError: the file is missing, damaged, or unsafe.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        what = "is no regular file" if path.exists() and not path.is_dir() else what
        raise ValueError(
            f"checkpoint {path} {what}: expected a file ending in {', '.join(SUFFIXES)}"
        )
    if path.name.endswith(".index.json"):
        return _read_shards(path, allow, trust_pickle)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_pickled(path, allow, trust_pickle)
    if isinstance(content, torch.nn.Module):
        return content.state_dict()
    if isinstance(content, dict) and (allow or trust_pickle):
        return {
            name: value.state_dict() if isinstance(value, torch.nn.Module) else value
            for name, value in dict.items(content)
        }
    return content


def weights_in(content: Any, path: Path, key: str | None = None) -> Weights:
    """The weights among what a file holds; see :func:`read_weights`.

    Raises:
        ValueError: no tensors by name, several entries that might be meant, or tensors of kinds that no
            measure is defined on.
    """
    try:
        held, where = find(content, key)
    except ValueError as error:
        raise ValueError(f"checkpoint {path} {error}") from None
    found = {name: _plain(path, name, v) for name, v in held.items() if isinstance(v, Tensor)}
    if not found:
        names = [repr(name) for name, _ in entries(content)] if isinstance(content, dict) else []
        what = listed(names) or type(content).__name__
        raise ValueError(f"checkpoint {path} holds no tensors by name (found {what})")
    _check_sizes(path, found)
    prefix = strip(list(found))
    return Weights(
        path,
        {name.removeprefix(prefix): tensor for name, tensor in found.items()},
        where,
        prefix,
        tuple(name for name in held if name not in found),
        tuple(other for other in candidates(content) if other and other != where),
    )


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    """The tensor without what the file hung on it; refused when no number can be read from it."""
    bare = Tensor.detach(tensor)
    kind = str(bare.layout).removeprefix("torch.") if bare.layout != torch.strided else ""
    kind = "quantized" if bare.is_quantized else "nested" if bare.is_nested else kind
    kind = "without values (on the meta device)" if bare.is_meta else kind
    if not kind:
        try:
            one = bare.new_zeros(1)
            (one.abs() if one.is_complex() else one).double()
        except (RuntimeError, TypeError):
            kind = f"of {bare.dtype}, which no arithmetic is defined on"
    if kind:
        raise ValueError(
            f"checkpoint {path}: {printable(name)} is {kind}; expected plain numbers: "
            "save it as .dequantize() or .to_dense() makes it"
        )
    return bare


def _check_sizes(path: Path, tensors: dict[str, Tensor]) -> None:
    """A tensor may repeat one number a petabyte long: refuse what takes much more than the file."""
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    stored = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    limit = _REPEATED * sum(stored.values()) + (1 << 26)
    if size > limit:
        raise ValueError(
            f"checkpoint {path} claims tensors of {size} bytes over {sum(stored.values())} that it holds"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 10 or length > min(_HEADER, size - 8):
            raise Refused(f"its header claims {length} bytes, the file has {size}")
        return dict(load_file(path))
    # The library is Rust: a fault in it may come as any exception, and a damaged file must be one line.
    except (OSError, ValueError, RuntimeError, MemoryError, KeyError, SafetensorError) as error:
        text = printable(error, 300)
        raise ValueError(f"checkpoint {path} cannot be read: {text}") from None


def _read_shards(path: Path, allow: Collection[str], trust_pickle: bool) -> dict[str, Any]:
    """The tensors that an index of shards lists, from the files beside it."""
    try:
        listing = json_text.read(path)["weight_map"]
        files = {str(name): str(file) for name, file in listing.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"checkpoint {path} cannot be read: expected JSON with a weight_map of names to files "
            f"({type(error).__name__})"
        ) from None
    tensors: dict[str, Any] = {}
    for file in sorted(set(files.values())):
        plain = Path(file).name == file and file.isprintable() and len(file) <= _NAME
        if not plain or file.endswith(".index.json"):
            raise ValueError(
                f"checkpoint {path} names {printable(file)}, expected files of its own folder"
            )
        held = dict(
            entries(read_content(path.parent / file, allow=allow, trust_pickle=trust_pickle))
        )
        wanted = [name for name, where in files.items() if where == file]
        missing = [name for name in wanted if not isinstance(held.get(name), Tensor)]
        if missing:
            raise ValueError(f"checkpoint {path}: {printable(file)} lacks {listed(missing)}")
        tensors |= {name: held[name] for name in wanted}
    return tensors
