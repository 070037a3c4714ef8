"""The training loop: episodes -> meta-gradient -> optimizer, with log, checkpoints and exact resumption."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape import device as devices
from landscape.holding import held
from landscape.space import ParameterSpace
from landscape.writing import WriteError, write_error, write_text
from sharpmaml import checkpoint as checkpoints
from sharpmaml import folders, models
from sharpmaml.ascent import UpperAscent
from sharpmaml.config import TrainConfig
from sharpmaml.meta import MetaGradient
from sharpmaml.plan import Executor, Plan, Tasks
from sharpmaml.runs import FREE_TO_CHANGE, Run, default_folder
from sharpmaml.tasks import NetworkTasks
from sharpmaml.trainer import best
from sharpmaml.trainer.choosing import Chosen, executor_of
from sharpmaml.trainer.divergence import (
    FAILED,
    DivergedError,
    check_finite,
    mark_failed,
    stuck_error,
)
from sharpmaml.trainer.guard import Guard
from sharpmaml.trainer.learner import Learner
from sharpmaml.trainer.log import Log, known
from sharpmaml.trainer.ranks import Ranks, join
from sharpmaml.trainer.selection import Selection
from sharpmaml.trainer.signals import interruptible
from sharpmaml.trainer.stream import TaskStream, architecture, sources
from sharpmaml.trainer.validation import validate as _validate

__all__ = ["DivergedError", "Run", "train"]

Progress = Callable[[Mapping[str, Any]], None]

LOG = "metrics.jsonl"
_LOSS = {"classification": "cross_entropy", "regression": "mse_loss"}


def train(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    callback: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Train until ``config.iterations`` meta-updates are done, or ``config.patience`` is at an end.

    The episodes of meta-update ``i`` are a pure function of seed and ``i``, so a resumed run continues
    to the same numbers as an uninterrupted one, bit for bit on CPU. On Ctrl-C, SIGTERM or SIGHUP the state
    is written at the end of the meta-update before the interruption goes on. A process that is killed loses
    what came after the last checkpoint; every file is whole at any time. One process at a time trains in a
    folder.

    Under ``torchrun`` the tasks of each meta-update are shared among its processes; the first of them
    writes, and calls ``progress``, ``callback`` and ``tell``.

    Args:
        config: everything that decides the run.
        out: run folder; new or empty, unless ``resume``. When left out, a folder under ``runs/`` named
            after method, data, seed and settings.
        resume: continue from the last checkpoint in ``out``.
        progress: called with every record that is logged.
        callback: the same, for a second listener such as an experiment tracker.
        tell: called with a line about each decision: executor and memory, precision, an early stop.

    Raises:
        ValueError: the folder already holds a run, the run to resume has other settings, or there are
            more processes than tasks.
        HeldError: another process is training in the folder.
        WriteError: the disk is full, or the folder cannot be written to or was removed.
        DivergedError: a loss or gradient was not finite, or training is stuck at chance; names the
            meta-update and the settings that may cause it, as ``failed.json`` does until it goes on.
        DataError: the data set cannot be read.
        KeyboardInterrupt: interrupted; the state is saved.
        SystemExit: the same by SIGTERM or SIGHUP, where they have no handler.
    """
    path = default_folder(config) if out is None else Path(out)
    ranks = join()
    with ExitStack() as stack:
        trainer = ranks.together(lambda: _Trainer(config, path, resume, ranks, stack))
        trainer.start(tell or _silent)
        listeners = [each for each in (callback, progress) if each is not None and ranks.leads]
        trainer.run(listeners)
        return Run(
            path, trainer.step, ranks.agree(checkpoints.locate(path) if ranks.leads else path)
        )


def meta_gradient(
    batch: Tasks,
    theta: Tensor,
    plan: Plan,
    executor: Executor,
    ascent: UpperAscent,
    iteration: int,
) -> MetaGradient:
    """The direction of one meta-update: all of its passes."""
    return ascent(batch, theta, plan, executor, iteration)


