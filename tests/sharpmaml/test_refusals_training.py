"""Training and scores that fail a check of their own say so: in the folder, in the output, by the exit status."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from sharpmaml import cli, training
from sharpmaml.config import TrainConfig
from sharpmaml.data import make_source
from sharpmaml.evaluating.scorer import accuracies
from sharpmaml.trainer import guard
from sharpmaml.trainer.divergence import FAILED, failure_of
from sharpmaml.training import train

SINE = TrainConfig(
    data="sinusoid", shots=3, queries=3, iterations=6, meta_batch=1, checkpoint_every=2, validate_every=6,
    validation_episodes=2, channels=4, inner_rate=0.01, test_steps=1, device="cpu",
)  # fmt: skip
IMAGES = TrainConfig(
    data="strokes", data_options={"alphabets": 4}, ways=3, queries=3, iterations=40, meta_batch=2,
    checkpoint_every=20, validate_every=40, validation_episodes=2, model="mlp", channels=8, device="cpu",
    inner_rate=0.1, method="sharp-both", alpha_up=1e4, alpha_low=1e3,
)  # fmt: skip


@pytest.fixture
def command(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stop.value.code, out, err

    return run


def test_training_that_diverges_is_marked_until_it_goes_on(tmp_path, command, monkeypatch):
    run = tmp_path / "run"
    words = [f"--{k.replace('_', '-')}={v}" for k, v in {
        "data": "sinusoid", "shots": 3, "queries": 3, "iterations": 6, "meta_batch": 1, "checkpoint_every": 2,
        "validate_every": 6, "validation_episodes": 2, "channels": 4, "inner_rate": 0.01, "test_steps": 1,
        "device": "cpu", "out": run,
    }.items()]  # fmt: skip
    real = training.meta_gradient

    def broken(*given):
        found = real(*given)
        return dataclasses.replace(found, loss=float("nan")) if given[-1] == 3 else found

    monkeypatch.setattr(training, "meta_gradient", broken)
    status, out, err = command("train", *words, "--quiet")
    assert status == 1 and "the loss is not finite at iteration 4" in err
    marked = json.loads((run / FAILED).read_text())
    assert marked["iteration"] == 3 and "not finite at iteration 4" in marked["reason"]
    assert failure_of(run) == marked["reason"]
    # The last good checkpoint can be scored, and it is said what became of the run.
    status, out, err = command("evaluate", run, "--episodes", 2, "--device", "cpu")
    assert status == 0 and "mse" in out
    assert "warning: the training of" in err and "not finite at iteration 4" in err
    monkeypatch.setattr(training, "meta_gradient", real)
    assert command("train", *words, "--quiet", "--resume")[0] == 0
    assert failure_of(run) is None and not (run / FAILED).exists()


def test_training_that_is_stuck_is_marked(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.Guard.__init__, "__defaults__", (20, 10))
    with pytest.raises(training.DivergedError) as raised:
        train(IMAGES, tmp_path / "run")
    assert failure_of(tmp_path / "run") == str(raised.value)
    assert "stuck at chance" in str(raised.value)


def test_what_another_error_leaves_is_no_mark(tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("something else")

    monkeypatch.setattr(training, "meta_gradient", refuse)
    with pytest.raises(ValueError, match="something else"):
        train(SINE, tmp_path / "run")
    assert failure_of(tmp_path / "run") is None
    (tmp_path / "run" / FAILED).write_text("[]")
    assert failure_of(tmp_path / "run") is None


def test_an_answer_that_is_nan_is_no_guess():
    outputs = torch.zeros(1, 3, 4, 5)
    outputs[..., 2] = 1.0
    y = torch.full((3, 4), 2)
    y[1, 0] = 0
    outputs[0, 2, 1, 4] = torch.nan  # a class that nobody asked for
    found = accuracies(outputs, y)
    assert found.shape == (1, 3)
    assert found[0, :2].tolist() == [1.0, 0.75] and bool(found[0, 2].isnan())


def test_scores_of_an_adaptation_that_diverges(tmp_path, command):
    config = dataclasses.replace(
        IMAGES,
        method="maml",
        iterations=1,
        inner_rate=1e30,
        test_steps=2,
        guard=False,
        validate_every=2,
    )
    make_source(config.data, options=dict(config.data_options))
    calm = dataclasses.replace(config, inner_rate=0.1)
    run = train(calm, tmp_path / "run")
    for meta in run.path.glob("checkpoints/*/meta.json"):
        said = json.loads(meta.read_text())
        said["config"]["inner_rate"] = 1e30
        meta.write_text(json.dumps(said))
    (tmp_path / "run" / "config.toml").write_text(config.to_toml())
    status, out, err = command(
        "evaluate", run.path, "--episodes", 3, "--device", "cpu", "--json", "--steps", 4
    )
    assert status == 1 and "3 of 3 scores are not finite; its adaptation diverged there" in err
    assert json.loads(out)["mean"] is None
    both = ("--episodes", "3", "--device", "cpu", "--steps", "4")
    other = train(calm, tmp_path / "other")
    status, out, err = command("evaluate", other.path, run.path, *both)
    assert status == 1 and str(run.path) in err and f"{other.path}:" not in err
    assert np.isfinite(run.evaluate(episodes=2, steps=1, device="cpu").scores).shape == (2,)


def test_a_resumed_run_of_other_settings_is_refused_and_left(tmp_path):
    run = train(SINE, tmp_path / "run")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    other = dataclasses.replace(SINE, seed=1, iterations=8)
    with pytest.raises(ValueError, match=r"cannot resume .* its seed is 0, not 1"):
        train(other, tmp_path / "run", resume=True)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
