"""`sharpmaml train`."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.config import Dict, Toml

from landscape import console, interruptions
from sharpmaml.cli_settings import Settings, as_config
from sharpmaml.config import TrainConfig
from sharpmaml.presets import preset as settings_of

if TYPE_CHECKING:
    from sharpmaml.runs import Run

_EVERY = 0.1  # seconds between two changes of the progress bar


def train(
    *,
    out: Path,
    resume: bool = False,
    download: Annotated[bool, Parameter(negative="")] = False,
    preset: str | None = None,
    config: Path | None = None,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # noqa: B008 - frozen
) -> None:
    """Train a few-shot learner and write checkpoints.

    Several processes train together when torchrun starts them: torchrun --nproc-per-node 4 -m
    sharpmaml train ...

    Args:
        out: run folder; new or empty, unless --resume.
        resume: continue from the last checkpoint in --out.
        download: fetch the data set's official files into --data-root first, checksums verified.
        preset: published settings by name, such as paper or released-code; --config and flags win.
        config: TOML file of settings; flags given beside it win.
        tensorboard: write the log for TensorBoard too, into OUT/tensorboard.
        quiet: no progress on standard error.
        settings: everything that decides the run.
    """
    from landscape import parallel
    from sharpmaml.data import load_images
    from sharpmaml.trainer.board import TensorBoard
    from sharpmaml.trainer.ranks import ElsewhereError, join
    from sharpmaml.training import DivergedError
    from sharpmaml.training import train as run_training

    board = TensorBoard(out / "tensorboard") if tensorboard else None
    ranks = join()
    quiet = quiet or not ranks.leads
    settings = as_config(settings)
    if download:
        ranks.together(lambda: _download(settings, load_images) if ranks.leads else None)
    title = f"{settings.method} on {settings.data}"
    try:
        with console.progress_bar(title, quiet) as advance:
            show = _Show(advance, settings.iterations)
            run = run_training(
                settings,
                out,
                resume=resume,
                progress=show,
                callback=board,
                tell=None if quiet else _say,
            )
    except (ElsewhereError, DivergedError, parallel.LostError) as error:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # torchrun's, upon the same: the cause says more
        if ranks.leads or (isinstance(error, parallel.LostError) and error.speaks):
            raise
        raise SystemExit(console.BAD) from None  # one process speaks for all of them
    except KeyboardInterrupt as stop:
        if ranks.leads:
            raise
        number = stop.number if isinstance(stop, interruptions.Terminated) else signal.SIGINT
        raise SystemExit(128 + number) from None
    finally:
        if board is not None:
            board.close()
        parallel.leave()
    if ranks.leads:
        print(f"{run.step} iterations done; {_best(run)}")
        print(f"last checkpoint: {run.locate('last')}")


def _download(settings: TrainConfig, load_images: Any) -> None:
    load_images(settings.data, settings.data_root, download=True, **settings.data_options)


def _best(run: Run) -> str:
    try:
        named = json.loads((run.path / "best.json").read_text(encoding="utf-8"))["checkpoint"]
        if named == run.checkpoint.name:
            return f"best checkpoint by validation: {run.checkpoint}"
        return f"best checkpoint by validation: {named}, which is not there; last: {run.checkpoint}"
    except (OSError, ValueError, LookupError, TypeError):
        pass  # there is none, or somebody damaged it
    return f"no best checkpoint, for no validation was made or finite; that of the run: {run.checkpoint}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Show:
    """A record as progress, a few times a second at most: sinusoids make a thousand."""

    def __init__(self, advance: console.Advance, total: int) -> None:
        self._advance, self._total, self._told = advance, total, -_EVERY

    def __call__(self, record: Any) -> None:
        now = time.monotonic()
        if self._told <= now < self._told + _EVERY and record["iteration"] < self._total:
            return
        self._told = now
        note = f"loss {record['loss']:.3f}"
        if "accuracy" in record:
            note += f"  accuracy {record['accuracy']:.3f}"
        self._advance(record["iteration"], self._total, note)


def use_settings(app: App, words: Sequence[str]) -> None:
    """Lay flags on top of a settings file, and that on top of a preset.

    Both have to be known before the flags are read.

    Raises:
        ValueError: a preset that there is not, or a file that cannot be one of settings.
    """
    layers: list[Any] = []
    words = words if words[:1] == ["train"] else []
    path, name = _value(words, "--config"), _value(words, "--preset")
    if path is not None:
        TrainConfig.from_toml(path)  # raises on a file that cannot be one
        layers.append(Toml(path, use_commands_as_keys=False))
    if name is not None:
        layers.append(Dict(settings_of(name), use_commands_as_keys=False, source="preset"))
    app.config = tuple(layers)


def _value(words: Sequence[str], flag: str) -> str | None:
    found = None
    for index, word in enumerate(words):
        if word == flag and index + 1 < len(words):
            found = words[index + 1]
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found
