"""Which executor a run computes with, told with its reason and what it will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sharpmaml.config import TrainConfig
from sharpmaml.execution.choice import Candidate, Choice, choose
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
        table: the candidates, where they were measured, now or before the run was resumed.
        notes: what else there is to say of the choice, a line each.
    """

    executor: Executor
    name: str
    reason: str
    tasks_at_once: int
    memory: int
    device: str
    precision: Precision | None = None
    table: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        values: dict[str, Any] = {"name": self.name, "reason": self.reason, "device": self.device}
        values |= {"tasks_at_once": self.tasks_at_once, "memory": self.memory}
        if self.table:
            values["table"] = [asdict(candidate) for candidate in self.table]
        return values | ({"precision": self.precision.to_dict()} if self.precision else {})

    def lines(self) -> list[str]:
        """The choice for people."""
        own = f"executor {self.name} ({self.reason}); about {_size(self.memory)} a pass"
        return [own, *self.notes, *([str(self.precision)] if self.precision else [])]


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
        recorded: what the checkpoint that is resumed from says. Where ``config`` leaves the choice open, its
            executor goes on, on such a device; ``"measure"`` takes only one that was measured.

    Raises:
        ValueError: an executor or a precision that does not know such a run.
        ElsewhereError: the same on another rank.
    """
    name, at_once, device = config.executor, config.tasks_at_once, theta.device.type
    why, notes = "", list[str]()
    table: tuple[Candidate, ...] = ()
    measured = _table(recorded)
    if recorded and (name == "auto" or (name == "measure" and measured)):
        if recorded.get("device") == device:
            name, why, table = str(recorded["name"]), str(recorded["reason"]), measured
            at_once = at_once or int(recorded["tasks_at_once"])
        else:
            before = f"{recorded.get('name')} on {recorded.get('device')}"
            notes.append(f"chosen anew: it was {before} before, and this is {device}")
    low = config.precision == "bfloat16"
    if low:
        asked, name = name, executor_for(config, name, theta.device)
        why = "the one that autocast reaches" if asked == "auto" else why

    # Together: all of them learn why one of them cannot go on.
    first = ranks.together(
        lambda: choose(name, sample, theta, plan, at_once) if ranks.leads else None
    )
    if first is not None:
        name, at_once, why = first.name, first.tasks_at_once, why or first.reason
        table = first.table or table
        notes += [_line(candidate) for candidate in first.table]
    name, at_once, why, table = ranks.agree((name, at_once, why, table))

    def own() -> tuple[Choice, int]:
        choice = first or choose(name, sample, theta, plan, at_once)
        return choice, estimate(sample, theta, plan, name, at_once, len(sample.episodes))

    choice, memory = ranks.together(own)
    reference: Executor = choice.executor
    executor: Executor = Autocast(reference) if low else reference
    if ranks.size > 1:
        executor = Ranked(executor, ranks, config.meta_batch)
        reference = Ranked(reference, ranks, config.meta_batch)
    precision = None
    if low:
        precision = compare(reference(sample, theta, plan), executor(sample, theta, plan))
    return Chosen(executor, name, why, at_once, memory, device, precision, table, tuple(notes))


def _table(recorded: Mapping[str, Any] | None) -> tuple[Candidate, ...]:
    return tuple(Candidate(**row) for row in (recorded or {}).get("table", ()))


def _line(candidate: Candidate) -> str:
    if candidate.seconds is None or candidate.bytes is None:
        return f"  {candidate.name}: {candidate.why}"
    return (
        f"  {candidate.name}: {candidate.seconds:.4g} s, {candidate.bytes / 2**20:.1f} MiB a pass"
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
