"""`landscape hessian`, `curvature-map` and `along-training`."""

import json

import numpy as np
import pytest
from command_line import LINEAR, TASKS, dense_hessian

from landscape.checkpoint import read_weights
from landscape.store import ALONG_TRAINING, CURVATURE_MAP, load


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_hessian_is_the_dense_one(place, command, method):
    status, out, err = command(
        "hessian", *LINEAR, "-k", 4, "--method", method, "--tol", 1e-6, "--json", "--quiet"
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    values = [row["value"] for row in found["eigenvalues"]]
    exact = np.linalg.eigvalsh(dense_hessian(place))[::-1]
    np.testing.assert_allclose(values, exact, rtol=1e-6)
    for row, value in zip(found["eigenvalues"], exact, strict=True):
        assert row["interval"][0] - 1e-12 <= value <= row["interval"][1] + 1e-12
    assert found["converged"] is True
    assert found["objective"]["checkpoint"] == read_weights("w.pt").fingerprint
    assert found["method"] == method


def test_hessian_as_text_and_from_the_other_end(place, command):
    status, out, err = command("hessian", *LINEAR, "-k", 1, "--which", "SA", "--quiet")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    smallest = np.linalg.eigvalsh(dense_hessian(place))[0]
    row = next(line for line in lines if line.startswith("1 "))
    assert float(row.split()[1]) == pytest.approx(smallest, rel=1e-3)
    assert "Self-test passed: symmetric to" in out and "1 pair converged in" in out
    status, _, err = command("hessian", *LINEAR, "-k", 1)
    assert status == 0
    assert "memory of kept vectors: at most" in err


def test_everything_about_a_hessian_and_its_page(place, command):
    exact = np.linalg.eigvalsh(dense_hessian(place))[::-1]
    ask = ("-k", 2, "--trace", "--density", "--per-layer", "--alpha", 0.5, "--quiet")
    status, out, err = command("hessian", *LINEAR, *ask, "--json", "--out", "page.html")
    assert (err, status) == ("", 0)
    found = json.loads(out)
    assert found["trace"]["value"] == pytest.approx(exact.sum(), rel=1e-6)
    told = {
        name.split("(")[0].split()[0]: row["interval"] for name, row in found["functionals"].items()
    }
    expected = {
        "frobenius": np.sqrt((exact**2).sum()),
        "effective_dimension": (exact / (exact + 0.5)).sum(),
        "log_determinant": 0.5 * np.log1p(exact / 0.5).sum(),
        "negative_mass": 0.0,
    }
    for name, value in expected.items():
        low, high = told[name]
        assert low - 1e-9 <= value <= high + 1e-9 and high - low < 0.2 * (1 + value), name
    assert found["layers"]["bias"]["value"] == pytest.approx(2.0)
    assert found["self_test"]["passed"] is True
    page = (place / "page.html").read_text(encoding="utf-8")
    assert "Layer by layer" in page and "Density of the spectrum" in page
    status, out, err = command("hessian", *LINEAR, *ask)
    assert (status, err) == (0, "")
    assert "negative_mass" in out and "Layer by layer" in out


def test_the_hessian_of_some_parameters_and_other_matrices(place, command):
    whole = dense_hessian(place)
    for pattern, block in (("weight", whole[:3, :3]), ("-weight", whole[3:, 3:])):
        ask = ("-k", 1, f"--params={pattern}", "--json", "--quiet", "--no-check")
        status, out, _ = command("hessian", *LINEAR, *ask)
        top = json.loads(out)["eigenvalues"][0]["value"]
        assert status == 0
        assert top == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-3)
    top = np.linalg.eigvalsh(whole)[-1]
    ask = ("-k", 1, "--json", "--quiet")
    for more in (("--operator", "ggn"), ("--keep-graph", "no"), ("--mode", "forward")):
        status, out, _ = command("hessian", *LINEAR, *ask, *more)
        assert status == 0  # of a linear model with a convex loss, the GGN is the Hessian
        assert json.loads(out)["eigenvalues"][0]["value"] == pytest.approx(top, rel=1e-3)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_unconverged_hessian_is_printed_and_is_an_error(place, command, unconverged, form):
    status, out, err = command("hessian", *LINEAR, "-k", 2, "--quiet", *form)
    assert status == 1
    assert err.startswith("error: not converged")
    assert err.count("\n") == 1
    if form:
        found = json.loads(out)
        assert found["converged"] is False
        assert len(found["eigenvalues"]) == 2
    else:
        assert "not converged" in out


def test_a_curvature_map_of_a_file_is_continued(place, command):
    exact = np.linalg.eigvalsh(dense_hessian(place))
    ask = ("curvature-map", *LINEAR, "--points", 3, "--out", "map.nc", "--quiet")
    assert command(*ask)[::2] == (0, "")
    found = load("map.nc", CURVATURE_MAP)
    np.testing.assert_allclose(
        found["lambda_max"], exact[-1], rtol=1e-2
    )  # of a quadratic: the same everywhere
    np.testing.assert_allclose(found["lambda_min"], exact[0], rtol=1e-2)
    assert (place / "map.html").stat().st_size > 1e6
    before = (place / "map.nc").stat().st_mtime_ns
    status, out, _ = command(*ask)
    assert status == 0 and "products" in out
    assert load("map.nc", CURVATURE_MAP).equals(found)
    assert (place / "map.nc").stat().st_mtime_ns >= before


def test_eigenvalues_along_a_run_of_ours(runs, place, command):
    ask = ("along-training", runs / "maml", *TASKS, "-k", 2, "--out", "along.nc", "--quiet")
    status, out, err = command(*ask)
    assert (status, err) == (0, "")
    found = load("along.nc", ALONG_TRAINING)
    steps = sorted(int(p.name[5:]) for p in (runs / "maml" / "checkpoints").iterdir())
    assert found["step"].values.tolist() == steps
    last = sorted((runs / "maml" / "checkpoints").iterdir())[-1]
    status, out, _ = command(
        "hessian",
        last,
        *TASKS,
        "-k",
        2,
        "--json",
        "--quiet",
        "--tol",
        1e-6,
        "--optimizer",
        "own",
    )
    told = json.loads(out)
    assert status == 0
    exact = [row["value"] for row in told["eigenvalues"]]
    slack = found["residual"].values[-1] + 1e-5 * exact[0]
    assert (abs(found["eigenvalue"].values[-1] - exact) <= slack).all()
    assert "unstable above" in told["stability"]["text"]
    assert (place / "along.html").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("along-training", "w.pt"), "w.pt"),
        (("along-training", "run", "--every", 0), "--every is 0"),
        (("curvature-map", *LINEAR, "--out", "m.html"), "ending in .nc"),
        (("hessian", *LINEAR, "-k", 1, "--optimizer", "own"), "optimizer"),
        (("hessian", *LINEAR, "-k", 1, "--held-out"), "part"),
    ],
)
def test_bad_requests_are_one_line(place, command, words, text):
    status, out, err = command(*words, "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and text in err
