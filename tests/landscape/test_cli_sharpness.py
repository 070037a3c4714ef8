import json

import numpy as np
import pytest
import torch
from command_line import LINEAR, TASKS, dense_hessian

import sharpmaml
from landscape.sharpness import MEASURES, SharpnessReport

QUICK = ("--measures", "sam,gradient_norm", "--no-invariance", "--quiet")
WORDS = LINEAR[1:]


@pytest.fixture
def two(place):
    """A second checkpoint, ``v.pt``."""
    torch.save(
        {"weight": torch.tensor([[2.0, 1.0, -0.5]]), "bias": torch.tensor([-0.3])}, place / "v.pt"
    )
    return place


def test_a_run_of_ours(runs, command):
    words = ("sharpness", runs / "maml", *TASKS, "--measures", "sam, gradient_norm", "--seed", 3)
    status, out, err = command(*words, "--json")
    assert status == 0
    assert err.splitlines()[-1] == "sharpness: 2/2"
    assert "sharpness: sam, about 4 FB" in err
    found = json.loads(out)
    assert [row["name"] for row in found["measures"]] == ["sam", "gradient_norm"]
    assert found["seed"] == 3
    assert found["objective"]["tasks"] == 2
    objective = sharpmaml.meta_objective(runs / "maml", episodes=2, device="cpu")
    slope = float(objective.gradient(objective.theta).double().norm())
    assert found["measures"][1]["value"] == pytest.approx(slope, rel=1e-6)
    status, out, err = command(*words, "--quiet")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["measure", "sam", "gradient_norm"]


def test_all_measures_of_a_file(place, command):
    status, out, err = command("sharpness", *LINEAR, "--json", "--quiet")
    assert (status, err) == (0, "")
    found = json.loads(out)
    rows = {row["name"]: row for row in found["measures"]}
    exact = np.linalg.eigvalsh(dense_hessian(place))
    assert rows["lambda_max"]["value"] == pytest.approx(exact[-1], rel=1e-3)
    assert rows["trace"]["value"] == pytest.approx(exact.sum(), rel=0.1)
    assert {*rows, *found["skipped"]} == set(MEASURES)
    assert "edge_of_stability" in found["skipped"]
    assert set(found["invariance"]) == set(rows)


def test_settings_are_set(place, command):
    words = ("--set", "sam.rho=0.25", "--set", "average.ladder=0.1,0.2", "--set=average.pairs=3")
    status, out, _ = command(
        "sharpness", *LINEAR, "--measures", "sam,average", "--json", "--quiet", *words
    )
    assert status == 0
    sam, average = json.loads(out)["measures"]
    assert sam["settings"]["rho"] == 0.25 and average["settings"]["pairs"] == 3
    assert [row["settings"]["sigma"] for row in average["variants"]] == [0.1, 0.2]


def test_a_budget_skips_and_says_so(place, command):
    status, out, err = command("sharpness", *LINEAR, "--budget", "12FB", "--quiet")
    assert (status, err) == (0, "")
    assert "skipped: lambda_max: budget: about 60 FB needed" in out
    assert "\nsam " in out


def test_a_report_is_kept_continued_and_read(place, command):
    words = ("sharpness", *LINEAR, "--out", "r.json", *QUICK)
    status, first, _ = command(*words, "--json")
    assert status == 0
    kept = SharpnessReport.from_json((place / "r.json").read_text())
    assert kept.to_json() + "\n" == first
    status, second, _ = command(*words, "--json")
    again = SharpnessReport.from_json(second)
    assert status == 0 and again.rows == kept.rows
    assert again.overhead["loss at the point"] == 2 * kept.overhead["loss at the point"]
    status, table, _ = command("sharpness", "r.json", "--quiet")
    assert status == 0
    assert [line.split()[0] for line in table.splitlines()[:3]] == [
        "measure",
        "sam",
        "gradient_norm",
    ]


def test_the_report_of_another_checkpoint_is_refused(two, command):
    assert command("sharpness", *LINEAR, "--out", "r.json", *QUICK)[0] == 0
    before = (two / "r.json").read_bytes()
    status, out, err = command("sharpness", "v.pt", *WORDS, "--out", "r.json", *QUICK)
    assert (status, out) == (1, "")
    assert err.startswith("error: r.json holds another report: checkpoint is ")
    assert err.count("\n") == 1 and (two / "r.json").read_bytes() == before


