"""What is run, and how far a budget goes: protocols, plans, and what is kept between calls."""

from pathlib import Path

import pytest

from sharpmaml.data import DataError
from sharpmaml.reproduction import PROTOCOLS, reproduce, running
from sharpmaml.reproduction.depth import DEPTHS
from sharpmaml.reproduction.keeping import kept
from sharpmaml.reproduction.measuring import timings
from sharpmaml.reproduction.planning import (
    Plan,
    Stage,
    _deeper,
    _shared,
    _stages,
    estimated,
    fitting,
)
from sharpmaml.reproduction.protocols import known_complete, protocol_of

METHODS = ("maml", "sharp-up")


def test_names_of_complete_sets():
    assert known_complete(PROTOCOLS["omniglot"], "omniglot")
    assert not known_complete(PROTOCOLS["omniglot"], "omniglot (964 of 1623 classes)")
    assert not known_complete(PROTOCOLS["miniimagenet"], "mini-ImageNet-50")
    assert known_complete(PROTOCOLS["miniimagenet"], "mini-ImageNet")


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("size", ["published", "small"])
def test_every_config_of_every_protocol_is_valid(name, size):
    for experiment in protocol_of(name).experiments:
        for method in ("maml", "fomaml", "sharp-low", "sharp-up", "sharp-both"):
            config = experiment.config(method, 1, size=size, alpha=0.01)
            assert config.data == protocol_of(name).data and config.alpha_up == 0.01
            assert config.schedule == "constant"  # else a longer run would be another one


def test_published_settings_are_the_papers():
    five, twenty = (e.config("maml") for e in PROTOCOLS["omniglot"].experiments)
    assert (five.meta_batch, five.inner_steps, five.test_steps, five.inner_rate) == (32, 1, 3, 0.4)
    assert (twenty.meta_batch, twenty.inner_steps, twenty.inner_rate) == (16, 5, 0.1)
    assert five.channels == 64 and five.downsample == "stride" and five.iterations == 60_000
    mini = PROTOCOLS["miniimagenet"].experiments[0].config("maml")
    assert (mini.channels, mini.inner_steps, mini.test_steps, mini.clip_value) == (32, 5, 10, 10.0)
    sine = PROTOCOLS["sinusoid"].experiments[0].config("sharp-both")
    assert (sine.meta_batch, sine.iterations, sine.inner_rate) == (25, 70_000, 0.01)
    assert sine.alpha_low == sine.alpha_up == 0.005 and sine.shots == 10
    table = PROTOCOLS["miniimagenet"].experiments[1].published
    assert [table[m][-1].value for m in ("maml", "sharp-low", "sharp-up", "sharp-both")] == [
        62.20, 63.18, 63.06, 65.04,
    ]  # fmt: skip


def test_time_is_shared_equally_and_never_beyond_the_protocol():
    full, cost = {"a": 1000, "b": 60_000}, {"a": 0.1, "b": 0.5}
    assert _shared(full, cost, 10_000.0) == {"a": 1000, "b": 19_800}
    assert _shared(full, cost, 100.0) == {"a": 500, "b": 100}
    assert _shared(full, cost, 0.0) == {"a": 10, "b": 10}


def test_deeper_measurements_are_estimated_to_take_longer():
    seconds = {"episode": 0.01, "task": 0.1}
    experiment = PROTOCOLS["omniglot"].experiments[0]
    times = [estimated(experiment, seconds, depth, 3) for depth in DEPTHS]
    assert times == sorted(times) and times[0] < times[-1] / 5


