"""Where training went: several ways on one plane, and what a comparison says and keeps of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from problems import quadratic, symmetric

from landscape.compare import Comparison
from landscape.together import together

MATRIX = symmetric([4.0, 2.0, 1.0, 0.5])
START = torch.tensor([3.0, -2.0, 1.0, 2.0], dtype=torch.float64)


def bowl(theta: torch.Tensor = START) -> Any:
    return quadratic(MATRIX, theta)


def way(end: list[float]) -> list[tuple[int, torch.Tensor]]:
    """A straight way from the common start to an end."""
    last = torch.tensor(end, dtype=torch.float64)
    return [(step, START + step / 4 * (last - START)) for step in range(5)]


WAYS = {"one": way([0.0, 0.0, 0.0, 0.0]), "two": way([1.0, 0.5, -0.5, 0.25])}


def test_the_first_run_ends_at_the_origin_and_losses_are_those_of_the_function(
    tmp_path: Any,
) -> None:
    told: list[tuple[int, int, str]] = []
    found = together(bowl(), WAYS, tmp_path / "data", points=5, progress=lambda *w: told.append(w))
    assert [path.attrs["label"] for path in found.paths] == ["one", "two"]
    one, two = found.paths
    assert (float(one["alpha"][-1]), float(one["beta"][-1])) == pytest.approx((0, 0), abs=1e-12)
    for path, (label, points) in zip(found.paths, WAYS.items(), strict=True):
        expected = [0.5 * float(t @ MATRIX @ t) for _, t in points]
        np.testing.assert_allclose(path["loss"].values, expected, rtol=1e-10, atol=1e-12)
        # Two straight ways from one point lie in a plane: nothing is hidden.
        assert float(path["residual_share"].max()) < 1e-9, label
        np.testing.assert_allclose(path["surface_loss"].values, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(two["alpha"][0], one["alpha"][0], rtol=1e-10)
    assert found.surface.sizes == {"beta": 5, "alpha": 5}
    assert sum(found.paths[0].attrs["variance"]) == pytest.approx(1)
    assert told[-1] == (25, 25, "where training went")
    low, high = float(found.surface["alpha"][0]), float(found.surface["alpha"][-1])
    for path in found.paths:
        assert low <= min(path["alpha"].min(), path["beta"].min())
        assert high >= max(path["alpha"].max(), path["beta"].max())
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["data-together-1.nc", "data-together-2.nc", "data-together.nc"]


def study(folder: Any) -> Comparison:
    made = Comparison(folder, points=3, line_points=0, measures=("gradient_norm",))
    for label, scale in (("one", 1.0), ("two", 2.0)):
        objective = quadratic(scale * MATRIX, START)
        made.add(label, {"data": objective})
    return made


def page(made: Comparison, folder: Any) -> str:
    return made.write(folder / "p.html", figures=False).read_text(encoding="utf-8")


def test_a_plane_that_holds_everything_is_not_distrusted(tmp_path: Any) -> None:
    made = study(tmp_path / "kept")
    made.follow("data", bowl(), WAYS)
    text = page(made, tmp_path)
    assert (
        "<h2>Data: where training went</h2>" in text
        and "of the variance of the checkpoints" not in text
    )


def test_a_plane_that_hides_much_is(tmp_path: Any) -> None:
    draws = np.random.default_rng(0).standard_normal((6, 4))
    walk = [(i, torch.tensor(row)) for i, row in enumerate(draws)]
    made = study(tmp_path / "kept")
    made.follow("data", bowl(), {"one": walk[:3], "two": walk[3:]})
    text = page(made, tmp_path)
    assert "data, where training went: the plane holds" in text
    assert "of 6 lie off it by more than 50% of their distance from the origin" in text


def test_surfaces_keep_their_terms_so_that_differences_are_paired(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(tmp_path / "kept")
    assert "terms" in made.subjects[0].surfaces["data"]
    monkeypatch.setattr("landscape.compare._MOST_TERMS", 8)
    assert "terms" not in study(tmp_path / "few").subjects[0].surfaces["data"]


def test_too_few_checkpoints_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="three"):
        together(bowl(), {"one": WAYS["one"][:2]}, tmp_path / "x", points=3)


class TestWhichRunsShareAPlane:
    """What `landscape compare` takes for ways over one function."""

    @staticmethod
    def ways(monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int], **second: Any) -> Any:
        from pathlib import Path

        from landscape import cli_compare

        def checkpoints(run: Path) -> list[tuple[int, Path]]:
            count = counts[0] if run.name == "a" else counts[1]
            if not count:
                raise ValueError("no checkpoints")
            return [(step, run) for step in range(count)]

        monkeypatch.setattr("landscape.spectra.along_training.run_checkpoints", checkpoints)
        monkeypatch.setattr(
            "landscape.spectra.along_training.run_points",
            lambda run, space: ((step, START + step) for step, _ in checkpoints(run)),
        )
        objectives = {"a": bowl(), "b": second.get("objective", bowl())}
        objectives["b"].settings = {**objectives["b"].settings, **second.get("settings", {})}
        return cli_compare._ways({"a": Path("a"), "b": Path("b")}, objectives)

    def test_two_runs_of_one_function(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.ways(monkeypatch, (30, 2))
        assert [step for step, _ in found["b"]] == [0, 1]
        steps = [step for step, _ in found["a"]]
        assert steps[-1] == 29 and len(steps) == 10 and set(np.diff(steps)) == {3}
        torch.testing.assert_close(found["a"][-1][1], START + 29)

    def test_not_where_one_has_a_single_checkpoint_or_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.ways(monkeypatch, (3, 1)) == {}
        assert self.ways(monkeypatch, (3, 0)) == {}

    def test_not_where_the_functions_or_the_networks_differ(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.ways(monkeypatch, (3, 3), settings={"objective": "meta", "split": "val"}) == {}
        smaller = quadratic(symmetric([1.0, 2.0]), START[:2])
        assert self.ways(monkeypatch, (3, 3), objective=smaller) == {}
