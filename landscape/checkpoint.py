"""Weights out of checkpoint files, without ever running code from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SUFFIXES = (".pt", ".pth", ".th", ".t7", ".ckpt", ".bin", ".safetensors")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "ema", "state_dict_ema", "model_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")


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
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


def read_weights(path: str | Path) -> Weights:
    """Read the weights of a ``.pt .pth .th .t7 .ckpt .bin .safetensors`` file.

    Pickled files are read with ``weights_only=True`` and nothing else: a file that needs more is refused.
    Weights under ``state_dict``, ``model_state_dict``, ``model`` or ``ema`` are found; the prefixes of
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
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and a stranger's file may raise any
        try:
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:
            refused = []
        if refused:
            raise ValueError(
                f"checkpoint {path} is refused: it holds {', '.join(refused)}, which could run code; "
                "save it again as a plain state_dict or as .safetensors"
            ) from None
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"checkpoint {path} cannot be read, it is damaged or no checkpoint: {first}"
        ) from None


def _find(content: Any) -> tuple[dict[str, Tensor], str]:
    if not isinstance(content, Mapping):
        return {}, ""
    own = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    for key in _WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping):
            tensors = {str(k): v for k, v in inner.items() if isinstance(v, Tensor)}
            if len(tensors) > len(own):
                return tensors, key
    return own, ""


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
