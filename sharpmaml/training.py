"""The training loop: episodes -> meta-gradient -> Adam, with log, checkpoints and exact resumption."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from landscape import device as devices
from landscape.space import ParameterSpace
from sharpmaml import checkpoint as checkpoints
from sharpmaml import models
from sharpmaml.config import TrainConfig
from sharpmaml.data import TaskSource, make_source
from sharpmaml.evaluation import score
from sharpmaml.meta import MetaGradient, meta_gradient
from sharpmaml.tasks import network_task

Progress = Callable[[Mapping[str, Any]], None]

_FREE_TO_CHANGE = ("iterations", "device", "data_root")


class DivergedError(ValueError):
    """The loss is not finite any more; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Attributes:
        path: its folder, with ``config.toml``, ``metrics.jsonl``, ``checkpoints/`` and ``best.json``.
        step: meta-updates done.
        checkpoint: the best checkpoint by validation.
    """

    path: Path
    step: int
    checkpoint: Path


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train until ``config.iterations`` meta-updates are done.

    The episodes of meta-update ``i`` are a pure function of seed and ``i``, so a resumed run continues
    to the same numbers as an uninterrupted one, bit for bit on CPU. On Ctrl-C or SIGTERM the state is
    written at the next meta-update before the interruption goes on.

    Args:
        config: everything that decides the run.
        out: run folder; new or empty, unless ``resume``.
        resume: continue from the last checkpoint in ``out``.
        progress: called with every record that is logged.

    Raises:
        ValueError: the folder already holds a run, or the run to resume has other settings.
        DivergedError: a loss or gradient was not finite; names the meta-update.
        DataError: the data set cannot be read.
        KeyboardInterrupt: interrupted; the state is saved.
    """
    run = Path(out)
    found = checkpoints.steps(run)
    if not resume and run.exists() and any(run.iterdir()):
        raise ValueError(
            f"{run} is not empty: add --resume to continue it, or choose another --out"
        )
    device = devices.resolve(config.device)
    sources = {split: _source(config, split) for split in ("train", "val")}
    factory, arguments = _architecture(config, sources["train"])
    model = models.build(factory, arguments, config.seed).to(device, getattr(torch, config.dtype))
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters())).requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=config.meta_rate)
    best: dict[str, Any] = {}
    start = 0
    if resume and found:
        start, best = _restore(found[-1], config, theta, optimizer)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    log = _Log(run / "metrics.jsonl", keep=start)
    meta = {
        "model": {"factory": factory, "arguments": arguments},
        "config": config.to_dict(),
        "objective": {"kind": "meta", "loss": _LOSS[sources["train"].kind], "norm": "batch"},
        "data": {split: source.recipe for split, source in sources.items()},
        "seeds": {"weights": config.seed, "episodes": config.seed},
        "versions": {"torch": torch.__version__},
    }

    def tasks(split: str, index: int) -> Any:
        episode = sources[split].episode(index).to(device, theta.dtype)
        return network_task(model, space, episode, sources[split].kind)

    def save(step: int) -> Path:
        state = {"optimizer": optimizer.state_dict(), "best": best}
        return checkpoints.write(run / "checkpoints", step, space, theta, state, meta)

    step, saved = start, found[-1] if resume and found else None
    with log, devices.exact_kernels(), _interruptible() as interrupted:
        while step < config.iterations:
            began = time.perf_counter()
            first = step * config.meta_batch
            batch = [tasks("train", first + i) for i in range(config.meta_batch)]
            result = meta_gradient(
                batch,
                theta.detach(),
                config.inner(),
                upper=config.upper,
                perturbation=config.perturbation,
            )
            _check_finite(result, step + 1, saved, config)
            theta.grad = result.gradient
            optimizer.step()
            step += 1
            record = _record(step, result, time.perf_counter() - began)
            if step % config.validate_every == 0 or step == config.iterations:
                record["validation"] = _validate(tasks, theta, config)
                if not best or _better(record["validation"], best["validation"]):
                    best.update(step=step, validation=record["validation"])
            log.write(record)
            is_best = best.get("step") == step
            if is_best or step % config.checkpoint_every == 0 or step == config.iterations:
                saved = save(step)
                if is_best:
                    _write_json(run / "best.json", {"checkpoint": saved.name, **best})
            if interrupted:
                if saved is None or saved.name != f"step_{step:06d}":
                    save(step)
                raise _interruption(interrupted[0])
            if progress:
                progress(record)
    return Run(run, step, checkpoints.locate(run))