def test_a_budget_is_planned_once_and_a_larger_one_extends(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sharpmaml.reproduction.planning.timed",
        lambda configs: {"update": dict.fromkeys(configs, 1.0), "episode": 1e-3, "task": 1e-3},
    )
    monkeypatch.setattr(running, "side_by_side", lambda work, jobs, board: [])
    monkeypatch.setattr(running, "write_all", lambda *_: tmp_path / "index.html")
    asked = {"methods": METHODS, "quiet": True, "device": "cpu", "seeds": 2}
    first = reproduce("sinusoid", tmp_path, budget=20.0, **asked).plan
    # 60 % of 20 minutes, two experiments, two methods, two seeds, a second an update.
    assert [s.iterations for s in first.stages.values()] == [90, 90]
    assert reproduce("sinusoid", tmp_path, budget=20.0, **asked).plan == first
    assert Plan.from_file(tmp_path / "plan.json") == first
    smaller = reproduce("sinusoid", tmp_path, budget=5.0, **asked).plan
    assert [s.iterations for s in smaller.stages.values()] == [90, 90]
    larger = reproduce("sinusoid", tmp_path, budget=40.0, **asked).plan
    assert [s.iterations for s in larger.stages.values()] == [180, 180]
    whole = reproduce("sinusoid", tmp_path, **asked).plan
    assert [s.iterations for s in whole.stages.values()] == [70_000, 70_000]


def test_a_piece_is_kept_until_its_question_changes(tmp_path):
    file, made_times = tmp_path / "piece.json", []

    def make():
        made_times.append(1)
        return {"x": len(made_times)}

    assert kept(file, {"a": (1, 2)}, make) == {"x": 1} == kept(file, {"a": [1, 2]}, make)
    assert kept(file, {"a": [1, 3]}, make) == {"x": 2}
    file.write_text("{")
    assert kept(file, {"a": [1, 3]}, make) == {"x": 3}
    assert kept(file, {"b": 1}, lambda: {"skipped": "no"}) == {"skipped": "no"}
    assert kept(file, {"b": 1}, make) == {"x": 4}  # what failed is tried again


def test_data_that_are_missing_are_told_with_the_flag():
    with pytest.raises(DataError, match="--data-root"):
        running.set_name(PROTOCOLS["omniglot"], None)


def test_a_plan_spends_its_share_on_training_and_the_rest_on_measuring():
    experiments = PROTOCOLS["omniglot"].experiments
    seconds = {
        e.key: {"update": {"maml": 0.1, "sharp-up": 0.3}, "episode": 0.01, "task": 0.05}
        for e in experiments
    }
    wanted = Plan("omniglot", "small", METHODS, 2, 30.0, None, "omniglot", {})
    stages = _stages(experiments, wanted, seconds, 1, None)
    # 30 minutes, 60 %, two experiments; an update of both methods and both seeds takes 0.8 s.
    # What rounding leaves of the first goes to the second.
    assert [s.iterations for s in stages.values()] == [650, 700]
    twice = _stages(experiments, wanted, seconds, 2, None)
    assert [s.iterations for s in twice.values()] == [1350, 1350]
    spare = 0.4 * 30 * 60 / 2 / 4
    for e in experiments:
        depth = stages[e.key].depth
        assert depth == DEPTHS[0] or estimated(e, seconds[e.key], depth, 2) <= spare
        assert fitting(e, seconds[e.key], 1e9, 2) == DEPTHS[-1]
        assert fitting(e, seconds[e.key], 0.0, 2) == DEPTHS[0]


def test_a_stage_is_never_taken_back():
    few, many = Stage(10, DEPTHS[1]), Stage(20, DEPTHS[0])
    assert _deeper(many, few) == Stage(20, DEPTHS[1])
    assert _deeper(few, many) == Stage(20, DEPTHS[1])
    assert _deeper(few, None) == few


def test_timings_are_of_the_log(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(f'{{"seconds": {s}}}\n' for s in (1.0, 3.0, 2.0)) + '{"sec')
    found = timings(log)
    assert (found["updates"], found["update_seconds"], found["total_seconds"]) == (3, 2.0, 6.0)
    assert found["fastest_seconds"] == pytest.approx(1.02) and timings(tmp_path / "none") == {}


def test_the_command_that_goes_on_keeps_the_experiments():
    plan = Plan("omniglot", "small", METHODS, 2, 30.0, 0.1, "omniglot", {})
    some = running.with_experiments(PROTOCOLS["omniglot"], ["20-way-1-shot"])
    first, second = running._again(some, Path("/a/b/omni"), plan, "loop", needs_root=True)
    assert first == (
        "sharpmaml reproduce omniglot --seeds 2 --experiments 20-way-1-shot --alpha 0.1 --executor loop "
        "--data-root DIR --size small --out omni"
    )
    assert second.endswith("--size published --device cuda --out omni-published")
