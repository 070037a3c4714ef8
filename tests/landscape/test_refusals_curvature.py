"""The marks of curvature, sharpness, paths and curves that fail a check of their own; see test_refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from command_line import LINEAR, TASKS
from marks import MARK, distrusted

import landscape.spectra.along_training as along
from landscape import plot, trajectory_page
from landscape.cli_connect import not_better
from landscape.connectivity import connect
from landscape.krylov.extremes import extremes
from landscape.objective import FunctionObjective
from landscape.operators.hessian import HessianOperator
from landscape.operators.summed import PartsOperator
from landscape.spectra import plane_map
from landscape.store import ALONG_TRAINING, CURVATURE_MAP, TRAJECTORY, load

OPTIONS = (*LINEAR, "--quiet")


def asymmetric(images, vectors):
    return images + 0.1 * torch.roll(vectors, 1, dims=-1)


def nonlinear(images, vectors):
    return images * (1 + vectors.norm(dim=-1, keepdim=True) * vectors.abs().amax())


def random(images, vectors):
    return images + 0.1 * torch.randn_like(images)


def wrong(images, vectors):
    return 1.1 * images  # symmetric, linear and repeatable; only the gradient knows


@pytest.fixture
def broken(request, monkeypatch):
    """Products with the Hessian that are not what they should be, and what the test of them says."""
    spoil, words = request.param
    real = PartsOperator._products
    monkeypatch.setattr(
        HessianOperator, "_products", lambda self, vectors: spoil(real(self, vectors), vectors)
    )
    return words


FAULTS = pytest.mark.parametrize(
    "broken",
    [
        (asymmetric, "products are not symmetric"),
        (nonlinear, "products are not linear"),
        (random, "the same product comes out different"),
        (wrong, "products disagree with differences of the gradient"),
    ],
    indirect=True,
)


@FAULTS
def test_an_operator_that_fails_its_test_gives_no_number(place, command, broken):
    for words in (
        ("hessian", *OPTIONS, "-k", 2, "--out", "h.html"),
        ("hessian", *OPTIONS, "-k", 2, "--json"),
        ("surface", *OPTIONS, "--plane", "eigen", "--points", 3, "--out", "e.nc"),
        ("curvature-map", *OPTIONS, "--points", 3, "--out", "m.nc"),
        ("sharpness", *OPTIONS, "--measures", "lambda_max", "--out", "r.json", "--page", "r.html"),
    ):
        status, out, err = command(*words)
        assert (status, out) == (1, "") and broken in err and len(err.splitlines()) == 1, words
    written = {"h.html", "e.nc", "e.html", "m.nc", "m.html", "r.json", "r.html"}
    assert not written & {path.name for path in place.iterdir()}


@FAULTS
def test_among_all_measures_it_is_skipped_and_told(place, command, broken):
    words = ("--out", "r.json", "--page", "r.html", "--no-invariance")
    status, _, err = command("sharpness", *OPTIONS, *words)
    assert status == 1 and broken in err
    told = json.loads((place / "r.json").read_text())["skipped"]
    assert broken in told["lambda_max"]
    distrusted(place / "r.html", broken, figure=False)
    # Read back, it is no better.
    status, _, err = command("sharpness", "r.json")
    assert status == 1 and broken in err


def test_eigenvalues_that_have_not_converged(place, command, unconverged):
    status, out, err = command("hessian", *OPTIONS, "-k", 2, "--json", "--out", "h.html")
    assert status == 1 and "not converged" in err
    assert json.loads(out)["converged"] is False
    distrusted(place / "h.html", json.loads(out)["outcome"])
    figure = plot.spectrum({"a": ([1.0], [0.1])}, refused=["stopped early"])
    assert figure.layout.title.subtitle.text.startswith(f"{MARK} stopped early")
    paper = plot.spectrum({"a": ([1.0], [0.1])}, "matplotlib", refused=["stopped early"])
    assert any(MARK in text.get_text() for text in paper.texts)


def never(*words, **options):
    found = extremes(*words, **options)
    return found.__class__(**{**vars(found), "converged": False})


def test_a_curvature_map_that_has_not_converged(place, command, monkeypatch):
    monkeypatch.setattr(plane_map, "extremes", never)
    status, _, err = command("curvature-map", *OPTIONS, "--points", 3, "--out", "m.nc")
    assert status == 1 and "9 of 9 points are not converged" in err
    assert not load("m.nc", CURVATURE_MAP)["converged"].values.any()
    distrusted(place / "m.html", "9 of 9 points are not converged")


def test_eigenvalues_along_training_that_have_not_converged(runs, place, command, monkeypatch):
    monkeypatch.setattr(along, "extremes", never)
    status, _, err = command(
        "along-training", runs / "maml", *TASKS, "-k", 1, "--out", "a.nc", "--quiet"
    )
    assert status == 1 and "points are not converged" in err
    assert not load("a.nc", ALONG_TRAINING)["converged"].values.any()
    distrusted(place / "a.html", "points are not converged")
    paper = plot.along_training(load("a.nc", ALONG_TRAINING), "matplotlib")
    assert any(MARK in text.get_text() for text in paper.texts)


def test_measures_that_are_not_finite_or_not_converged(place, command, unconverged):
    huge = torch.load("w.pt", weights_only=True)
    torch.save({n: torch.full_like(t.double(), 1e200) for n, t in huge.items()}, place / "big.pt")
    options = (*OPTIONS[1:], "--no-invariance")
    words = ("--measures", "gradient_norm", "--out", "r.json", "--page", "r.html")
    status, _, err = command("sharpness", "big.pt", *options, *words)
    assert status == 1 and "gradient_norm is nan" in err
    (row,) = json.loads((place / "r.json").read_text())["measures"]
    assert not math.isfinite(float(row["value"]))
    distrusted(place / "r.html", "the value is not a number to compare with", figure=False)
    words = ("--measures", "lambda_max", "--out", "u.json", "--page", "u.html")
    status, _, err = command("sharpness", "w.pt", *options, *words)
    assert status == 1 and err
    (row,) = json.loads((place / "u.json").read_text())["measures"]
    assert row["converged"] is False
    distrusted(place / "u.html", "the search ended before its tolerance was met", figure=False)


def checkpoints(last: float = 1.0) -> list[str]:
    """Four weights files of a path, the first two of them scaled."""
    weights = torch.load("w.pt", weights_only=True)
    rng = np.random.default_rng(1)
    names = []
    for k in range(4):
        scale = last if k < 2 else 1.0
        moved = {
            n: scale * (t.double() + 0.2 * (3 - k) * torch.from_numpy(rng.random(t.shape)))
            for n, t in weights.items()
        }
        names.append(f"epoch{k}.pt")
        torch.save(moved, names[-1])
    return names


def test_a_path_with_a_loss_that_is_not_finite(place, command):
    single = [word if word != "float64" else "float32" for word in OPTIONS[1:]]
    words = ("--points", 5, "--out", "t.html")
    status, _, err = command("trajectory", *checkpoints(1e25), *single, *words)
    assert status == 1 and "the loss is NaN or infinite at 2 of 4 checkpoints" in err
    assert np.isinf(load("t-path.nc", TRAJECTORY)["loss"].values[0])
    distrusted(place / "t.html", "the loss is NaN or infinite at 2 of 4 checkpoints", figure=False)
    status, _, err = command("trajectory", *checkpoints(1e160), *OPTIONS[1:], "--out", "far.html")
    assert status == 1 and "a checkpoint has diverged" in err
    assert not (place / "far.html").exists()


def test_a_path_whose_measures_cannot_be_trusted(place, command, unconverged):
    words = ("--points", 5, "--measures", "lambda_max", "--out", "t.html")
    status, _, err = command("trajectory", *checkpoints(), *OPTIONS[1:], *words)
    assert status == 1 and "lambda_max is not converged at 4 of 4 checkpoints" in err
    path = load("t-path.nc", TRAJECTORY)
    assert not path["lambda_max_converged"].values.any()
    distrusted(place / "t.html", "lambda_max is not converged", figure=False)
    assert "×: not converged" in plot.along_path(path).layout.title.subtitle.text
    path["lambda_max"].values[1] = np.nan
    told = trajectory_page.unconverged(path)
    assert "lambda_max is NaN or infinite at 1 of 4 checkpoints" in told
    path["lambda_max_converged"].values[:] = -1  # still to come
    assert trajectory_page.unconverged(path) == []


def test_a_curve_that_is_worse_than_the_straight_line(place, command):
    with np.load("d.npz") as arrays:
        x, y = np.hstack([arrays["x"], np.ones((20, 1))]), arrays["y"][:, 0]
    best = torch.from_numpy(
        np.linalg.lstsq(x, y, rcond=None)[0]
    )  # nowhere is better than between them
    for name, off in (("a.pt", -0.1), ("b.pt", 0.1)):
        torch.save({"weight": best[None, :3] + off, "bias": best[3:]}, name)
    words = (
        "--iterations",
        2,
        "--rate",
        50.0,
        "--points",
        7,
        "--plane-points",
        5,
        "--out",
        "c.html",
    )
    status, out, err = command("connect", "a.pt", "b.pt", *OPTIONS[1:], *words, "--json")
    told = "the training of the curve has not converged"
    assert status == 1 and told in err
    assert any(told in caution for caution in json.loads(out)["cautions"])
    assert told in json.loads(load("c/curve.nc").attrs["refusals"])[0]
    distrusted(place / "c.html", told)
    # The same command finds it again.
    assert command("connect", "a.pt", "b.pt", *OPTIONS[1:], *words)[0] == 1


def test_a_curve_that_is_better_is_not_refused():
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    ring = FunctionObjective(lambda t: ((t * t).sum() - 1) ** 2, start)
    assert not_better(connect(ring, start, -start, points=11)) == []
    bowl = FunctionObjective(lambda t: (t * t).sum(), start)
    end = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert not_better(connect(bowl, start, end, points=11)) == []


NETS = """
import torch

def normed():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
"""


def test_a_barrier_under_stored_statistics(place, command):
    (place / "bn.py").write_text(NETS)
    for i in range(2):
        torch.manual_seed(i)
        net = torch.nn.Sequential(
            torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)
        )
        torch.save(net.state_dict(), f"n{i}.pt")
    options = (
        "--model", "bn.py:normed", "--data", "d.npz", "--loss", "mse_loss", "--device", "cpu", "--quiet",
        "--norm", "eval",
    )  # fmt: skip
    words = "statistics"
    status, _, err = command("surface", "n0.pt", "n1.pt", *options, "--points", 5, "--out", "b.nc")
    assert status == 1 and words in err
    assert words in json.loads(load("b.nc").attrs["health"])["refusals"][0]
    distrusted(place / "b.html", words)
    status, _, err = command(
        "connect", "n0.pt", "n1.pt", *options, "--iterations", 3, "--points", 5, "--plane-points", 3,
        "--out", "c.html",
    )  # fmt: skip
    assert status == 1 and words in err
    distrusted(place / "c.html", words)
