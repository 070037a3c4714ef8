"""Which executor a run computes with, told with its reason and what it will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sharpmaml.config import TrainConfig
from sharpmaml.execution.choice import choose
from sharpmaml.execution.memory import estimate
from sharpmaml.plan import Executor, Plan
from sharpmaml.tasks import NetworkTasks
from sharpmaml.trainer.precision import Autocast, Precision, compare, executor_for
from sharpmaml.trainer.ranks import Ranked, Ranks


@dataclass(frozen=True)
class Chosen:
    """The executor of a run.

    Attributes:
        executor: computes passes, of all ranks' tasks.
        name: of the executor.
        reason: why it.
        tasks_at_once: tasks that it takes together; 0: by its own rule.
        memory: bytes that a pass is estimated to take on each rank.
        device: type of the device that it was chosen for.
        precision: what bfloat16 changes, where it is used.
    """

    executor: Executor
    name: str
    reason: str
    tasks_at_once: int
    memory: int
    device: str
    precision: Precision | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        values: dict[str, Any] = {"name": self.name, "reason": self.reason, "device": self.device}
        values |= {"tasks_at_once": self.tasks_at_once, "memory": self.memory}
        return values | ({"precision": self.precision.to_dict()} if self.precision else {})

    def __str__(self) -> str:
        return f"executor {self.name} ({self.reason}); about {_size(self.memory)} a pass"


def executor_of(
    config: TrainConfig,
    sample: NetworkTasks,
    theta: Tensor,
    plan: Plan,
    ranks: Ranks,
    recorded: Mapping[str, Any] | None = None,
) -> Chosen:
    """Choose the executor of a run.

    Args:
        config: the run.
        sample: a meta-batch, this rank's share of it.
        theta: the initialization.
        plan: what is computed.
        ranks: who computes; the choice of rank 0 is everybody's.
        recorded: what the checkpoint that is resumed from says; its executor goes on, on such a device.

    Raises:
        ValueError: an executor or a precision that does not know such a run.
    """
    name, why = config.executor, None
    if name == "auto" and recorded and recorded.get("device") == theta.device.type:
        name, why = str(recorded["name"]), str(recorded["reason"])
    low = config.precision == "bfloat16"
    if low:
        asked, name = name, executor_for(config, name, theta.device)
        why = "the one that autocast reaches" if asked == "auto" else why
    at_once = config.tasks_at_once
    if ranks.leads:
        choice = choose(name, sample, theta, plan, at_once)
        name, at_once, why = choice.name, choice.tasks_at_once, why or choice.reason
    name, at_once, why = ranks.agree((name, at_once, why))
    if not ranks.leads:
        choice = choose(name, sample, theta, plan, at_once)
    executor: Executor = choice.executor
    memory = estimate(sample, theta, plan, name, at_once, len(sample.episodes))
    if low:
        executor = Autocast(choice.executor)
    joint: Executor = executor if ranks.size == 1 else Ranked(executor, ranks, config.meta_batch)
    precision = None
    if low:
        reference: Executor = choice.executor
        if ranks.size > 1:
            reference = Ranked(choice.executor, ranks, config.meta_batch)
        precision = compare(reference(sample, theta, plan), joint(sample, theta, plan))
    return Chosen(joint, name, str(why), at_once, memory, theta.device.type, precision)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
