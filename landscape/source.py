"""A checkpoint and the names beside it on the command line -> the objective they mean."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape.checkpoint import read_weights
from landscape.objective import DataObjective, Objective
from landscape.resolve import resolve

# Checkpoint folders that describe themselves, by the schema in their meta.json, and the function of an
# installed package that makes their objective. A fixed table: a checkpoint never names code to import.
PROVIDERS = {"sharpmaml.checkpoint/1": "sharpmaml.objective:meta_objective"}


def describes_itself(path: Path) -> str | None:
    """Schema of a checkpoint folder (or of the last one in a run folder), or ``None`` for other files."""
    if not path.is_dir():
        return None
    candidates = [path / "meta.json", *sorted(path.glob("checkpoints/*/meta.json"), reverse=True)]
    for file in candidates:
        try:
            schema = json.loads(file.read_text(encoding="utf-8"))["schema"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return str(schema)
    raise ValueError(f"{path} has no checkpoint in it: expected a checkpoint folder or file")


def meta_provider(schema: str) -> Callable[..., Objective]:
    """The function that makes the objective of a self-describing checkpoint.

    Raises:
        ValueError: no installed package of ours knows the schema.
    """
    if schema not in PROVIDERS:
        raise ValueError(
            f"unknown checkpoint schema {schema!r}: expected one of {', '.join(PROVIDERS)}"
        )
    return pkgutil.resolve_name(PROVIDERS[schema])  # type: ignore[no-any-return]


def data_objective(
    checkpoint: Path, model: str | None, data: str | None, loss: str, norm: str, dtype: str | None
) -> Objective:
    """The mean loss of any checkpoint file over the user's data.

    Args:
        checkpoint: a weights file.
        model: ``package.module:factory`` or ``file.py:factory`` of the network.
        data: an ``.npz`` file with arrays ``x`` and ``y``, or a factory of ``(x, y)`` batches.
        loss: a ``torch.nn.functional`` name or a factory's name.
        norm: ``eval``, ``batch`` or ``recalibrate``.
        dtype: ``float32`` or ``float64``; the network's own when left out.

    Raises:
        ValueError: something is missing or does not fit.
    """
    if model is None or data is None:
        raise ValueError(
            f"{checkpoint} is not one of our checkpoint folders, so its network and data must be named: "
            "add --model package.module:factory (or file.py:factory) and --data file.npz (or a factory)"
        )
    weights = read_weights(checkpoint)
    network = resolve(model, "--model")()
    if not isinstance(network, torch.nn.Module):
        raise ValueError(
            f"--model {model!r} made a {type(network).__name__}, expected a torch.nn.Module"
        )
    try:
        network.load_state_dict(weights.tensors)
    except RuntimeError:
        raise ValueError(_mismatch(checkpoint, network, weights.tensors)) from None
    if dtype is not None:
        network.to(getattr(torch, dtype))
    objective = DataObjective(
        network,
        _arrays(Path(data)) if data.endswith(".npz") else resolve(data, "--data")(),
        loss=resolve(loss, "--loss") if ":" in loss else loss,
        norm=norm,
    )
    objective.settings |= {"checkpoint": weights.fingerprint, "model": model, "data": data}
    return objective


def _arrays(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(
            f"--data {path} is not an .npz file with arrays x and y: {error}"
        ) from None


def _mismatch(checkpoint: Path, network: Any, tensors: Any) -> str:
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    parts = [
        f"{len(names)} {what}: {', '.join(names[:3])}"
        for what, names in (
            ("missing", missing),
            ("unexpected", extra),
            ("of another shape", shapes),
        )
        if names
    ]
    return (
        f"{checkpoint} is of another architecture than {type(network).__name__}: {'; '.join(parts)}"
    )
