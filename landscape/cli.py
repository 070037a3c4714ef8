"""The `landscape` command."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from cyclopts import App

from landscape import console
from landscape.cli_curvature import along_training, curvature_map
from landscape.cli_hessian import hessian
from landscape.cli_source import Flag, Source, Where, require_suffix
from landscape.cli_surface import merge, surface

app = App(
    name="landscape",
    help="Loss surfaces, Hessian spectra and sharpness of any checkpoint.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # the exit status and the line are ours
)

_SOURCE = Source()

app.command(surface)
app.command(merge)
app.command(hessian)
app.command(curvature_map)
app.command(along_training)


@app.command
def inspect(checkpoint: Path, /, *, json: Flag = False) -> None:
    """List what a checkpoint holds; no model is needed.

    Args:
        checkpoint: a weights file, or a checkpoint folder of ours.
        json: print one JSON document instead.
    """
    from landscape import source as sources
    from landscape.checkpoint import read_weights

    own = sources.describes_itself(checkpoint) is not None
    folder = sources.locate(checkpoint) if own else checkpoint
    weights = read_weights(folder / "model.safetensors" if own else checkpoint)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "norm": float(tensor.double().norm()),
        }
        for name, tensor in weights.tensors.items()
    ]
    total = sum(tensor.numel() for tensor in weights.tensors.values())
    head = {
        "file": str(weights.path), "fingerprint": weights.fingerprint, "entries": total,
        "found_under": weights.key, "prefix_removed": weights.prefix,
    }  # fmt: skip
    if own:  # what figures and pages show of such a checkpoint
        head["recorded_fingerprint"] = sources.description(folder).get("fingerprint")
    if json:
        console.print_json({**head, "tensors": rows})
        return
    for name, value in head.items():
        print(f"{name}: {value}")
    for row in rows:
        print(f"{row['name']:40} {row['shape']!s:22} {row['dtype']:9} norm {row['norm']:.6g}")


@app.command
def sharpness(
    checkpoint: Path,
    /,
    *,
    measures: str = "all",
    seed: int = 0,
    json: Flag = False,
    quiet: Flag = False,
    source: Where = _SOURCE,
) -> None:
    """Compute sharpness measures, each with its error and cost.

    Args:
        checkpoint: a checkpoint folder or run folder of ours, or a weights file.
        measures: all, or names separated by commas.
        seed: of every random draw.
        json: print one JSON document instead.
        quiet: no progress on standard error.
        source: what the loss is a loss of.
    """
    from landscape.sharpness import sharpness as run
    from landscape.spectra.eigenpairs import ConvergenceWarning

    objective = source.objective(checkpoint)
    names = "all" if measures == "all" else [name.strip() for name in measures.split(",")]
    with (
        warnings.catch_warnings(record=True) as caught,
        console.progress_bar("sharpness", quiet) as advance,
    ):
        warnings.simplefilter("always", ConvergenceWarning)
        report = run(objective, names, seed=seed, progress=advance)
    print(report.to_json() if json else report.table())
    doubts = [f"{row.name} is {row.value}" for row in report.values() if not isfinite(row.value)]
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            doubts.append(str(warning.message))
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if doubts:
        raise console.Untrusted("; ".join(dict.fromkeys(doubts)))


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
    from landscape.compare import Comparison

    if len(checkpoints) < 2:
        raise ValueError(f"{len(checkpoints)} checkpoint given: a comparison needs two or more")
    require_suffix(out, ".html")  # the folder beside it has the same name without it
    study = Comparison(out.with_suffix(""), span=span, points=points, seed=seed)
    for checkpoint in checkpoints:
        with console.progress_bar(str(checkpoint), quiet) as advance:
            study.add(
                _label(checkpoint, checkpoints),
                {_group(source, checkpoint): source.objective(checkpoint)},
                advance,
            )
    print(study.write(out, lead="\n\n".join(study.verdict())))
    if study.doubts:
        raise console.Untrusted("; ".join(study.doubts))


def _group(source: Source, checkpoint: Path) -> str:
    return f"{source.split} episodes" if checkpoint.is_dir() else "data"


def _label(checkpoint: Path, among: Sequence[Path]) -> str:
    """The shortest end of the path that tells it from the others."""
    for depth in range(1, len(checkpoint.parts) + 1):
        tails = ["/".join(path.parts[-depth:]) for path in among]
        if len(set(tails)) == len(tails):
            return "/".join(checkpoint.parts[-depth:])
    return str(checkpoint)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    sys.exit(console.run(app, arguments))