_LOSS = {"classification": "cross_entropy", "regression": "mse_loss"}


def _source(config: TrainConfig, split: str) -> TaskSource:
    return make_source(
        config.data,
        split=split,
        ways=config.ways,
        shots=config.shots,
        queries=config.queries,
        seed=config.seed,
        root=config.data_root,
        options=config.data_options,
    )


def _architecture(config: TrainConfig, source: TaskSource) -> tuple[str, dict[str, Any]]:
    classifies = source.kind == "classification"
    name = config.model if config.model != "auto" else ("conv4" if classifies else "mlp")
    if name == "mlp":
        hidden = config.channels or 40
        inputs, outputs = (28 * 28, config.ways) if classifies else (1, 1)
        return name, {"inputs": inputs, "hidden": hidden, "layers": 2, "outputs": outputs}
    if not classifies:
        raise ValueError(f"model {name!r} reads images, but {config.data} is a regression: use mlp")
    channels = config.channels or 32
    return name, {"ways": config.ways, "channels": channels, "downsample": config.downsample}


def _restore(
    folder: Path, config: TrainConfig, theta: Tensor, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]]:
    given = checkpoints.read(folder)
    before, now = given.config.to_dict(), config.to_dict()
    for name in before:
        if name not in _FREE_TO_CHANGE and before[name] != now[name]:
            raise ValueError(
                f"cannot resume {folder.parent.parent}: its {name} is {before[name]!r}, not {now[name]!r}; "
                "give the run's own settings, or choose another --out"
            )
    state = checkpoints.read_trainer(folder)
    try:
        with torch.no_grad():
            theta.copy_(given.theta)
        optimizer.load_state_dict(state["optimizer"])
        best = dict(state["best"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoints.CheckpointError(
            f"{folder / 'trainer.pt'} does not fit the run ({error}): delete {folder} to resume from the one before"
        ) from None
    return given.step, best


def _check_finite(result: MetaGradient, step: int, saved: Path | None, config: TrainConfig) -> None:
    if math.isfinite(result.loss) and bool(torch.isfinite(result.gradient).all()):
        return
    kept = f"the last good checkpoint is {saved}" if saved else "no checkpoint had been written yet"
    raise DivergedError(
        f"the loss is not finite at iteration {step} (loss {result.loss}, gradient norm {result.norm}); {kept}. "
        f"Lower --inner-rate ({config.inner_rate}), --meta-rate ({config.meta_rate})"
        + (
            f" or the radii ({config.lower}, {config.upper})"
            if config.lower or config.upper
            else ""
        )
    )


def _record(step: int, result: MetaGradient, seconds: float) -> dict[str, Any]:
    return {
        "iteration": step,
        "loss": result.loss,
        **result.aux,
        "gradient_norm": result.norm,
        "rise": result.rise,
        "predicted_rise": result.predicted_rise,
        "seconds": round(seconds, 4),
    }


def _validate(
    tasks: Callable[[str, int], Any], theta: Tensor, config: TrainConfig
) -> dict[str, Any]:
    metric, scores = score(
        lambda index: tasks("val", index), theta, config.test_inner(), config.validation_episodes
    )
    return {"metric": metric, "mean": float(scores.mean()), "episodes": len(scores)}


def _better(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    sign = 1 if new["metric"] == "accuracy" else -1
    return bool(sign * new["mean"] > sign * old["mean"])


class _Log:
    """Append-only ``metrics.jsonl``; records after the checkpoint that is resumed from are dropped."""

    def __init__(self, path: Path, keep: int) -> None:
        kept = []
        if keep and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["iteration"] <= keep:
                        kept.append(line + "\n")
                except (ValueError, KeyError, TypeError):
                    break  # a line cut short by a crash; the meta-update is repeated
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of breaking off in the middle of a meta-update."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # only the main thread may set handlers
        return

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
