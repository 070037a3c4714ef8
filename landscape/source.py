"""A checkpoint and the names beside it on the command line -> the objective they mean."""

from __future__ import annotations

import json
import pkgutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape import device as devices
from landscape.checkpoint import Weights, read_weights
from landscape.data_objective import DataObjective
from landscape.objective import Objective
from landscape.resolve import resolve, said


@dataclass(frozen=True)
class Provider:
    """Where an installed package keeps what a checkpoint folder of its own needs.

    Attributes:
        objective: function that makes the objective.
        locate: function from a checkpoint or run folder to the checkpoint folder that speaks for it.
    """

    objective: str
    locate: str


# Checkpoint folders that describe themselves, by the schema in their meta.json. A fixed table: a
# checkpoint never names code to import.
PROVIDERS = {
    "sharpmaml.checkpoint/1": Provider(
        "sharpmaml.objective:meta_objective", "sharpmaml.checkpoint:locate"
    )
}


def describes_itself(path: Path) -> str | None:
    """Schema of a checkpoint folder (or of the last one in a run folder), or ``None`` for other files.

    Raises:
        ValueError: a folder without a checkpoint that can be read.
    """
    if not path.is_dir():
        return None
    damaged = []
    for file in (path / "meta.json", *sorted(path.glob("checkpoints/*/meta.json"), reverse=True)):
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["schema"])
        except (ValueError, KeyError, TypeError):
            damaged.append(file)
        except OSError:
            continue
    if damaged:
        raise ValueError(f"{damaged[0]} is damaged: expected JSON with a schema in it")
    raise ValueError(f"{path} has no checkpoint in it: expected a checkpoint folder or file")


def meta_provider(schema: str) -> Callable[..., Objective]:
    """The function that makes the objective of a self-describing checkpoint.

    Raises:
        ValueError: no installed package of ours knows the schema.
    """
    return pkgutil.resolve_name(_provider(schema).objective)  # type: ignore[no-any-return]


def locate(path: Path) -> Path:
    """The folder that speaks for a self-describing checkpoint or run: the one analysis reads.

    Raises:
        ValueError: it has no checkpoint, or no installed package of ours knows its schema.
    """
    find = pkgutil.resolve_name(_provider(describes_itself(path) or "none").locate)
    return find(path)  # type: ignore[no-any-return]


def description(folder: Path) -> dict[str, Any]:
    """What ``meta.json`` of a self-describing checkpoint folder says."""
    return dict(json.loads((folder / "meta.json").read_text(encoding="utf-8")))


def _provider(schema: str) -> Provider:
    if schema not in PROVIDERS:
        raise ValueError(
            f"unknown checkpoint schema {schema!r}: expected one of {', '.join(PROVIDERS)}"
        )
    return PROVIDERS[schema]


def data_objective(
    checkpoint: Path,
    model: str | None,
    data: str | None,
    loss: str,
    norm: str,
    dtype: str | None,
    device: str = "auto",
) -> Objective:
    """The mean loss of any checkpoint file over the user's data.

    Args:
        checkpoint: a weights file.
        model: ``package.module:factory`` or ``file.py:factory`` of the network.
        data: an ``.npz`` file with arrays ``x`` and ``y``, or a factory of ``(x, y)`` batches.
        loss: a ``torch.nn.functional`` name, or ``package.module:function`` or ``file.py:function`` of
            ``(output, y)``.
        norm: ``eval``, ``batch`` or ``recalibrate``.
        dtype: ``float32``, ``float64`` or ``bfloat16`` (autocast); the network's own when left out.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: something is missing or does not fit.
    """
    weights = read_weights(checkpoint)
    if model is None or data is None:
        raise ValueError(
            f"{checkpoint} is not one of our checkpoint folders, so its network and data must be named: "
            "add --model package.module:factory (or file.py:factory) and --data file.npz (or a factory)"
        )
    network = _made(model, "--model")
    if not isinstance(network, torch.nn.Module):
        raise ValueError(
            f"--model {model!r} made a {type(network).__name__}, expected a torch.nn.Module"
        )
    _fill(network, weights)
    precision = dtype if dtype == "bfloat16" else None
    kept = dtype is None or precision is not None
    network.to(devices.resolve(device), None if kept else getattr(torch, str(dtype)))
    given = _arrays(Path(data)) if data.endswith(".npz") else _made(data, "--data")
    chosen = resolve(loss, "--loss") if ":" in loss else loss
    try:
        objective = DataObjective(network, given, loss=chosen, norm=norm, precision=precision)
    except TypeError as error:
        raise ValueError(
            f"--data {data} made a {type(given).__name__}, expected (x, y) batches of tensors: {said(error)}"
        ) from error
    try:
        objective.metrics(objective.theta)
    except Exception as error:  # the user's network and loss run here, and may raise anything
        raise ValueError(
            f"--model {model}, --data {data} and --loss {loss} do not fit together: {said(error)}"
        ) from error
    objective.settings |= {"checkpoint": weights.fingerprint, "model": model, "data": data}
    return objective


def _made(name: str, what: str) -> Any:
    factory = resolve(name, what)
    if not callable(factory):
        raise ValueError(
            f"{what} {name!r} is a {type(factory).__name__}, expected a function to call"
        )
    try:
        return factory()
    except Exception as error:  # the user's own code runs here, and may raise anything
        raise ValueError(f"{what} {name!r} failed: {said(error)}") from error


def _arrays(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        raise ValueError(f"--data {path} is not an .npz file with arrays x and y: {text}") from None
    if x.shape[:1] != y.shape[:1] or not x.dim():
        raise ValueError(
            f"--data {path} has x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: "
            "expected as many labels as examples"
        )
    return x, y if y.is_floating_point() else y.long()  # torch's losses take no smaller labels


def _fill(network: torch.nn.Module, weights: Weights) -> None:
    """Load the weights into the network, all of them and nothing else."""
    wanted = network.state_dict()
    # A count of batches that old checkpoints lack and no output depends on: the network's own will do.
    counts = {name: t for name, t in wanted.items() if name.endswith("num_batches_tracked")}
    tensors = {**counts, **weights.named_as(wanted)}
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    parts = [
        f"{len(names)} {what}: {', '.join(names[:3])}"
        for what, names in (
            ("missing", [name for name in wanted if name not in tensors]),
            ("unexpected", [name for name in tensors if name not in wanted]),
            ("of another shape", shapes),
        )
        if names
    ]
    if parts:
        raise ValueError(
            f"{weights.path} is of another architecture than {type(network).__name__}: {'; '.join(parts)}"
        )
    network.load_state_dict(tensors)