class _Trainer:
    """One run in memory; making it writes nothing but, where the folder is there, the lock of ``stack``."""

    def __init__(
        self, config: TrainConfig, path: Path, resume: bool, ranks: Ranks, stack: ExitStack
    ) -> None:
        self.config, self.path, self.ranks = config, path, ranks
        self._stack, self._held, self._resumes = stack, False, resume
        if ranks.size > config.meta_batch:
            raise ValueError(
                f"{ranks.size} processes for a meta-batch of {config.meta_batch}: every one needs a task; "
                "start fewer, or raise --meta-batch"
            )
        self.saved: Path | None = None
        self._restored: dict[str, Any] | None = None
        if ranks.leads and path.exists():
            self._look()
        device, self.dtype = (
            devices.resolve(ranks.device(config.device)),
            getattr(torch, config.dtype),
        )
        given = sources(config)
        factory, arguments = architecture(config, given["train"])
        model = models.build(factory, arguments, config.seed).to(device, self.dtype)
        self.space = ParameterSpace.from_module(model)
        theta = self.space.flatten(dict(model.named_parameters()))
        self.learner = Learner(config, self.space, theta)
        self.stream = TaskStream(model, self.space, given, device, self.dtype)
        self.selection = Selection(config.patience)
        classifies = given["train"].kind == "classification"
        self.guard = Guard(config.ways, config.meta_batch) if classifies and config.guard else None
        self.step = 0
        self.chosen: Chosen | None = None
        self.meta = {
            "model": {"factory": factory, "arguments": arguments},
            "config": config.to_dict(),
            "objective": {"kind": "meta", "loss": _LOSS[given["train"].kind], "norm": "batch"},
            "data": {split: source.recipe for split, source in given.items()},
            "seeds": {"weights": config.seed, "episodes": config.seed},
            "versions": {"torch": torch.__version__},
        }

    @property
    def done(self) -> bool:
        return self.step >= self.config.iterations or self.selection.exhausted

    def _look(self) -> None:
        self._stack.enter_context(held(self.path / LOG))
        self._held = True
        # Hidden: the lock, and what a process that was killed left behind.
        if not self._resumes and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise ValueError(
                f"{self.path} is not empty: add --resume to continue it, or choose another --out"
            )
        folders.sweep(self.path / "checkpoints")
        found = checkpoints.steps(self.path)
        if self._resumes and found:
            self.saved = found[-1]
            self._restored = _restored(found[-1], self.config)

    def start(self, tell: Callable[[str], None]) -> None:
        self._tell = tell if self.ranks.leads else _silent
        restored = self.ranks.agree(self._restored)
        self._restored = None
        if restored is not None:
            self.ranks.together(lambda: self._load(restored))
            self.meta["executor"] = restored["executor"]
        if not self.done:
            sample, plan = self._batch(), self.learner.plan(self.step)
            theta, recorded = self.learner.theta.detach(), self.meta.get("executor")
            with devices.exact_kernels():
                self.chosen = executor_of(self.config, sample, theta, plan, self.ranks, recorded)
            self.meta["executor"] = self.chosen.to_dict()
            for line in self.chosen.lines():
                self._tell(line)
        self.ranks.together(self._settle)

    def _settle(self) -> None:
        if not self.ranks.leads:
            return
        self._describe()
        if self.saved is not None:
            best.settle(self.path, self.selection.best)

    def _describe(self) -> None:
        """Make the folder, which is this process's alone from then on, and write down the settings."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from None
        if not self._held:
            self._look()  # somebody may have made it meanwhile
        write_text(self.path / "config.toml", self.config.to_toml())

    def _load(self, restored: Mapping[str, Any]) -> None:
        state, self.step = restored["state"], restored["step"]
        try:
            self.learner.load_state_dict(restored["theta"], restored["rates"], state)
            self.selection.load_state_dict(state)
            if self.guard is not None and "guard" in state:
                self.guard.load_state_dict(state["guard"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise checkpoints.CheckpointError(
                f"{restored['folder'] / 'trainer.pt'} does not fit the run ({error}): "
                f"delete {restored['folder']} to resume from the one before"
            ) from None

    def _batch(self) -> NetworkTasks:
        first, count = self.ranks.share(self.config.meta_batch)
        return self.stream("train", self.step * self.config.meta_batch + first, count)

    def run(self, listeners: list[Progress]) -> None:
        log = Log(self.path / LOG, self.step) if self.ranks.leads else None
        if self.ranks.leads and not self.done:
            try:
                (self.path / FAILED).unlink(missing_ok=True)
            except OSError as error:
                raise write_error(self.path / FAILED, error) from None
        if log is not None and log.found < self.step:
            self._tell(f"{LOG} holds records of {log.found} of {self.step} meta-updates")
        try:
            with devices.exact_kernels(), interruptible() as self.ranks.noted:
                while not self.done:
                    self._update(log, listeners)
        except DivergedError as error:
            if self.ranks.leads:
                mark_failed(self.path, self.step, error)
            raise
        finally:
            if log is not None:
                log.close()
        if self.ranks.noted and self.ranks.size == 1:  # in the very end
            raise self.ranks.noted.interruption(self.ranks.noted[0])
        if self.selection.exhausted:
            self._tell(
                f"stopped at meta-update {self.step}: no better validation since that of "
                f"{self.selection.best.get('step', 'the start')} (patience {self.config.patience})"
            )

    def _update(self, log: Log | None, listeners: list[Progress]) -> None:
        assert self.chosen is not None
        config, learner = self.config, self.learner
        began = time.perf_counter()
        theta, plan = learner.theta.detach(), learner.plan(self.step)
        executor = self.chosen.executor
        result = meta_gradient(self._batch(), theta, plan, executor, learner.ascent, self.step)
        check_finite(result, self.step + 1, self.saved, config)
        learner.update(result, self.step)
        record = _record(self.step + 1, result, learner.rate(self.step))
        record["seconds"] = round(time.perf_counter() - began, 6)
        self.step += 1
        stuck = self.guard is not None and self.guard.stuck(result.loss, result.aux["accuracy"])
        last, is_best = self.step == config.iterations, False
        if self.step % config.validate_every == 0 or last:
            validation = _validate(self.stream, learner, config, self.ranks)
            is_best = self.selection.take(self.step, validation)
            record["validation"] = known(validation)
        due = self.step % config.checkpoint_every == 0 or last or self.selection.exhausted
        failure = self._note(log, record)
        if is_best or due or failure is not None:
            self._save(log, is_best, failure)
        if stuck and self.guard is not None:
            raise stuck_error(self.guard, self.step, self.saved, config)
        if self.ranks.stop is not None:
            self._save(log)
            raise self.ranks.noted.interruption(self.ranks.stop)
        for listener in listeners:
            listener(record)

    def _note(self, log: Log | None, record: Mapping[str, Any]) -> WriteError | None:
        try:
            if log is not None:
                log.write(record)
        except WriteError as error:
            return error
        return None

    def _save(
        self, log: Log | None, is_best: bool = False, failure: WriteError | None = None
    ) -> None:
        """Write a checkpoint; where the log cannot be written, all the more, and then raise its ``failure``."""
        if log is None or (self.saved and self.saved.name == f"step_{self.step:06d}"):
            return
        try:
            log.flush(durable=True)
        except WriteError as error:
            failure = failure or error
        state = {**self.learner.state_dict(), **self.selection.state_dict()}
        if self.guard is not None:
            state["guard"] = self.guard.state_dict()
        try:
            if failure is not None:
                self._describe()  # the whole folder may be gone
            with best.chosen(self.path, self.selection.best if is_best else {}):
                self.saved = checkpoints.write(
                    self.path / "checkpoints",
                    self.step,
                    self.space,
                    self.learner.theta,
                    state,
                    self.meta,
                    self.learner.rates,
                )
        except WriteError as error:
            raise failure or error from None
        if failure is not None:
            raise WriteError(
                f"{failure}; the state after {self.step} meta-updates is saved: --resume continues"
            )


def _silent(_: str) -> None:
    pass


def _restored(folder: Path, config: TrainConfig) -> dict[str, Any]:
    try:
        given, state = checkpoints.read(folder), checkpoints.read_trainer(folder)
    except checkpoints.CheckpointError as error:
        what = str(error).split(": delete ")[0].split(": use another checkpoint")[0]
        raise checkpoints.CheckpointError(
            f"{what}: delete {folder} to resume from the one before"
        ) from None
    before, now = given.config.to_dict(), config.to_dict()
    free = FREE_TO_CHANGE if config.schedule == "constant" else FREE_TO_CHANGE[1:]
    for name in before:
        if name not in free and before[name] != now[name]:
            raise ValueError(
                f"cannot resume {folder.parent.parent}: its {name} is {before[name]!r}, not {now[name]!r}; "
                "give the run's own settings, or choose another --out"
            )
    return {
        "folder": folder,
        "step": given.step,
        "theta": given.theta,
        "rates": given.rates,
        "state": state,
        "executor": given.meta.get("executor"),
    }


def _record(step: int, result: MetaGradient, rate: float) -> dict[str, Any]:
    return known(
        {
            "iteration": step,
            "loss": result.loss,
            **result.aux,
            "gradient_norm": result.norm,
            "rise": result.rise,
            "predicted_rise": result.predicted_rise,
            "passes": result.passes,
            "meta_rate": rate,
        }
    )
