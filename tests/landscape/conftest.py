"""What tests of the command line run on."""

import sys

import numpy as np
import pytest
import torch
from command_line import NET

import sharpmaml
from landscape.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs of ours."""
    folder = tmp_path_factory.mktemp("cli")
    for method in ("maml", "sharp-both"):
        config = sharpmaml.TrainConfig(
            method=method, data="sinusoid", iterations=2, channels=3, meta_batch=1, shots=3,
            queries=3, test_steps=1, inner_rate=0.01, meta_rate=0.1, validation_episodes=2,
            validate_every=1, device="cpu",
        )  # fmt: skip
        sharpmaml.train(config, folder / method)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a linear regression: ``w.pt``, ``net.py:make`` and ``d.npz``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    torch.save(
        {"weight": torch.tensor([[1.0, -2.0, 0.5]]), "bias": torch.tensor([0.3])}, tmp_path / "w.pt"
    )
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((20, 3)), y=rng.standard_normal((20, 1)))
    return tmp_path


@pytest.fixture
def command(capsys):
    """Runs a command line: status, standard output, standard error."""

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stop.value.code, out, err

    return run


@pytest.fixture
def unconverged(monkeypatch):
    """No residual is good enough."""
    monkeypatch.setattr(
        "landscape.krylov.wanted.accepted", lambda values, *_: np.full_like(values, -1)
    )
