"""A checkpoint and the names beside it on the command line -> the objective they mean."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from landscape import device as devices
from landscape import json_text
from landscape.batches import is_whole
from landscape.calls import parse
from landscape.checkpoint import read_weights
from landscape.data_objective import DataObjective
from landscape.datasets import Reading, read
from landscape.networks import FORMS, called, hf_checkpoint, network
from landscape.objective import Objective
from landscape.resolve import resolve, said
from landscape.scoring import Loss, Metric, next_token_accuracy, uncounted
from landscape.wording import printable

BATCH_SIZE = 128
"""Examples a call of the network unless ``--batch-size`` says otherwise."""


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

    A folder that Hugging Face's ``save_pretrained`` wrote counts as such a file.

    Raises:
        ValueError: a folder without a checkpoint that can be read.
    """
    if not path.is_dir() or hf_checkpoint(path) is not None:
        return None
    damaged = []
    for file in (path / "meta.json", *sorted(path.glob("checkpoints/*/meta.json"), reverse=True)):
        try:
            return str(json_text.read(file)["schema"])
        except (ValueError, LookupError, TypeError):
            damaged.append(file)
        except OSError:
            continue
    if damaged:
        raise ValueError(
            f"{printable(damaged[0], 300)} is damaged: expected JSON with a schema in it"
        )
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
    found = json_text.read(folder / "meta.json")
    if not isinstance(found, dict):
        raise ValueError(f"{folder / 'meta.json'} is damaged: expected a mapping")
    return found


def _provider(schema: str) -> Provider:
    if schema not in PROVIDERS:
        raise ValueError(
            f"unknown checkpoint schema '{printable(schema)}': expected one of {', '.join(PROVIDERS)}"
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
    *,
    reading: Reading | None = None,
    batch_size: int | None = None,
    key: str | None = None,
    allow: Sequence[str] = (),
    trust_pickle: bool = False,
) -> Objective:
    """The mean loss of any checkpoint file over the user's data.

    Args:
        checkpoint: a weights file, or a folder that Hugging Face's ``save_pretrained`` wrote.
        model: name of the network, see :func:`landscape.networks.network`. Such a folder needs none.
        data: name of the data, see :func:`landscape.datasets.read`.
        loss: a ``torch.nn.functional`` name or one of :data:`landscape.scoring.LOSSES`; or
            ``package.module:function`` or ``file.py:function`` of ``(output, y)``, with arguments in
            parentheses where it is a function that makes the loss.
        norm: ``eval``, ``batch`` or ``recalibrate``.
        dtype: ``float32``, ``float64`` or ``bfloat16`` (autocast); the network's own when left out.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        reading: what is read of the data, and how.
        batch_size: examples a call of the network; 128 when left out, or all with ``norm="batch"``,
            where it changes the loss.
        key: entry of the file that holds the weights.
        allow: classes that a pickled file may hold beside tensors.
        trust_pickle: read a pickled file even though it could run code.

    Raises:
        ValueError: something is missing or does not fit.
    """
    if checkpoint.is_dir() and (found := hf_checkpoint(checkpoint)) is not None:
        model = f"hf:{checkpoint}" if model is None else model
        checkpoint = found
    weights = read_weights(checkpoint, key=key, allow=allow, trust_pickle=trust_pickle)
    if model is None or data is None:
        raise ValueError(
            f"{checkpoint} is not one of our checkpoint folders, so its network and data must be named: "
            f"add --model package.module:factory (or {FORMS.split(', ', 1)[1]}) and --data file.npz (or a "
            "folder, a built-in set, a factory)"
        )
    made = network(model, weights)
    precision = dtype if dtype == "bfloat16" else None
    kept = dtype is None or precision is not None
    made.module.to(devices.resolve(device), None if kept else getattr(torch, str(dtype)))
    with torch.random.fork_rng(devices=[]):  # every checkpoint finds the random state of the first
        given, notes = read(data, reading or Reading())
    size = _batching(given, data, batch_size, norm)
    try:
        objective = DataObjective(
            made.module, given, loss=_loss(loss), metrics=_metrics(loss), norm=norm,
            batch_size=size, precision=precision,
        )  # fmt: skip
    except TypeError as error:
        raise ValueError(
            f"--data {data} made a {type(given).__name__}, expected (x, y) batches of tensors: {said(error)}"
        ) from error
    empty = sum(uncounted(loss, batch.target) for batch in objective.batches)
    if empty:
        raise ValueError(
            f"--data {data}: {empty} of {objective.examples} examples have no label that counts (all are "
            "-100): leave them out, their loss would read as zero"
        )
    try:
        objective.metrics(objective.theta)
    except Exception as error:  # the user's network and loss run here, and may raise anything
        raise ValueError(
            f"--model {model}, --data {data} and --loss {loss} do not fit together: {said(error)}"
        ) from error
    objective.settings |= {"checkpoint": weights.fingerprint, "model": model, "data": data}
    objective.settings |= {**made.settings, **notes, "batch_size": size}
    return objective


def _batching(given: Any, data: str, batch_size: int | None, norm: str) -> int | None:
    """How the data are cut, where it is not the user's factory that has cut them."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch-size is {batch_size}: expected at least 1")
    if not is_whole(given):
        if batch_size is not None:
            raise ValueError(
                f"--batch-size does not apply: --data {data} makes batches of its own; give it an "
                "argument instead"
            )
        return None
    if batch_size is None and norm == "batch":
        return None
    return batch_size or BATCH_SIZE


def _loss(name: str) -> Loss:
    if ":" not in name:
        return name
    call = parse(name, "--loss")
    made = called(name, "--loss") if call.given else resolve(name, "--loss")
    if not callable(made):
        raise ValueError(
            f"--loss {name!r} is a {type(made).__name__}, expected a function of (output, y)"
        )
    return made  # type: ignore[no-any-return]


def _metrics(loss: str) -> tuple[Metric, ...]:
    # Their outputs have classes along the last dimension, where accuracy looks along the second.
    return (next_token_accuracy,) if loss == "next_token" else ("accuracy",)
