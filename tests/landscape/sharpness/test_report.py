import dataclasses
import json
import math

import pytest
import torch
from problems import conv_net, conv_objective, images, linear_regression, quadratic, symmetric
from torch import nn

import landscape.sharpness.running as running
from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.sharpness import ENTRIES, Measurement, NotApplicable, SharpnessReport, sharpness
from landscape.sharpness.measurement import Influence
from landscape.sharpness.registry import Entry
from landscape.sharpness.remarks import loss_of_guessing, remarks
from landscape.sharpness.text import WIDTH

NAMES = ("gradient_norm", "sam", "lambda_max", "average", "trace")


def bare(report):
    """Rows without what depends on how often the run was interrupted."""
    return [dataclasses.replace(row, paid=0.0) for row in report.rows]


def kinds(report):
    return {mark.kind: mark.rows for mark in report.remarks()}


def test_json_is_exact():
    names = ("lambda_max", "average", "sam")
    report = sharpness(conv_objective(batch_size=15), names)
    marks = {"sam": {"layers": False, "neurons": None, "layers_ratio": 1 / 3, "reason": "none"}}
    report = dataclasses.replace(report, invariance=marks, skipped={"asam": "why"})
    assert report["lambda_max"].influence.terms and report["average"].influence.draws
    assert report["average"].variants
    again = SharpnessReport.from_json(report.to_json())
    assert again.rows == report.rows
    for field in dataclasses.fields(SharpnessReport):
        assert getattr(again, field.name) == getattr(report, field.name), field.name
    assert again.to_json() == report.to_json()
    assert again.table() == report.table()


def test_odd_numbers_survive():
    odd = Measurement(
        "sam", math.inf, None, (-math.inf, 1.0), {"rho": math.inf, "of": None, "on": [1, 2.5]},
        bound=math.inf, influence=Influence((-math.inf, 1e-320), (0.5, 0.5), "parts", (1 / 3,)),
    )  # fmt: skip
    row = SharpnessReport.from_json(SharpnessReport((odd,)).to_json())["sam"]
    assert row == dataclasses.replace(odd, settings={"rho": math.inf, "of": None, "on": (1, 2.5)})


def test_documents_of_the_first_version_are_read():
    old = {
        "schema": "landscape.sharpness/1", "objective": {"objective": "function"}, "seed": 3,
        "measures": [{"name": "sam", "value": 0.5, "stderr": 0.1, "interval": None, "settings": {"rho": 0.05},
                      "cost": 1.7, "note": "", "converged": True}],
    }  # fmt: skip
    row = SharpnessReport.from_json(json.dumps(old))["sam"]
    assert (row.value, row.data_error, row.variants, row.influence) == (0.5, None, (), Influence())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": "landscape.sharpness/2"}', '{"schema": "landscape.sharpness/1"}',
     '{"schema": "landscape.sharpness/1", "objective": {}, "seed": 0, "measures": [3]}'],
)  # fmt: skip
def test_other_documents_are_refused(text):
    with pytest.raises(ValueError, match="sharpness report"):
        SharpnessReport.from_json(text)


class Interrupted(DataObjective):
    """Stops after so many passes without a gradient."""

    left = math.inf

    def scores(self, theta):
        type(self).left -= 1
        if type(self).left < 0:
            raise KeyboardInterrupt
        return super().scores(theta)


def test_a_run_that_was_interrupted_gives_the_same_report(tmp_path, monkeypatch):
    whole = sharpness(
        Interrupted(conv_net(), images(), batch_size=10), NAMES, out=tmp_path / "a.json"
    )
    where, left = tmp_path / "b.json", []
    for count in (10, 1, math.inf):
        monkeypatch.setattr(Interrupted, "left", count)
        objective = Interrupted(conv_net(), images(), batch_size=10)
        try:
            report = sharpness(objective, NAMES, out=where, seed=0)
        except KeyboardInterrupt:
            left.append(list(SharpnessReport.from_json(where.read_text())))
    assert left == [["gradient_norm", "sam", "lambda_max"]] * 2
    assert bare(report) == bare(whole)
    assert report.context == whole.context and report.asked == whole.asked
    assert SharpnessReport.from_json(where.read_text()).rows == report.rows
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.json", "b.json"]


