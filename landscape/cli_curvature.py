"""The commands `landscape curvature-map` and `landscape along-training`."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Map:
    """Where the curvature is computed, and how well.

    Attributes:
        points: points on each axis.
        span: half-width of each axis, in units of the direction.
        axes: 2 for a map, 1 for a line.
        normalize: filter (Li et al. 2018), layer, weight or none.
        ignore: roles of tensors that stay fixed: bias, norm, weight, separated by commas; none for none.
        seed: of the directions and of start vectors.
        tol: residual to reach, as a share of each eigenvalue's own magnitude.
        params: patterns of parameter names that the Hessian is taken with respect to; all when left out.
    """

    points: int = 11
    span: float = 1.0
    axes: int = 2
    normalize: str = "filter"
    ignore: str = "bias,norm"
    seed: int = 0
    tol: float = 1e-2
    params: str | None = None

    def plane(self, objective: Objective) -> Plane:
        """The plane these settings ask for."""
        return random_plane(objective, self.normalize, self.ignore, self.seed, self.axes)


_SOURCE = Source()
_MAP = Map()


def curvature_map(
    checkpoint: Path,
    /,
    *,
    out: Path = Path("curvature.nc"),
    quiet: Flag = False,
    grid: Annotated[Map, Parameter(name="*")] = _MAP,
    source: Where = _SOURCE,
) -> None:
    """Compute the largest and the smallest eigenvalue over a plane; continues OUT when it is there already.

    Args:
        checkpoint: a checkpoint folder or run folder of ours, or a weights file.
        out: NetCDF file; the interactive figure is written beside it as .html.
        quiet: no progress on standard error.
        grid: where the curvature is computed, and how well.
        source: what the loss is a loss of.
    """
    from landscape import plot
    from landscape.spectra.plane_map import curvature_map as compute

    require_suffix(out, ".nc")
    objective = source.objective(checkpoint)
    options: dict[str, Any] = {} if grid.params is None else {"params": grid.params}
    with console.progress_bar("curvature", quiet) as advance:
        found = compute(
            objective, grid.plane(objective), grid.span, grid.points, tol=grid.tol, seed=grid.seed,
            label=checkpoint.resolve().name, out=out, progress=advance, **options,
        )  # fmt: skip
    _told(found, out, "Curvature over a plane", plot.curvature_map(found))


def along_training(
    run: Path,
    /,
    *,
    k: Annotated[int, Parameter(name=["-k"])] = 3,
    tol: float = 1e-2,
    seed: int = 0,
    every: int = 1,
    out: Path = Path("along.nc"),
    quiet: Flag = False,
    source: Where = _SOURCE,
) -> None:
    """Compute eigenvalues along training, from the checkpoints of a run; continues OUT when it is there already.

    Where the run keeps the state of plain gradient descent, its edge of stability is drawn too.

    Args:
        run: a run folder of ours.
        k: eigenvalues at the high end; the smallest one comes with them.
        tol: residual to reach, as a share of each eigenvalue's own magnitude.
        seed: of start vectors.
        every: take every so many-th checkpoint; the last one always.
        out: NetCDF file; the interactive figure is written beside it as .html.
        quiet: no progress on standard error.
        source: what the loss is a loss of.
    """
    from landscape import plot
    from landscape.spectra.along_training import along_training as compute
    from landscape.spectra.along_training import run_checkpoints, run_points

    require_suffix(out, ".nc")
    if every < 1:
        raise ValueError(f"--every is {every}: expected at least 1")
    folders = run_checkpoints(run)
    taken = {step for step, _ in folders[::-1][::every]}
    objective = source.objective(run)
    points = [(s, theta) for s, theta in run_points(run, objective.space) if s in taken]
    with console.progress_bar("along training", quiet) as advance:
        done = iter(range(1, len(points) + 1))
        found = compute(
            points, k, objective=objective, tol=tol, seed=seed, label=run.resolve().name, out=out,
            thresholds=_thresholds([f for f in folders if f[0] in taken], objective),
            progress=lambda step: advance(next(done), len(points), f"step {step}"),
        )  # fmt: skip
    _told(found, out, "Curvature along training", plot.along_training(found))


def _thresholds(folders: list[tuple[int, Path]], objective: Objective) -> dict[int, float] | None:
    """Edges of stability by step: those of gradient descent, which need no metric of their own."""
    from landscape.spectra.dynamics import dynamics
    from landscape.spectra.stability import read_optimizer

    edges = {}
    for step, folder in folders:
        try:
            found = dynamics(read_optimizer(folder), objective.space)
        except (
            ValueError
        ):  # no state, or an optimizer whose stability is not known: no line is drawn
            return None
        if found.scale is not None or found.rule != "sgd":
            return None
        edges[step] = found.threshold
    return edges


def _told(found: xr.Dataset, out: Path, title: str, figure: Any) -> None:
    """Write the page, say what there is, and refuse to vouch for what is not converged."""
    from landscape.plot.page import Section, write_page

    page = out.with_suffix(".html")
    products, points = int(found["products"].sum()), found["converged"].size
    missed = int((found["converged"].values == 0).sum())
    doubt = f"{missed} of {points} points are not converged; they are marked: raise --tol"
    title = f"{title}: {found.attrs.get('label') or 'a solution'}"
    lead = f"{points} points, {products} products with the Hessian."
    sound = f"eigenvalues of all {points} points converged"
    write_page(
        page, title, lead, [Section("Eigenvalues", figures=[figure])], found.attrs,
        [doubt] if missed else [], [] if missed else [sound],
    )  # fmt: skip
    print(f"{out} and {page}: {products} products")
    if missed:
        raise console.Untrusted(doubt)
