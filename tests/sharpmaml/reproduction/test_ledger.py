"""What the ledger, the tables and the answers say: paired, corrected, and no more than was found."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from landscape.sharpness.measurement import Influence, estimate
from sharpmaml.reproduction.answers import _counted, _other_measures
from sharpmaml.reproduction.ledger import Change, Entry, _change, _corrected
from sharpmaml.reproduction.relation import Relation, _sixths
from sharpmaml.reproduction.statistics import Mean, Pooled, mean_of
from sharpmaml.reproduction.tables import _changed


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
