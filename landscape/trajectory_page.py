"""A path of training for people: one page with the surface, the path, what it hides, and the numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import plot
from landscape.pca import ENOUGH
from landscape.plot import style, trajectories
from landscape.plot.page import Section, write_page
from landscape.plot.sheet import gather
from landscape.plot.table import Cell, Table
from landscape.plot.trails import WARN_SHARE, read_trails, require_plane, variance_words
from landscape.soundness import troubles

_OVER = (
    "The surface is the loss over a plane through the last checkpoint. Each checkpoint is drawn where it projects to; "
    "its own loss is the one of its true weights, off the plane. Markers turn darker with the steps and grow "
    "with the share of a checkpoint's distance from the origin that the plane does not hold. In three dimensions "
    "a stem leads from the loss in the plane to the checkpoint's own: where stems are long, the surface does not "
    "show what training saw.\n\nWhat a plane cannot show: principal components of a path of training often look "
    "like smooth arcs, also those of a random walk in many dimensions. The shape of the path is no evidence of a "
    "valley; losses and stems are."
)
_ALONG = (
    "Solid: the checkpoints themselves. Dashed: the loss at their feet in the plane. Bands hold 95 %. Random "
    "draws are the same at every step, so that noise does not look like a trend."
)


def write(
    path: Path,
    surface: xr.Dataset,
    trajectory: xr.Dataset,
    warnings: Sequence[str] = (),
    group: str = "",
) -> Path:
    """Write a path of training as one page that works offline.

    Args:
        path: the HTML file.
        surface: over the plane.
        trajectory: what :func:`landscape.trajectory.follow` returned.
        warnings: what to distrust, before what is found in the files.
        group: which data the loss was taken on.

    Raises:
        ValueError: the path lies over another plane, or nothing is finite.
        OSError: the file cannot be written.
    """
    found = dict.fromkeys([*warnings, *cautions(trajectory), *troubles(surface)])
    label = str(trajectory.attrs.get("label") or "training")
    return write_page(
        path,
        f"The path of training: {label}",
        lead(trajectory),
        [
            over_plane(surface, [trajectory], "Over the plane", group),
            Section("Along training", _ALONG, figures=[plot.along_path(trajectory)]),
            Section("Numbers", tables=[table(trajectory)]),
        ],
        {"surface": dict(surface.attrs), "trajectory": dict(trajectory.attrs)},
        list(found),
    )


def over_plane(
    surface: xr.Dataset, paths: Sequence[xr.Dataset], title: str, group: str = ""
) -> Section:
    """Contours and the surface with paths over them, and how to read it.

    Raises:
        ValueError: a path lies over another plane, or nothing is finite.
    """
    require_plane(surface, paths)
    sheet, trails = gather(surface, axes=2, group=group), read_trails(paths)
    figures = [
        trajectories.contour(sheet, trails, "The path of training", None, alone=False),
        trajectories.surface3d(sheet, trails, "The same in three dimensions", None),
    ]
    return Section(title, _OVER, figures=figures)


def lead(trajectory: xr.Dataset) -> str:
    """What was found, in a few sentences."""
    steps, loss = trajectory["step"].values, trajectory["loss"].values
    words = [
        f"{len(steps)} checkpoints from step {steps[0]} to {steps[-1]}; the loss goes from {loss[0]:.4g} to "
        f"{loss[-1]:.4g}."
    ]
    if told := variance_words(trajectory.attrs, "the plane"):
        first, second = np.atleast_1d(trajectory.attrs["variance"])
        sentence = f"{told} of the checkpoints ({first:.0%} + {second:.0%})."
        words.append(sentence[:1].upper() + sentence[1:])
    shares = trajectory["residual_share"].values
    worst = int(np.argmax(shares))
    words.append(
        f"Farthest off it: step {steps[worst]}, {shares[worst]:.0%} of whose distance from the origin lies off "
        "the plane."
    )
    return " ".join(words)


def cautions(trajectory: xr.Dataset) -> list[str]:
    """What a figure of the path hides, one sentence each; :func:`unconverged` are among them."""
    found = []
    variance = trajectory.attrs.get("variance")
    if variance is not None and (held := float(np.sum(variance))) < ENOUGH:
        found.append(
            f"the plane holds {held:.0%} of the variance of the checkpoints, less than {ENOUGH:.0%}: "
            "much of what training did lies off it"
        )
    steps, shares = trajectory["step"].values, trajectory["residual_share"].values
    far = steps[shares > WARN_SHARE]
    if len(far):
        which = f"step {far[0]}" if len(far) == 1 else f"from step {far[0]} to {far[-1]}"
        found.append(
            f"{len(far)} of {len(steps)} checkpoints ({which}) lie off the plane by more than {WARN_SHARE:.0%} of "
            "their distance from the origin: their place on the surface says little"
        )
    loss = trajectory["loss"].values
    bad = ~np.isfinite(loss)
    if "surface_loss" in trajectory and (~bad).sum() > 1:
        foot = trajectory["surface_loss"].values
        known = ~bad & np.isfinite(foot)
        gap = np.zeros(len(loss))
        gap[known] = np.abs(foot[known] - loss[known])
        worst = int(np.argmax(gap))
        if gap[worst] > 0.1 * np.ptp(loss[~bad]):
            found.append(
                f"at step {steps[worst]} the loss in the plane is {foot[worst]:.4g}, the checkpoint's own is "
                f"{loss[worst]:.4g}: the surface does not show what training saw there"
            )
    return found + unconverged(trajectory)


def unconverged(trajectory: xr.Dataset) -> list[str]:
    """Why numbers along the path cannot be vouched for: not finite, or not converged."""
    count, found = trajectory.sizes["step"], []
    bad = int((~np.isfinite(trajectory["loss"].values)).sum())
    if bad:
        found.append(f"the loss is NaN or infinite at {bad} of {count} checkpoints")
    for name in style.words(trajectory.attrs.get("measures")):
        missed = int((trajectory[f"{name}_converged"].values == 0).sum())
        if missed:
            found.append(f"{name} is not converged at {missed} of {count} checkpoints")
        done = trajectory[f"{name}_converged"].values >= 0
        bad = int((done & ~np.isfinite(trajectory[name].values)).sum())
        if bad:
            found.append(f"{name} is NaN or infinite at {bad} of {count} checkpoints")
    return found


def table(trajectory: xr.Dataset) -> Table:
    """One row a checkpoint."""
    names = style.words(trajectory.attrs.get("measures"))
    columns = ["step", "loss", "in the plane", "off the plane", *names]
    rows: list[list[Cell | str]] = []
    for i, step in enumerate(trajectory["step"].values):
        at = trajectory.isel(step=i)
        row: list[Cell | str] = [str(step), _cell(at, "loss", "loss_stderr")]
        row += [_cell(at, "surface_loss"), f"{float(at['residual_share']):.1%}"]
        rows.append([*row, *(_measured(at, name) for name in names)])
    titles = json.loads(trajectory.attrs.get("measure_titles", "{}"))
    told = "; ".join(f"{name}: {titles[name]}" for name in names if name in titles)
    caption = (
        "Loss of the checkpoint itself and at its foot in the plane; share of its distance from the origin that lies "
        f"off the plane. {told}"
    )
    return Table("Checkpoints", columns, rows, caption.strip())


def _cell(at: xr.Dataset, name: str, error: str = "") -> Cell:
    if name not in at:
        return Cell(None)
    spread = float(at[error]) if error in at and np.isfinite(at[error]) else None
    return Cell(_number(at[name]), error=spread)


def _measured(at: xr.Dataset, name: str) -> Cell:
    low, high = _number(at[f"{name}_low"]), _number(at[f"{name}_high"])
    bad = int(at[f"{name}_converged"]) == 0
    return Cell(
        _number(at[name]), low=low, high=high, flag=bad, note="not converged" if bad else ""
    )


def _number(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
