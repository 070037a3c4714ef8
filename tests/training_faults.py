"""Training runs that are killed or denied the disk, resumed, and held against one that was left alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from fault_tools import Ended, Server
from run_files import unlike

from sharpmaml.config import TrainConfig

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=18, meta_batch=2, checkpoint_every=4, validate_every=3,
    validation_episodes=4, inner_rate=0.01, test_steps=2, channels=8, dtype="float64", device="cpu",
    executor="loop",
)  # fmt: skip


def _changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return TrainConfig.from_dict({**config.to_dict(), **changes})


RUNS = {
    "Sharp-MAML both, sinusoids, Adam": _changed(SINE, method="sharp-both", patience=9),
    "Meta-SGD, learned rates, early stop": _changed(SINE, method="meta-sgd", patience=2, inner_rate=0.3),
    "LookSAM in Sharp-MAML up": _changed(
        SINE, method="sharp-up", ascent_every=3, ascent_reuse=0.5, optimizer="sgd", schedule="cosine"
    ),
    "MAML, strokes, patience": TrainConfig(
        data="strokes", data_options={"alphabets": 4}, ways=3, queries=2, iterations=14, meta_batch=2,
        checkpoint_every=3, validate_every=2, patience=4, validation_episodes=3, channels=4,
        downsample="stride", device="cpu", executor="loop",
    ),
}  # fmt: skip

MODULES = ("sharpmaml.cli", "training_faults:warm")


def warm(count: int = len(RUNS)) -> None:
    """One meta-update of the first runs, for what they import."""
    from sharpmaml.training import train

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, config in list(RUNS.items())[:count]:
            train(_changed(config, iterations=1), Path(folder) / name)


def warm_one() -> None:
    """The same for runs of sinusoids."""
    warm(1)


def command(
    words: list[str],
    steps: str,
    delete: tuple[str, int] | None = None,
    press: tuple[int, int] | None = None,
) -> int:
    """``sharpmaml WORDS``; each meta-update writes its number, and the seconds to the first, to ``steps``.

    Args:
        words: of the command line.
        steps: a file.
        delete: a file or folder, and the meta-update after which it is removed.
        press: a signal that the process is sent, and the meta-update in which it is, three times in 50 ms.
    """
    from sharpmaml import cli
    from sharpmaml.trainer.learner import Learner

    file, began, plain = os.open(steps, os.O_WRONLY | os.O_CREAT), time.monotonic(), Learner.update
    first: list[float] = []

    def counted(self: Learner, result: Any, iteration: int) -> None:
        first.append(time.monotonic() - began)
        if press is not None and iteration + 1 == press[1]:
            threading.Thread(target=_press, args=(press[0],)).start()
        plain(self, result, iteration)
        os.pwrite(file, f"{iteration + 1:6d} {first[0]:.6f}".encode(), 0)
        if delete is not None and iteration + 1 == delete[1]:
            gone = Path(delete[0])
            gone.unlink() if gone.is_file() else shutil.rmtree(gone)

    Learner.update = counted  # type: ignore[method-assign]
    cli.main(words)
    return 0


def _press(number: int) -> None:
    for _ in range(3):
        os.kill(os.getpid(), number)
        time.sleep(0.02)


class Lab:
    """One run in a folder of its own: the whole one, and attempts that faults cut short.

    Args:
        server: forks the attempts.
        folder: for everything.
        config: the run.
    """

    def __init__(self, server: Server, folder: Path, config: TrainConfig) -> None:
        self.server, self.folder, self.config = server, folder, config
        self.folder.mkdir(parents=True)
        (folder / "settings.toml").write_text(config.to_toml())
        self.whole = folder / "whole"
        self.ended = self.train(self.whole)
        assert self.ended.status == 0, self.ended

    def train(
        self,
        out: Path,
        resume: bool = False,
        delete: tuple[str, int] | None = None,
        press: tuple[int, int] | None = None,
        **fault: Any,
    ) -> Ended:
        """``sharpmaml train`` in a process of its own, with a fault in ``out``; see `command` and `Server.run`."""
        (self.folder / "steps").write_text(f"{0:6d} 0\n")
        words = [
            "train",
            "--config",
            str(self.folder / "settings.toml"),
            "--out",
            str(out),
            "--quiet",
        ]
        words += ["--resume"] * resume
        gone = None if delete is None else (str(out / delete[0]), delete[1])
        files = (words, str(self.folder / "steps"), gone, press)
        return self.server.run("training_faults:command", *files, path=str(out), **fault)

    @property
    def reached(self) -> tuple[int, float]:
        """Meta-updates that the last attempt had done when it ended, and the seconds to its first."""
        step, seconds = (self.folder / "steps").read_text().split()[:2]
        return int(step), float(seconds)

    def unlike(self, out: Path, saved: int = 0) -> list[str]:
        """What of a finished run is not, bit for bit, as in the whole one; what is left over too.

        Args:
            out: the run.
            saved: a meta-update at which it was interrupted, and has a checkpoint of its own.
        """
        return list(unlike(out, self.whole, f"checkpoints/step_{saved:06d}"))
