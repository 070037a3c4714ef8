"""`landscape surface` of one, two and three checkpoints, and `landscape connect`."""

import json

import h5py
import numpy as np
import pytest
import torch
from command_line import LINEAR, TASKS, dense_hessian

from landscape.store import load

OPTIONS = (*LINEAR[1:], "--quiet")


@pytest.fixture
def three(place):
    """Three weights files of the network of ``place``."""
    weights = torch.load("w.pt")
    for i, (w, b) in enumerate([([0.2, 0.4, 0.1], 1.0), ([-1.0, 0.3, 2.0], -0.5)], 2):
        torch.save(
            {"weight": torch.tensor([w]).to(weights["weight"]), "bias": torch.tensor([b])},
            f"w{i}.pt",
        )
    return place


def loss_of(path):
    state = torch.load(path)
    with np.load("d.npz") as arrays:
        x, y = torch.tensor(arrays["x"]), torch.tensor(arrays["y"])
    return float((x @ state["weight"].T.double() + state["bias"].double() - y).square().mean())


def test_an_eigen_plane(place, command):
    words = ("--plane", "eigen", "--points", 9, "--out", "e.nc", "--rise", 0.5, "--quadratic")
    status, out, err = command("surface", "w.pt", *OPTIONS, *words)
    assert (status, err) == (0, "")
    surface = load("e.nc")
    values = np.sort(np.linalg.eigvalsh(dense_hessian(place)))[::-1]
    said = json.loads(surface.attrs["plane"])
    np.testing.assert_allclose(said["eigenvalues"], values[:2], rtol=1e-6)
    np.testing.assert_allclose(json.loads(surface.attrs["quadratic"])["curvature"], 1.0, rtol=1e-6)
    assert out.count("by differences of the surface") == 2 and "disagree" not in out
    assert "e-sections.html: the loss along both axes" in out
    assert (place / "e-sections.html").stat().st_size > 1e5
    assert "1 = rise of 0.5" in (place / "e.html").read_text(encoding="utf-8")
    words = ("--plane", "eigen", "--axes", 1, "--points", 5, "--out", "l.nc", "--units", "norm")
    assert command("surface", "w.pt", *OPTIONS, *words)[0] == 0
    assert load("l.nc").attrs["direction_norms"] == pytest.approx([1.0])
    words = ("--plane", "eigen", "--which", "extremes", "--points", 3, "--out", "x.nc")
    assert command("surface", "w.pt", *OPTIONS, *words)[0] == 0
    found = json.loads(load("x.nc").attrs["plane"])["eigenvalues"]
    np.testing.assert_allclose(found, values[[0, -1]], rtol=1e-6)


def test_a_line_between_two_tells_its_barrier(three, command):
    words = ("--points", 9, "--out", "line.nc", "--slopes", "--quadratic", "--keep-terms")
    status, out, err = command("surface", "w.pt", "w2.pt", *OPTIONS, *words)
    assert (status, err) == (0, "")
    line = load("line.nc")
    assert line["loss"].dims == ("alpha",)
    assert line["loss"].sel(alpha=0.0).item() == pytest.approx(loss_of("w.pt"))
    assert line["loss"].sel(alpha=1.0).item() == pytest.approx(loss_of("w2.pt"))
    assert [m["label"] for m in json.loads(line.attrs["marks"])] == ["w.pt", "w2.pt"]
    assert line.attrs["axis_titles"] == ["α (0 at w.pt, 1 at w2.pt)"]
    told = json.loads(line.attrs["barriers"])
    assert [b["definition"] for b in told] == ["linear", "mean"]
    assert told[0]["height"] == 0.0  # a convex loss
    assert "loss barrier 0 above the straight line between the ends, at 0" in out
    assert "curvature" in out and "disagree" not in out
    before = (three / "line.nc").stat().st_mtime_ns
    again = command("surface", "w.pt", "w2.pt", *OPTIONS, *words)
    assert again == (0, out, "")
    assert (three / "line.nc").stat().st_mtime_ns == before


def test_a_plane_through_three(three, command):
    words = ("--points", 7, "--out", "three.nc")
    status, out, err = command("surface", "w.pt", "w2.pt", "w3.pt", *OPTIONS, *words)
    assert (status, err) == (0, "")
    surface = load("three.nc")
    assert surface["loss"].dims == ("beta", "alpha")
    assert surface["loss"].sel(alpha=0, beta=0).item() == pytest.approx(loss_of("w.pt"))
    labels = [m["label"] for m in json.loads(surface.attrs["marks"])]
    assert labels == ["w.pt", "w2.pt", "w3.pt"]
    assert surface.attrs["directions"] == "plane through w.pt, w2.pt and w3.pt"
    assert "barrier" not in out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("w.pt", "--plane", "pca"), "--plane is 'pca': expected one of random, eigen"),
        (("w.pt", "w2.pt", "--plane", "eigen"), "through one checkpoint"),
        (("w.pt", "w2.pt", "--axes", "2"), "--axes is 2: 2 checkpoints give 1"),
        (("w.pt", "w2.pt", "w3.pt", "w.pt"), "4 checkpoints given"),
        (("w.pt", "w.pt"), "equal"),
        (("w.pt", "w2.pt", "w2.pt"), "equal"),
        (("w.pt", "--plane", "eigen", "--axes", "3"), "--axes is 3"),
        (("w.pt", "--plane", "eigen", "--axes", "1", "--which", "extremes"), "two axes"),
    ],
)
def test_what_does_not_fit_together(three, command, words, match):
    status, out, err = command("surface", *words, *OPTIONS, "--points", 3)
    assert (status, out) == (1, "")
    assert match in err and err.count("\n") == 1


