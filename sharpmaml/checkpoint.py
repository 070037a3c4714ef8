"""Checkpoint folders: weights, optimizer state and a description that is enough to rebuild everything.

``checkpoints/step_000500/`` holds ``model.safetensors`` (the weights by name), ``trainer.pt`` (state of
the optimizer, read with ``weights_only=True``), ``meta.json``, and ``rates.safetensors`` where inner
rates were learned. A folder appears under its name only
when it is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from landscape import json_text
from landscape.space import ParameterSpace
from landscape.unpickling import read_pickled
from landscape.wording import one_line, printable
from sharpmaml import models
from sharpmaml.adaptable import adapted_mask, expanded_rates
from sharpmaml.config import TrainConfig
from sharpmaml.folders import replacing_folder
from sharpmaml.inner import InnerLoop

SCHEMA = "sharpmaml.checkpoint/1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: what is wrong, with which file, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back.

    Attributes:
        path: its folder.
        step: meta-updates done.
        config: settings of the run.
        meta: all of ``meta.json``.
        model: the network, built by our own factory of that name, with the weights loaded.
        space: its parameters.
        theta: the weights ``(params,)``.
        rates: learned inner rates, ``(params,)`` or ``(steps, tensors)``; ``None`` where they are fixed.
    """

    path: Path
    step: int
    config: TrainConfig
    meta: dict[str, Any]
    model: nn.Module
    space: ParameterSpace
    theta: Tensor
    rates: Tensor | None = None

    def inner(self, steps: int | None = None) -> InnerLoop:
        """The adaptation of validation, test and analysis.

        Plain gradient steps (with the lower ascent where the run says ``sam_at_test``) of what the run
        adapts, at the rates that it learned.

        Args:
            steps: instead of the run's ``test_steps``.
        """
        return inner_loop(self.config.test_inner(steps), self.config, self.space, self.rates)

    @property
    def fingerprint(self) -> str:
        """Short sha256 of the weights."""
        return fingerprint(self.theta)

    @property
    def label(self) -> str:
        """Name of the method for people, as on figures."""
        return LABELS.get(self.config.method, self.config.method)


LABELS = {
    "maml": "MAML",
    "fomaml": "FOMAML",
    "sharp-low": "Sharp-MAML low",
    "sharp-up": "Sharp-MAML up",
    "sharp-both": "Sharp-MAML both",
    "anil": "ANIL",
    "meta-sgd": "Meta-SGD",
    "maml++": "MAML++",
    "reptile": "Reptile",
    "imaml": "iMAML",
}


def inner_loop(
    inner: InnerLoop, config: TrainConfig, space: ParameterSpace, rates: Tensor | None
) -> InnerLoop:
    """``inner`` with what a run adapts, and at which rates.

    Args:
        inner: steps, radius and number as settings give them.
        config: the run.
        space: its parameters.
        rates: learned rates, where there are any.
    """
    mask = adapted_mask(space, config.chosen("adapted"), config.adapt_norm_affine)
    if mask is not None and rates is not None:
        mask = mask.to(rates.device)
    rate = inner.rate if rates is None else expanded_rates(rates, space)
    return dataclasses.replace(inner, adapted=mask, rate=rate)