def test_what_is_there_is_not_computed_again(tmp_path, monkeypatch):
    where, objective = tmp_path / "a.json", conv_objective()
    first = sharpness(objective, ["sam", "average"], out=where)

    def fail(*_, **__):
        raise AssertionError("computed again")

    entries = {
        name: dataclasses.replace(ENTRIES[name], measure=fail) for name in ("sam", "average")
    }
    changed = {name: dataclasses.replace(ENTRIES[name]) for name in ENTRIES}
    monkeypatch.setattr(running, "resolved", lambda table, chosen: first_settings(first))
    monkeypatch.setattr(running, "available", lambda _: changed | entries)
    again = sharpness(objective, ["average", "sam"], out=where)
    assert list(again) == ["average", "sam"] and again["sam"] == first["sam"]


def first_settings(report):
    return {name: dict(report.asked[name]) for name in report}


def test_rows_of_other_settings_are_computed_again_and_the_rest_stays(tmp_path):
    where, objective = tmp_path / "a.json", conv_objective()
    first = sharpness(objective, ["sam", "asam"], out=where)
    other = sharpness(objective, "sam", out=where, settings={"sam": {"rho": 0.2}})
    assert list(other) == ["sam", "asam"] and other["asam"] == first["asam"]
    assert other["sam"].settings["rho"] == 0.2 and other["sam"].value > first["sam"].value
    assert list(SharpnessReport.from_json(where.read_text())) == ["sam", "asam"]


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (lambda: conv_objective(), {"theta": conv_objective().theta * 2}, "theta_sha256 is"),
        (lambda: conv_objective(), {"seed": 1}, "seed is 0 there and 1 here"),
        (lambda: conv_objective(norm="batch"), {}, "norm is eval there and batch here"),
        (lambda: DataObjective(conv_net(), (images()[0] * 2, images()[1])), {}, "data_sha256 is"),
        (lambda: linear_regression()[0], {}, "there and"),
    ],
)
def test_the_report_of_another_run_is_never_overwritten(tmp_path, objective, options, message):
    where = tmp_path / "a.json"
    sharpness(conv_objective(), "sam", out=where)
    before = where.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        sharpness(objective(), "sam", out=where, **options)
    assert "give another name, or delete the file" in str(caught.value)
    assert "\n" not in str(caught.value) and where.read_bytes() == before


def test_formulas_are_told_apart_by_their_value(tmp_path):
    theta = torch.ones(3, dtype=torch.float64)
    sharpness(FunctionObjective(lambda t: (t * t).sum(), theta), "sam", out=tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"loss is 3.0 there and 6.0 here"):
        sharpness(
            FunctionObjective(lambda t: 2 * (t * t).sum(), theta), "sam", out=tmp_path / "a.json"
        )


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "landscape.surface/1"}', "\x80"])
def test_a_file_that_is_no_report_is_left_alone(tmp_path, text):
    where = tmp_path / "a.json"
    where.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="give another name, or delete the file"):
        sharpness(conv_objective(), "sam", out=where)
    assert where.read_bytes() == text.encode("latin-1")
    with pytest.raises(ValueError, match="does not exist"):
        sharpness(conv_objective(), "sam", out=tmp_path / "no" / "a.json")


def refusing(point):
    raise NotApplicable("no filters")


def broken(point):
    raise RuntimeError("derivative for\n x is not implemented")


def test_all_measures_skip_and_one_by_name_raises(monkeypatch):
    table = {
        "gradient_norm": ENTRIES["gradient_norm"],
        "refusing": Entry(refusing, "", "", 1, 1.0),
        "broken": Entry(broken, "", "", 1, 1.0),
        "sam": ENTRIES["sam"],
    }
    monkeypatch.setattr(running, "available", lambda _: table)
    bowl = quadratic(symmetric([2.0, 1.0]), torch.ones(2))
    report = sharpness(bowl)
    assert list(report) == ["gradient_norm", "sam"]
    assert report.skipped == {
        "refusing": "no filters",
        "broken": "failed: RuntimeError: derivative for x is not implemented",
    }
    assert "skipped: refusing: no filters" in report.table()
    with pytest.raises(NotApplicable, match="no filters"):
        sharpness(bowl, ["sam", "refusing"])
    with pytest.raises(RuntimeError, match="not implemented"):
        sharpness(bowl, "broken")


