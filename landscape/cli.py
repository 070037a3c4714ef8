"""The `landscape` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App

from landscape import console
from landscape.cli_compare import compare
from landscape.cli_connect import connect
from landscape.cli_curvature import along_training, curvature_map
from landscape.cli_export import export, import_surface
from landscape.cli_hessian import hessian
from landscape.cli_inspect import inspect
from landscape.cli_sharpness import sharpness
from landscape.cli_surface import merge, surface
from landscape.cli_topology import topology
from landscape.cli_trajectory import trajectory

app = App(
    name="landscape",
    help="Loss surfaces, Hessian spectra and sharpness of any checkpoint.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # the exit status and the line are ours
)

app.command(inspect)
app.command(surface)
app.command(merge)
app.command(connect)
app.command(export)
app.command(import_surface, name="import")
app.command(hessian)
app.command(sharpness)
app.command(curvature_map)
app.command(along_training)
app.command(topology)
app.command(trajectory)
app.command(compare)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    sys.exit(console.run(app, arguments))