def fingerprint(theta: Tensor) -> str:
    """First 16 hexadecimal digits of the sha256 over the weights' bytes."""
    return hashlib.sha256(theta.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def write(
    folder: Path,
    step: int,
    space: ParameterSpace,
    theta: Tensor,
    trainer: Mapping[str, Any],
    meta: Mapping[str, Any],
    rates: Tensor | None = None,
) -> Path:
    """Write ``folder/step_NNNNNN`` whole or not at all; an older folder of that name is replaced.

    Raises:
        WriteError: the disk refuses; an older folder of that name is still there.
    """
    target = folder / f"step_{step:06d}"
    with replacing_folder(target) as partial:
        weights = {k: v.detach().cpu().clone() for k, v in space.unflatten(theta).items()}
        files = {"model.safetensors": save(weights)}
        if rates is not None:
            files["rates.safetensors"] = save({"rates": rates.detach().cpu().clone()})
        # Into memory first: torch and safetensors tell a full disk in words of their own.
        state = io.BytesIO()
        torch.save(dict(trainer), state)
        files["trainer.pt"] = state.getvalue()
        described = {"schema": SCHEMA, "step": step, **meta, "fingerprint": fingerprint(theta)}
        described["sha256"] = {n: hashlib.sha256(data).hexdigest() for n, data in files.items()}
        files["meta.json"] = (json.dumps(described, indent=1) + "\n").encode()
        for name, data in files.items():
            (partial / name).write_bytes(data)
    return target


def steps(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [p for p in (run / "checkpoints").glob("step_*") if (p / "meta.json").is_file()]
    return sorted(found, key=lambda p: (len(p.name), p.name))  # the millionth has a digit more


def locate(path: str | Path) -> Path:
    """A checkpoint folder from itself, or from its run folder (the best one by validation, else the last).

    Raises:
        CheckpointError: there is no checkpoint.
    """
    path = Path(path)
    if (path / "meta.json").is_file():
        return path
    try:
        best = json_text.read(path / "best.json")["checkpoint"]
        if (path / "checkpoints" / Path(best).name / "meta.json").is_file():
            return path / "checkpoints" / Path(best).name
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no selection was made, or its record is damaged: the last checkpoint speaks for the run
    found = steps(path)
    if found:
        return found[-1]
    what = "has no checkpoint in it" if path.exists() else "does not exist"
    raise CheckpointError(
        f"{path} {what}: give a run folder, or a folder such as runs/NAME/checkpoints/step_000500"
    )


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint folder (or the best one of a run folder); nothing in it can run code.

    The factory name is looked up in our own table, never imported.

    Raises:
        CheckpointError: missing or damaged files, an unknown factory, or weights of another architecture.
    """
    folder = locate(path)
    meta = _read_meta(folder / "meta.json")
    try:
        config = TrainConfig.from_dict(meta["config"])
        model = _built(meta["model"], folder / "model.safetensors")
        step = int(meta["step"])
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        lacks = "lacks " if isinstance(error, KeyError) else ""
        what = lacks + one_line(error, 1000)
        raise CheckpointError(f"{folder / 'meta.json'} is not usable: {what}") from None
    model.to(getattr(torch, config.dtype)).eval()
    space = ParameterSpace.from_module(model)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / 'model.safetensors'} cannot be read ({one_line(error)}): use another checkpoint of the run"
        ) from None
    extra = sorted(set(weights) - set(space.names))
    try:
        theta = space.flatten(weights)
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds another architecture than its meta.json says: {one_line(error)}"
        ) from None
    if extra:
        raise CheckpointError(
            f"{folder} holds another architecture than its meta.json says: "
            f"{len(extra)} tensors are not in the model, first '{printable(extra[0])}'"
        )
    if fingerprint(theta) != meta.get("fingerprint"):
        raise CheckpointError(
            f"{folder / 'model.safetensors'} is not the file that meta.json describes: "
            f"weights have fingerprint {fingerprint(theta)}, expected {printable(meta.get('fingerprint'))}"
        )
    model.load_state_dict(weights)
    return Checkpoint(
        folder, step, config, meta, model, space, theta, _read_rates(folder, config, meta, space)
    )


def _built(described: Mapping[str, Any], file: Path) -> nn.Module:
    """The network that ``meta.json`` describes, where the file of weights is large enough for it.

    Raises:
        ValueError: it would be larger than its weights, or cannot be built.
    """
    size = file.stat().st_size if file.is_file() else 0
    with torch.device("meta"):  # no memory is asked for before this is known
        sketch = models.build(described["factory"], described["arguments"])
    count = sum(p.numel() for p in sketch.parameters())
    if size and 2 * count > size:
        raise ValueError(f"a network of {count} parameters for weights of {size} bytes")
    return models.build(described["factory"], described["arguments"])


def _read_rates(
    folder: Path, config: TrainConfig, meta: Mapping[str, Any], space: ParameterSpace
) -> Tensor | None:
    if config.chosen("rates") == "fixed":
        return None
    path = folder / "rates.safetensors"
    try:
        data = path.read_bytes()
        rates = load(data)["rates"]
        _compare(data, path.name, meta)
        fits = rates.shape == (space.size,) or (
            rates.ndim == 2 and len(rates) and rates.shape[1] == len(space.names)
        )
        if not fits or not rates.is_floating_point():
            raise ValueError(f"rates of shape {tuple(rates.shape)} do not fit the network")
        return rates
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({one_line(error)}): use another checkpoint of the run"
        ) from None


def read_trainer(folder: Path) -> dict[str, Any]:
    """State of the optimizer of a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but plain values and tensors.
    """
    try:
        state: dict[str, Any] = read_pickled(folder / "trainer.pt")
        data = (folder / "trainer.pt").read_bytes()
        _compare(data, "trainer.pt", _read_meta(folder / "meta.json"))
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'trainer.pt'} cannot be read ({one_line(error)}): delete {folder} to resume from the one before"
        ) from None
    return state


def _compare(data: bytes, name: str, meta: Mapping[str, Any]) -> None:
    """Neither torch nor safetensors sees a bit that changed on the disk."""
    expected = meta.get("sha256")  # checkpoints of older versions have none
    if isinstance(expected, dict) and hashlib.sha256(data).hexdigest() != expected.get(name):
        raise ValueError("it is not the file that meta.json describes")


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json_text.read(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {one_line(error)}") from None
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
        told = printable(repr(found))
        raise CheckpointError(f"{path} has schema {told}, expected {SCHEMA!r}")
    return meta
