"""A tiny reproduction from end to end: interrupted, resumed, extended; what it shows and what it must not."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from landscape.sharpness.measurement import Influence, estimate
from sharpmaml import checkpoint as checkpoints
from sharpmaml import cli
from sharpmaml.data import DataError
from sharpmaml.evaluation import evaluate
from sharpmaml.objective import meta_objective
from sharpmaml.reproduction import PROTOCOLS, Published, figures, measuring, reproduce, running
from sharpmaml.reproduction.answers import _counted, _other_measures, answers
from sharpmaml.reproduction.depth import DEPTHS, Depth
from sharpmaml.reproduction.keeping import kept
from sharpmaml.reproduction.ledger import Change, Entry, _change, _corrected, averaged, read_report
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
from sharpmaml.reproduction.relation import Relation, _sixths, task_values
from sharpmaml.reproduction.statistics import Mean, Pooled, mean_of
from sharpmaml.reproduction.tables import _changed, costs, scores, why_no_published

METHODS = ("maml", "sharp-up")
DEPTH = Depth("tiny", 2, False, 6, 3, 3, episodes=5, condition_episodes=4, probes=2)
_SINE = PROTOCOLS["sinusoid"]
_SMALL = {
    "channels": 4, "meta_batch": 2, "iterations": 6, "checkpoint_every": 3, "validate_every": 3,
    "validation_episodes": 2, "shots": 5, "queries": 5,
}  # fmt: skip
TINY = dataclasses.replace(
    _SINE,
    experiments=(
        dataclasses.replace(
            _SINE.experiments[0],
            settings={**_SINE.experiments[0].settings, **_SMALL},
            steps=(1, 2),
            conditions=_SINE.experiments[0].conditions[:1],
        ),
    ),
)
KEY = TINY.experiments[0].key


def tiny(out, **changes):
    options = {
        "seeds": 2, "methods": METHODS, "protocol": TINY, "depth": DEPTH, "quiet": True, "device": "cpu",
        "executor": "loop",
        **changes,
    }  # fmt: skip
    return reproduce("sinusoid", out, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduction") / "whole"
    return out, tiny(out)


def without_times(out):
    record = json.loads((out / "results.json").read_text())
    assert record.pop("times")
    return record


def test_page_and_files(made):
    out, done = made
    page = done.page.read_text()
    assert done.page == out / "index.html" and page.count("drawFigure(") > 5
    for question in (
        "Does it help?",
        "Is it flatter than MAML?",
        "Does flatter generalize better?",
    ):
        assert question in page and question in (out / "summary.md").read_text()
    assert "6 of 6 meta-updates" in page and "sharpmaml reproduce sinusoid --seeds 2" in page
    assert str(out) not in page  # no path of this machine
    assert "\\toprule" in (out / "table.tex").read_text()
    assert len((out / "table.csv").read_text().splitlines()) == 1 + 2 * 3 + 1


def test_scores_are_those_of_evaluate_and_differences_are_paired(made):
    out, done = made
    experiment = TINY.experiments[0]
    rows = {}
    for method in METHODS:
        for seed in (0, 1):
            run = out / "runs" / KEY / f"{method}-seed{seed}"
            rows[method, seed] = evaluate(run, episodes=5, steps=1, device="cpu").scores
    gain = done.findings.gains[KEY, "sharp-up"].mean
    change = np.stack([rows["sharp-up", s] - rows["maml", s] for s in (0, 1)])
    assert gain.value == pytest.approx(change.mean(), rel=1e-9)
    assert gain.episodes == pytest.approx(
        1.959964 * change.mean(0).std(ddof=1) / math.sqrt(5), rel=1e-5
    )
    score = done.findings.score(experiment, "maml", "test, 1 step")
    assert score.value == pytest.approx(np.mean([rows["maml", s] for s in (0, 1)]), rel=1e-9)


def test_all_methods_start_from_the_same_weights_and_see_the_same_episodes(made):
    out, _ = made
    first = {
        (method, seed): json.loads(
            (out / "runs" / KEY / f"{method}-seed{seed}" / "metrics.jsonl")
            .read_text()
            .splitlines()[0]
        )["loss"]
        for method in METHODS
        for seed in (0, 1)
    }
    assert first["maml", 0] == pytest.approx(first["sharp-up", 0], rel=0.2)
    assert abs(first["maml", 0] - first["maml", 1]) > 1e-3


def test_ledger_is_paired_by_task(made):
    out, done = made
    entry = next(e for e in done.findings.ledgers[KEY] if e.name == "sam")
    values = {}
    for method in METHODS:
        for seed in (0, 1):
            run = out / "runs" / KEY / f"{method}-seed{seed}"
            file = next((out / "measurements" / KEY / run.name).glob("initialization-*.json"))
            values[method, seed] = read_report(file)["sam"].value
    mean = {m: np.mean([values[m, s] for s in (0, 1)]) for m in METHODS}
    assert entry.base == pytest.approx(mean["maml"], rel=1e-9)
    change = entry.changes["sharp-up"]
    assert change.mean.value == pytest.approx(mean["sharp-up"] - mean["maml"], rel=1e-6)
    assert change.seeds == 2 and change.verdict in (
        "flatter", "sharper", "cannot tell", "flatter in these runs", "sharper in these runs",
    )  # fmt: skip


def test_values_of_single_tasks_are_read_off_the_report(made):
    out, _ = made
    run = out / "runs" / KEY / "maml-seed0"
    report = read_report(next((out / "measurements" / KEY / run.name).glob("adapted-*.json")))
    values = task_values(report, "adapted_sam")
    assert len(values) == 6 and np.mean(values) == pytest.approx(report["adapted_sam"].value)
    objective = meta_objective(checkpoints.read(run), episodes=6, device="cpu")
    from landscape.sharpness.ascent import sam
    from landscape.sharpness.point import Point
    from sharpmaml.sharpness import adapted_points

    own = [sam(task).value for task in adapted_points(Point(objective, seed=0))]
    assert values == pytest.approx(own, rel=1e-4)


def test_average_over_seeds_of_one_measurement_is_itself(made):
    out, _ = made
    file = next((out / "measurements" / KEY / "maml-seed0").glob("adapted-*.json"))
    row = read_report(file)["adapted_lambda_max"]
    again = averaged([row, row])
    assert again.value == row.value and again.stderr == pytest.approx(row.stderr, rel=1e-9)
    assert again.interval == pytest.approx(row.interval, rel=1e-9)


def test_interrupted_and_resumed_gives_the_same_results(made, tmp_path, monkeypatch):
    out, _ = made
    real, calls = measuring.evaluate, []

    def interrupt(*args, **options):
        calls.append(options)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(measuring, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "again")
    assert (tmp_path / "again/plan.json").exists() and not (tmp_path / "again/index.html").exists()
    monkeypatch.setattr(measuring, "evaluate", real)
    tiny(tmp_path / "again")
    assert without_times(tmp_path / "again") == without_times(out)


def test_nothing_is_made_twice(made, monkeypatch):
    out, _ = made

    def again(*_, **__):
        raise AssertionError("made again")

    before = without_times(out)
    monkeypatch.setattr(measuring, "evaluate", again)
    monkeypatch.setattr("sharpmaml.trainer.learner.Learner.update", again)
    monkeypatch.setattr("landscape.sharpness.running._Run.measure", again)
    tiny(out)
    assert without_times(out) == before


def test_a_longer_protocol_extends_the_same_runs(made, tmp_path):
    out = tmp_path / "longer"
    short = dataclasses.replace(
        TINY,
        experiments=tuple(
            dataclasses.replace(e, settings={**e.settings, "iterations": 3})
            for e in TINY.experiments
        ),
    )
    less = dataclasses.replace(DEPTH, points=0, line_points=0)
    tiny(out, protocol=short, seeds=1, depth=less)
    run = out / "runs" / KEY / "maml-seed0"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    tiny(out, seeds=1, depth=less)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 6
    whole = made[0] / "runs" / KEY / "maml-seed0"
    last = [checkpoints.read(checkpoints.steps(r)[-1]).fingerprint for r in (run, whole)]
    assert last[0] == last[1]


def test_a_folder_holds_one_reproduction(made):
    with pytest.raises(ValueError, match=r"holds a reproduction with alpha None, not 0\.5"):
        tiny(made[0], alpha=0.5)


def test_a_run_that_diverges_is_told_and_left_out(tmp_path, monkeypatch):
    real = measuring.train

    def diverge(config, *args, **options):
        if config.method == "sharp-up":
            raise measuring.DivergedError("the loss is not finite at iteration 3")
        return real(config, *args, **options)

    monkeypatch.setattr(measuring, "train", diverge)
    done = tiny(tmp_path / "out", seeds=1, depth=dataclasses.replace(DEPTH, points=0))
    assert "not finite at iteration 3" in done.page.read_text()
    assert "up has no result" in answers(done.findings)[0]


def test_a_measure_that_fails_costs_no_other(tmp_path, monkeypatch):
    real = measuring.sharpness

    def fail(objective, measures, **options):
        if measures == "all" or "adapted_trace" in measures:
            raise RuntimeError("no such derivative")
        return real(objective, measures, **options)

    monkeypatch.setattr(measuring, "sharpness", fail)
    done = tiny(tmp_path / "out", seeds=1, depth=dataclasses.replace(DEPTH, points=0))
    names = [entry.name for entry in done.findings.ledgers[KEY]]
    assert "adapted_trace" not in names and {"adapted_sam", "lambda_max"} <= set(names)
    assert "adapted_trace (adapted): left out: no such derivative" in done.page.read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"budget": 0.0}, "budget is 0.0"),
        ({"budget": math.inf}, "budget is inf"),
        ({"methods": ("maml", "sgd")}, "unknown method 'sgd'"),
        ({"methods": ()}, "no methods"),
        ({"size": "large"}, "size is 'large'"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not usable"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, changes, words):
    with pytest.raises(ValueError) as caught:
        tiny(tmp_path / "out", **changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("imagenet",), "unknown reproduction 'imagenet'"),
        (("omniglot", "--experiments", "3-way"), "unknown experiment '3-way'"),
        (("omniglot",), "--data-root"),
        (("miniimagenet", "--data-root", "nowhere"), "nowhere"),
    ],
)
def test_the_command_fails_in_one_line(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["reproduce", *words, "--out", str(tmp_path / "out"), "--quiet"])
    err = capsys.readouterr().err
    assert stopped.value.code == 1 and said in err and len(err.splitlines()) == 1


def test_a_damaged_plan_is_one_line(tmp_path):
    (tmp_path / "plan.json").write_text('{"schema": "other"}')
    with pytest.raises(ValueError, match="is not a plan of a reproduction"):
        tiny(tmp_path)


# Published numbers stand beside the published data set alone.


def fake(protocol, made, set_name, iterations=6, size="published"):
    experiment = dataclasses.replace(
        TINY.experiments[0], published={"maml": (Published(48.7, 1.84, "a paper"),)}
    )
    findings = made[1].findings
    stages = {KEY: Stage(iterations, DEPTH)}
    plan = dataclasses.replace(findings.plan, set_name=set_name, size=size, stages=stages)
    whole = dataclasses.replace(protocol, experiments=(experiment,))
    return dataclasses.replace(findings, protocol=whole, plan=plan), experiment


def test_a_subset_never_shows_published_numbers(made):
    protocol = PROTOCOLS["miniimagenet"]
    findings, experiment = fake(protocol, made, "mini-ImageNet-50")
    table = scores(findings, experiment)
    assert not any("published" in column for column in table.columns)
    assert "48.7" not in table.to_html()
    assert "mini-ImageNet-50 is not the data set" in table.caption
    assert "not comparable" in answers(findings)[3]


def test_the_whole_set_shows_them_with_how_far_training_went(made):
    protocol = PROTOCOLS["miniimagenet"]
    findings, experiment = fake(protocol, made, "mini-ImageNet")
    table = scores(findings, experiment)
    assert table.columns[-1] == "published, %" and table.rows[0][-1] == "48.7 ± 1.84 [1]"
    assert "Published: [1] a paper." in table.caption
    assert table.rows[1][-1] == "–" and why_no_published(findings, experiment) == ""
    early, _ = fake(protocol, made, "mini-ImageNet", iterations=5)
    assert "ours of 5: not comparable" in scores(early, experiment).caption
    small, _ = fake(protocol, made, "mini-ImageNet", size="small")
    assert "not comparable" in scores(small, experiment).caption
    assert "not comparable with published accuracies" in answers(small)[3]


def test_names_of_complete_sets():
    assert known_complete(PROTOCOLS["omniglot"], "omniglot")
    assert not known_complete(PROTOCOLS["omniglot"], "omniglot (964 of 1623 classes)")
    assert not known_complete(PROTOCOLS["miniimagenet"], "mini-ImageNet-50")
    assert known_complete(PROTOCOLS["miniimagenet"], "mini-ImageNet")


# Protocols and budgets.


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


def test_the_first_method_diverging_leaves_a_page(tmp_path, monkeypatch):
    real = measuring.train

    def diverge(config, *args, **options):
        if config.method == "maml":
            raise measuring.DivergedError("the loss is not finite at iteration 1")
        return real(config, *args, **options)

    monkeypatch.setattr(measuring, "train", diverge)
    done = tiny(tmp_path / "out", seeds=1, depth=dataclasses.replace(DEPTH, points=0))
    assert "not finite at iteration 1" in done.page.read_text()
    assert "without a result" in answers(done.findings)[1]


def test_runs_side_by_side_are_those_one_by_one(made, tmp_path):
    out = tmp_path / "beside"
    options = {"jobs": 2, "seeds": 1, "depth": dataclasses.replace(DEPTH, points=0)}
    done = tiny(out, **options)
    assert [(r.method, r.seed) for r in done.findings.runs] == [(m, 0) for m in METHODS]
    for method in METHODS:
        alone = next(r for r in made[1].findings.runs if (r.method, r.seed) == (method, 0))
        beside = next(r for r in done.findings.runs if r.method == method)
        assert beside.fingerprint == alone.fingerprint and beside.scores == alone.scores


def test_a_failure_of_one_worker_stops_the_others(tmp_path):
    wrong = dataclasses.replace(
        TINY,
        experiments=tuple(
            dataclasses.replace(e, settings={**e.settings, "model": "mlp", "shots": 5, "meta_batch": 2},
                                conditions=(), steps=(-1,))
            for e in TINY.experiments
        ),
    )  # fmt: skip
    with pytest.raises(ValueError):
        tiny(tmp_path / "out", jobs=2, seeds=1, protocol=wrong)


# What tables and answers say.


def test_verdicts_in_these_runs_are_not_counted_as_more():
    weak, strong = "flatter in these runs", "flatter"
    assert _counted([strong, weak, "sharper", "cannot tell"]) == (
        "flatter by 2 and sharper by 1 of 4 measures, 1 of them in these runs"
    )
    assert _counted([weak, weak]) == "flatter by 2 and sharper by 0 of 2 measures in these runs"
    assert _counted([strong]) == "flatter by 1 and sharper by 0 of 1 measures"
    assert _counted(["cannot tell"] * 3) == "cannot be told from it by any of 3 measures"
    assert _counted([]) == "without a result"


def _entry_of(base, **changes):
    return Entry("sam", "initialization", "", 1, 1.0, base, changes)


def _change_of(value, base, half, verdict="cannot tell", holm=False, seeds=2):
    return Change(value, Mean(value - base, half, 0.0, 0.0, 0.0), verdict, holm, seeds)


@pytest.mark.parametrize(
    ("base", "change", "told"),
    [
        (2.0, _change_of(1.0, 2.0, 0.4), "−50 [−70, −30]"),
        (2.0, _change_of(1.0, 2.0, 0.4, "flatter", True), "−50 [−70, −30] flatter*"),
        (2.0, _change_of(1.0, 2.0, 0.4, "flatter in these runs", False, 1), "−50 [−70, −30] flatter† ¹"),
        (2.0, _change_of(1.0, 2.0, 0.4, "cannot tell", True), "−50 [−70, −30]"),
        (0.001, _change_of(1.0, 0.001, 0.4), "= 1"),
        (-2.0, _change_of(1.0, -2.0, 0.4), "= 1"),
        (2.0, _change_of(math.nan, 2.0, 0.4), "–"),
    ],
)  # fmt: skip
def test_changes_are_shares_where_a_share_says_something(base, change, told):
    assert _changed(_entry_of(base), change, 2) == told


def test_a_ledger_is_corrected_as_a_whole():
    def change(p, orientation_verdict="flatter"):
        return Change(1.0, Mean(-1.0, 0.1, 0.1, p, p), orientation_verdict, False, 3)

    entries = [
        dataclasses.replace(_entry_of(2.0, low=change(0.02), up=change(0.001)), name="a"),
        dataclasses.replace(_entry_of(2.0, low=change(0.04), up=change(0.2)), name="b"),
        # Neither sharper nor flatter: not a hypothesis.
        dataclasses.replace(_entry_of(2.0, low=change(1e-9)), name="c", orientation=0),
    ]
    first, second, third = _corrected(entries)
    assert first.changes["up"].holm and not first.changes["low"].holm
    assert first.changes["up"].told == "flatter" and first.changes["low"].told == "cannot tell"
    assert not any(c.holm for c in (*second.changes.values(), *third.changes.values()))


def _row(value, terms, draws=()):
    return estimate(
        "sam",
        value,
        Influence(tuple(terms), tuple(1 / len(terms) for _ in terms), "tasks", tuple(draws)),
        {},
    )


def test_a_change_is_paired_by_task_and_signed_by_what_is_sharper():
    base = [_row(2.0, [-1.0, 0.0, 1.0, 0.0]), _row(2.2, [-1.0, 0.1, 0.9, 0.0])]
    lower = [_row(1.0, [-1.0, 0.01, 0.99, 0.0]), _row(1.25, [-1.0, 0.11, 0.89, 0.0])]
    found = _change(base, lower, 1)
    assert found.mean.value == pytest.approx(-0.975) and found.value == pytest.approx(1.125)
    assert found.verdict == "flatter" and found.seeds == 2
    tasks = np.array([0.0, 0.01, -0.01, 0.0])  # of the mean over seeds, about its mean
    half = stats.t.ppf(0.975, 3) * tasks.std(ddof=1) / 2
    assert found.mean.episodes == pytest.approx(half, rel=1e-6)
    seeds = mean_of([[-1.0], [-0.95]])
    assert found.mean.seeds == pytest.approx(seeds.seeds)
    assert found.mean.p_seeds == pytest.approx(seeds.p_seeds)
    assert _change(base, lower, -1).verdict == "sharper"
    assert _change(base, lower, 0).verdict == "-"
    assert _change(lower, base, 1).verdict == "sharper"


def test_sixths_follow_the_sharpness():
    x, y = list(range(24))[::-1], [float(i) for i in range(24)]
    assert _sixths(x, y) == (21.5, 17.5, 13.5, 9.5, 5.5, 1.5)


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


def test_costs_are_ratios_of_the_fastest(made):
    runs = tuple(
        dataclasses.replace(r, fastest_seconds={"maml": 0.1, "sharp-up": 0.19}[r.method], update_seconds=1.0,
                            total_seconds=30.0)
        for r in made[1].findings.runs
    )  # fmt: skip
    table = costs(dataclasses.replace(made[1].findings, runs=runs), TINY.experiments[0])
    assert [str(entry) for entry in table.rows[1]] == [
        "Sharp-MAML up", "2", "1", "yes", "1000", "190", "1.9", "1",
    ]  # fmt: skip


def test_timings_are_of_the_log(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(f'{{"seconds": {s}}}\n' for s in (1.0, 3.0, 2.0)) + '{"sec')
    found = timings(log)
    assert (found["updates"], found["update_seconds"], found["total_seconds"]) == (3, 2.0, 6.0)
    assert found["fastest_seconds"] == pytest.approx(1.02) and timings(tmp_path / "none") == {}


def test_other_measures_that_say_something_else_are_named():
    def relation(name, low, high):
        return Relation(
            name, "adapted", (), (), (), None, None, Pooled(low + 0.1, low, high, 2, 24)
        )

    found = [
        relation("adapted_lambda_max", -0.5, -0.1), relation("adapted_sam", -0.9, -0.2),
        relation("adapted_trace", 0.4, 0.8), relation("adapted_average", -0.3, 0.3),
    ]  # fmt: skip
    assert _other_measures(found, "negative") == "; by others: trace +0.50"
    assert _other_measures(found[:2], "negative") == ""


def test_a_legend_stands_below_the_panels_at_every_width(made):
    figure = figures.scatter(made[1].findings, TINY.experiments[0])
    for arrangement in figure.layout.meta["arrangements"]:
        changes = arrangement["layout"]
        inner = changes["height"] - changes["margin.t"] - changes["margin.b"]
        below = -changes["legend.y"] * inner
        assert below == pytest.approx(52) and changes["margin.b"] > below


def test_the_command_that_goes_on_keeps_the_experiments():
    plan = Plan("omniglot", "small", METHODS, 2, 30.0, 0.1, "omniglot", {})
    some = running.with_experiments(PROTOCOLS["omniglot"], ["20-way-1-shot"])
    first, second = running._again(some, Path("/a/b/omni"), plan, "loop", needs_root=True)
    assert first == (
        "sharpmaml reproduce omniglot --seeds 2 --experiments 20-way-1-shot --alpha 0.1 --executor loop "
        "--data-root DIR --size small --out omni"
    )
    assert second.endswith("--size published --device cuda --out omni-published")
