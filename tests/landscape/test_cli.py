import json
import shutil

import numpy as np
import pytest
import torch
from command_line import LINEAR, TASKS

from landscape.checkpoint import read_weights
from landscape.store import load


def test_inspect_a_file(place, command):
    torch.save({"state_dict": {"module.w": torch.tensor([[3.0, 4.0]])}}, "v.ckpt")
    status, out, err = command("inspect", "v.ckpt", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    (tensor,) = found["tensors"]
    assert (
        found.items()
        >= {
            "file": "v.ckpt",
            "fingerprint": read_weights("v.ckpt").fingerprint,
            "entries": 2,
            "found_under": "state_dict",
            "prefix_removed": "module.",
        }.items()
    )
    assert tensor.items() >= {"name": "w", "shape": [1, 2], "dtype": "float32", "norm": 5.0}.items()
    status, out, err = command("inspect", "v.ckpt")
    assert (status, err) == (0, "")
    assert "prefix_removed: module." in out
    (line,) = [line for line in out.splitlines() if line.startswith("w ")]
    assert line.split()[:6] == ["w", "[1,", "2]", "float32", "norm", "5"]


def test_inspect_our_folders(runs, command):
    folder = runs / "maml" / "checkpoints" / "step_000002"
    recorded = json.loads((folder / "meta.json").read_text())["fingerprint"]
    status, out, _ = command("inspect", folder, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["file"] == str(folder / "model.safetensors")
    assert found["recorded_fingerprint"] == recorded
    assert found["entries"] == 22  # 1-3-3-1
    assert [row["shape"] for row in found["tensors"] if row["name"].endswith("weight")]
    best = json.loads((runs / "maml" / "best.json").read_text())["checkpoint"]
    _, out, _ = command("inspect", runs / "maml", "--json")
    assert json.loads(out)["file"] == str(
        runs / "maml" / "checkpoints" / best / "model.safetensors"
    )


def test_surface_of_a_run_is_written_drawn_and_continued(runs, place, command, monkeypatch):
    words = (
        "surface", runs / "maml", *TASKS, "--points", 3, "--span", 0.5, "--out", "s.nc", "--seed",
    )  # fmt: skip
    status, out, err = command(*words, 7)
    assert status == 0
    assert out.startswith("s.nc and s.html: loss ")
    assert err.splitlines()[-1] == "surface: 9/9"
    surface = load("s.nc")
    assert surface["loss"].shape == (3, 3)
    assert [surface.attrs[name] for name in ("label", "span", "seed")] == ["maml", 0.5, 7]
    assert f"{surface.attrs['centre_loss']:.6g}" in out
    page = (place / "s.html").read_text(encoding="utf-8")
    assert "<script src" not in page
    assert "Plotly.newPlot" in page
    before = (place / "s.nc").read_bytes()

    def fail(*_):
        raise AssertionError("evaluated again")

    for name in ("metrics", "losses", "value"):
        monkeypatch.setattr(f"sharpmaml.objective.MetaObjective.{name}", fail)
    assert command(*words, 7)[0] == 0
    status, out, err = command(*words, 8, "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: s.nc holds another surface: plane.seed is 7 there and 8 here")
    assert err.count("\n") == 1
    assert (place / "s.nc").read_bytes() == before


def test_an_interrupted_surface_is_kept_and_continued(place, command, monkeypatch):
    from landscape import grid

    real, stored = grid.store, []

    def store(surface, index, row):
        if len(stored) == 2:
            monkeypatch.setattr(grid, "store", real)
            raise KeyboardInterrupt
        stored.append(index)
        real(surface, index, row)

    monkeypatch.setattr(grid, "store", store)
    words = ("surface", *LINEAR, "--points", 5, "--axes", 1, "--out", "line.nc", "--quiet")
    status, out, err = command(*words)
    assert (status, out) == (130, "")
    assert err.startswith("error: interrupted")
    assert err.count("\n") == 1
    assert int(load("line.nc")["evaluated"].sum()) == 2
    assert command(*words)[0] == 0
    assert bool(load("line.nc")["evaluated"].all())


def test_a_line_of_a_file_is_the_loss(place, command):
    words = ("--axes", 1, "--points", 5, "--normalize", "none", "--out", "line.nc", "--quiet")
    status, _, err = command("surface", *LINEAR, *words)
    assert (status, err) == (0, "")
    line = load("line.nc")
    assert line["loss"].dims == ("alpha",)
    # A parabola: its curvature is that of the Hessian along the direction, which has no bias.
    a, loss = line["alpha"].values, line["loss"].values
    with np.load("d.npz") as arrays:
        residual = arrays["x"] @ np.array([1.0, -2.0, 0.5]) + np.float32(0.3) - arrays["y"][:, 0]
    assert line["loss"].sel(alpha=0).item() == pytest.approx(np.mean(residual**2))
    fit = np.polyfit(a, loss, 2)
    np.testing.assert_allclose(np.polyval(fit, a), loss, rtol=1e-10)
    assert (place / "line.html").stat().st_size > 1e5


def test_compare_two_runs_and_again(runs, place, command, monkeypatch):
    monkeypatch.setattr("landscape.compare.paper_figures", lambda *_: [])  # slow, tested elsewhere
    words = (
        "compare", runs / "maml", runs / "sharp-both", *TASKS, "--points", 3, "--out", "page.html",
    )  # fmt: skip
    status, out, err = command(*words)
    assert (status, out) == (0, "page.html\n")
    assert "maml: test episodes: sharpness 7/7" in err
    page = (place / "page.html").read_text(encoding="utf-8")
    assert "<script src" not in page
    assert "connect-src" in page or "default-src" in page
    assert "On test episodes, against maml: sharp-both: λ max " in page
    kept = {path.name for path in (place / "page").iterdir()}
    assert kept == {
        f"{name}-test-episodes{end}"
        for name in ("maml", "sharp-both")
        for end in ("-1d.nc", "-2d.nc", ".json", "-spectrum.json")
    } | {"test-episodes-together.nc", "test-episodes-together-1.nc", "test-episodes-together-2.nc"}
    (place / "page.html").unlink()

    def fail(*_):
        raise AssertionError("computed again")

    for name in ("gradient", "hvp", "losses"):
        monkeypatch.setattr(f"sharpmaml.objective.MetaObjective.{name}", fail)
    status, out, err = command(*words, "--quiet")
    assert (status, out, err) == (0, "page.html\n", "")
    assert (place / "page.html").read_text(encoding="utf-8").count("<figure") == page.count(
        "<figure"
    )


def quick(monkeypatch):
    """Comparisons of one measure, without surfaces and figures."""
    from landscape import compare

    class Quick(compare.Comparison):
        def __init__(self, folder, **options):
            super().__init__(
                folder, **options | {"points": 0}, line_points=0, measures=("lambda_max",)
            )

    monkeypatch.setattr(compare, "Comparison", Quick)


def test_compare_names_files_by_what_tells_them_apart(place, command, monkeypatch):
    quick(monkeypatch)
    for name in ("a", "b"):
        (place / name).mkdir()
        shutil.copy("w.pt", place / name / "w.pt")
    status, out, err = command(
        "compare", "a/w.pt", "b/w.pt", *LINEAR[1:], "--out", "p.html", "--quiet"
    )
    assert (status, out, err) == (0, "p.html\n", "")
    assert "On data, against a/w.pt: b/w.pt: λ max +0 %." in (place / "p.html").read_text("utf-8")
    status, out, err = command("compare", "w.pt", "w.pt", *LINEAR[1:], "--out", "q.html", "--quiet")
    assert status == 1
    assert "cannot be told from 'w.pt'" in err
    assert not (place / "q.html").exists()


def test_a_doubtful_comparison_is_written_and_is_an_error(place, command, monkeypatch, unconverged):
    quick(monkeypatch)
    shutil.copy("w.pt", "v.pt")
    status, out, err = command("compare", "w.pt", "v.pt", *LINEAR[1:], "--out", "p.html", "--quiet")
    assert (status, out) == (1, "p.html\n")
    assert err.startswith("error: w.pt, data: λ max: not converged")
    assert "v.pt, data: λ max: not converged" in err
    assert err.count("\n") == 1
    assert "What to distrust" in (place / "p.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("inspect", "none.pt"), 1, "none.pt does not exist"),
        (("inspect", "."), 1, "has no checkpoint in it"),
        (("surface", "none"), 1, "none does not exist"),
        (("surface", "w.pt"), 1, "add --model"),
        (("surface", *LINEAR, "--points", 1), 1, "points is 1"),
        (("surface", *LINEAR, "--axes", 3), 1, "axes is 3"),
        (("surface", *LINEAR, "--normalize", "best"), 1, "'best'"),
        (("surface", *LINEAR, "--out", "s.html"), 1, "expected a name ending in .nc"),
        (("surface", *LINEAR, "--out", "no/s.nc"), 1, "the folder no does not exist"),
        (("hessian", "w.pt", "--model", "net.py:make"), 1, "--data file.npz"),
        (("hessian", *LINEAR, "-k", 5), 1, "k is 5"),
        (("hessian", *LINEAR, "--which", "XX"), 1, "'XX'"),
        (("hessian", *LINEAR, "-k", 1, "--params", "head.*"), 1, "'head.*' matches no parameter"),
        (("hessian", *LINEAR, "-k", 1, "--keep-graph", "often"), 1, "expected auto, yes or no"),
        (("hessian", *LINEAR, "-k", 1, "--operator", "hesse"), 1, "unknown operator 'hesse'"),
        (("hessian", *LINEAR, "-k", 1, "--out", "page.pdf"), 1, "expected a name ending in .html"),
        (("hessian", *LINEAR[:-4], "--dtype", "float16"), 1, "--dtype is 'float16'"),
        (
            ("hessian", "w.pt", "--model", "net.py:classifier", *LINEAR[3:]),
            1,
            "another architecture",
        ),
        (("sharpness", *LINEAR, "--measures", "sam,flat"), 1, "unknown measure 'flat'"),
        (("compare", "w.pt"), 1, "1 checkpoint given"),
        (("compare",), 1, "0 checkpoint given"),
        (("compare", "w.pt", "w.pt", "--out", "page"), 1, "expected a name ending in .html"),
        (("hessian",), 2, "CHECKPOINT"),
        (("hessian", *LINEAR, "-k", "few"), 2, "-k"),
        (("hessian", *LINEAR, "--lost", "x"), 2, "--lost"),
        (("hessain", "w.pt"), 2, "hessain"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(place, command, words, status, text):
    before = sorted(place.rglob("*"))
    code, out, err = command(*words)
    assert (code, out) == (status, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err
    after = [path for path in sorted(place.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before


def test_a_folder_of_ours_takes_no_other_network_or_data(runs, command):
    status, out, err = command("hessian", runs / "maml", "--model", "net.py:make")
    assert (status, out) == (1, "")
    assert "leave out --model and --data" in err


def test_data_of_another_shape_is_one_line(place, command):
    np.savez("wide.npz", x=np.ones((4, 7)), y=np.ones((4, 1)))
    words = [word if word != "d.npz" else "wide.npz" for word in LINEAR]
    status, out, err = command("surface", *words)
    assert (status, out) == (1, "")
    assert "do not fit together: RuntimeError" in err
    assert err.count("\n") == 1


def test_version(command):
    status, out, err = command("--version")
    assert (status, err) == (0, "")
    assert out.strip()[0].isdigit()
