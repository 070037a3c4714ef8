import copy

import numpy as np
import pytest
from problems import conv_objective, quadratic, symmetric

import landscape.choice as subject
from landscape.choice import choose
from landscape.directions import random_plane
from landscape.executors import Unsupported

PLACES = np.random.default_rng(0).uniform(-1, 1, (400, 2))


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Fake:
    """An evaluator that takes so many seconds a point, and so many more the first time."""

    def __init__(self, clock, name, seconds, loss=lambda p: p[:, 0], setup=0.0, warm_up=0.0):
        self.clock, self.name, self.seconds, self.loss = clock, name, seconds, loss
        self.setup_seconds, self.warm_up = setup, warm_up
        self.asked = []

    def __call__(self, places, terms=False):
        self.asked.append(len(places))
        self.clock.now += self.seconds * len(places) + self.warm_up
        self.warm_up = 0.0
        return {"loss": np.asarray(self.loss(places), np.float64)}


class Objective:
    def __init__(self, dtype="float64", **ways):
        self.settings = {"dtype": dtype}
        self.ways = ways
        self.built = []

    def evaluators(self, plane):
        def build(name):
            def make():
                self.built.append(name)
                if isinstance(self.ways[name], Exception):
                    raise self.ways[name]
                return self.ways[name]

            return make

        return {name: build(name) for name in self.ways}


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(subject, "time", made)
    return made


def raising(error):
    def loss(places):
        raise error

    return loss


def test_the_fastest_that_agrees_is_taken(clock):
    objective = Objective(
        plain=Fake(clock, "plain", 0.3, setup=0.1),
        slow=Fake(clock, "slow", 0.4),
        fast=Fake(clock, "fast", 0.1, setup=0.7, warm_up=50.0),
        faster_and_wrong=Fake(clock, "faster_and_wrong", 0.01, loss=lambda p: p[:, 0] + 1e-4),
        unsupported=Unsupported("no such thing"),
        broken=RuntimeError("two\nlines"),
        failing=Fake(clock, "failing", 0.01, loss=raising(TypeError("cannot"))),
        late=Fake(clock, "late", 0.01, loss=raising(Unsupported("when called"))),
    )
    choice = choose(objective, None, PLACES)
    assert choice.evaluator is objective.ways["fast"]
    assert choice.seconds == pytest.approx(
        {"plain": 0.3, "slow": 0.4, "fast": 0.1, "faster_and_wrong": 0.01}
    )
    assert choice.setup_seconds == {"plain": 0.1, "slow": 0, "fast": 0.7, "faster_and_wrong": 0}
    assert choice.differences["fast"] == 0
    assert choice.left_out["faster_and_wrong"].startswith("differs from plain by ")
    assert {k: v for k, v in choice.left_out.items() if k != "faster_and_wrong"} == {
        "unsupported": "no such thing",
        "broken": "RuntimeError: two",
        "failing": "TypeError: cannot",
        "late": "when called",
    }
    report = choice.report()
    assert report["executor"] == "fast" and report["seconds_per_point"] == choice.seconds
    assert objective.ways["fast"].asked == [
        2,
        3,
        3,
    ]  # about two seconds of the plain way, in halves


def test_plain_stays_where_it_is_fastest(clock):
    objective = Objective(plain=Fake(clock, "plain", 0.1), other=Fake(clock, "other", 0.2))
    assert choose(objective, None, PLACES).evaluator.name == "plain"


@pytest.mark.parametrize(
    ("dtype", "offset", "name"),
    [
        ("float64", 1e-9, "fast"),
        ("float64", 1e-6, "plain"),
        ("float32", 1e-4, "fast"),
        ("float32", 1e-2, "plain"),
        ("bfloat16", 1e-2, "fast"),
        ("bfloat16", 1e-1, "plain"),
    ],
)
def test_how_well_it_must_agree(clock, dtype, offset, name):
    def loss(places):
        return np.full(len(places), 1 + offset)

    objective = Objective(
        dtype,
        plain=Fake(clock, "plain", 0.3, loss=lambda p: np.ones(len(p))),
        fast=Fake(clock, "fast", 0.1, loss=loss),
    )
    assert choose(objective, None, PLACES).evaluator.name == name


@pytest.mark.parametrize(
    ("plain", "fast", "agree"),
    [
        (np.inf, np.inf, True),
        (np.nan, np.nan, True),
        (np.inf, 1e300, False),
        (1.0, np.nan, False),
        (np.nan, 1.0, False),
        (np.inf, -np.inf, False),
        (0.0, 1e-12, True),
    ],
)
def test_losses_that_are_not_finite_must_agree_too(clock, plain, fast, agree):
    def constant(value):
        return lambda places: np.where(np.arange(len(places)) == 1, value, 1.0)

    objective = Objective(
        plain=Fake(clock, "plain", 0.3, loss=constant(plain)),
        fast=Fake(clock, "fast", 0.1, loss=constant(fast)),
    )
    assert (choose(objective, None, PLACES).evaluator.name == "fast") == agree