NORMED = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
"""


def test_stored_norm_statistics_cannot_be_vouched_for(place, command):
    (place / "normed.py").write_text(NORMED)
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = torch.nn.Sequential(
                torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
            )
        net[1].running_var.fill_(float(seed))
        net[1].running_mean.fill_(float(seed))
        torch.save(net.state_dict(), f"n{seed}.pt")
    words = ("surface", "n1.pt", "n2.pt", "--model", "normed.py:make", *LINEAR[3:], "--quiet",
             "--points", 5)  # fmt: skip
    status, out, err = command(*words, "--out", "eval.nc")
    assert status == 1 and "recalibrate" in err and "beware: the batch-norm" in out
    for norm in ("recalibrate", "interpolated"):
        status, out, err = command(*words, "--norm", norm, "--out", f"{norm}.nc")
        assert (status, err) == (0, "")
    moving = load("interpolated.nc")
    assert (moving["alpha"].values[[0, -1]] == [0, 1]).all()
    own = command("surface", "n2.pt", *words[3:], "--axes", 1, "--out", "own.nc")
    assert own[0] == 0
    assert moving["loss"].values[-1] == pytest.approx(load("own.nc").attrs["centre_loss"])


def test_another_network_is_refused(place, command):
    torch.save({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "two.pt")
    options = ("--data", "d.npz", "--loss", "mse_loss", "--device", "cpu", "--quiet")
    status, _, err = command("surface", "w.pt", "two.pt", "--model", "net.py:make", *options)
    assert status == 1 and err.count("\n") == 1 and "two.pt" in err


def test_runs_of_ours(runs, place, command):
    words = ("surface", runs / "maml", runs / "sharp-both", *TASKS, "--points", 5, "--quiet")
    status, out, err = command(*words, "--out", "line.nc")
    assert (status, err) == (0, "")
    assert load("line.nc")["loss"].sizes == {"alpha": 5}
    assert "loss barrier" in out
    words = (
        "connect",
        runs / "maml",
        runs / "sharp-both",
        *TASKS,
        "--iterations",
        3,
        "--points",
        3,
    )
    status, out, err = command(*words, "--plane-points", 3, "--quiet", "--out", "c.html")
    assert (status, err) == (0, "")
    assert out.startswith("c.html: mean loss ")


def test_connect(three, command):
    words = (
        "connect",
        "w.pt",
        "w2.pt",
        *OPTIONS,
        "--iterations",
        20,
        "--points",
        5,
        "--out",
        "c.html",
    )
    status, out, err = command(*words, "--plane-points", 3)
    assert (status, err) == (0, "")
    assert out.count("loss barrier") == 2
    assert {f.name for f in (three / "c").iterdir()} == {
        "training.nc", "curve.nc", "straight.nc", "plane.nc",
    }  # fmt: skip
    page = (three / "c.html").read_text(encoding="utf-8")
    assert "The curve in its plane" in page and "<script src" not in page
    status, out, err = command(*words, "--plane-points", 3, "--json")
    found = json.loads(out)
    assert found["barrier"]["height"] <= found["straight_barrier"]["height"] + 1e-9
    assert found["settings"]["iterations"] == 20
    status, _, err = command(*words, "--plane-points", 3, "--seed", 1)
    assert status == 1 and "seed is 0 there and 1 here" in err
    status, _, err = command(*words[:-1], "c.nc")
    assert status == 1 and ".html" in err
    status, _, err = command(*words, "--plane-points", 1)
    assert status == 1 and "--plane-points is 1" in err


def test_directions_of_the_reference(place, command):
    directions = {"x": [[1.0, -2.0, 0.5]], "y": [[0.25, 1.0, 4.0]]}
    with h5py.File("d.h5", "w") as file:  # as its net_plotter writes them: one entry a tensor
        for axis, weight in directions.items():
            group = file.create_group(f"{axis}direction")
            group["0"] = np.asarray(weight, np.float32)
            group["1"] = np.zeros(1, np.float32)
    words = ("--directions", "d.h5", "--points", 3, "--out", "s.nc", "--executor", "plain")
    status, _, err = command("surface", "w.pt", *OPTIONS, *words)
    assert (status, err) == (0, "")
    surface = load("s.nc")
    weights = torch.load("w.pt")
    x, y = (torch.tensor(directions[axis]).to(weights["weight"]) for axis in "xy")
    for (alpha, beta), there in (((1, -1), (0, 2)), ((0, 1), (2, 1)), ((-1, 0), (1, 0))):
        torch.save({**weights, "weight": weights["weight"] + alpha * x + beta * y}, "moved.pt")
        assert float(surface["loss"][there]) == pytest.approx(loss_of("moved.pt"), rel=1e-6)
    for more in (("--plane", "eigen"), ("w.pt",)):
        given = ("surface", "w.pt", *more) if more == ("w.pt",) else ("surface", "w.pt")
        flags = () if more == ("w.pt",) else more
        status, _, err = command(*given, *OPTIONS, *words, *flags)
        assert status == 1 and "--directions are those of one checkpoint" in err
