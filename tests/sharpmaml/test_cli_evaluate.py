"""`sharpmaml evaluate` with several checkpoints and with everything that it can be asked for."""

import csv
import json
import shutil

import pytest

from sharpmaml import cli

SMALL = ("--episodes", 6, "--device", "cpu")


def run(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


@pytest.fixture(scope="module")
def runs(images_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [shutil.copytree(images_run, folder / name) for name in ("one", "two")]


def test_a_table_and_its_files(capsys, runs, tmp_path):
    files = ("--csv", tmp_path / "t.csv", "--latex", tmp_path / "t.tex")
    status, out, err = run(capsys, "evaluate", *runs, *SMALL, *files)
    assert status == 0 and err == ""
    assert out.startswith("strokes test classes, 3-way 1-shot") and "cannot tell" in out
    assert "about 0.05 of 1 verdict" in out
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["kind"] for row in rows] == ["checkpoint", "checkpoint", "difference"]
    assert (tmp_path / "t.tex").read_text().startswith(r"\begin{tabular}{lrrl}")


def test_one_document(capsys, runs):
    more = ("--audit", "--permutations", 3, "--curve", 2, "--calibration", "--json")
    status, out, _ = run(capsys, "evaluate", *runs, *SMALL, *more)
    document = json.loads(out)
    assert status == 0 and len(document["checkpoints"]) == 2 and len(document["differences"]) == 1
    for entry in document["checkpoints"]:
        assert set(entry["audit"]["norms"]) == {"query", "support", "one-by-one"}
        assert entry["permutations"]["permutations"] == 3 and entry["curve"]["steps"] == [0, 1, 2]
        assert 0 <= entry["calibration"]["ece"] <= 1
    status, out, _ = run(capsys, "evaluate", runs[0], *SMALL, *more)
    alone = json.loads(out)
    assert alone["mean"] == document["checkpoints"][0]["mean"]
    assert alone["curve"] == document["checkpoints"][0]["curve"]


def test_what_one_checkpoint_prints(capsys, runs, tmp_path):
    more = ("--audit", "--permutations", 3, "--curve", 2, "--calibration")
    status, out, _ = run(capsys, "evaluate", runs[0], *SMALL, *more)
    assert status == 0 and out.startswith("accuracy ")
    for title in ("Transduction audit", "Label permutations", "Adaptation curve", "Reliability"):
        assert title in out
    status, out, _ = run(capsys, "evaluate", runs[0], *SMALL, "--norm", "support")
    assert "(inductive)" in out
    status, out, _ = run(capsys, "evaluate", *runs, *SMALL, "--curve", 2, "--all-pairs")
    assert status == 0 and out.count("Adaptation curve") == 2
    status, out, _ = run(capsys, "evaluate", runs[0], *SMALL, "--csv", tmp_path / "one.csv")
    assert out.startswith("accuracy ") and len((tmp_path / "one.csv").read_text().split()) > 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--norm", "both"), "norm is 'both'"),
        (("--csv", "nowhere/t.csv"), "nowhere is not a folder"),
        (("--permutations", 1), "needs at least 2"),
        (("--curve", -1), "curve is -1"),
        (("--queries", 30), "choose fewer"),
        (("--shift", "sideways"), "shift"),
    ],
)
def test_bad_input_is_one_line(capsys, runs, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "evaluate", *runs, *SMALL, *words)
    assert status == 1 and says in err and out == "" and len(err.strip().splitlines()) == 1


def test_runs_of_other_episodes(capsys, runs, sine_run):
    status, _, err = run(capsys, "evaluate", runs[0], sine_run, *SMALL)
    assert status == 1 and "not the same episodes" in err and len(err.strip().splitlines()) == 1
