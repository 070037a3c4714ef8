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

    from landscape.barriers import Barrier
    from landscape.directions import Plane
    from landscape.objective import Objective
    from landscape.parallel import Team


@dataclass(frozen=True)
class Grid:
    """Where the surface is computed, and how.

    Attributes:
        points: points on each axis; an odd number puts one on the solution itself.
        span: half-width of each axis, in units of the direction: 1 when left out; between checkpoints some
            way beyond them.
        axes: 2 for a surface, 1 for a line; between two checkpoints 1.
        plane: random, or eigen for eigenvectors of the Hessian (one checkpoint).
        given: directions file of tomgoldstein/loss-landscape (.h5), in place of a plane of ours; with
            --executor plain its very points are evaluated.
        units: of an eigen plane: curvature (a step changes the loss by RISE, so that a quadratic bowl is round)
            or norm (directions of length 1).
        which: eigenvectors of an eigen plane: top (two largest eigenvalues) or extremes (largest and smallest).
        rise: change of the loss that a step stands for in curvature units.
        quadratic: also the quadratic model at the centre along each axis, drawn dotted.
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
    span: float | None = None
    axes: int | None = None
    plane: str = "random"
    given: Annotated[Path | None, Parameter(name="directions")] = None
    units: str = "curvature"
    which: str = "top"
    rise: float = 0.1
    quadratic: Flag = False
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

    def directions(self, objective: Objective) -> Plane:
        """The plane through one checkpoint that these settings ask for."""
        if self.given is not None:
            from landscape.exchange.li2018.directions import read_directions

            return read_directions(self.given, objective)
        axes = 2 if self.axes is None else self.axes
        if self.plane == "random":
            return random_plane(
                objective, self.normalize, self.ignore, self.seed, axes, self.orthogonal
            )
        from landscape.planes import eigen_plane

        if axes not in (1, 2):
            raise ValueError(f"--axes is {axes}: expected 1 or 2")
        if axes == 1 and self.which != "top":
            raise ValueError("--which extremes needs two axes")
        which: str | tuple[int, ...] = (0,) if axes == 1 else self.which
        return eigen_plane(objective, which=which, units=self.units, seed=self.seed, rise=self.rise)

    def require(self, checkpoints: int) -> None:
        """ValueError unless these settings make sense for so many checkpoints."""
        if self.plane not in PLANES:
            raise ValueError(f"--plane is {self.plane!r}: expected one of {', '.join(PLANES)}")
        if self.given is not None and (checkpoints > 1 or self.plane != "random"):
            raise ValueError(
                "--directions are those of one checkpoint: leave out --plane and the others"
            )
        if checkpoints == 1:
            return
        if checkpoints > 3:
            raise ValueError(
                f"{checkpoints} checkpoints given: a line leads through two, a plane through three"
            )
        if self.plane != "random":
            raise ValueError(f"--plane {self.plane} is through one checkpoint: give one alone")
        fitting = checkpoints - 1
        if self.axes not in (None, fitting):
            raise ValueError(
                f"--axes is {self.axes}: {checkpoints} checkpoints give {fitting}, leave it out"
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
            # Beyond the ends, statistics of norm layers that move with the point leave what they can be.
            span=(0.0, 1.0)
            if plane.buffers and plane.axes == 1 and self.span is None
            else self.span,
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


PLANES = ("random", "eigen")
_SOURCE = Source()
_GRID = Grid()


def surface(
    checkpoint: Path,
    /,
    *others: Path,
    out: Path = Path("surface.nc"),
    before: Flag = False,
    live: Flag = False,
    quiet: Flag = False,
    grid: Annotated[Grid, Parameter(name="*")] = _GRID,
    source: Where = _SOURCE,
) -> None:
    """Compute a loss surface; continues OUT when it is there already.

    Of one checkpoint along random directions or Hessian eigenvectors; of two along the line between them, with
    its barrier; of three over the plane through them. Under torchrun the ranks share the points, each on its own
    device.

    Args:
        checkpoint: a checkpoint folder or run folder of ours, or a weights file.
        others: one or two more of the same network.
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
        _surface(
            (checkpoint, *others), out, before, live, quiet or not team.leads, grid, source, team
        )
    finally:
        parallel.leave()


