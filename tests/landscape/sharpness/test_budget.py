import pytest
import torch
from problems import conv_objective, quadratic, symmetric

from landscape.objective import FunctionObjective
from landscape.sharpness import ENTRIES, sharpness
from landscape.sharpness.budget import Budget, Purse
from landscape.sharpness.measurement import estimate
from landscape.sharpness.point import measured
from landscape.sharpness.registry import available, forecast


class Meter:
    """A clock and an account that tests move by hand."""

    def __init__(self):
        self.fb = self.seconds = 0.0

    def purse(self, text):
        return Purse(Budget.parse(text), lambda: self.fb, lambda: self.seconds)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("60s", 60, "s"), ("5min", 300, "s"), ("1.5 h", 5400, "s"), ("200FB", 200, "FB"), ("7fb", 7, "FB")],
)  # fmt: skip
def test_units(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["60", "FB", "-3s", "0s", "1e3s", "5 minutes", ""])
def test_what_is_no_budget(text):
    with pytest.raises(ValueError, match=r"such as 60s, 5min or 200FB"):
        Budget.parse(text)


def test_gradients_are_counted_from_where_the_purse_was_opened():
    meter = Meter()
    meter.fb = 7.0
    purse = meter.purse("10FB")
    assert purse.refusal(10) == ""
    assert purse.refusal(10.5) == "budget: about 10.5 FB needed, 10 FB left"
    meter.fb += 8
    assert purse.refusal(2) == "" and purse.refusal(2.1).endswith("2 FB left")
    meter.fb += 8
    assert purse.refusal(0.1).endswith(" 0 FB left")


def test_seconds_go_by_what_a_gradient_has_taken():
    meter = Meter()
    purse = meter.purse("1min")
    meter.fb, meter.seconds = 4.0, 2.0
    assert purse.seconds_per_fb == 0.5
    assert purse.refusal(116) == ""
    assert purse.refusal(118) == "budget: about 59 s needed, 58 s left"
    meter.fb, meter.seconds = 8.0, 16.0  # slower than it seemed
    assert purse.refusal(22) == "" and purse.refusal(22.5) != ""


def test_no_budget_refuses_nothing():
    assert Purse(None, lambda: 0.0).refusal(1e9) == ""


def test_what_does_not_fit_is_skipped_and_cheaper_ones_still_run():
    report = sharpness(conv_objective(), budget="16FB")
    assert list(report)[:3] == ["gradient_norm", "sam", "asam"]
    assert "lambda_max" in report.skipped and "relative_flatness" in report
    assert report.skipped["lambda_max"].startswith("budget: about 60 FB needed, ")
    assert report.spent <= 16
    names = list(ENTRIES)
    assert names.index("relative_flatness") > names.index("lambda_max")


def test_seconds_are_respected_by_a_slow_objective(monkeypatch):
    meter = Meter()

    class Slow(FunctionObjective):
        """A second a gradient, a third of one a value."""

        def value(self, theta):
            meter.seconds += 1 / 3
            return super().value(theta)

        def gradient(self, theta):
            meter.seconds += 2 / 3
            return super().gradient(theta)

    monkeypatch.setattr(Purse.__init__, "__defaults__", (lambda: meter.seconds,))
    bowl = quadratic(symmetric([3.0, 2.0, 1.0]))
    slow = Slow(bowl.value, torch.ones(3, dtype=torch.float64))
    report = sharpness(slow, ["gradient_norm", "average", "sam"], budget="10s")
    assert list(report) == ["gradient_norm", "sam"]
    assert "s needed" in report.skipped["average"]
    assert report.overhead["timing one gradient"] == 1
    assert meter.seconds <= 10


def test_a_forecast_knows_what_is_shared_and_what_was_chosen():
    top, trace, spectrum = (ENTRIES[n] for n in ("lambda_max", "trace", "negative_mass"))
    assert forecast(trace, {}) > forecast(trace, {}, [top]) > 0
    assert forecast(spectrum, {}, [top]) > 2 * forecast(
        ENTRIES["log_determinant"], {}, [top, spectrum]
    )
    worst = ENTRIES["worst_l2"]
    assert forecast(worst, {"steps": 40, "ladder": ()}) == pytest.approx(worst.forecast * 2 / 5)


def test_forecasts_are_of_the_right_size():
    names = ("gradient_norm", "sam", "lambda_max", "trace", "average", "layer_relative", "keskar")
    report = sharpness(conv_objective(batch_size=10), names)
    for name, row in report.items():
        expected = ENTRIES[name].forecast
        assert row.cost <= 1.6 * expected + 1, name


def test_measures_of_the_objective_are_forecast_too():
    @measured
    def mine(point):
        """A measure of its own.

        More of it.
        """
        return estimate("mine", float(point.terms.mean()), point.influence(), {})

    mine.forecast = 50.0

    class Own(FunctionObjective):
        def measures(self):
            return {"mine": mine}

    own = Own(lambda t: (t * t).sum(), torch.ones(2))
    entry = available(own)["mine"]
    assert (entry.title, entry.family, entry.orientation) == ("A measure of its own", "own", 0)
    assert list(sharpness(own, ["mine", "sam"])) == ["mine", "sam"]
    assert "mine" in sharpness(own, ["mine", "sam"], budget="20FB").skipped

    class Clash(FunctionObjective):
        def measures(self):
            return {"sam": mine}

    with pytest.raises(ValueError, match="'sam' has the name of another"):
        sharpness(Clash(lambda t: t.sum(), torch.ones(2)))
