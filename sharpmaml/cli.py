"""The `sharpmaml` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from landscape import console
from sharpmaml.cli_evaluate import evaluate
from sharpmaml.cli_reproduce import reproduce
from sharpmaml.cli_train import train, use_settings

app = App(
    name="sharpmaml",
    help="Train few-shot learners with MAML and Sharp-MAML, and see which solution is flatter.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # the exit status and the line are ours
)


app.command(train)
app.command(evaluate)
app.command(reproduce)


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
    sys.exit(console.run(app, words, prepare=lambda: use_settings(app, words)))
