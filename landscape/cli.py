"""The `landscape` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App

from landscape import console
from landscape.cli_curvature import along_training, curvature_map
from landscape.cli_hessian import hessian
from landscape.cli_inspect import inspect
from landscape.cli_sharpness import sharpness
from landscape.cli_source import Flag, Source, Where, require_suffix
from landscape.cli_surface import merge, surface

app = App(
    name="landscape",
    help="Loss surfaces, Hessian spectra and sharpness of any checkpoint.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # the exit status and the line are ours
)

_SOURCE = Source()

app.command(inspect)
app.command(surface)
app.command(merge)
app.command(hessian)
app.command(sharpness)
app.command(curvature_map)
app.command(along_training)


@app.command
def compare(
    *checkpoints: Path,
    out: Path = Path("compare.html"),
    points: int = 25,
    span: float = 1.0,
    seed: int = 0,
    quiet: Flag = False,
    source: Where = _SOURCE,
) -> None:
    """Compare checkpoints on one page: surfaces on one scale, and a table of flatness numbers.

    Args:
        checkpoints: checkpoint folders or run folders of ours, or weights files of one network.
        out: the page; surfaces are kept in the folder of the same name, and reused.
        points: points on each axis of the surfaces.
        span: half-width of each axis, in units of the direction.
        seed: of directions and random draws.
        quiet: no progress on standard error.
        source: what the loss is a loss of.
    """
    from landscape.compare import Comparison, short_label

    if len(checkpoints) < 2:
        raise ValueError(f"{len(checkpoints)} checkpoint given: a comparison needs two or more")
    require_suffix(out, ".html")  # the folder beside it has the same name without it
    study = Comparison(out.with_suffix(""), span=span, points=points, seed=seed)
    for checkpoint in checkpoints:
        with console.progress_bar(str(checkpoint), quiet) as advance:
            study.add(
                short_label(checkpoint, checkpoints),
                {_group(source, checkpoint): source.objective(checkpoint)},
                advance,
            )
    print(study.write(out, lead="\n\n".join(study.verdict())))
    if study.doubts:
        raise console.Untrusted("; ".join(study.doubts))


def _group(source: Source, checkpoint: Path) -> str:
    return f"{source.split} episodes" if checkpoint.is_dir() else "data"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    sys.exit(console.run(app, arguments))
