"""The command: results on standard output, errors as one line on standard error, the right exit status."""

import json
import subprocess
import sys

import pytest

from sharpmaml import checkpoint as checkpoints
from sharpmaml import cli


def run(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


TINY = (
    "--data",
    "sinusoid",
    "--iterations",
    3,
    "--meta-batch",
    1,
    "--channels",
    4,
    "--validation-episodes",
    2,
)


def test_train_and_evaluate(capsys, tmp_path):
    status, out, err = run(capsys, "train", *TINY, "--out", tmp_path / "run")
    assert status == 0 and "3 iterations done" in out and "3/3" in err
    status, out, _ = run(capsys, "evaluate", tmp_path / "run", "--episodes", 5, "--json")
    document = json.loads(out)
    assert status == 0 and document["episodes"] == 5 and document["metric"] == "mse"
    status, out, _ = run(capsys, "evaluate", tmp_path / "run", "--episodes", 5)
    assert (
        status == 0 and out.startswith("mse ") and "±" in out and f"{document['mean']:.4f}" in out
    )


def test_resume_and_settings_file(capsys, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text('data = "sinusoid"\nmeta_batch = 2\ninner_rate = 0.005\n')
    common = (
        "--config",
        settings,
        "--channels",
        4,
        "--validation-episodes",
        2,
        "--out",
        tmp_path / "run",
        "--quiet",
    )
    status, _, err = run(capsys, "train", *common, "--meta-batch", 1, "--iterations", 2)
    assert status == 0 and err == ""
    config = checkpoints.read(tmp_path / "run").config
    assert (config.meta_batch, config.inner_rate) == (1, 0.005)  # a flag lies on top of the file
    status, _, err = run(capsys, "train", *common, "--iterations", 4, "--resume")
    assert status == 1 and "its meta_batch is 1, not 2" in err
    status, _, _ = run(capsys, "train", *common, "--iterations", 4, "--resume", "--meta-batch", 1)
    assert status == 0 and checkpoints.steps(tmp_path / "run")[-1].name == "step_000004"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("train", "--method", "maaml", "--out", "x"), 1, "unknown method 'maaml'"),
        (("train", "--data", "mnist", "--out", "x"), 1, "unknown data 'mnist'"),
        (("train", "--data-root", "nowhere", "--data", "omniglot", "--out", "x"), 1, "nowhere"),
        (("train", "--ways", "5000", "--out", "x"), 1, "ways is 5000"),
        (("train", "--shots", "30", "--out", "x"), 1, "choose fewer"),
        (("train", "--device", "quantum", "--out", "x"), 1, "not usable here"),
        (("train", "--config", "gone.toml", "--out", "x"), 1, "gone.toml"),
        (("train", "--iterations", "0", "--out", "x"), 1, "iterations is 0"),
        (("train", "--inner-rate", "-1", "--out", "x"), 1, "inner_rate is -1"),
        (("train", "--wayz", "5", "--out", "x"), 2, "Unknown option"),
        (("train",), 2, "--out"),
        (("fly",), 2, "fly"),
        (("evaluate", "gone"), 1, "gone does not exist"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    capsys, tmp_path, monkeypatch, words, status, says
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == status and says in err and out == ""
    assert len(err.strip().splitlines()) == 1 and err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_files(capsys, tmp_path):
    bad = tmp_path / "bad.toml"
    for text, status in (("ways = = 3", 1), ("wayz = 3", 1), ('ways = "many"', 1)):
        bad.write_text(text)
        code, _, err = run(capsys, "train", "--config", bad, "--out", tmp_path / "run")
        assert code == status and "Traceback" not in err and err.startswith("error: ")
        assert not (tmp_path / "run").exists()


def test_evaluate_needs_two_episodes(capsys, sine_run):
    status, _, err = run(capsys, "evaluate", sine_run, "--episodes", 1)
    assert status == 1 and "at least 2" in err


def test_interrupt_is_130_and_one_line(capsys, monkeypatch, sine_run):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sharpmaml.evaluation.evaluate", interrupted)
    status, _, err = run(capsys, "evaluate", sine_run)
    assert status == 130 and len(err.strip().splitlines()) == 1


def test_help_does_not_wait_for_torch():
    code = "import sharpmaml, sharpmaml.cli, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
