"""`landscape trajectory`: runs of ours, files in order, continued, refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from command_line import TASKS

import sharpmaml
from landscape.store import TRAJECTORY, load

NETS = """
import torch

def normed():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

def wide():
    return torch.nn.Linear(3, 200)
"""
FILES = ("--model", "net.py:make", "--data", "d.npz", "--loss", "mse_loss", "--dtype", "float64",
         "--device", "cpu", "--points", "5", "--quiet")  # fmt: skip


@pytest.fixture
def files(place):
    """Five checkpoints on the way to the weights of ``w.pt``, named by their epochs."""
    last = torch.load("w.pt", weights_only=True)
    rng = np.random.default_rng(1)
    names = []
    for k in (5, 4, 3, 2, 1, 0):
        name = f"epoch{10 * (5 - k)}_lr0.pt"
        torch.save(
            {
                n: t + 0.2 * k * torch.from_numpy(rng.random(t.shape)).float()
                for n, t in last.items()
            },
            name,
        )
        names.append(name)
    return names


def test_weights_files_in_order(files, place, command):
    shell = sorted(files, reverse=True)
    status, out, err = command("trajectory", *shell, *FILES, "--measures", "sam", "--out", "t.html")
    assert (status, err) == (0, "")
    assert "6 checkpoints from step 0 to 50" in out and "% of the variance" in out
    path, surface = load("t-path.nc", TRAJECTORY), load("t-surface.nc")
    assert path["step"].values.tolist() == [0, 10, 20, 30, 40, 50]
    with np.load("d.npz") as arrays:
        for step, name in zip(path["step"].values, files, strict=True):
            w = torch.load(name, weights_only=True)
            fit = arrays["x"] @ w["weight"][0].double().numpy() + w["bias"].double().numpy()
            loss = np.mean((fit - arrays["y"][:, 0]) ** 2)
            assert float(path["loss"].sel(step=step)) == pytest.approx(loss, rel=1e-6)
    for name in ("alpha", "beta"):  # the path lies inside the surface, with its end on the grid
        assert float(surface["alpha"].min()) < float(path[name].min())
        assert float(surface["alpha"].max()) > float(path[name].max())
    assert 0 in surface["alpha"].values
    assert path["sam_converged"].values.tolist() == [1] * 6
    page = (place / "t.html").read_text(encoding="utf-8")
    assert "<script src" not in page and "What a plane cannot show" in page


def test_every_so_many_th_and_continued(files, place, command, monkeypatch):
    words = ("trajectory", *files, *FILES, "--every", "2", "--out", "t.html")
    assert command(*words)[0] == 0
    first = load("t-path.nc", TRAJECTORY)
    assert first["step"].values.tolist() == [10, 30, 50]  # the last one always

    def fail(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr("landscape.trajectory._losses", fail)
    status, out, _ = command(*words)
    assert status == 0 and "3 checkpoints" in out
    again = load("t-path.nc", TRAJECTORY)
    np.testing.assert_array_equal(first["loss"], again["loss"])


def test_a_random_plane_says_that_it_holds_nothing(place, command):
    rng = np.random.default_rng(2)
    (place / "normed.py").write_text(NETS)
    np.savez("wide.npz", x=rng.standard_normal((9, 3)), y=rng.standard_normal((9, 200)))
    names = []
    for k in range(4):
        names.append(f"w{k}.pt")
        torch.save(
            {"weight": torch.from_numpy(rng.standard_normal((200, 3))).float(),
             "bias": torch.zeros(200)},
            names[-1],
        )  # fmt: skip
    status, out, _ = command(
        "trajectory", *names, "--model", "normed.py:wide", "--data", "wide.npz", "--loss", "mse_loss",
        "--device", "cpu", "--points", 5, "--plane", "random", "--seed", 3, "--quiet", "--out", "r.html",
    )  # fmt: skip
    assert status == 0
    assert "3 of 4 checkpoints (from step 0 to 2) lie off the plane" in out
    surface = load("r-surface.nc")
    assert (surface.attrs["normalize"], surface.attrs["seed"]) == ("filter", 3)


def test_checkpoints_keep_their_own_norm_statistics(place, command):
    (place / "normed.py").write_text(NETS)
    names = []
    for k in range(4):
        torch.manual_seed(k)
        net = torch.nn.Sequential(
            torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)
        )
        net[1].running_var.fill_(1.0 + k)
        names.append(f"n{k}.pt")
        torch.save(net.state_dict(), names[-1])
    status, out, _ = command(
        "trajectory", *names, *FILES[2:], "--model", "normed.py:normed", "--out", "n.html"
    )
    assert status == 0
    assert "beware: norm layers" in out
    path = load("n-path.nc", TRAJECTORY)
    with np.load("d.npz") as arrays:
        x, y = (torch.from_numpy(arrays[name]) for name in ("x", "y"))
    net = net.double().eval()
    for k, name in enumerate(names):
        net.load_state_dict(torch.load(name, weights_only=True))
        loss = float((net(x) - y).square().mean().detach())
        assert float(path["loss"][k]) == pytest.approx(loss, rel=1e-9)


def test_a_run_of_ours(tmp_path_factory, place, command):
    run = tmp_path_factory.mktemp("run") / "maml"
    config = sharpmaml.TrainConfig(
        method="maml", data="sinusoid", iterations=5, channels=3, meta_batch=1, shots=3, queries=3,
        test_steps=1, inner_rate=0.01, meta_rate=0.1, validation_episodes=2, validate_every=1,
        checkpoint_every=1, device="cpu",
    )  # fmt: skip
    sharpmaml.train(config, run)
    steps = [int(folder.name[5:]) for folder in sorted((run / "checkpoints").iterdir())]
    assert len(steps) >= 3
    status, out, err = command(
        "trajectory", run, *TASKS, "--points", 3, "--quiet", "--out", "run.html"
    )
    assert status == 0, err
    assert f"{len(steps)} checkpoints" in out
    found = load("run-path.nc", TRAJECTORY)
    assert found["step"].values.tolist() == steps
    assert "test episodes" in (place / "run.html").read_text(encoding="utf-8")


def test_measures_that_do_not_converge_are_not_vouched_for(files, place, command, unconverged):
    status, _, err = command(
        "trajectory", *files, *FILES, "--measures", "lambda_max", "--out", "t.html"
    )
    assert status == 1
    assert "lambda_max is not converged at 6 of 6 checkpoints" in err
    assert (place / "t.html").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("w.pt",), "1 checkpoints given: expected a run folder"),
        (("w.pt", "w.pt"), "at least three"),
        (("w.pt", "w.pt", "w.pt"), "all checkpoints are equal"),
        (("w.pt", "--every", 0), "--every is 0"),
        (("w.pt", "--plane", "eigen"), "expected pca or random"),
        (("w.pt", "--out", "t.nc"), "ending in .html"),
    ],
)
def test_bad_requests_are_one_line(place, command, words, text):
    status, out, err = command("trajectory", *words, *FILES)
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and text in err