def _surface(
    checkpoints: tuple[Path, ...],
    out: Path,
    before: bool,
    live: bool,
    quiet: bool,
    grid: Grid,
    source: Source,
    team: Team,
) -> None:
    from landscape.cli_points import read_points
    from landscape.plot.live import LivePage
    from landscape.store import save

    grid.require(len(checkpoints))
    checkpoint = checkpoints[0]
    points = read_points(checkpoints, source) if len(checkpoints) > 1 else None
    objective = source.objective(checkpoint) if points is None else points.objective
    name = " to ".join(points.labels) if points else checkpoint.resolve().name
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
    plane = grid.directions(objective) if points is None else points.plane()
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
        if grid.shard is None:
            told = told_more(results[-1], function, plane, grid.quadratic)
            if told is not results[-1] and team.leads:
                save(told, file)
            results[-1] = told
    if not team.leads:
        return
    if grid.shard is not None:
        print(
            f"{out}: shard {grid.shard}; when all are there: landscape merge FILES --out {out.name}"
        )
        return
    for remark in points.remarks if points else ():
        print(f"beware: {remark}")
    _finish(results, [str(file) for _, file in subjects.values()], page, plane.axes)


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
    from landscape import plot, surface_page
    from landscape.soundness import refusals, troubles

    told = [described(result) for result in results]
    surface_page.write(page, results, told)
    if axes == 2 and "quadratic" in results[0].attrs:
        for i, result in enumerate(results):
            cuts = page.with_stem(f"{page.stem}-sections{'' if i == 0 else '-before'}")
            surface_page.write(
                cuts, [result], [quadratic_lines(result)], [plot.cross_sections(result)]
            )
            print(f"{cuts}: the loss along both axes")
    for file, result, lines in zip(files, results, told, strict=True):
        print(f"{file} and {page}: loss {float(result.attrs['centre_loss']):.6g} at the solution")
        for line in lines:
            print(f"  {line}")
        for caution in troubles(result):
            print(f"  beware: {caution}")
    refused = [reason for result in results for reason in refusals(result)]
    if refused:
        raise console.Untrusted("; ".join(refused))


def described(surface: xr.Dataset) -> list[str]:
    """How a surface was computed and how good it is, in lines for people."""
    from landscape.health import health_text

    lines = [*(found.text() for found in barriers(surface)), *quadratic_lines(surface)]
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


def told_more(
    surface: xr.Dataset, objective: Objective, plane: Plane, quadratic: bool
) -> xr.Dataset:
    """The surface with its barriers and, if asked for, its quadratic model; itself if all is there."""
    from landscape.quadratic import quadratic_from_slopes, quadratic_model
    from landscape.store import json_text

    found = [one.document() for one in barriers(surface)]
    if found and surface.attrs.get("barriers") != json_text(found):
        surface = surface.assign_attrs(barriers=json_text(found))
    if not quadratic or "quadratic" in surface.attrs:
        return surface
    try:
        model = quadratic_from_slopes(surface)
    except ValueError:  # evaluated without slopes, or without a point at the centre
        model = quadratic_model(objective, plane)
    return model.attached(surface)


def quadratic_lines(surface: xr.Dataset) -> list[str]:
    """The quadratic model of a surface against differences of it, a line an axis."""
    if "quadratic" not in surface.attrs:
        return []
    from landscape.quadratic import Agreement

    found = json.loads(surface.attrs["quadratic"])["agreement"]
    return [Agreement(**one).text() for one in found]


def barriers(surface: xr.Dataset) -> list[Barrier]:
    """The barriers of a line between two checkpoints; none of other surfaces, nor without both ends."""
    from landscape.barriers import DEFINITIONS, barrier
    from landscape.plot.style import plane_kind

    if plane_kind(surface.attrs) not in ("interpolation", "curve"):
        return []
    metrics = [name for name in ("loss", "accuracy") if name in surface]
    try:
        return [barrier(surface, name, rule) for name in metrics for rule in DEFINITIONS]
    except ValueError:  # a span that leaves out an end, or an end that is not finite
        return []