def test_every_cost_is_on_the_account():
    class Counted(FunctionObjective):
        spent = 0.0

        def value(self, theta):
            type(self).spent += 1 / 3
            return super().value(theta)

        def gradient(self, theta):
            type(self).spent += 2 / 3
            return super().gradient(theta)

    bowl = quadratic(symmetric([3.0, 2.0, 1.0]))
    report = sharpness(Counted(bowl.value, torch.ones(3).double()), ["sam", "average", "asam"])
    assert report.spent == pytest.approx(Counted.spent)
    assert report.overhead["loss at the point"] == pytest.approx(1 / 3)
    assert sharpness(bowl, "lambda_max").overhead["self-test of the Hessian"] > 1


def test_the_loss_of_guessing_is_the_entropy_of_the_labels():
    x, _ = images(10)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    expected = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    objective = DataObjective(conv_net(), (x, labels), batch_size=3)
    assert loss_of_guessing(objective) == pytest.approx(expected)
    assert loss_of_guessing(linear_regression()[0]) is None


def fitted():
    """Softmax regression far down its loss."""
    x = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    net = nn.Linear(3, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(4 * torch.eye(3))
    return DataObjective(net, (x, torch.arange(3).repeat(4)))


def test_radii_beyond_chance_are_told():
    settings = {"average": {"sigma": 0.01, "ladder": (50.0,)}}
    report = sharpness(fitted(), ["average", "sam"], settings=settings)
    assert report.context["chance"] == pytest.approx(math.log(3))
    assert kinds(report)["beyond chance"] == ("average sigma=50",)
    assert "untrained" not in kinds(report)
    assert "mind: average (sigma=50): the loss after the step is above 1.1" in report.table()


def test_a_loss_above_chance_says_that_nothing_was_learned():
    report = sharpness(conv_objective(), ["sam", "gradient_norm"])
    assert report.context["loss"] > report.context["chance"]
    assert kinds(report)["untrained"] == ("sam", "gradient_norm")
    assert "beyond chance" not in kinds(report)


def test_a_rise_that_is_all_slope_is_told():
    matrix = symmetric([4.0, 2.0, 1.0])
    hill, minimum = (
        quadratic(matrix, torch.ones(3).double()),
        quadratic(matrix, 1e-9 * torch.ones(3)),
    )
    names = ("sam", "asam", "worst_l2")
    settings = {"worst_l2": {"rho": 0.01, "ladder": (100.0,)}}
    assert kinds(sharpness(hill, names, settings=settings))["slope"] == ("sam", "asam", "worst_l2")
    assert "slope" not in kinds(sharpness(minimum, ["sam"], settings={"sam": {"rho": 1.0}}))


def test_remarks_follow_the_numbers():
    about = {"m": {"orientation": 1}, "n": {"orientation": 0}}
    rows = [
        Measurement("m", 1.0, interval=(-1.0, 3.0), variants=(Measurement("m", math.nan, settings={"k": 2}),)),
        Measurement("n", 1.0, interval=(-1.0, 3.0), converged=False),
    ]  # fmt: skip
    marks = {"m": {"layers": True, "neurons": False}, "n": {"layers": None}}
    found = {mark.kind: mark.rows for mark in remarks(rows, about, {}, marks)}
    assert found == {
        "no sign": ("m",), "not finite": ("m k=2",), "unconverged": ("n",), "not invariant": ("m",),
    }  # fmt: skip


def relu_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def test_invariance_is_measured_and_told():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)).double()
    with torch.random.fork_rng(devices=[]):
        objective = DataObjective(relu_net(), (x, torch.arange(40) % 3))
    report = sharpness(objective, ["sam", "fisher_rao"], invariance=True)
    assert report.invariance["sam"]["layers"] is False
    assert report.overhead["invariance"] > 0
    assert "not invariant" in kinds(report)
    head = report.table().splitlines()[0].split()
    assert (
        "invariant" in head
        and "invariant" not in sharpness(objective, "sam").table().splitlines()[0]
    )
    broke = sharpness(objective, ["sam", "average"], invariance=True, budget="34FB")
    assert "invariance" not in broke.overhead and broke.skipped["invariance"].startswith("budget")


def test_lines_are_not_longer_than_a_terminal():
    table = sharpness(conv_objective(batch_size=10), NAMES).table()
    assert max(map(len, table.splitlines())) <= WIDTH
    heads = table.splitlines()[0].split()
    assert heads[:3] == ["measure", "value", "±"] and "paid" in heads
    assert "  sigma=0.02" in table
