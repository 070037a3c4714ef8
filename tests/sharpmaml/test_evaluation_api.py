"""Checkpoints on the same episodes: comparisons, audits, curves, permutations, and what they refuse."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from sharpmaml import checkpoint as checkpoints
from sharpmaml import evaluation
from sharpmaml.evaluating.conditions import Conditions, Trial
from sharpmaml.evaluation import compare, evaluate, score

SMALL = {"episodes": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def run(images_run):
    return checkpoints.read(images_run)


def changed(run, noise=0.0, **settings):
    """The same run with other settings, and with weights a little elsewhere."""
    g = torch.Generator().manual_seed(settings.get("seed", 0))
    theta = run.theta + noise * torch.randn(run.theta.shape, generator=g)
    config = dataclasses.replace(run.config, **settings)
    return dataclasses.replace(run, theta=theta, config=config)


def test_evaluate_gives_the_scores_of_score(run, sine_run):
    for given in (run, checkpoints.read(sine_run)):
        trial = Trial(given, Conditions(dtype="float64", **SMALL))
        metric, expected = score(trial._make, trial._make.theta, trial.inner, 8)
        found = evaluate(given, dtype="float64", **SMALL)
        assert found.metric == metric and found.scores.dtype == np.float64
        np.testing.assert_allclose(found.scores, expected, rtol=1e-9)


def test_episodes_come_in_order_and_once(run):
    trial = Trial(run, Conditions(**SMALL))
    parts = list(trial.stacks(3))
    assert [len(part.query_x) for part in parts] == [3, 3, 2]
    queries = torch.cat([part.query_x for part in parts])
    expected = torch.stack([trial.source.episode(i).query_x for i in range(8)])
    assert torch.equal(queries, expected)


def test_the_adaptation_is_that_of_the_checkpoint(run):
    head = evaluate(changed(run, method="anil"), dtype="float64", **SMALL)
    assert not np.array_equal(head.scores, evaluate(run, dtype="float64", **SMALL).scores)
    sam = changed(run, method="sharp-low", sam_at_test=True, alpha_low=0.5)
    assert sam.inner().lower == 0.5
    found = evaluation.curve(sam, dtype="float64", **SMALL).loss
    plain = evaluation.curve(run, dtype="float64", **SMALL).loss
    assert np.array_equal(found[:, 0], plain[:, 0]) and (found[:, 1] != plain[:, 1]).all()


def test_standings(run):
    runs = [
        changed(run, 0.3 * noise, method=method, seed=seed)
        for method, seed, noise in (("maml", 0, 0), ("maml", 1, 1), ("anil", 0, 1), ("anil", 1, 1))
    ]
    found = compare(runs, **SMALL)
    assert found.labels == ("MAML, seed 0", "MAML, seed 1", "ANIL, seed 0", "ANIL, seed 1")
    scores = [evaluate(r, **SMALL).scores for r in runs]
    assert all(np.array_equal(e.scores, s) for e, s in zip(found.evaluations, scores, strict=True))
    assert [(g.first, g.second) for g in found.gaps] == [
        ("MAML, seed 0", name) for name in found.labels[1:]
    ]
    assert found.gaps[1].mean.value == pytest.approx((scores[2] - scores[0]).mean())
    assert [g.method for g in found.groups] == ["MAML", "ANIL"]
    assert found.groups[1].scores == (scores[2].mean(), scores[3].mean())
    assert found.seed_gaps[0].mean.value == pytest.approx(
        np.mean([scores[2].mean() - scores[0].mean(), scores[3].mean() - scores[1].mean()])
    )
    pairs = compare(runs, all_pairs=True, **SMALL)
    assert len(pairs.gaps) == 6 and "Other pairs" in pairs.table()
    assert pairs.to_dict()["expected_by_chance"] == pytest.approx(0.3)
    text = found.table()
    assert "Over seeds" in text and "8 episodes of seed 0" in text and "transductive" in text
    for label, e in zip(found.labels, found.evaluations, strict=True):
        assert any(
            line.startswith(label) and f"{100 * e.mean:.2f} ± {100 * e.ci95:.2f} %" in line
            for line in text.splitlines()
        )


def test_files(run):
    runs = [run, changed(run, 0.3, seed=1, data_options={"alphabets": 4, "seed": 0})]
    found = compare(runs, **SMALL)
    document = json.loads(json.dumps(found.to_dict()))
    assert [c["seed"] for c in document["checkpoints"]] == [0, 1]
    assert document["checkpoints"][0]["norm"].endswith("(transductive)")
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["kind"] for row in rows] == ["checkpoint", "checkpoint", "difference"]
    assert float(rows[2]["value"]) == found.gaps[0].mean.value
    assert rows[2]["against"] == rows[0]["name"] == found.labels[0]
    half = float(rows[0]["high"]) - float(rows[0]["value"])
    assert half == pytest.approx(found.evaluations[0].ci95)
    latex = found.to_latex()
    assert r"data\_options=" in latex and r"accuracy (\%)" in latex and r"\midrule" in latex
    body = latex[: latex.index(r"\end{tabular}")].splitlines()[1:]
    assert all("_" not in line.replace(r"\_", "") for line in body)
    counts = {line.count(" & ") for line in body if line.endswith(r"\\")}
    assert counts == {3} and latex.isascii()
    alone = found.to_latex(environment=False)
    assert "tabular" not in alone and alone.count(r"\\") == 2


def test_names_tell_runs_apart(run, tmp_path):
    other = dataclasses.replace(run, step=7)
    found = compare([run, other, run, changed(run, alpha_up=0.5)], **SMALL)
    one, two, three, four = found.labels
    assert four == "MAML alpha_up=0.5" and two == "MAML alpha_up=0.05, step 7"
    assert one != three and one.startswith("MAML alpha_up=0.05, step 20")
    assert found.groups == ()  # the same seed twice says nothing about seeds
    longer = changed(run, iterations=99, seed=1)
    assert compare([run, longer], **SMALL).labels == ("MAML, seed 0", "MAML, seed 1")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ways": 2}, "ways is 3 for MAML ways=3 and 2 for MAML ways=2; evaluate them apart"),
        ({"queries": 3}, "queries is 2 for .* give --queries"),
        ({"shots": 2}, "shots is 1 for .* give --shots"),
        ({"data": "glyphs", "data_options": {}}, "data is 'strokes' for .* give --data"),
        ({"data_options": {"alphabets": 5}}, "fingerprint is .* give --data"),
    ],
)
def test_other_episodes_are_refused(run, settings, says):
    with pytest.raises(ValueError, match=says) as told:
        compare([run, changed(run, **settings)], **SMALL)
    assert "\n" not in str(told.value)


def test_what_was_refused_can_be_asked_for(run):
    other = changed(run, queries=3, data="glyphs", data_options={})
    found = compare([run, other], data="glyphs", queries=4, **SMALL)
    assert found.gaps[0].mean.value == 0 and found.gaps[0].verdict == "cannot tell"
    assert {e.settings["queries"] for e in found.evaluations} == {4}
    with pytest.raises(ValueError, match="give at least one"):
        compare([])
    with pytest.raises(ValueError, match="norm is 'batch'"):
        evaluate(run, norm="batch")


def test_audit(run, sine_run):
    found = evaluation.audit(run, **SMALL)
    for norm, e in found.evaluations.items():
        assert np.array_equal(e.scores, evaluate(run, norm=norm, **SMALL).scores)
    assert len({e.settings["norm"] for e in found.evaluations.values()}) == 3
    assert [(g.first, g.second) for g in found.gaps] == [
        ("query", "support"), ("query", "one-by-one")
    ]  # fmt: skip
    expected = found.evaluations["support"].scores - found.evaluations["query"].scores
    assert found.gaps[0].mean.value == pytest.approx(expected.mean())
    assert "one-by-one" in found.table() and json.dumps(found.to_dict())
    none = evaluation.audit(sine_run, **SMALL)
    assert all(g.mean.value == 0 and g.verdict == "cannot tell" for g in none.gaps)


def test_curve(run, sine_run):
    found = evaluation.curve(run, steps=4, **SMALL)
    assert found.loss.shape == found.accuracy.shape == (8, 5)
    for steps in (0, 4):
        assert np.array_equal(found.accuracy[:, steps], evaluate(run, steps=steps, **SMALL).scores)
    d = found.to_dict()
    assert d["steps"] == [0, 1, 2, 3, 4] and len(d["loss_ci95"]) == 5
    assert d["accuracy"][2] == pytest.approx(found.accuracy[:, 2].mean())
    assert len(found.table().splitlines()) == 7
    sine = evaluation.curve(sine_run, **SMALL)
    assert sine.accuracy is None and sine.loss.shape == (8, 21)
    assert np.array_equal(sine.loss[:, 1], evaluate(sine_run, steps=1, **SMALL).scores)
    assert "accuracy" not in sine.to_dict() and sine.table()


def test_permuting_labels_is_permuting_the_head(run):
    found = evaluation.permutations(run, 6, dtype="float64", **SMALL)
    assert found.all and found.accuracy.shape == (8, 6)
    plain = evaluate(run, dtype="float64", **SMALL)
    assert np.array_equal(found.accuracy[:, 0], plain.scores)
    # Output c answers for class σ(c): the same network with the rows of its head in that order.
    tensors = {k: v.clone() for k, v in run.space.unflatten(run.theta).items()}
    for key in list(tensors)[-2:]:
        tensors[key] = tensors[key][[2, 0, 1]]
    turned = dataclasses.replace(run, theta=run.space.flatten(tensors))
    column = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].index([2, 0, 1])
    expected = evaluate(turned, dtype="float64", **SMALL).scores
    assert np.array_equal(found.accuracy[:, column], expected)
    assert found.within.max() > 0 and "all, of every episode" in found.table()


def test_a_symmetric_head_does_not_mind_permutations(run):
    tensors = {k: v.clone() for k, v in run.space.unflatten(run.theta).items()}
    for key in list(tensors)[-2:]:
        tensors[key] = tensors[key].mean(0, keepdim=True).expand_as(tensors[key])
    symmetric = dataclasses.replace(run, theta=run.space.flatten(tensors))
    found = evaluation.permutations(symmetric, 4, dtype="float64", **SMALL)
    assert not found.all and (found.within < 1e-12).all() and found.accuracy.mean() > 1 / 3
    assert found.to_dict()["spread"] == 0


def test_calibration(run):
    found = evaluation.calibration(run, dtype="float64", **SMALL)
    assert found.probabilities.shape == (8, 6, 3)
    np.testing.assert_allclose(found.probabilities.sum(2), 1)
    steps = run.config.test_steps
    expected = evaluation.curve(run, steps=steps, dtype="float64", **SMALL)
    np.testing.assert_allclose(found.nll, expected.loss[:, -1], rtol=1e-9)
    assert (found.probabilities.argmax(2) == found.labels).mean() == pytest.approx(
        expected.accuracy[:, -1].mean()
    )


def test_regression_has_no_classes(sine_run):
    for ask in (evaluation.calibration, evaluation.permutations):
        with pytest.raises(ValueError, match="needs classes, but sinusoid is a regression"):
            ask(sine_run, **SMALL)


@pytest.mark.parametrize("count", [-1, 0, 1])
def test_a_variance_needs_two(run, count):
    with pytest.raises(ValueError, match=f"permutations is {count}"):
        evaluation.permutations(run, count, **SMALL)


def test_harder_tests(run):
    plain = evaluate(run, **SMALL)
    noisy = evaluate(run, label_noise=1.0, **SMALL)
    shifted = evaluate(run, shift="invert", **SMALL)
    assert noisy.mean < plain.mean and not np.array_equal(shifted.scores, plain.scores)
    assert noisy.settings["label_noise"] == 1.0 and "label_noise" not in plain.settings
    with pytest.raises(ValueError, match="not the same episodes: label_noise is"):
        noisy.difference(plain)
    with pytest.raises(ValueError, match="shift"):
        evaluate(run, shift="sideways", **SMALL)


def test_nothing_is_touched(run):
    tensors = [run.theta, *run.model.state_dict().values()]
    before, state = [t.clone() for t in tensors], torch.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002 - must stay untouched
    compare([run, run], **SMALL)
    evaluation.audit(run, **SMALL)
    evaluation.curve(run, steps=2, **SMALL)
    evaluation.permutations(run, 3, **SMALL)
    evaluation.calibration(run, **SMALL).to_dict()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert all(p.grad is None for p in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
