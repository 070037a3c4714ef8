"""Small whole files of every kind, made in memory."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image

OLD = {"_use_new_zipfile_serialization": False}


def through_file(write: Callable[[Path], Any], name: str) -> bytes:
    """The bytes of what ``write`` puts into a file of that name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def saved(content: Any, **options: Any) -> bytes:
    """A file of torch.save."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, buffer, **options)
    return buffer.getvalue()


def npz(packed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def picture(seed: int = 0, size: int = 8, mode: str = "RGB", kind: str = "PNG") -> bytes:
    rng = np.random.default_rng(seed)
    shape = (size, size, 3) if mode in ("RGB", "P") else (size, size)
    image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind)
    return buffer.getvalue()


def states() -> dict[str, Any]:
    """State dicts and checkpoints as trainers write them."""
    weights = {
        "module.conv.weight": torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)),
        "module.norm.running_mean": torch.zeros(2, dtype=torch.float64),
        "module.norm.num_batches_tracked": torch.tensor(3),
        "module.head.weight": torch.ones(3, 2).t(),
        "module.head.bias": torch.nn.Parameter(torch.ones(3)),
    }
    tied = torch.ones(2, 2)
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    adam = torch.optim.Adam(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    return {
        "plain": weights,
        "whole": {"epoch": 3, "state_dict": weights, "optimizer": adam.state_dict(), "args": {"lr": 0.1, "name": "x"}},
        "tied": {"model": {"a": tied, "b": tied, "c": tied[0]}, "best": 0.5, "list": [1, (2, None, True)]},
        "kinds": {
            "half": torch.ones(4, dtype=torch.bfloat16), "bool": torch.ones(2, dtype=torch.bool),
            "complex": torch.ones(2, dtype=torch.complex64), "none": torch.zeros(0, 3), "scalar": torch.tensor(1.5),
        },
        "optimizer": adam.state_dict(),
    }  # fmt: skip


def arrays_pickle(stored: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(stored, protocol)


def hdf5(fill: Callable[[Any], Any], **options: Any) -> bytes:
    def write(path: Path) -> None:
        with h5py.File(path, "w", **options) as file:
            fill(file)

    return through_file(write, "x.h5")


def safetensors(
    entries: dict[str, tuple[str, list[int], bytes]], facts: dict[str, str] | None = None
) -> bytes:
    header: dict[str, Any] = {"__metadata__": facts} if facts else {}
    body = b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(content)],
        }
        body += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body