def test_two_checkpoints(two, command):
    words = ("--measures", "lambda_max,sam", "--no-invariance", "--quiet")
    status, out, err = command("sharpness", "w.pt", "v.pt", *WORDS, *words)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["measure", "w.pt", "v.pt", "difference"]
    assert "v.pt is" in lines[0]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert "cannot tell" in rows["lambda_max"]  # least squares: the Hessian is the same everywhere
    assert "verdicts would be" in out
    status, out, _ = command("sharpness", "w.pt", "v.pt", *WORDS, *words, "--json")
    found = json.loads(out)
    assert found["schema"] == "landscape.sharpness-differences/1"
    assert found["labels"] == ["w.pt", "v.pt"] and len(found["reports"]) == 2
    (comparison,) = found["comparisons"]
    a, b = (report["measures"][1]["value"] for report in found["reports"])
    sam = next(row for row in comparison["differences"] if row["name"] == "sam")
    assert sam["value"] == pytest.approx(b - a)


def test_saved_reports_are_compared_without_a_model(two, command):
    words = ("sharpness", "w.pt", "v.pt", *WORDS, *QUICK)
    status, direct, _ = command(*words, "--out", "kept")
    assert status == 0
    assert sorted(path.name for path in (two / "kept").iterdir()) == ["v.pt.json", "w.pt.json"]
    status, out, err = command("sharpness", "kept/w.pt.json", "kept/v.pt.json")
    assert (status, err) == (0, "")
    assert [line.split()[3:5] for line in out.splitlines()[1:3]] == [
        line.split()[3:5] for line in direct.splitlines()[1:3]
    ]
    status, mixed, _ = command("sharpness", "kept/w.pt.json", "v.pt", *WORDS, *QUICK)
    assert status == 0
    assert "gradient_norm" in mixed


def test_an_interruption_keeps_what_is_done(place, command, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    import landscape.sharpness.running as running
    from landscape.sharpness.registry import ENTRIES, Entry

    table = {"sam": ENTRIES["sam"], "stopped": Entry(stopped, "", "", 1, 1.0)}
    monkeypatch.setattr(running, "available", lambda _: table)
    status, out, err = command("sharpness", *LINEAR, "--out", "r.json", "--json", "--quiet")
    assert status == 130
    assert err.startswith("error: interrupted") and err.count("\n") == 1
    assert list(SharpnessReport.from_json(out)) == ["sam"]
    assert list(SharpnessReport.from_json((place / "r.json").read_text())) == ["sam"]


def test_doubtful_sharpness_is_printed_and_is_an_error(place, command, unconverged):
    status, out, err = command(
        "sharpness", *LINEAR, "--measures", "lambda_max", "--quiet", "--json", "--no-invariance"
    )
    assert status == 1
    assert json.loads(out)["measures"][0]["name"] == "lambda_max"
    assert err.startswith("error: not converged")
    assert err.count("\n") == 1


def test_sharpness_that_is_not_finite_is_an_error(place, command):
    torch.save({"weight": torch.full((1, 3), 1e30), "bias": torch.zeros(1)}, "w.pt")
    words = [word for word in LINEAR if word not in ("--dtype", "float64")]
    status, out, err = command("sharpness", *words, "--measures", "sam", "--quiet", "--json")
    assert status == 1
    assert json.loads(out)["measures"][0]["value"] == "NaN"
    assert err == "error: sam is nan\n"


def test_an_optimizer_that_cannot_be_read_is_an_error(place, command):
    words = ("--measures", "all", "--budget", "70FB", "--optimizer", "w.pt", "--quiet")
    status, out, err = command("sharpness", *LINEAR, *words, "--no-invariance")
    assert status == 1
    assert "skipped: edge_of_stability: " in out
    assert err.startswith("error: edge_of_stability ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "no checkpoint given"),
        (("r.json",), "report r.json does not exist"),
        (("net.json",), "net.json is not a sharpness report: it is not JSON"),
        ((*LINEAR, "w.pt"), "given twice"),
        ((*LINEAR, "--budget", "60"), "budget is '60': expected"),
        ((*LINEAR, "--set", "sam.rho"), "--set is 'sam.rho': expected measure.setting=value"),
        ((*LINEAR, "--set", "rho=1"), "--set is 'rho=1'"),
        ((*LINEAR, "--set", "sam.radius=1"), "unknown setting 'radius' of sam"),
        ((*LINEAR, "--set", "sma.rho=1"), "unknown measure 'sma'"),
        ((*LINEAR, "--set", "sam.rho=-1"), "rho is -1"),
        ((*LINEAR, "--measures", "sam,flat"), "unknown measure 'flat'"),
        ((*LINEAR, "--measures", "edge_of_stability"), "no optimizer state"),
        ((*LINEAR, "--out", "r.txt"), "expected a name ending in .json"),
        ((*LINEAR, "--out", "no/r.json"), "the folder no does not exist"),
        (("w.pt", "d.npz", "--out", "r.json"), "several checkpoints need the name of a folder"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(place, command, words, text):
    (place / "net.json").write_text("import torch")
    before = sorted(place.rglob("*"))
    status, out, err = command("sharpness", *words, "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert text in err
    after = [path for path in sorted(place.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before
