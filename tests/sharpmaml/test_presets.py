"""Presets: settings that a run accepts, with the numbers of their sources."""

import subprocess
import sys

import pytest
import torch

from landscape.space import ParameterSpace
from sharpmaml.config import TrainConfig
from sharpmaml.plans import ascent_of, plan_of
from sharpmaml.presets import CATALOGUE, PRESETS, preset

SPACE = ParameterSpace.from_module(
    torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 1))
)

# meta-batch, inner rate, inner steps, queries, channels, meta-updates
NUMBERS = {
    "paper": (4, 0.01, 1, 15, 64, 60_000),
    "released-code": (4, 0.1, 5, 15, 64, 60_000),
    "released-code-low": (4, 0.1, 5, 15, 64, 60_000),
    "finn-omniglot-5way": (32, 0.4, 1, 1, 64, 60_000),
    "finn-omniglot-20way": (16, 0.1, 5, 1, 64, 60_000),
    "finn-miniimagenet": (4, 0.01, 5, 15, 32, 60_000),
    "finn-sinusoid": (25, 0.01, 1, 10, 40, 70_000),
}


@pytest.mark.parametrize("name", PRESETS)
def test_is_a_run(name):
    config = TrainConfig.from_dict(preset(name))
    got = (
        config.meta_batch, config.inner_rate, config.inner_steps, config.queries, config.channels,
        config.iterations,
    )  # fmt: skip
    assert got == NUMBERS[name]
    assert (config.optimizer, config.meta_rate) == ("adam", 1e-3)
    plan = plan_of(config, SPACE, None, 0, "cpu")
    assert (plan.inner.adapted is None) == config.adapt_norm_affine
    assert ascent_of(config, SPACE).upper.radius == config.upper


def test_every_preset_is_listed_with_its_source():
    assert set(PRESETS) == set(CATALOGUE) == set(NUMBERS)
    for found in CATALOGUE.values():
        for text in (found.about, found.source, found.expected):
            assert text and "\n" not in text


@pytest.mark.parametrize(
    ("name", "method", "eps_grad", "eps_m", "affine", "at_test", "reduction"),
    [
        ("paper", "sharp-both", "detach", "reuse", True, False, "sum"),
        ("released-code", "sharp-both", "through", "recompute", False, False, "mean"),
        ("released-code-low", "sharp-low", "through", "recompute", False, True, "mean"),
    ],
)
def test_readings(name, method, eps_grad, eps_m, affine, at_test, reduction):
    config = TrainConfig.from_dict(preset(name))
    assert (config.method, config.eps_grad, config.eps_m) == (method, eps_grad, eps_m)
    assert config.adapt_norm_affine is affine and config.sam_at_test is at_test
    assert config.reduction == reduction
    assert config.alpha_low == config.alpha_up == 0.0005
    assert config.test_inner().lower == (0.0005 if at_test else 0.0)


def test_finn():
    for name in ("finn-omniglot-5way", "finn-omniglot-20way", "finn-miniimagenet"):
        config = TrainConfig.from_dict(preset(name))
        assert config.method == "maml" and config.test_steps == 10 and config.shots == 1
        assert config.clip_value == (10 if name == "finn-miniimagenet" else 0)
        assert config.downsample == ("max" if name == "finn-miniimagenet" else "stride")
        assert config.ways == (20 if "20way" in name else 5)


def test_overrides_win_and_do_not_stay():
    changed = {**preset("paper"), "method": "sharp-low", "data": "strokes"}
    assert TrainConfig.from_dict(changed).lower == 0.0005
    given = preset("paper")
    given["ways"] = 7
    assert preset("paper")["ways"] == PRESETS["paper"]["ways"] == 5


def test_unknown_name():
    with pytest.raises(ValueError, match="expected one of paper, released-code"):
        preset("papers")


def test_needs_no_torch():
    code = "import sys, sharpmaml.presets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
