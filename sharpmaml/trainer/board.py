"""Records for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpmaml.trainer.log import flat


class TensorBoard:
    """A callback of `sharpmaml.train` that writes every number of every record as a scalar.

    ``sharpmaml.train(config, "runs/a", callback=TensorBoard("runs/a/tensorboard"))``; then
    ``tensorboard --logdir runs``.

    Args:
        folder: where the event files go; made at the first record.

    Raises:
        ValueError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f'tensorboard cannot be used ({error}): pip install "sharp-landscape[tensorboard]"'
            ) from None
        self._make: Any = SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write a record."""
        step = record["iteration"]
        if self._writer is None:
            # What an interrupted run wrote beyond its last checkpoint is told again.
            self._writer = self._make(self._folder, purge_step=step)
        for name, value in flat(record).items():
            if name != "iteration":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Put everything into the files."""
        if self._writer is not None:
            self._writer.close()
