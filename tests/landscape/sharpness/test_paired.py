import dataclasses
import math

import numpy as np
import pytest
import torch
from problems import conv_objective, normal, softmax_regression
from scipy.stats import t as student
from torch import nn

from landscape.data_objective import DataObjective
from landscape.sharpness import MEASURES, Point, SharpnessReport, difference, differences, sharpness
from landscape.sharpness.measurement import Influence, Measurement, estimate
from landscape.sharpness.verdicts import Differences, percent


def row(value, terms=None, draws=None, *, of="examples", weights=None, bound=0.0, name="sam"):
    made = Influence.made(
        None if terms is None else torch.as_tensor(terms).double(),
        of,
        None if weights is None else torch.as_tensor(weights).double(),
        None if draws is None else torch.as_tensor(draws).double(),
    )
    return estimate(name, value, made, {}, bound=bound)


def test_terms_are_paired():
    a, b = normal(40, seed=1), normal(40, seed=2)
    b = a + 0.1 * b
    found = difference(row(1.0, a), row(1.5, b))
    error = float((b - a).std()) / math.sqrt(40)
    assert found.value == 0.5 and found.ratio == 1.5
    assert found.stderr == pytest.approx(error, rel=1e-12)
    half = student.ppf(0.975, 39) * error
    assert found.interval == pytest.approx((0.5 - half, 0.5 + half), rel=1e-12)
    assert found.paired == "data" and found.verdict == "sharper"
    assert found.p == pytest.approx(2 * student.sf(0.5 / error, 39), rel=1e-9)
    assert found.change == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_weighted_parts_are_paired():
    a, b, w = normal(7, seed=1), normal(7, seed=2), torch.arange(1.0, 8.0).double()
    found = difference(row(1.0, a, of="parts", weights=w), row(1.0, b, of="parts", weights=w))
    w = w / w.sum()
    d = b - a
    d = d - (w * d).sum()
    assert found.stderr == pytest.approx(math.sqrt(float((w * d**2).sum()) / 6), rel=1e-12)


def test_draws_are_paired_on_request_and_errors_add():
    a, b, x, y = normal(30, seed=1), normal(30, seed=2), normal(9, seed=3), normal(9, seed=4)
    one, two = row(2.0, a, x), row(1.0, b, y)
    data = float((b - a).std()) / math.sqrt(30)
    both = difference(one, two)
    drawn = float((y - x).std()) / 3
    assert both.stderr == pytest.approx(math.hypot(data, drawn), rel=1e-12)
    assert both.paired == "data and draws"
    apart = difference(one, two, draws=False)
    separate = math.hypot(float(x.std()), float(y.std())) / 3
    assert apart.stderr == pytest.approx(math.hypot(data, separate), rel=1e-12)
    assert apart.paired == "data"
    freedom = apart.stderr**4 / (
        data**4 / 29 + float(x.std() / 3) ** 4 / 8 + float(y.std() / 3) ** 4 / 8
    )
    half = student.ppf(0.975, freedom) * apart.stderr
    assert apart.interval == pytest.approx((-1 - half, -1 + half), rel=1e-9)


def test_terms_of_another_kind_are_not_paired():
    a, b = normal(30, seed=1), normal(6, seed=2)
    found = difference(row(1.0, a), row(1.0, b, of="parts"))
    expected = math.hypot(float(a.std()) / math.sqrt(30), float(b.std()) / math.sqrt(6))
    assert found.stderr == pytest.approx(expected, rel=1e-12)
    assert found.paired == "" and found.data


def test_an_error_that_only_one_has_is_none_of_the_difference():
    found = difference(row(1.0, normal(30)), row(3.0, None, of="unknown", bound=0.5))
    assert found.stderr is None and not found.data and found.p is None
    assert found.interval == (1.5, 2.5) and found.verdict == "sharper"
    assert difference(row(1.0, None, of="unknown"), row(2.0, None, of="unknown")).verdict == (
        "cannot tell"
    )


def test_bounds_add_and_formulas_are_exact():
    found = difference(row(1.0, of="exact", bound=0.2), row(1.25, of="exact", bound=0.1))
    assert found.stderr == 0 and found.data and found.p is None
    assert found.interval == pytest.approx((-0.05, 0.55)) and found.verdict == "cannot tell"


