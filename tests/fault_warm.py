"""Imported by a `fault_tools.Server` before it forks: everything slow that needs no automatic differentiation.

torch refuses to differentiate in a process whose parent has done it already.
"""

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch

import landscape.curvature_page
import landscape.curvature_report
import landscape.sharpness_page
import landscape.surface_page
from landscape import FunctionObjective, cli, console, evaluate, load, random_plane

with tempfile.TemporaryDirectory() as _folder, torch.no_grad(), redirect_stdout(io.StringIO()):
    _place = Path(_folder) / "s.nc"
    _bowl = FunctionObjective(lambda t: (t * t).sum(), torch.ones(3))
    evaluate(_bowl, random_plane(_bowl), points=3, out=_place)
    console.run(cli.app, ["topology", str(_place), "--json"])
    landscape.surface_page.write(Path(_folder) / "page.html", [load(_place)])