@pytest.mark.parametrize(("seconds", "tried"), [(0.1, False), (0.4, True)])
def test_compilation_is_tried_for_long_surfaces_only(clock, seconds, tried):
    objective = Objective(
        plain=Fake(clock, "plain", seconds), compile=Fake(clock, "compile", 0.01, setup=40.0)
    )
    choice = choose(objective, None, PLACES)
    assert ("compile" in objective.built) == tried
    assert choice.evaluator.name == ("compile" if tried else "plain")
    assert choice.left_out == ({} if tried else {"compile": "the surface takes 40 s without it"})
    assert choose(objective, None, PLACES, "compile").evaluator.name == "compile"


def test_nothing_is_tried_for_a_handful_of_points(clock):
    objective = Objective(plain=Fake(clock, "plain", 1.0), fast=Fake(clock, "fast", 0.1))
    choice = choose(objective, None, PLACES[:15])
    assert choice.evaluator.name == "plain" and objective.built == ["plain"]
    assert choice.seconds == {} and objective.ways["plain"].asked == []
    assert choose(objective, None, PLACES[:16]).evaluator.name == "fast"


def test_one_by_name(clock):
    objective = Objective(
        plain=Fake(clock, "plain", 0.1), slow=Fake(clock, "slow", 9.0), no=Unsupported("no way")
    )
    assert choose(objective, None, PLACES, "slow").evaluator.name == "slow"
    assert objective.built == ["slow"]
    with pytest.raises(
        ValueError, match="'quick': expected auto, repeatable or one of plain, slow, no$"
    ):
        choose(objective, None, PLACES, "quick")
    with pytest.raises(ValueError, match="'no' cannot serve this objective: no way$"):
        choose(objective, None, PLACES, "no")


def test_a_formula_has_the_plain_way_only():
    bowl = quadratic(symmetric([1.0, 2.0]))
    plane = random_plane(bowl, "none")
    evaluator = choose(bowl, plane, PLACES).evaluator
    found = evaluator(PLACES[:3], terms=True)
    expected = [float(bowl.value(plane.point(*place))) for place in PLACES[:3]]
    assert found["loss"].tolist() == found["rise"].tolist() == expected
    assert not found["loss_stderr"].any() and not found["rise_stderr"].any()
    assert found["terms"].tolist() == [[value] for value in expected]
    with pytest.raises(
        ValueError, match="unknown executor 'fused': expected auto, repeatable or one of plain"
    ):
        choose(bowl, plane, PLACES, "fused")


def test_a_network_is_measured_and_left_as_it_was():
    objective = conv_objective()
    plane = random_plane(objective)
    before = copy.deepcopy(objective.module.state_dict())
    choice = choose(objective, plane, PLACES[:20])
    assert choice.evaluator.name in ("plain", "chunked", "fused", "vmap")
    assert set(choice.seconds) == {"plain", "chunked", "fused", "vmap"}
    assert max(choice.differences.values()) < 1e-12
    assert choice.left_out == {"compile": "the surface takes 0 s without it"}
    assert all((before[k] == v).all() for k, v in objective.module.state_dict().items())
    with pytest.raises(ValueError, match="'fused' cannot serve this objective: norm='batch'"):
        choose(conv_objective(norm="batch"), plane, PLACES, "fused")


def test_repeatable_takes_the_first_fast_way_that_agrees_and_asks_no_clock(monkeypatch):
    monkeypatch.setattr(subject, "time", None)
    clock = Clock()
    wrong = Fake(clock, "stacked", 0.1, loss=lambda p: p[:, 0] + 0.1)
    objective = Objective(
        plain=Fake(clock, "plain", 0.1), vmap=Fake(clock, "vmap", 0.0),
        fused=Fake(clock, "fused", 9.0), stacked=wrong,
    )  # fmt: skip
    choice = choose(objective, None, PLACES, "repeatable")
    assert choice.evaluator is objective.ways["fused"]
    assert choice.left_out["stacked"].startswith("differs from plain by 0.")
    assert "vmap" not in objective.built
    objective = Objective(plain=Fake(clock, "plain", 0.1), fused=Unsupported("cannot"))
    choice = choose(objective, None, PLACES, "repeatable")
    assert choice.evaluator is objective.ways["plain"]
    assert choice.left_out == {"fused": "cannot"}


def test_a_way_that_is_hopeless_on_its_first_point_costs_no_more(clock):
    slow = Fake(clock, "vmap", 0.01, setup=30.0)
    objective = Objective(plain=Fake(clock, "plain", 0.5), vmap=slow)
    choice = choose(objective, None, PLACES)
    assert choice.evaluator.name == "plain" and not slow.asked
    assert choice.left_out["vmap"] == "30.0 s for its first point, plain takes 0.5 s"
