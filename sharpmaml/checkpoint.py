"""Checkpoint folders: weights, optimizer state and a description that is enough to rebuild everything.

``checkpoints/step_000500/`` holds ``model.safetensors`` (the weights by name), ``trainer.pt`` (state of
the optimizer, read with ``weights_only=True``), ``meta.json``, and ``rates.safetensors`` where inner
rates were learned. A folder appears under its name only
when it is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.adaptable import adapted_mask, expanded_rates
from sharpmaml.config import TrainConfig
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
    """Write ``folder/step_NNNNNN`` whole or not at all; an older folder of that name is replaced."""
    target = folder / f"step_{step:06d}"
    partial = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weights = {k: v.detach().cpu().clone() for k, v in space.unflatten(theta).items()}
        save_file(weights, partial / "model.safetensors")
        if rates is not None:
            save_file({"rates": rates.detach().cpu().clone()}, partial / "rates.safetensors")
        torch.save(dict(trainer), partial / "trainer.pt")
        text = json.dumps(
            {"schema": SCHEMA, "step": step, **meta, "fingerprint": fingerprint(theta)}, indent=1
        )
        (partial / "meta.json").write_text(text + "\n", encoding="utf-8")
        for file in partial.iterdir():
            _flush(file)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def steps(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(p for p in (run / "checkpoints").glob("step_*") if (p / "meta.json").is_file())


def locate(path: str | Path) -> Path:
    """A checkpoint folder from itself, or from its run folder (the best one by validation, else the last).

    Raises:
        CheckpointError: there is no checkpoint.
    """
    path = Path(path)
    if (path / "meta.json").is_file():
        return path
    try:
        best = json.loads((path / "best.json").read_text(encoding="utf-8"))["checkpoint"]
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
        model = models.build(meta["model"]["factory"], meta["model"]["arguments"])
        step = int(meta["step"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{folder / 'meta.json'} is not usable: {what}") from None
    model.to(getattr(torch, config.dtype)).eval()
    space = ParameterSpace.from_module(model)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / 'model.safetensors'} cannot be read ({error}): use another checkpoint of the run"
        ) from None
    extra = sorted(set(weights) - set(space.names))
    try:
        theta = space.flatten(weights)
    except ValueError as error:
        raise CheckpointError(
            f"{folder} holds another architecture than its meta.json says: {error}"
        ) from None
    if extra:
        raise CheckpointError(
            f"{folder} holds another architecture than its meta.json says: "
            f"{len(extra)} tensors are not in the model, first {extra[0]!r}"
        )
    if fingerprint(theta) != meta.get("fingerprint"):
        raise CheckpointError(
            f"{folder / 'model.safetensors'} is not the file that meta.json describes: "
            f"weights have fingerprint {fingerprint(theta)}, expected {meta.get('fingerprint')}"
        )
    model.load_state_dict(weights)
    return Checkpoint(folder, step, config, meta, model, space, theta, _read_rates(folder, config))


def _read_rates(folder: Path, config: TrainConfig) -> Tensor | None:
    if config.chosen("rates") == "fixed":
        return None
    path = folder / "rates.safetensors"
    try:
        return load_file(path)["rates"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): use another checkpoint of the run"
        ) from None


def read_trainer(folder: Path) -> dict[str, Any]:
    """State of the optimizer of a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but plain values and tensors.
    """
    try:
        state: dict[str, Any] = torch.load(
            folder / "trainer.pt", map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch raises many kinds for a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{folder / 'trainer.pt'} cannot be read ({first}): delete {folder} to resume from the one before"
        ) from None
    return state


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
        raise CheckpointError(f"{path} has schema {found!r}, expected {SCHEMA!r}")
    return meta
