"""Runs side by side on one page; what was measured once is not measured again."""

import dataclasses
import json

import pytest

from sharpmaml import checkpoint as checkpoints
from sharpmaml import cli, demo, study
from sharpmaml.spectra import spectra
from sharpmaml.study import Study
from sharpmaml.training import train

SMALL = {
    "test_episodes": 4, "tasks": 2, "points": 3, "line_points": 3,
    "measures": ("gradient_norm", "lambda_max", "sam"), "settings": {"lambda_max": {"tol": 0.1}}, "figures": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(images_run, tmp_path_factory):
    config = dataclasses.replace(checkpoints.read(images_run).config, method="sharp-both")
    other = train(config, tmp_path_factory.mktemp("study") / "both").path
    return {"MAML": images_run, "Sharp-MAML both": other}


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    page = Study(out=out, **SMALL).page(runs, title="Which is flatter?", recipe="a test")
    return out, page.path, page.tables


def test_page(made):
    out, page, _ = made
    text = page.read_text()
    assert "Which is flatter?" in text and "Sharp-MAML both" in text
    assert "train episodes" in text and "test episodes" in text
    assert not (out / "measurements/figures").exists()  # this size leaves the vector figures out


def test_tables_hold_what_was_measured(made, runs):
    out, _, tables = made
    accuracy, *flatness = tables
    assert [row[0] for row in accuracy.rows] == list(runs)
    assert [t.title for t in flatness] == ["Flatness, train episodes", "Flatness, test episodes"]
    report = json.loads((out / "measurements/maml-test-episodes.json").read_text())
    values = {row["name"]: row["value"] for row in report["measures"]}
    shown = dict(zip(flatness[1].columns, flatness[1].rows[0], strict=True))
    assert shown["λ max"].value == values["lambda_max"] and shown["SAM"].value == values["sam"]
    assert "Sharp-MAML both" in accuracy.to_text()


def test_nothing_is_measured_twice(made, runs, monkeypatch):
    out, page, tables = made

    def again(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(study, "evaluate", again)
    monkeypatch.setattr("landscape.compare.sharpness", again)
    monkeypatch.setattr("sharpmaml.objective.MetaObjective.hvp", again)
    before = page.stat().st_mtime_ns
    same = Study(out=out, **SMALL).page(runs, title="Which is flatter?", recipe="a test").tables
    assert [t.to_text() for t in same] == [
        t.to_text() for t in tables
    ] and page.stat().st_mtime_ns > before


def test_other_settings_are_measured_anew(made, runs, monkeypatch):
    out, *_ = made
    changed = Study(out=out, **{**SMALL, "test_episodes": 5})
    with pytest.raises(ZeroDivisionError):
        monkeypatch.setattr(study, "evaluate", lambda *_, **__: 1 / 0)
        changed.measure("MAML", runs["MAML"])


def test_where_the_data_lie_is_not_shown(runs, tmp_path):
    given = checkpoints.read(runs["MAML"])
    config = dataclasses.replace(given.config, data_root="/home/somebody/secret")
    assert "secret" not in json.dumps(study._shown(config))


def test_demo_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "_QUICK", SMALL)
    monkeypatch.setattr(demo, "METHODS", ("maml", "sharp-up"))
    small = {"data_options": {"alphabets": 4}, "channels": 4, "validation_episodes": 2, "iterations": 3,
             "checkpoint_every": 3, "validate_every": 3}  # fmt: skip
    real = demo._config
    monkeypatch.setattr(demo, "_config", lambda *args: dataclasses.replace(real(*args), **small))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--quick", "--out", str(tmp_path / "demo")])
    out, err = capsys.readouterr()
    assert stopped.value.code == 0
    assert (tmp_path / "demo/index.html").stat().st_size > 1e6
    assert "Sharp-MAML up" in out and "λ max" in out
    assert "Training" in err and "training, loss" in err and "Done in" in err


def test_eigenvalues_that_have_not_converged_are_told(runs, tmp_path, monkeypatch):
    def broken(*given, **settings):
        found = spectra(*given, **settings)
        meta = dataclasses.replace(found.meta, converged=False, outcome="residual 0.1 of 1e-2")
        adapted = dataclasses.replace(
            found.adapted, converged=False, outcome="stopped at 9 products"
        )
        return dataclasses.replace(found, meta=meta, adapted=adapted)

    monkeypatch.setattr(study, "spectra", broken)
    small = {**SMALL, "points": 0, "line_points": 0, "measures": ("gradient_norm",), "settings": {}}
    asked = Study(out=tmp_path, **small, eigenvalues={"k": 1, "tol": 0.1, "probes": 2})
    page = asked.page({"MAML": runs["MAML"]}, title="Unconverged", recipe="a test")
    assert page.doubts == (
        "MAML: eigenvalues, adapted: stopped at 9 products",
        "MAML: eigenvalues, meta: residual 0.1 of 1e-2",
    )
    text = page.path.read_text()
    assert all(doubt in text for doubt in page.doubts)


@pytest.mark.parametrize("doubts, status", [((), 0), (("MAML: bad", "Sharp-MAML up: worse"), 1)])
def test_demo_ends_as_its_page_says(tmp_path, monkeypatch, capsys, doubts, status):
    monkeypatch.setattr(demo, "_side_by_side", lambda *_: None)
    written = study.StudyPage(tmp_path / "index.html", (), doubts)
    monkeypatch.setattr(study.Study, "page", lambda *_, **__: written)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--quick", "--out", str(tmp_path / "demo")])
    err = capsys.readouterr().err
    assert stopped.value.code == status and str(written.path) in err
    assert ("error: MAML: bad; Sharp-MAML up: worse" in err.splitlines()) == bool(status)
