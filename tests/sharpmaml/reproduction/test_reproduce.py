"""A tiny reproduction from end to end: interrupted, resumed, extended; what it shows and what it must not."""

import dataclasses
import json
import math

import numpy as np
import pytest

from sharpmaml import checkpoint as checkpoints
from sharpmaml import cli
from sharpmaml.evaluation import evaluate
from sharpmaml.objective import meta_objective
from sharpmaml.reproduction import PROTOCOLS, Published, figures, measuring, reproduce
from sharpmaml.reproduction.answers import answers
from sharpmaml.reproduction.depth import Depth
from sharpmaml.reproduction.ledger import averaged, read_report
from sharpmaml.reproduction.planning import Stage, timed
from sharpmaml.reproduction.protocols import Condition
from sharpmaml.reproduction.relation import task_values
from sharpmaml.reproduction.results import Gain
from sharpmaml.reproduction.statistics import Mean, Pooled
from sharpmaml.reproduction.tables import costs, scores, why_no_published
from sharpmaml.reproduction.writing import warnings

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
    assert done.page == out / "index.html" and page.count('class="drawing"') > 5
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


def test_the_first_answer_says_what_the_correction_takes_away(made):
    findings = dataclasses.replace(made[1].findings)
    half = Mean(-0.3, 0.1, 0.2, 0.001, 0.04)

    def told(verdict, holm):
        findings.__dict__["gains"] = {(KEY, "sharp-up"): Gain(half, verdict, holm)}
        return answers(findings)[0]

    size = "(−0.3 [−0.5, −0.1])"
    assert f"up is better {size}" in told("better", True)
    assert f"up is better, but not after correction, {size}" in told("better", False)
    assert f"up cannot be told apart {size}" in told("cannot tell", False)


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


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [("sharp-up", 0, "up has no result"), ("maml", 1, "without a result")],
)
def test_a_run_that_diverges_is_told_and_left_out(tmp_path, monkeypatch, method, answer, said):
    real = measuring.train

    def diverge(config, *args, **options):
        if config.method == method:
            raise measuring.DivergedError("the loss is not finite at iteration 3")
        return real(config, *args, **options)

    monkeypatch.setattr(measuring, "train", diverge)
    done = tiny(tmp_path / "out", seeds=1, depth=dataclasses.replace(DEPTH, points=0))
    assert "not finite at iteration 3" in done.page.read_text()
    assert said in answers(done.findings)[answer]


def test_a_measure_that_fails_costs_no_other(tmp_path, monkeypatch):
    real, tried = measuring.sharpness, []

    def fail(objective, measures, **options):
        if measures == "all" or "adapted_trace" in measures:
            tried.append(measures)
            raise RuntimeError("no such derivative")
        return real(objective, measures, **options)

    monkeypatch.setattr(measuring, "sharpness", fail)
    done = tiny(tmp_path / "out", seeds=1, depth=dataclasses.replace(DEPTH, points=0))
    names = [entry.name for entry in done.findings.ledgers[KEY]]
    assert "adapted_trace" not in names and {"adapted_sam", "lambda_max"} <= set(names)
    assert "adapted_trace (adapted): left out: no such derivative" in done.page.read_text()
    tried.clear()  # continued: it is not tried again, and still told
    done = tiny(tmp_path / "out", seeds=1, depth=dataclasses.replace(DEPTH, points=0))
    assert "adapted_trace (adapted): left out" in done.page.read_text() and not tried


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


@pytest.mark.parametrize("what", ["nothing", "failed", "left out", "unconverged"])
def test_the_command_ends_as_the_page_says(made, tmp_path, monkeypatch, capsys, what):
    done = made[1]
    first = done.findings.runs[0]
    changed = {
        "failed": {"failure": "the loss is not finite"},
        "left out": {"skipped": {"trace": "the hessian fails its test"}},
    }.get(what, {})
    runs = (dataclasses.replace(first, **changed), *done.findings.runs[1:])
    findings = dataclasses.replace(done.findings, runs=runs)
    if what == "unconverged":
        entry = dataclasses.replace(findings.ledgers[KEY][0], doubt="residual 0.1")
        findings.ledgers[KEY][:] = [entry]
    told = {
        "failed": "the loss is not finite", "left out": "left out: the hessian fails its test",
        "unconverged": "residual 0.1",
    }.get(what)  # fmt: skip
    assert told is None or any(told in line for line in warnings(findings))
    monkeypatch.setattr(
        "sharpmaml.reproduction.reproduce",
        lambda *_, **__: dataclasses.replace(done, findings=findings),
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main(["reproduce", "sinusoid", "--out", str(tmp_path / "out"), "--quiet"])
    out, err = capsys.readouterr()
    assert str(done.page) in out
    assert stopped.value.code == (0 if told is None else 1)
    assert told is None or (err.startswith("error: ") and told in err)


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


def test_a_legend_stands_below_the_panels_at_every_width(made):
    figure = figures.scatter(made[1].findings, TINY.experiments[0])
    for arrangement in figure.layout.meta["arrangements"]:
        changes = arrangement["layout"]
        inner = changes["height"] - changes["margin.t"] - changes["margin.b"]
        below = -changes["legend.y"] * inner
        assert below == pytest.approx(52) and changes["margin.b"] > below


def test_sixths_of_the_tasks_stand_side_by_side_on_one_scale(made):
    experiment = TINY.experiments[0]
    findings = dataclasses.replace(made[1].findings)
    assert figures.sixths(findings, experiment) is None  # three tasks have no sixths
    rows = ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (3.0, 4.0, 5.0, 6.0, 7.0, 8.0))
    known = findings.relations[KEY][0]
    relation = dataclasses.replace(
        known, methods=("maml", "maml"), sixths=rows, tasks=Pooled(0.3, 0.1, 0.5, 2, 12)
    )
    findings.__dict__["relations"] = {KEY: [known, relation, relation]}
    figure = figures.sixths(findings, experiment)
    size = findings.scale(experiment) * findings.sign(experiment)
    assert [list(trace.y) for trace in figure.data] == [[size * v for v in (2, 3, 4, 5, 6, 7)]] * 2
    assert figure.layout.yaxis2.matches == "y"
    assert "12 " in json.dumps(figure.to_plotly_json()["layout"], default=str)


def test_label_noise_is_drawn_from_none_to_all(made):
    noisy = tuple(Condition(f"{share} %", "noise", label_noise=share / 100) for share in (10, 40))
    experiment = dataclasses.replace(TINY.experiments[0], conditions=noisy)
    assert figures.curves(made[1].findings, [experiment]) == []  # not tested under these
    runs = tuple(
        dataclasses.replace(r, conditions={"10 %": [1.0, 2.0, 3.0], "40 %": [4.0, 5.0, 6.0]})
        for r in made[1].findings.runs
    )
    (figure,) = figures.curves(dataclasses.replace(made[1].findings, runs=runs), [experiment])
    scale = made[1].findings.scale(experiment)
    for trace, beside in zip(figure.data, (-0.2, 0.2), strict=True):
        assert list(trace.x) == pytest.approx([beside, 10 + beside, 40 + beside])
        assert list(trace.y)[1:] == pytest.approx([2 * scale, 5 * scale])


def test_methods_are_timed_before_a_budget_is_shared():
    config = TINY.experiments[0].config("maml", 0)
    found = timed({"maml": dataclasses.replace(config, device="cpu", executor="loop")})
    assert found["update"].keys() == {"maml"}
    assert all(
        seconds > 0 for seconds in (found["update"]["maml"], found["episode"], found["task"])
    )
