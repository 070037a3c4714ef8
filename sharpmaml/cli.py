"""The `sharpmaml` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.config import Toml

from landscape import console
from sharpmaml.config import TrainConfig

app = App(
    name="sharpmaml",
    help="Train few-shot learners with MAML and Sharp-MAML, and see which solution is flatter.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # the exit status and the line are ours
)


@app.command
def train(
    *,
    out: Path,
    resume: bool = False,
    download: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008 - frozen
) -> None:
    """Train a few-shot learner and write checkpoints.

    Args:
        out: run folder; new or empty, unless --resume.
        resume: continue from the last checkpoint in --out.
        download: fetch the data set's official files into --data-root first, checksums verified.
        config: TOML file of settings; flags given beside it win.
        quiet: no progress on standard error.
        settings: everything that decides the run.
    """
    from sharpmaml.data import load_images
    from sharpmaml.training import train as run_training

    if download:
        load_images(settings.data, settings.data_root, download=True, **settings.data_options)
    title = f"{settings.method} on {settings.data}"
    with console.progress_bar(title, quiet) as advance:

        def show(record: Any) -> None:
            note = f"loss {record['loss']:.3f}"
            if "accuracy" in record:
                note += f"  accuracy {record['accuracy']:.3f}"
            advance(record["iteration"], settings.iterations, note)

        run = run_training(settings, out, resume=resume, progress=show)
    print(f"{run.step} iterations done; best checkpoint by validation: {run.checkpoint}")


@app.command
def evaluate(
    checkpoint: Path,
    /,
    *,
    episodes: int = 600,
    split: str = "test",
    seed: int = 0,
    steps: int | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Score a checkpoint on seeded episodes, with the 95 % confidence interval.

    Args:
        checkpoint: folder of a checkpoint, or of a run (then its best checkpoint).
        episodes: number of tasks.
        split: classes of the tasks: train, val or test.
        seed: of the tasks: the same seed gives every checkpoint the same ones.
        steps: adaptation steps; the run's own test_steps when left out.
        data: another data set than the one trained on.
        data_root: where the data set lies, when it has moved since training.
        device: auto, cpu, cuda or cuda:N.
        json: print one JSON document instead.
    """
    from sharpmaml.evaluation import evaluate as run_evaluation

    result = run_evaluation(
        checkpoint,
        episodes=episodes,
        split=split,
        seed=seed,
        steps=steps,
        data=data,
        data_root=data_root,
        device=device,
    )
    if json:
        console.print_json(result.to_dict())
        return
    s = result.settings
    shown = (
        f"{100 * result.mean:.2f} ± {100 * result.ci95:.2f} %"
        if result.metric == "accuracy"
        else f"{result.mean:.4f} ± {result.ci95:.4f}"
    )
    print(f"{result.metric} {shown}   (mean and 95 % interval over {s['episodes']} episodes)")
    print(
        f"{s['method']} step {s['step']}, weights {s['checkpoint']}; {s['data']} {s['split']} classes, "
        f"{s['ways']}-way {s['shots']}-shot, {s['queries']} queries a class, {s['inner_steps']} steps "
        f"of {s['inner_rate']}, episode seed {s['episode_seed']}; {s['norm']}"
    )


@app.command
def demo(
    *,
    out: Path = Path("demo"),
    quick: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Train MAML and the three Sharp-MAMLs on embedded data and compare their landscapes.

    Writes OUT/index.html, and prints the table. Nothing is precomputed.

    Args:
        out: folder for runs, page and figures; what is already in it is continued.
        quick: smaller everything: under 90 seconds instead of under 8 minutes on two cores.
        seed: of weights, episodes and directions.
        device: auto, cpu, cuda or cuda:N.
    """
    from sharpmaml.demo import run_demo

    run_demo(out, quick=quick, seed=seed, device=device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(console.run(app, words, prepare=lambda: _use_settings_file(words)))


def _use_settings_file(words: Sequence[str]) -> None:
    # The file has to be known before the flags are read, because they lie on top of it.
    app.config = ()
    for index, word in enumerate(words):
        path = word.partition("=")[2]
        if word == "--config" and index + 1 < len(words):
            path = words[index + 1]
        elif not word.startswith("--config="):
            continue
        TrainConfig.from_toml(path)  # raises on a file that cannot be one
        app.config = (Toml(path, use_commands_as_keys=False),)
