"""The commands `landscape surface` and `landscape merge`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, Source, Where, random_plane, require_suffix

if TYPE_CHECKING:
    import xarray as xr

    from landscape.directions import Plane
    from landscape.objective import Objective
    from landscape.parallel import Team


@dataclass(frozen=True)
class Grid:
    """Where the surface is computed, and how.

    Attributes:
        points: points on each axis; an odd number puts one on the solution itself.
        span: half-width of each axis, in units of the direction.
        axes: 2 for a surface, 1 for a line.
        normalize: filter (Li et al. 2018), layer, weight or none.
        ignore: roles of tensors that stay fixed: bias, norm, weight, separated by commas; none for none.
        orthogonal: make the directions exactly orthogonal, filter by filter.
        seed: of the directions.
        executor: auto (measured on the first points), repeatable (fast, but asks no clock: two runs agree
            in every bit), plain, chunked, fused, vmap, compile, cudagraph; loop, stacked for meta objectives.
        tolerance: evaluate only as many points as it takes to know the surface to this share of its
            range, such as 0.01, and interpolate the others.
        basin_tolerance: also this relative tolerance at each point of the basin, such as 0.05.
        keep_terms: keep the loss of every example (of every task of a meta objective).
        slopes: also compute first and second derivatives along the axes at every point.
        shard: i/n, compute the i-th of n parts only; put them together with landscape merge.
    """

    points: int = 51
    span: float = 1.0
    axes: int = 2
    normalize: str = "filter"
    ignore: str = "bias,norm"
    orthogonal: Flag = False
    seed: int = 0
    executor: str = "auto"
    tolerance: float | None = None
    basin_tolerance: float | None = None
    keep_terms: Flag = False
    slopes: Flag = False
    shard: str | None = None

    def plane(self, objective: Objective) -> Plane:
        """The plane these settings ask for."""
        return random_plane(
            objective, self.normalize, self.ignore, self.seed, self.axes, self.orthogonal
        )

    def evaluate(
        self, objective: Objective, plane: Plane, team: Team, **options: Any
    ) -> xr.Dataset:
        """The surface of an objective on a plane."""
        from landscape.parallel import shard_of
        from landscape.surface import evaluate

        return evaluate(
            objective,
            plane,
            span=self.span,
            points=self.points,
            executor=self.executor,
            tolerance=self.tolerance,
            basin_tolerance=self.basin_tolerance,
            keep_terms=self.keep_terms,
            slopes=self.slopes,
            shard=None if self.shard is None else shard_of(self.shard),
            team=team,
            **options,
        )


_SOURCE = Source()
_GRID = Grid()


def surface(
    checkpoint: Path,
    /,
    *,
    out: Path = Path("surface.nc"),
    before: Flag = False,
    live: Flag = False,
    quiet: Flag = False,
    grid: Annotated[Grid, Parameter(name="*")] = _GRID,
    source: Where = _SOURCE,
) -> None:
    """Compute a loss surface along random directions; continues OUT when it is there already.

    Under torchrun the ranks share the points, each on its own device.

    Args:
        checkpoint: a checkpoint folder or run folder of ours, or a weights file.
        out: NetCDF file; the interactive figure is written beside it as .html.
        before: also the surface before adaptation, over the same plane and episodes, beside it (meta
            objectives); its file is OUT with -before in its name.
        live: keep the figure up to date while the surface is being computed.
        quiet: no progress on standard error.
        grid: where the surface is computed, and how.
        source: what the loss is a loss of.
    """
    from landscape import parallel

    require_suffix(out, ".nc")
    team = parallel.join()
    try:
        _surface(checkpoint, out, before, live, quiet or not team.leads, grid, source, team)
    finally:
        parallel.leave()


def _surface(
    checkpoint: Path,
    out: Path,
    before: bool,
    live: bool,
    quiet: bool,
    grid: Grid,
    source: Source,
    team: Team,
) -> None:
    from landscape.plot.live import LivePage

    objective = source.objective(checkpoint)
    name = checkpoint.resolve().name
    subjects = {name: (objective, out)}
    if before:
        unadapted = getattr(objective, "before", None)
        if unadapted is None:
            raise ValueError(
                f"--before is for meta objectives: {checkpoint} has a loss without an inner loop"
            )
        subjects = {
            f"{name}, after adaptation": (objective, out),
            f"{name}, before": (unadapted(), out.with_stem(f"{out.stem}-before")),
        }
    plane = grid.plane(objective)
    page = out.with_suffix(".html")
    results: list[xr.Dataset] = []
    for label, (function, file) in subjects.items():
        observer = LivePage(page) if live and not results else None
        with console.progress_bar("surface", quiet) as advance:
            results.append(
                grid.evaluate(
                    function, plane, team,
                    out=file, label=label, progress=advance, observer=observer,
                )
            )  # fmt: skip
    if not team.leads:
        return
    if grid.shard is not None:
        print(
            f"{out}: shard {grid.shard}; when all are there: landscape merge FILES --out {out.name}"
        )
        return
    _finish(results, [str(file) for _, file in subjects.values()], page, grid.axes)


def merge(*shards: Path, out: Path = Path("surface.nc")) -> None:
    """Put the shards of one surface together, and draw it.

    Args:
        shards: files written with --shard, in any order.
        out: NetCDF file; the interactive figure is written beside it as .html.
    """
    from landscape.resume import merge as put_together

    require_suffix(out, ".nc")
    whole = put_together(shards, out)
    missing = int((whole["evaluated"].values == 0).sum())
    _finish([whole], [str(out)], out.with_suffix(".html"), whole["loss"].ndim)
    if missing:
        raise console.Untrusted(
            f"{out}: {missing} of {whole['evaluated'].size} points are in none of the shards given"
        )


def _finish(results: list[xr.Dataset], files: list[str], page: Path, axes: int) -> None:
    """Draw, say what there is, and refuse to vouch for what cannot be trusted."""
    from landscape import plot
    from landscape.report import refusals, troubles

    figure = plot.surface3d(results) if axes == 2 else plot.line(results)
    figure.write_html(page, include_plotlyjs=True)
    for file, result in zip(files, results, strict=True):
        print(f"{file} and {page}: loss {float(result.attrs['centre_loss']):.6g} at the solution")
        for line in described(result):
            print(f"  {line}")
        for caution in troubles(result):
            print(f"  beware: {caution}")
    refused = [reason for result in results for reason in refusals(result)]
    if refused:
        raise console.Untrusted("; ".join(refused))


def described(surface: xr.Dataset) -> list[str]:
    """How a surface was computed and how good it is, in lines for people."""
    from landscape.health import health_text

    lines = []
    if "executor_trial" in surface.attrs:
        trial = json.loads(surface.attrs["executor_trial"])
        timed = ", ".join(
            f"{name} {1e3 * seconds:.3g} ms a point"
            for name, seconds in trial["seconds_per_point"].items()
        )
        lines.append(f"tried: {timed}")
        setup = {n: s for n, s in trial["setup_seconds"].items() if s > 1}
        if setup:
            lines.append("set up: " + ", ".join(f"{n} {s:.1f} s" for n, s in setup.items()))
    health = health_text(surface)
    if health:
        lines.append(health)
    if "refinement" in surface.attrs:
        from landscape.plot.style import refinement_text

        lines.append(refinement_text(surface.attrs))
    return lines
