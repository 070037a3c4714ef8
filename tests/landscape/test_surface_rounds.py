"""How a surface is computed: rounds by the clock, saves, what is kept and asked for, and what its file says."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from problems import conv_objective

import landscape.surface as subject
from landscape import grid
from landscape.directions import Plane, random_plane
from landscape.objective import FunctionObjective
from landscape.store import load
from landscape.surface import evaluate

ORIGIN = torch.zeros(2, dtype=torch.float64)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a point of :func:`bowl` moves."""
    made = SimpleNamespace(now=100.0, each=1.0)
    monkeypatch.setattr(subject, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def bowl(clock=None, seen=None):
    def loss(theta):
        if clock is not None:
            clock.now += clock.each
        if seen is not None:
            seen.append(theta.tolist())
        return (theta * theta).sum()

    return FunctionObjective(loss, ORIGIN)


def plane(**settings):
    return Plane(ORIGIN, torch.eye(2, dtype=torch.float64), settings)


def rounds(monkeypatch, run):
    """How many points were computed between two looks at the clock."""
    sizes = []
    original = subject._Run._rows

    def counted(self, evaluator, indices):
        sizes.append(len(indices))
        return original(self, evaluator, indices)

    monkeypatch.setattr(subject._Run, "_rows", counted)
    run()
    return sizes


@pytest.mark.parametrize(
    ("each", "points", "expected"),
    [
        (0.0625, 5, [1, *[3] * 8]),  # 0.2 s, rounded down
        (1.0, 3, [1] * 9),
        (0.0, 17, [1, 256, 32]),
    ],
)
def test_a_round_takes_a_fifth_of_a_second(monkeypatch, clock, each, points, expected):
    clock.each = each
    sizes = rounds(monkeypatch, lambda: evaluate(bowl(clock), plane(), points=points))
    assert sizes == expected


def test_the_whole_is_saved_and_shown_when_more_than_ten_seconds_have_gone(clock):
    shown = []

    def observer(surface):
        shown.append(int(surface["evaluated"].values.sum()))

    evaluate(bowl(clock), plane(), points=5, observer=observer)
    assert shown == [8, 19, 25]  # the centre was looked at three times first


def test_rounds_are_kept_before_anything_is_saved(tmp_path, monkeypatch):
    """As they are where a process is killed: nothing of what follows is run."""
    out = tmp_path / "s.nc"

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(subject._Run, "_save", lambda self: None)
        patched.setattr(subject, "_MAX_ROUND", 1)
        with pytest.raises(KeyboardInterrupt):
            evaluate(bowl(), plane(), points=3, out=out, progress=stop)
    seen = []
    whole = evaluate(bowl(seen=seen), plane(), points=3, out=out)
    assert len(seen) == 3 + 5  # the centre is looked at again, and five are left
    assert (
        whole["loss"].values.tolist() == evaluate(bowl(), plane(), points=3)["loss"].values.tolist()
    )
    assert load(out).identical(whole)


def test_the_executor_of_a_file_is_asked_for_and_for_what_is_left(tmp_path, monkeypatch):
    objective = conv_objective()
    directions = random_plane(objective)
    asked = []

    def noted(objective, plane, ahead, name):
        asked.append((objective, plane, np.asarray(ahead), name))
        return choose(objective, plane, ahead, name)

    choose = subject.choose
    monkeypatch.setattr(subject, "choose", noted)
    out = tmp_path / "s.nc"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(
            objective, directions, points=3, out=out, executor="plain", shard=(1, 2), progress=stop
        )
    assert load(out).attrs["shard"] == "1/2"
    ((first, where, ahead, name),) = asked
    assert first is objective and where is directions and name == "plain"
    order = grid.order((3, 3))[::2]
    steps = np.linspace(-1, 1, 3)
    assert ahead.tolist() == [[steps[alpha], steps[beta]] for beta, alpha in order]
    with pytest.raises(ValueError, match=f"{out} holds another surface: executor is plain"):
        evaluate(objective, directions, points=3, out=out, executor="fused", shard=(1, 2))


def test_a_stopped_run_goes_on_with_its_executor(tmp_path, monkeypatch):
    objective = conv_objective()
    directions = random_plane(objective)
    out = tmp_path / "s.nc"

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(objective, directions, points=3, out=out, executor="chunked", progress=stop)
    names = []
    choose = subject.choose
    monkeypatch.setattr(subject, "choose", lambda *given: names.append(given[-1]) or choose(*given))
    assert evaluate(objective, directions, points=3, out=out).attrs["executor"] == "chunked"
    assert names == ["chunked"]


def test_what_was_asked_for_is_in_the_attributes():
    objective = conv_objective()
    directions = random_plane(objective)
    kept = evaluate(objective, directions, points=2, executor="plain", keep_terms=True, slopes=True)
    assert kept.attrs["keep_terms"] == kept.attrs["slopes"] == 1
    left = {"keep_terms", "slopes", "shard", "tolerance", "basin_tolerance"}
    assert not left & set(evaluate(objective, directions, points=2, executor="plain").attrs)


def test_the_basin_has_a_tolerance_of_its_own():
    found = evaluate(bowl(), plane(), points=21, tolerance=0.1, basin_tolerance=0.2)
    assert (found.attrs["tolerance"], found.attrs["basin_tolerance"]) == (0.1, 0.2)
    assert json.loads(found.attrs["refinement"])["basin_achieved"] is not None
    without = evaluate(bowl(), plane(), points=21, tolerance=0.1)
    assert json.loads(without.attrs["refinement"])["basin_achieved"] is None


def test_a_surface_says_what_it_is_of():
    def blank(**changes):
        given = {
            "plane": plane(kind="random", seed=3, normalize="filter"), "objective": bowl(), **changes,
        }  # fmt: skip
        return grid.blank(
            given["objective"], given["plane"], np.linspace(-1, 1, 3), (-1.0, 1.0), ""
        )

    found = blank()
    assert found["evaluated"].dtype == np.int8 and not found["evaluated"].any()
    assert found.attrs["torch_version"] == torch.__version__
    assert found.attrs["device"] == "cpu" and found.attrs["dtype"] == "float64"
    assert found.attrs["normalize"] == "filter"
    assert blank(plane=plane()).attrs["normalize"] == "none"
    assert "buffers_sha256" not in found.attrs
    prints = {found.attrs["fingerprint"], blank(plane=plane()).attrs["fingerprint"]}
    for value in (0.0, 1.0):
        moving = {"mean": torch.full((2, 2), value)}
        of = blank(plane=Plane(ORIGIN, torch.eye(2, dtype=torch.float64), {}, moving))
        assert len(of.attrs["buffers_sha256"]) == 64
        prints |= {of.attrs["fingerprint"], of.attrs["buffers_sha256"]}
    assert len(prints) == 6


def test_the_coarse_lattice_lies_around_the_centre():
    assert [index for (index,) in grid.order((19,))][:5] == [9, 5, 13, 1, 17]
