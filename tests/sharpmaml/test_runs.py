"""A run as an object, and the records that other tools listen to."""

import json
import sys
import types
from typing import ClassVar

import numpy as np
import pytest
import torch

import sharpmaml
from sharpmaml import cli
from sharpmaml.checkpoint import CheckpointError
from sharpmaml.config import TrainConfig
from sharpmaml.runs import Run, default_folder, load_run
from sharpmaml.trainer.board import TensorBoard

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=4, meta_batch=2, checkpoint_every=2, validate_every=2,
    validation_episodes=2, inner_rate=0.01, test_steps=1, channels=4, device="cpu",
)  # fmt: skip


def test_metrics_are_the_log_as_a_table(sine_run):
    run = load_run(sine_run)
    table, lines = run.metrics, (sine_run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert table["iteration"].values.tolist() == [1, 2, 3, 4]
    assert table["loss"].values.tolist() == [r["loss"] for r in records]
    assert np.isnan(table["validation_mean"].values[[0, 2]]).all()
    assert table["validation_mean"].values[3] == records[3]["validation"]["mean"]
    assert "iteration" in table._repr_html_()


def test_checkpoints_objectives_and_scores(sine_run):
    run = load_run(sine_run)
    assert (run.step, list(run.checkpoints)) == (4, [2, 4])
    assert run.locate("last") == run.locate(4) == run.checkpoints[4]
    assert run.locate() == run.checkpoint and run.read(2).step == 2
    assert run.config == run.read().config
    objective = run.objective("last", episodes=3, split="val")
    assert torch.equal(objective.theta, run.read(4).theta)
    score = run.evaluate(2, episodes=4, split="val")
    assert score.settings["step"] == 2 and len(score.scores) == 4
    with pytest.raises(ValueError, match="no checkpoint 3: expected 'best', 'last' or one of 2, 4"):
        run.read(3)


def test_loading_what_is_no_run(tmp_path, sine_run):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_run(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is a checkpoint: give the folder of its run"):
        load_run(load_run(sine_run).checkpoint)
    assert sharpmaml.load_run is load_run


def test_a_run_without_a_folder_names_its_own_and_is_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = sharpmaml.train(SINE)
    assert isinstance(run, Run) and run.path == default_folder(SINE)
    assert run.path.name.startswith("maml-sinusoid-seed0-") and run.path.parent.name == "runs"
    with pytest.raises(ValueError, match="not empty"):
        sharpmaml.train(SINE)
    longer = TrainConfig(**{**SINE.to_dict(), "iterations": 6})
    assert sharpmaml.train(longer, resume=True).path == run.path  # the length is free
    other = TrainConfig(**{**SINE.to_dict(), "inner_rate": 0.02})
    assert default_folder(other) != run.path


def test_the_examples_of_the_page_for_trackers(tmp_path, monkeypatch):
    """docs/training.md shows these; here with modules that note what they are told."""
    told = []
    wandb = types.ModuleType("wandb")
    wandb.init = lambda **settings: told.append(settings)
    wandb.log = lambda values, step: told.append((step, values))
    mlflow = types.ModuleType("mlflow")
    mlflow.log_params = told.append
    mlflow.log_metrics = lambda values, step: told.append((step, values))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    page = (cli_root() / "docs/training.md").read_text()
    blocks = [b.split("```")[0] for b in page.split("```python\n")[1:]]
    examples = [b for b in blocks if "import wandb" in b or "import mlflow" in b]
    assert len(examples) == 2
    for number, example in enumerate(examples):
        told.clear()
        assert len([line for line in example.splitlines() if line.strip()]) <= 5
        out = str(tmp_path / str(number))
        exec(example, {"config": SINE, "out": out, "sharpmaml": sharpmaml})
        steps = [entry[0] for entry in told[1:]]
        assert steps == [1, 2, 3, 4] and told[0].get("config", told[0])["data"] == "sinusoid"
        assert all(isinstance(v, float | int) for v in told[-1][1].values())
        assert "validation_mean" in told[-1][1]


def cli_root():
    from pathlib import Path

    return Path(__file__).parents[2]


def run_cli(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


class Writer:
    """In place of TensorBoard's."""

    made: ClassVar[list] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Writer.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


TINY = ("--data", "sinusoid", "--iterations", 3, "--meta-batch", 1, "--channels", 4, "--device", "cpu",
        "--validation-episodes", 2)  # fmt: skip


def test_tensorboard_gets_every_number(capsys, tmp_path, monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    status, _, _ = run_cli(capsys, "train", *TINY, "--out", tmp_path / "run", "--tensorboard")
    (writer,) = Writer.made
    assert status == 0 and writer.closed and writer.purge_step == 1
    assert writer.folder == str(tmp_path / "run" / "tensorboard")
    names = {name for name, _, _ in writer.scalars}
    assert {"loss", "rise", "validation_mean"} <= names and "iteration" not in names
    assert [step for name, _, step in writer.scalars if name == "loss"] == [1, 2, 3]


def test_without_tensorboard_it_is_one_line_and_nothing_is_written(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    out = tmp_path / "run"
    status, _, err = run_cli(capsys, "train", *TINY, "--out", out, "--tensorboard")
    assert status == 1 and "sharp-landscape[tensorboard]" in err and not out.exists()
    with pytest.raises(ValueError, match="tensorboard"):
        TensorBoard(tmp_path / "board")


def test_presets_lie_below_files_and_files_below_flags(capsys, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("inner_rate = 0.02\nshots = 3\n")
    out = tmp_path / "run"
    status, _, err = run_cli(
        capsys, "train", "--preset", "finn-sinusoid", "--config", settings, *TINY, "--shots", 4, "--out", out
    )  # fmt: skip
    assert status == 0, err
    config = load_run(out).config
    # from the preset, the file, and the flags
    assert (config.queries, config.inner_rate, config.shots, config.iterations) == (10, 0.02, 4, 3)


def test_an_unknown_preset_is_one_line_with_the_names(capsys, tmp_path):
    status, _, err = run_cli(capsys, "train", "--preset=papper", "--out", tmp_path / "run")
    assert status == 1 and len(err.strip().splitlines()) == 1
    assert "papper" in err and "released-code" in err


def test_the_command_says_which_executor_and_how_much_memory(capsys, tmp_path):
    status, out, err = run_cli(capsys, "train", *TINY, "--out", tmp_path / "run")
    assert status == 0 and "executor " in err and "a pass" in err
    assert "last checkpoint: " in out and "best checkpoint" in out
