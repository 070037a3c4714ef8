import subprocess
import sys

import pytest

import landscape

PLOTS = ("surface3d", "contour", "line", "spectrum", "compare")
NAMES = (
    "DataObjective", "random_plane", "interpolation", "evaluate", "save", "load", "eigenpairs", "trace",
)  # fmt: skip


def loaded_after(code):
    """Which of the heavy packages a fresh interpreter has loaded after ``code``."""
    ask = "\nimport sys; print(*[m for m in ('torch', 'plotly', 'matplotlib') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + ask], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("name", NAMES)
def test_fixed_names_are_functions_or_classes_of_the_package(name):
    assert callable(getattr(landscape, name))
    assert getattr(landscape, name).__name__ == name
    assert name in landscape.__all__


@pytest.mark.parametrize("name", PLOTS)
def test_fixed_figures(name):
    assert callable(getattr(landscape.plot, name))


def test_every_public_name_resolves_and_others_do_not():
    for name in landscape.__all__:
        assert getattr(landscape, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        landscape.no_such_name  # noqa: B018


def test_sharpness_is_a_function_and_a_package():
    import torch

    bowl = landscape.FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]).double())
    report = landscape.sharpness(bowl, ["gradient_norm"])
    assert report["gradient_norm"].value == pytest.approx(10)
    assert "sam" in landscape.sharpness.MEASURES


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import landscape") == []


def test_figures_of_a_dataset_need_no_torch():
    code = """
import numpy as np, xarray as xr, landscape
grid = np.linspace(-1, 1, 3)
line = xr.Dataset({"loss": ("alpha", grid**2 + 1)}, {"alpha": grid}, {"label": "a"})
landscape.plot.line(line)
"""
    loaded = loaded_after(code)
    assert "plotly" in loaded
    assert "torch" not in loaded


def test_help_lists_the_commands_without_torch():
    code = """
from landscape.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
"""
    assert loaded_after(code) == []
    done = subprocess.run(
        [sys.executable, "-m", "landscape", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("inspect", "surface", "hessian", "sharpness", "compare"):
        assert f" {command} " in done.stdout


def test_a_saved_surface_is_read_and_drawn_without_torch(tmp_path):
    import torch

    bowl = landscape.FunctionObjective(lambda t: (t * t).sum(), torch.ones(3))
    plane = landscape.random_plane(bowl, axes=1)
    landscape.evaluate(bowl, plane, points=3, out=tmp_path / "line.nc")
    code = f"import landscape; landscape.plot.line(landscape.load({str(tmp_path / 'line.nc')!r}))"
    assert "torch" not in loaded_after(code)
