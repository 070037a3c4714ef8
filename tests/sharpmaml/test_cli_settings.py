"""Settings as flags: headings of the help, typed data options, and what a score says of its episodes."""

import dataclasses

import numpy as np
import pytest

from sharpmaml import cli, data
from sharpmaml.cli_settings import GROUPS, Settings, as_config
from sharpmaml.config import METHODS, TrainConfig
from sharpmaml.evaluating.scores import Evaluation, protocol

NETWORK = ("--ways=3", "--queries=2", "--channels=4", "--downsample=stride", "--no-guard")
LENGTH = ("--iterations=1", "--meta-batch=1", "--validation-episodes=2", "--quiet")


def run(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def test_every_setting_is_under_one_heading_and_names_what_can_be_chosen():
    named = [name for names in GROUPS.values() for name in names.split()]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(TrainConfig))
    assert all(f"``{name}``" in TrainConfig.__doc__ for name in (*METHODS, *data.NAMES))


def test_the_help_shows_every_heading_and_the_methods(capsys):
    status, out, _ = run(capsys, "train", "--help")
    assert status == 0 and all(f"─ {title} ─" in out for title in GROUPS)
    assert "meta-sgd" in out and "miniimagenet" in out and "--data-options" in out


def test_settings_of_the_command_line_are_those_of_the_library():
    given = as_config(Settings(method="anil", data_options={"alphabets": "4"}))
    assert given == TrainConfig(method="anil", data_options={"alphabets": 4})


@pytest.mark.parametrize(
    ("written", "taken"),
    [("42", 42), ("1.25", 1.25), ("true", True), ("vinyals", "vinyals"), ("mean-std", "mean-std"),
     ("nan", "nan"), ("[1]", "[1]"), ("2026-01-01", "2026-01-01"), ("", ""), (7, 7)],
)  # fmt: skip
def test_a_data_option_is_a_number_a_switch_or_a_word(written, taken):
    found = as_config(TrainConfig(data_options={"option": written})).data_options["option"]
    assert found == taken and type(found) is type(taken)


@pytest.mark.parametrize("way", ["flags", "json", "file"])
def test_data_options_come_as_flags_as_json_or_in_a_file(capsys, tmp_path, way):
    file, out = tmp_path / "settings.toml", tmp_path / "run"
    file.write_text("[data_options]\nalphabets = 4\ndifficulty = 1.5\n")
    given = {
        "flags": ["--data-options.alphabets", "4", "--data-options.difficulty=1.5"],
        "json": ["--data-options", '{"alphabets": 4, "difficulty": 1.5}'],
        "file": ["--config", file],
    }[way]
    status, _, err = run(capsys, "train", "--out", out, *NETWORK, *LENGTH, *given)
    assert status == 0, err
    config = TrainConfig.from_toml(out / "config.toml")
    assert config.data_options == {"alphabets": 4, "difficulty": 1.5}


def test_without_a_validation_nothing_is_called_the_best(capsys, tmp_path):
    words = ("train", "--data=sinusoid", *LENGTH, "--channels=4", "--out", tmp_path / "run")
    _, out, _ = run(capsys, *words)
    assert "best checkpoint by validation: " in out and "no best" not in out
    (tmp_path / "run" / "best.json").unlink()
    _, out, _ = run(capsys, *words, "--resume")
    assert "no best checkpoint" in out and "by validation: " not in out


SETTINGS = {
    "data": "strokes", "split": "test", "ways": 5, "shots": 1, "queries": 3, "episodes": 9,
    "episode_seed": 2, "norm": "batch statistics",
}  # fmt: skip


def test_a_score_says_what_made_its_episodes_harder():
    plain = Evaluation("accuracy", np.ones(9), SETTINGS)
    assert protocol(plain) == (
        "strokes test classes, 5-way 1-shot, 3 queries a class, 9 episodes of seed 2; batch statistics"
    )
    hard = Evaluation("accuracy", np.ones(9), {**SETTINGS, "shift": "invert", "label_noise": 0.4})
    assert protocol(hard) == protocol(plain) + "; shift invert; label noise 0.4"


def test_a_regression_has_neither_ways_nor_norms():
    told = protocol(Evaluation("mse", np.ones(9), {**SETTINGS, "data": "sinusoid"}))
    assert told == "sinusoid test tasks, 1-shot, 3 queries, 9 episodes of seed 2"