@pytest.mark.parametrize(
    ("value", "orientation", "verdict"),
    [
        (2.0, 1, "sharper"),
        (0.5, 1, "flatter"),
        (2.0, -1, "flatter"),
        (0.5, -1, "sharper"),
        (2.0, 0, "-"),
        (1.0, 1, "cannot tell"),
        (math.nan, 1, "cannot tell"),
        (math.inf, 1, "cannot tell"),
    ],
)
def test_verdicts(value, orientation, verdict):
    a = normal(30, seed=1)
    found = difference(row(1.0, a), row(value, a + 0.01 * normal(30, seed=2)), orientation)
    assert found.verdict == verdict
    assert (found.p is None) == (orientation == 0 or not math.isfinite(value))


def test_the_difference_of_sam_is_that_of_the_rises():
    objective, _ = softmax_regression()
    other = objective.theta * 1.7

    def rises(theta):
        g = objective.gradient(theta)
        return objective.losses(theta + 0.05 * g / g.norm()) - objective.losses(theta)

    each = rises(other) - rises(objective.theta)
    reports = [
        sharpness(objective, ["sam", "gradient_norm"], theta=theta)
        for theta in (objective.theta, other)
    ]
    sam, slope = differences(*reports).rows
    found = differences(*reports)
    assert sam.value == pytest.approx(float(each.mean()), rel=1e-9)
    moved = np.subtract(*(report["sam"].influence.terms for report in reports[::-1]))
    assert sam.stderr == pytest.approx(np.std(moved, ddof=1) / math.sqrt(50), rel=1e-9)
    assert slope.verdict == "-" and slope.p is None and found.tested == 1


def test_false_verdicts_are_about_one_in_twenty():
    """Two solutions that are equally sharp in truth, on 200 samples that share their noise."""
    wrong, repetitions = 0, 200
    net = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    rng = np.random.default_rng(0)
    ends = [torch.tensor(w).double() for w in ([1.0, 0.0], [0.0, 1.0])]
    for _ in range(repetitions):
        x, noise = rng.standard_normal((60, 2)), 2 * rng.standard_normal((60, 1))
        objective = DataObjective(net, (torch.from_numpy(x), torch.from_numpy(noise)), "mse_loss")
        a, b = (MEASURES["sam"](Point(objective, theta)) for theta in ends)
        wrong += difference(a, b).verdict != "cannot tell"
    assert 0.015 <= wrong / repetitions <= 0.095


def test_twins_cannot_be_told_apart():
    one, two = (sharpness(conv_objective(batch_size=10), ["sam", "average"]) for _ in range(2))
    assert all(each.value == 0 and each.verdict == "cannot tell" for each in differences(one, two))


def holm(ps, decided=True):
    """The marks of a table with these p values."""
    about = {f"m{i}": {"orientation": 1} for i in range(len(ps))}
    a, b = normal(1000, seed=1), normal(1000, seed=2)
    error = float((b - a).std()) / math.sqrt(1000)
    reports = []
    for side in (0, 1):
        rows = [
            row(side * error * student.isf(p / 2, 999), (a, b)[side], name=f"m{i}")
            for i, p in enumerate(ps)
        ]
        reports.append(SharpnessReport(tuple(rows), about=about))
    return [each.holm for each in differences(*reports)]


def test_holm():
    # 0.012 <= 0.05/4, 0.016 <= 0.05/3, 0.03 > 0.05/2: the last two fail though 0.045 < 0.05.
    assert holm([0.045, 0.016, 0.03, 0.012]) == [False, True, False, True]
    assert holm([0.013, 0.013, 0.013, 0.013]) == [False] * 4
    assert holm([0.04]) == [True]


def test_variants_are_compared_at_equal_settings():
    objective = conv_objective()
    a = sharpness(objective, "average", settings={"average": {"ladder": (0.02, 0.05)}})
    b = sharpness(objective, "average", theta=objective.theta * 2,
                  settings={"average": {"ladder": (0.02, 0.05)}})  # fmt: skip
    found = differences(a, b, "small", "large")
    assert [each.settings for each in found] == [{}, {"sigma": 0.02}, {"sigma": 0.05}]
    for each, x, y in zip(
        found, (a["average"], *a["average"].variants), (b["average"], *b["average"].variants),
        strict=True,
    ):  # fmt: skip
        assert each.value == y.value - x.value and each.paired == "data and draws"
    table = found.table().splitlines()
    assert table[0].split()[:4] == ["measure", "small", "large", "difference"]
    assert "about 0.15 of 3 verdicts" in found.table()


