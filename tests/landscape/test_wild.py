"""Models in the wild: a checkpoint file, two flags and the right loss."""

import json
import math
import sys

import pytest
import torch
from wild import WILD

from landscape.cli import main
from landscape.source import data_objective


@pytest.fixture(params=WILD)
def wild(request, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return WILD[request.param](tmp_path)


def objective(wild, **options):
    return data_objective(
        wild.checkpoint, wild.model, str(wild.data), wild.loss, "eval", "float64", "cpu", **options
    )


def test_the_loss_is_the_one_computed_without_us(wild):
    before = torch.random.get_rng_state()
    made = objective(wild)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert made.theta.numel() == wild.parameters
    assert float(made.value(made.theta)) == pytest.approx(wild.value, rel=1e-6)
    assert float(made.gradient(made.theta).norm()) == pytest.approx(wild.gradient_norm, rel=1e-5)
    assert made.settings["loss"] == wild.loss
    found = made.metrics(made.theta)
    name = "next_token_accuracy" if wild.loss == "next_token" else "accuracy"
    assert 0 <= found[name] <= 1


def test_the_cut_into_batches_changes_nothing(wild):
    whole, cut = objective(wild), objective(wild, batch_size=3)
    assert cut.settings["batches"] > 1
    assert float(cut.value(cut.theta)) == pytest.approx(float(whole.value(whole.theta)), rel=1e-6)


def test_sharpness_runs_on_it(wild, capsys):
    with pytest.raises(SystemExit) as stop:
        main(
            ["sharpness", *wild.words, "--measures", "gradient_norm,sam", "--json", "--quiet",
             "--device", "cpu", "--dtype", "float64"]
        )  # fmt: skip
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    rows = {row["name"]: row["value"] for row in json.loads(out)["measures"]}
    assert rows["gradient_norm"] == pytest.approx(wild.gradient_norm, rel=1e-5)
    assert math.isfinite(rows["sam"])
