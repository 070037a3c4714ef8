"""Weights out of checkpoint files, without ever running code from them."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SUFFIXES = (".pt", ".pth", ".th", ".t7", ".ckpt", ".bin", ".safetensors")
_WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema", "model_ema",
)  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.", "model.")
_DEPTH = 3  # wrappers within wrappers; a file may also hold itself


@dataclass(frozen=True)
class Weights:
    """Named tensors of a checkpoint.

    Attributes:
        path: the file.
        tensors: by name, as stored apart from a prefix that all names shared.
        key: entry of the file that held them; empty when the file is the weights.
        prefix: what was taken off every name.
    """

    path: Path
    tensors: dict[str, Tensor]
    key: str = ""
    prefix: str = ""

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


def read_weights(path: str | Path) -> Weights:
    """Read the weights of a ``.pt .pth .th .t7 .ckpt .bin .safetensors`` file.

    Pickled files are read with ``weights_only=True`` and nothing else: a file that needs more is refused.
    Weights under ``state_dict``, ``model_state_dict``, ``model``, ``net`` or ``ema`` are found, also one
    within another; the prefixes of
    DataParallel (``module.``), ``torch.compile`` (``_orig_mod.``) and Lightning (``model.``) are removed.

    Raises:
        ValueError: the file is missing, damaged, unsafe, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(
            f"checkpoint {path} {what}: expected a file ending in {', '.join(SUFFIXES)}"
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    found, key = _find(content)
    if not found:
        keys = (
            ", ".join(repr(k) for k in list(content)[:5])
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        raise ValueError(f"checkpoint {path} holds no tensors by name (found {keys})")
    tensors, prefix = _strip(found)
    return Weights(path, tensors, key, prefix)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from None


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # remarks on how the file was pickled
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and a stranger's file may raise any
        reason = _reason(error)
        refused = _refused(path, reason)
    if refused:
        raise ValueError(
            f"checkpoint {path} is refused: it holds {', '.join(refused)}, which could run code; "
            "save it again as a plain state_dict or as .safetensors"
        )
    raise ValueError(
        f"checkpoint {path} cannot be read, it is damaged or not written by torch.save as it is: {reason}"
    )


def _reason(error: Exception) -> str:
    """What the unpickler itself said; torch wraps it in advice to load the file unsafely."""
    inner = error.__context__ if isinstance(error.__context__, Exception) else error
    first = (str(inner).splitlines() or [""])[0]
    return f"{type(inner).__name__}: {first}" if first else type(inner).__name__


def _refused(path: Path, reason: str) -> list[str]:
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip file: only the first class it stumbled over is known
        found = re.findall(r"GLOBAL ([\w.]+)", reason)
    return sorted(found)


def _find(content: Any, depth: int = _DEPTH) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and the keys that lead to them."""
    if not isinstance(content, Mapping) or not depth:
        return {}, ""
    for key in _WRAPPERS:
        tensors, deeper = _find(content.get(key), depth - 1)
        if tensors:
            return tensors, f"{key}.{deeper}" if deeper else key
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}, ""


def _strip(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    removed = ""
    while True:
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
                removed += prefix
                break
        else:
            return tensors, removed