def test_draws_of_networks_of_other_sizes_are_not_paired():
    objective, _ = softmax_regression()
    report = sharpness(objective, "average")
    other = SharpnessReport(
        report.rows, report.objective, asked=report.asked, about=report.about,
        context={**report.context, "params": 99.0},
    )  # fmt: skip
    assert differences(report, other).rows[0].paired == "data"
    assert differences(report, other).rows[0].stderr > 0


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (conv_objective(loss="multi_margin_loss"), {}, "measured on other data: loss is"),
        (softmax_regression()[0], {}, "other data: examples is 30 and 50"),
        (conv_objective(), {"seed": 1}, "other draws: seed is 0 and 1"),
        (conv_objective(), {"measures": "asam"}, "no measure in common"),
        (conv_objective(), {"settings": {"sam": {"rho": 1.0}}}, "no measure in common"),
    ],
)
def test_what_cannot_be_compared(objective, options, message):
    report = sharpness(conv_objective(), "sam")
    with pytest.raises(ValueError, match=message):
        differences(report, sharpness(objective, **{"measures": "sam", **options}))


def test_other_data_of_the_same_shape_are_refused():
    x, y = normal(20, 3, seed=1), normal(20, 1, seed=2)
    net = nn.Linear(3, 1, dtype=torch.float64)
    one, two = (
        sharpness(DataObjective(net, (data, y), "mse_loss"), "sam") for data in (x, x + 1e-9)
    )
    with pytest.raises(ValueError, match="data_sha256 is"):
        differences(one, two)


def test_percent():
    assert percent((0.5, 0.5, 0.5)) == "+50 %"
    assert percent((0.0012, 0.0010, 0.0014)) == "+0.12 % [+0.10, +0.14]"
    assert percent((0.0, -1e-12, 1e-12)) == "+0 %"
    assert percent((-0.1, -0.2, -0.001)) == "−10 % [−20, −0]"
    assert percent((math.nan, 0, 1)) == "-"


def test_a_change_from_nothing_has_no_percentage():
    found = difference(row(0.0, of="exact"), row(1.0, of="exact"))
    assert found.change is None and math.isnan(found.ratio) and found.verdict == "sharper"
    document = Differences((found,)).document()
    assert document["differences"][0]["value"] == 1.0 and document["expected_by_chance"] == 0
    assert isinstance(Measurement("x", 1.0).variants, tuple)


def test_measures_of_one_report_alone_are_named_and_left_out():
    about = {name: {"orientation": 1} for name in ("sam", "trace", "asam")}
    rows = {name: row(1.0, normal(9, seed=1), name=name) for name in about}
    one = SharpnessReport((rows["sam"], rows["trace"]), about=about)
    two = SharpnessReport((rows["asam"], rows["trace"]), about=about)
    found = differences(one, two)
    assert [each.name for each in found] == ["trace"] and found.missing == ("sam", "asam")


def test_without_an_orientation_there_is_no_verdict():
    reports = [
        SharpnessReport((row(value, normal(9, seed=1)),), about={"sam": {}}) for value in (1.0, 2.0)
    ]
    (found,) = differences(*reports)
    assert found.verdict == "-" and found.p is None


def test_a_star_is_for_what_holms_correction_leaves():
    a = normal(30, seed=1)
    near = difference(row(1.0, a), row(1.05, a + 0.1 * normal(30, seed=2)), 1)
    for holm in (True, False):
        table = Differences((dataclasses.replace(near, holm=holm),), "A", "B").table()
        assert (f"{near.verdict}*" in table.splitlines()[1]) == holm


def test_what_residuals_leave_open_is_taken_off_before_a_difference_is_judged():
    a = normal(40, seed=1)
    b = a + 0.1 * normal(40, seed=2)
    error = float((b - a).std()) / math.sqrt(40)
    found = difference(row(1.0, a, bound=0.01), row(1.06, b, bound=0.02))
    assert found.p == pytest.approx(2 * student.sf(0.03 / error, 39), rel=1e-9)
    assert difference(row(1.0, a, bound=0.05), row(1.06, b, bound=0.02)).p == 1.0
