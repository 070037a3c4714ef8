"""Options of a training run: each does what it says, and survives an interruption bit for bit."""

import dataclasses
import json
import math

import pytest
import torch
from interruption import Stop, stop_at

from sharpmaml import checkpoint as checkpoints
from sharpmaml import training
from sharpmaml.config import TrainConfig
from sharpmaml.trainer import guard

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=8, meta_batch=2, checkpoint_every=3, validate_every=2,
    validation_episodes=3, inner_rate=0.01, inner_steps=2, test_steps=2, channels=6, dtype="float64", device="cpu",
)  # fmt: skip


def log(run) -> list[dict]:
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


STATEFUL = {
    "meta-sgd": {"method": "meta-sgd"},
    "maml++": {"method": "maml++", "multi_step": 6},
    "imaml": {"method": "imaml"},
    "momentum": {"method": "sharp-up", "ascent_gradient": "momentum"},
    "looksam": {"method": "sharp-both", "ascent_every": 3, "ascent_reuse": 0.5},
    "cosine": {"schedule": "cosine", "optimizer": "sgd"},
    "clipped": {"clip_norm": 0.5, "clip_value": 0.2, "reduction": "sum"},
    "patient": {"patience": 2, "meta_rate": 3.0},
}


@pytest.mark.parametrize("settings", STATEFUL.values(), ids=STATEFUL)
def test_every_state_is_resumed_bit_for_bit(tmp_path, settings):
    config = dataclasses.replace(SINE, **settings)
    whole = training.train(config, tmp_path / "whole")
    with pytest.raises(Stop):
        training.train(config, tmp_path / "cut", progress=stop_at(min(whole.step - 1, 7)))
    cut = training.train(config, tmp_path / "cut", resume=True)
    assert cut.step == whole.step and cut.checkpoints.keys() == whole.checkpoints.keys()
    a, b = whole.read("last"), cut.read("last")
    assert torch.equal(a.theta, b.theta)
    assert (a.rates is None) == (b.rates is None)
    if a.rates is not None and b.rates is not None:
        assert torch.equal(a.rates, b.rates)
        assert not torch.equal(a.rates, torch.full_like(a.rates, config.inner_rate))  # learned
    kept = [checkpoints.read_trainer(run.locate("last")) for run in (whole, cut)]
    assert str(kept[0]) == str(kept[1])
    for one, other in zip(log(whole.path), log(cut.path), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_learned_rates_move_with_the_same_optimizer_and_are_tested_with(tmp_path):
    config = dataclasses.replace(SINE, method="meta-sgd", iterations=1, validate_every=1)
    found = training.train(config, tmp_path / "run").read()
    assert found.rates is not None and found.rates.shape == found.theta.shape
    moved = (found.rates - config.inner_rate).abs()
    # The first step of Adam is the meta rate in each entry that has a gradient.
    assert float(moved.max()) == pytest.approx(config.meta_rate, rel=1e-4)
    assert torch.equal(found.inner().rate, found.rates)


def test_plain_descent_with_limits_is_arithmetic(tmp_path):
    base = dataclasses.replace(SINE, optimizer="sgd", iterations=1, meta_rate=0.1)
    start = training.train(dataclasses.replace(base, meta_rate=0.0), tmp_path / "start")
    theta = start.read().theta
    steps = {}
    for name, settings in {
        "plain": {}, "sum": {"reduction": "sum"}, "norm": {"clip_norm": 0.25}, "value": {"clip_value": 0.05},
    }.items():  # fmt: skip
        run = training.train(dataclasses.replace(base, **settings), tmp_path / name)
        steps[name] = (theta - run.read().theta) / 0.1
        norm = log(run.path)[0]["gradient_norm"]
        assert norm == pytest.approx(
            float(steps["plain"].norm()), rel=1e-12
        )  # as it was, unlimited
    assert torch.allclose(steps["sum"], 2 * steps["plain"], rtol=1e-9, atol=1e-14)
    assert float(steps["norm"].norm()) == pytest.approx(0.25, rel=1e-9)
    assert torch.allclose(steps["value"], steps["plain"].clamp(-0.05, 0.05), atol=1e-12)


def test_the_schedule_is_logged_and_ends_where_the_run_ends(tmp_path):
    config = dataclasses.replace(SINE, schedule="cosine", iterations=4)
    run = training.train(config, tmp_path / "run")
    expected = [1e-3 * math.cos(math.pi * i / 8) ** 2 for i in range(4)]
    assert [r["meta_rate"] for r in log(run.path)] == pytest.approx(expected, rel=1e-12)
    same = [
        training.train(
            dataclasses.replace(
                SINE, optimizer="sgd", iterations=2, checkpoint_every=1, **settings
            ),
            tmp_path / name,
        )
        for name, settings in (("constant", {}), ("cosine", {"schedule": "cosine"}))
    ]
    steps = [run.read(2).theta - run.read(1).theta for run in same]
    assert torch.equal(same[0].read(1).theta, same[1].read(1).theta)
    assert torch.allclose(
        steps[1], steps[0] / 2, rtol=1e-9, atol=1e-12
    )  # cos(π/2) = 0: half the rate
    with pytest.raises(ValueError, match="its iterations is 4, not 9"):
        training.train(dataclasses.replace(config, iterations=9), run.path, resume=True)


def test_patience_ends_a_run_says_so_and_a_longer_one_goes_on(tmp_path, monkeypatch):
    scripted = iter([0.5, 0.9, 0.3, 0.9, 0.2])
    monkeypatch.setattr(
        training,
        "_validate",
        lambda *_: {"metric": "accuracy", "mean": next(scripted), "episodes": 1},
    )
    config, said = dataclasses.replace(SINE, iterations=50, patience=2), []
    run = training.train(config, tmp_path / "run", tell=said.append)
    assert (run.step, run.checkpoint.name) == (8, "step_000004")
    assert list(run.checkpoints) == [2, 3, 4, 6, 8]
    assert "stopped at meta-update 8" in said[-1] and "since that of 4 (patience 2)" in said[-1]
    assert training.train(config, run.path, resume=True).step == 8  # it has stopped
    patient = dataclasses.replace(config, patience=3)
    assert training.train(patient, run.path, resume=True).step == 10


def test_a_validation_that_is_not_finite_is_left_out(tmp_path, monkeypatch):
    scripted = iter([math.nan, 2.0, math.inf, 1.0])
    monkeypatch.setattr(
        training, "_validate", lambda *_: {"metric": "mse", "mean": next(scripted), "episodes": 1}
    )
    run = training.train(SINE, tmp_path / "run")
    validations = [r["validation"] for r in log(run.path) if "validation" in r]
    assert [v.get("mean") for v in validations] == [None, 2.0, None, 1.0]
    assert run.checkpoint.name == "step_000008"


IMAGES = TrainConfig(
    data="strokes", data_options={"alphabets": 4}, ways=3, queries=3, iterations=60, meta_batch=2,
    checkpoint_every=20, validate_every=60, validation_episodes=2, model="mlp", channels=8, device="cpu",
    inner_rate=0.1,
)  # fmt: skip


def test_training_that_is_stuck_at_chance_stops_and_names_the_radius(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.Guard.__init__, "__defaults__", (20, 10))
    stuck = dataclasses.replace(IMAGES, method="sharp-both", alpha_up=1e4, alpha_low=1e3)
    with pytest.raises(training.DivergedError) as raised:
        training.train(stuck, tmp_path / "stuck")
    text = str(raised.value)
    assert "stuck at chance" in text and "ln 3 = 1.099" in text and "--no-guard" in text
    assert "--alpha-low (1000.0), --alpha-up (10000.0), --inner-rate (0.1)" in text
    assert "step_0000" in text and checkpoints.steps(tmp_path / "stuck")
    off = dataclasses.replace(stuck, guard=False)
    assert training.train(off, tmp_path / "off").step == 60


def test_a_resumed_run_is_stopped_where_an_uninterrupted_one_is(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.Guard.__init__, "__defaults__", (40, 10))
    stuck = dataclasses.replace(IMAGES, method="sharp-both", alpha_up=1e4, alpha_low=1e3)
    said = []
    for name in ("whole", "cut"):
        if name == "cut":
            with pytest.raises(Stop):
                training.train(stuck, tmp_path / name, progress=stop_at(35))
        with pytest.raises(training.DivergedError) as raised:
            training.train(stuck, tmp_path / name, resume=True)
        said.append(str(raised.value).replace(name, ""))
    assert said[0] == said[1] and "to 40" in said[0]


def test_bfloat16_tells_its_error_and_trains_in_float32(tmp_path):
    said = []
    config = dataclasses.replace(IMAGES, iterations=2, precision="bfloat16", method="sharp-both")
    run = training.train(config, tmp_path / "run", tell=said.append)
    found = run.read()
    assert found.theta.dtype == torch.float32
    recorded = found.meta["executor"]
    assert recorded["name"] == "loop" and 1e-4 < recorded["precision"]["error"] < 0.5
    assert recorded["precision"]["cosine"] > 0.9
    assert f"{recorded['precision']['error']:.2g}" in said[1]
    full = training.train(dataclasses.replace(config, precision="same"), tmp_path / "full")
    assert 0 < float((full.read().theta - found.theta).abs().max()) < 0.01
    with pytest.raises(ValueError, match="bfloat16 does not go with dtype float64"):
        training.train(dataclasses.replace(config, dtype="float64"), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_the_executor_is_told_recorded_and_kept(tmp_path, monkeypatch):
    said = []
    training.train(dataclasses.replace(SINE, executor="loop"), tmp_path / "run", tell=said.append)
    assert said[0].startswith("executor loop") and "a pass" in said[0]
    recorded = checkpoints.read(tmp_path / "run").meta["executor"]
    assert recorded["name"] == "loop" and recorded["device"] == "cpu" and recorded["memory"] > 0
    # A run that is left to choose goes on with what it had, whatever would be chosen now.
    run = training.train(dataclasses.replace(SINE, iterations=4), tmp_path / "auto")
    file = run.locate("last") / "meta.json"
    meta = json.loads(file.read_text())
    meta["executor"]["name"] = "adjoint"
    file.write_text(json.dumps(meta))
    said.clear()
    training.train(SINE, run.path, resume=True, tell=said.append)
    assert said[0].startswith("executor adjoint")


def test_label_noise_is_in_training_alone(tmp_path):
    config = dataclasses.replace(IMAGES, iterations=1, label_noise=0.4, shots=5)
    data = training.train(config, tmp_path / "run").read().meta["data"]
    assert data["train"]["label_noise"] == 0.4 and "label_noise" not in data["val"]


def test_the_record_has_the_by_products_of_the_passes(tmp_path):
    config = dataclasses.replace(SINE, method="sharp-up", alpha_up=1e-3, iterations=2)
    for record in log(training.train(config, tmp_path / "run").path):
        assert record["predicted_rise"] == pytest.approx(1e-3 * record["gradient_norm"], rel=1e-9)
        assert record["rise"] == pytest.approx(record["predicted_rise"], rel=0.05)
        assert record["passes"] == 2 and record["seconds"] > 0
