"""A run is a pure function of its settings: interrupted, resumed, repeated, it gives the same bits."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from interruption import Stop, stop_at

from sharpmaml import checkpoint as checkpoints
from sharpmaml import training
from sharpmaml.config import TrainConfig
from sharpmaml.data import make_source
from sharpmaml.evaluation import evaluate
from sharpmaml.meta import MetaGradient

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=12, meta_batch=2, checkpoint_every=4, validate_every=6,
    validation_episodes=4, inner_rate=0.01, test_steps=2, channels=8, dtype="float64", device="cpu",
)  # fmt: skip
IMAGES = TrainConfig(
    data="strokes", data_options={"alphabets": 4}, ways=3, queries=2, iterations=3, meta_batch=2,
    checkpoint_every=2, validate_every=3, validation_episodes=3, channels=4, downsample="stride", device="cpu",
)  # fmt: skip


def weights(run) -> torch.Tensor:
    return checkpoints.read(checkpoints.steps(run)[-1]).theta


def log(run) -> list[dict]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    return records


@pytest.mark.parametrize("config", [SINE, IMAGES], ids=["sinusoid", "strokes"])
@pytest.mark.parametrize("method", ["maml", "sharp-both"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, config, method):
    config = dataclasses.replace(config, method=method)
    training.train(config, tmp_path / "whole")
    with pytest.raises(Stop):
        training.train(config, tmp_path / "cut", progress=stop_at(config.iterations - 1))
    assert checkpoints.steps(tmp_path / "cut")
    training.train(config, tmp_path / "cut", resume=True)
    assert torch.equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert log(tmp_path / "cut") == log(tmp_path / "whole")
    assert (tmp_path / "cut/best.json").read_text() == (tmp_path / "whole/best.json").read_text()


def test_a_longer_run_continues_a_shorter_one(tmp_path):
    training.train(SINE, tmp_path / "a")
    longer = dataclasses.replace(SINE, iterations=20)
    training.train(longer, tmp_path / "b")
    training.train(longer, tmp_path / "a", resume=True)
    assert torch.equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_methods_share_initial_weights_and_episodes(tmp_path):
    first = {}
    for method in ("maml", "fomaml", "sharp-low", "sharp-up", "sharp-both"):
        config = dataclasses.replace(SINE, method=method, iterations=1, validate_every=1)
        training.train(config, tmp_path / method)
        first[method] = log(tmp_path / method)[0]
    # The loss at the first update is measured before anything has moved, and low only perturbs inside.
    assert first["maml"]["loss"] == first["fomaml"]["loss"] == first["sharp-up"]["loss"]
    assert first["sharp-low"]["loss"] == first["sharp-both"]["loss"] != first["maml"]["loss"]
    assert first["maml"]["rise"] == 0 != first["sharp-up"]["rise"]
    finals = [weights(tmp_path / method) for method in first]
    assert all(not torch.equal(a, b) for i, a in enumerate(finals) for b in finals[:i])


def test_zero_radii_train_as_maml_bit_for_bit(tmp_path):
    training.train(SINE, tmp_path / "maml")
    zero = dataclasses.replace(SINE, method="sharp-both", alpha_low=0.0, alpha_up=0.0)
    training.train(zero, tmp_path / "zero")
    assert torch.equal(weights(tmp_path / "maml"), weights(tmp_path / "zero"))


def test_training_learns_sinusoids(tmp_path):
    config = dataclasses.replace(
        SINE, iterations=300, meta_batch=4, shots=10, queries=10, channels=40, validate_every=300
    )
    run = training.train(config, tmp_path / "run")
    before, after = (evaluate(run.path, episodes=40, steps=steps) for steps in (0, 1))
    assert after.metric == "mse"
    assert after.difference(before)[0] < 0  # adaptation pays on the same tasks


def test_checkpoint_describes_itself(tmp_path):
    run = training.train(IMAGES, tmp_path / "run")
    found = checkpoints.read(run.path)
    assert found.step == 3 and found.config == IMAGES
    assert found.meta["model"] == {
        "factory": "conv4", "arguments": {"ways": 3, "channels": 4, "downsample": "stride"}
    }  # fmt: skip
    source = make_source(**found.meta["data"]["train"])
    assert torch.equal(source.episode(5).query_x, make_source(**source.recipe).episode(5).query_x)
    assert sorted(p.name for p in checkpoints.steps(run.path)[0].iterdir()) == [
        "meta.json", "model.safetensors", "trainer.pt"
    ]  # fmt: skip
    assert TrainConfig.from_toml(run.path / "config.toml") == IMAGES


def test_the_global_random_state_is_untouched(tmp_path):
    before = torch.get_rng_state()
    training.train(IMAGES, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_best_checkpoint_is_chosen_by_validation(tmp_path, monkeypatch):
    scripted = iter([0.9, 0.2, 0.5])
    monkeypatch.setattr(
        training,
        "_validate",
        lambda *_: {"metric": "accuracy", "mean": next(scripted), "episodes": 1},
    )
    config = dataclasses.replace(SINE, validate_every=4)
    run = training.train(config, tmp_path / "run")
    assert run.checkpoint.name == "step_000004"
    assert checkpoints.locate(run.path).name == "step_000004"


def test_a_loss_that_is_not_finite_stops_with_the_iteration_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    real, calls = training.meta_gradient, iter(range(1, 100))

    def broken(*args, **kwargs):
        result = real(*args, **kwargs)
        if next(calls) < 6:
            return result
        return MetaGradient(result.gradient, float("nan"), {}, result.norm)

    monkeypatch.setattr(training, "meta_gradient", broken)
    with pytest.raises(training.DivergedError, match=r"iteration 6 .*step_000004.*--inner-rate"):
        training.train(SINE, tmp_path / "run")
    assert [p.name for p in checkpoints.steps(tmp_path / "run")] == ["step_000004"]
    assert bool(torch.isfinite(weights(tmp_path / "run")).all())


def test_divergence_by_a_real_step_size(tmp_path):
    config = dataclasses.replace(SINE, inner_rate=1e200)
    with pytest.raises(training.DivergedError, match="not finite at iteration 1 .*no checkpoint"):
        training.train(config, tmp_path / "run")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_keeps_the_work(tmp_path, number, status):
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "sharpmaml", "train", "--data", "sinusoid", "--iterations", "100000",
        "--checkpoint-every", "100000", "--validate-every", "100000", "--out", str(out),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in stderr
    (kept,) = checkpoints.steps(out)
    assert checkpoints.read(kept).step == log(out)[-1]["iteration"] > 0


def test_a_run_is_never_overwritten_or_mixed(tmp_path):
    training.train(SINE, tmp_path / "run")
    with pytest.raises(ValueError, match="not empty.*--resume"):
        training.train(SINE, tmp_path / "run")
    with pytest.raises(ValueError, match="its inner_rate is 0.01, not 0.5"):
        training.train(dataclasses.replace(SINE, inner_rate=0.5), tmp_path / "run", resume=True)


def test_a_log_line_cut_short_is_repeated(tmp_path):
    training.train(SINE, tmp_path / "whole")
    training.train(dataclasses.replace(SINE, iterations=6), tmp_path / "cut")
    with (tmp_path / "cut/metrics.jsonl").open("a") as file:
        file.write('{"iteration": 7, "lo')
    training.train(SINE, tmp_path / "cut", resume=True)
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def test_images_need_a_network_for_images(tmp_path):
    with pytest.raises(ValueError, match="use mlp"):
        training.train(dataclasses.replace(SINE, model="conv4"), tmp_path / "run")
    training.train(dataclasses.replace(IMAGES, model="mlp", iterations=1), tmp_path / "mlp")
    assert checkpoints.read(tmp_path / "mlp").meta["model"]["factory"] == "mlp"


@pytest.mark.parametrize("name", ["inner_steps", "test_steps", "inner_rate", "patience"])
def test_amounts_cannot_be_negative(name):
    with pytest.raises(ValueError, match=f"^{name} is -1: expected at least 0$"):
        dataclasses.replace(SINE, **{name: -1})
