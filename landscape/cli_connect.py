"""The command `landscape connect`: a curve of low loss between two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, Source, Where, require_suffix

if TYPE_CHECKING:
    import xarray as xr

    from landscape.connectivity import Connection
    from landscape.objective import Objective
    from landscape.plot.table import Table


@dataclass(frozen=True)
class Bending:
    """How the curve is trained, and where it is evaluated.

    Attributes:
        kind: bezier, or chain of straight pieces.
        bends: points that are trained between the ends.
        iterations: steps of the training, one gradient each.
        rate: largest step of Adam, in units of the root mean square difference between the checkpoints.
        batch: examples of each gradient (other checkpoints); all when left out.
        points: points along the curve and along the straight line.
        plane_points: points on each axis of the plane through both ends and the bend; 0 for no plane.
        seed: of the training.
    """

    kind: str = "bezier"
    bends: int = 1
    iterations: int = 300
    rate: float = 0.03
    batch: int | None = None
    points: int = 31
    plane_points: int = 25
    seed: int = 0


_SOURCE = Source()
_BENDING = Bending()


def connect(
    first: Path,
    second: Path,
    /,
    *,
    out: Path = Path("connect.html"),
    json: Flag = False,
    quiet: Flag = False,
    bending: Annotated[Bending, Parameter(name="*")] = _BENDING,
    source: Where = _SOURCE,
) -> None:
    """Train a curve of low loss between two checkpoints, and compare its barrier with the straight line's.

    Mode connectivity (Garipov et al. 2018). What was trained and computed is kept in the folder of the same
    name as OUT, so that the same command continues it.

    Args:
        first: a checkpoint folder or run folder of ours, or a weights file.
        second: another one of the same network.
        out: page (.html) with the figures.
        json: print one JSON document instead of lines.
        quiet: no progress on standard error.
        bending: how the curve is trained.
        source: what the loss is a loss of.
    """
    from json import loads

    from landscape.cli_points import read_points
    from landscape.connectivity import connect as train
    from landscape.store import json_text, save

    require_suffix(out, ".html")
    if bending.plane_points and bending.plane_points < 2:
        raise ValueError(f"--plane-points is {bending.plane_points}: expected 0, or 2 and more")
    points = read_points((first, second), source)
    folder = out.with_suffix("")
    folder.mkdir(exist_ok=True)
    a, b = points.thetas
    first_label, second_label = points.labels
    with console.progress_bar("curve", quiet) as advance:
        found = train(
            points.objective, a, b, bending.kind, bending.bends, bending.iterations, bending.seed,
            rate=bending.rate, batch=bending.batch, points=bending.points,
            labels=(first_label, second_label), out=folder / "training.nc", progress=advance,
        )  # fmt: skip
    failed = not_better(found)
    if failed:
        told = json_text([*loads(found.line.attrs.get("refusals", "[]")), *failed])
        found.line.attrs["refusals"] = told
    save(found.line, folder / "curve.nc")
    save(found.straight, folder / "straight.nc")
    plane = _plane(points.objective, found, bending.plane_points, folder / "plane.nc", quiet)
    refused = _refused(found, plane)
    doubts = list(dict.fromkeys([*refused, *points.remarks]))
    _write(out, found, plane, doubts)
    if json:
        console.print_json({**found.document(), "page": str(out), "cautions": doubts})
    else:
        print(f"{out}: {_verdict(found)}")
        for name, height in (("curve", found.barrier), ("straight line", found.straight_barrier)):
            print(f"  {name}: {height.text()}")
        for doubt in doubts:
            print(f"  beware: {doubt}")
    if refused:
        raise console.Untrusted("; ".join(refused))


def not_better(found: Connection) -> list[str]:
    """That the curve's mean loss, which it was trained for, is not below the straight line's; else nothing.

    A thousandth is allowed for: a straight line that is best already is left by the noise of the start.
    """
    curve, straight = found.mean_loss
    if curve <= straight + 1e-3 * abs(straight):
        return []
    return [
        f"the training of the curve has not converged: its mean loss is {curve:.4g}, above the {straight:.4g} of the "
        "straight line; raise --iterations, or lower --rate"
    ]


def _refused(found: Connection, plane: xr.Dataset | None) -> list[str]:
    """Why the lines, or the plane of the curve, cannot be vouched for."""
    from landscape.refusals import refusals

    parts = [found.line, found.straight, *([] if plane is None else [plane])]
    told = [reason for part in parts for reason in refusals(part)]
    return list(dict.fromkeys([*found.barrier.cautions, *told]))


def _plane(
    objective: Objective, found: Connection, points: int, file: Path, quiet: bool
) -> xr.Dataset | None:
    """The surface over the plane through the ends and the bend."""
    from landscape.surface import evaluate

    if found.plane is None or not points:
        return None
    with console.progress_bar("plane", quiet) as advance:
        return evaluate(
            objective, found.plane, points=points, out=file, label="plane of the curve",
            progress=advance, executor="repeatable",
        )  # fmt: skip


def _verdict(found: Connection) -> str:
    curve, straight = found.mean_loss
    return (
        f"mean loss {curve:.4g} along the curve, {straight:.4g} along the straight line; barrier "
        f"{found.barrier.height:.4g} against {found.straight_barrier.height:.4g}"
    )


def _write(out: Path, found: Connection, plane: xr.Dataset | None, doubts: list[str]) -> None:
    from landscape import plot
    from landscape.plot.page import Section, write_page

    figures: list[Any] = [plot.line([found.straight, found.line], title="Loss along the way")]
    sections = [Section("Along the way", tables=[_table(found)], figures=figures)]
    if plane is not None:
        drawn = [
            plot.contour(plane, title="The curve in its plane"),
            plot.surface3d(plane, title="The same as a surface"),
        ]
        sections.append(Section("The plane of the curve", figures=drawn))
    write_page(
        out,
        "A curve between two checkpoints",
        f"{_verdict(found)[:1].upper()}{_verdict(found)[1:]}.",
        sections,
        found.settings,
        doubts,
    )


def _table(found: Connection) -> Table:
    from landscape.plot.table import Cell, Table

    rows: list[list[Cell | str]] = [
        [
            name,
            Cell(barrier.height, (barrier.stderr or None) if barrier.error == "paired" else None),
            Cell(barrier.at),
            Cell(mean),
        ]
        for name, barrier, mean in (
            ("curve", found.barrier, found.mean_loss[0]),
            ("straight line", found.straight_barrier, found.mean_loss[1]),
        )
    ]
    caption = (
        "Barrier: the largest rise of the loss above the straight line between the losses of the ends "
        "(Entezari et al. 2022), with the standard error of the paired difference at that point. Mean loss: over "
        "the parameter t, by the trapezoid rule; it is what the curve was trained for."
    )
    return Table("Barriers", ["", "barrier", "at t", "mean loss"], rows, caption)
