"""A run on disk as an object: its log as a table, its checkpoints as networks, objectives and scores."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpmaml import checkpoint as checkpoints
from sharpmaml.checkpoint import Checkpoint
from sharpmaml.config import TrainConfig
from sharpmaml.trainer import log

if TYPE_CHECKING:
    import xarray as xr

    from sharpmaml.evaluation import Evaluation
    from sharpmaml.objective import MetaObjective


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

    @property
    def config(self) -> TrainConfig:
        """Its settings."""
        return TrainConfig.from_toml(self.path / "config.toml")

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Folders of the checkpoints by their meta-update, oldest first."""
        return {int(p.name.removeprefix("step_")): p for p in checkpoints.steps(self.path)}

    @property
    def metrics(self) -> xr.Dataset:
        """The log as a table: a column for each number, along ``iteration``.

        Numbers of a validation are ``validation_mean`` and so on; what a meta-update did not yield is NaN.
        """
        import xarray as xr

        rows = [log.flat(record) for record in log.read(self.path / "metrics.jsonl")]
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {n: np.array([row.get(n, np.nan) for row in rows], np.float64) for n in names}
        iteration = columns.pop("iteration", np.empty(0)).astype(np.int64)
        data = {name: ("iteration", column) for name, column in columns.items()}
        return xr.Dataset(data, {"iteration": iteration}, {"run": str(self.path)})

    def locate(self, which: str | int = "best") -> Path:
        """Folder of a checkpoint.

        Args:
            which: ``"best"`` by validation, ``"last"``, or the number of its meta-update.

        Raises:
            ValueError: there is no such checkpoint.
        """
        found = self.checkpoints
        if which == "best":
            return checkpoints.locate(self.path)
        if which == "last":
            which = max(found, default=0)
        if which not in found:
            raise ValueError(
                f"{self.path} has no checkpoint {which!r}: expected 'best', 'last' or one of "
                f"{', '.join(map(str, found)) or 'none yet'}"
            )
        return found[int(which)]

    def read(self, which: str | int = "best") -> Checkpoint:
        """A checkpoint: weights, network and settings; ``which`` as for `locate`."""
        return checkpoints.read(self.locate(which))

    def objective(
        self, which: str | int = "best", episodes: int = 64, **options: Any
    ) -> MetaObjective:
        """The meta loss of a checkpoint on fixed test tasks: what `landscape` draws and measures.

        Args:
            which: as for `locate`.
            episodes: number of tasks.
            **options: of `sharpmaml.meta_objective`: ``split``, ``seed``, ``dtype``, ``steps``, ...
        """
        from sharpmaml.objective import meta_objective

        return meta_objective(self.locate(which), episodes, **options)

    def evaluate(self, which: str | int = "best", **options: Any) -> Evaluation:
        """The score of a checkpoint over seeded episodes.

        Args:
            which: as for `locate`.
            **options: of `sharpmaml.evaluate`: ``episodes``, ``split``, ``seed``, ``steps``, ...
        """
        from sharpmaml.evaluation import evaluate

        return evaluate(self.locate(which), **options)


def load_run(path: str | Path) -> Run:
    """A run that was trained earlier, perhaps by the command line; one that still trains too.

    Args:
        path: its folder.

    Raises:
        CheckpointError: it has no checkpoint.
    """
    path = Path(path)
    best = checkpoints.locate(path)
    found = checkpoints.steps(path)
    if not found:
        raise checkpoints.CheckpointError(
            f"{path} is a checkpoint: give the folder of its run, {path.parent.parent}"
        )
    return Run(path, int(found[-1].name.removeprefix("step_")), best)


def default_folder(config: TrainConfig) -> Path:
    """Where a run goes that is not told where: ``runs/METHOD-DATA-seedSEED-HASH`` in this folder.

    The hash is of what decides the numbers; the length, the device and the place of the data are free.

    >>> default_folder(TrainConfig(seed=3)).name[:-9]
    'maml-strokes-seed3'
    """
    deciding = {k: v for k, v in config.to_dict().items() if k not in FREE_TO_CHANGE}
    digest = hashlib.sha256(repr(sorted(deciding.items())).encode()).hexdigest()[:8]
    name = f"{config.method}-{config.data}-seed{config.seed}-{digest}"
    return Path("runs") / re.sub(r"[^\w.+-]", "_", name)


FREE_TO_CHANGE = (
    "iterations", "device", "data_root", "executor", "tasks_at_once", "patience", "guard",
)  # fmt: skip
"""Settings that may change when a run is resumed."""
