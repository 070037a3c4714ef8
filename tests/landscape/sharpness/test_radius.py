import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.radius import crossing

LADDER = (0.01, 0.02, 0.05, 0.1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-3, 6), st.floats(1, 4), st.floats(0.01, 1))
def test_a_power_law_is_found_in_few_values(scale, power, target):
    exact = math.exp(-scale) * target ** (1 / power)  # rise = (e^scale r)^power
    found = crossing(lambda r: (math.exp(scale) * r) ** power, target, LADDER)
    assert found.converged and found.seen[found.radius] == pytest.approx(target, rel=0.0101)
    assert abs(math.log(found.radius / exact)) <= found.error * 1.02 + 1e-12
    assert found.slope == pytest.approx(power * target, rel=0.0101)
    assert len(found.seen) <= 10


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-6, 3), st.floats(0.7, 4), st.floats(0.02, 0.4))
def test_a_curve_that_saturates_like_an_error(middle, steepness, target):
    def rise(r):
        return 1 / (1 + math.exp(-steepness * (math.log(r) - middle)))

    exact = math.exp(middle + math.log(target / (1 - target)) / steepness)
    found = crossing(rise, target, LADDER)
    assert found.converged and abs(rise(found.radius) - target) <= 0.01 * target
    assert abs(math.log(found.radius / exact)) <= 1.3 * found.error + 1e-12
    assert found.error <= 0.0101 * target / found.slope
    assert found.slope == pytest.approx(steepness * target * (1 - target), rel=0.35)
    assert len(found.seen) <= 14


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(3, 200), st.floats(0.003, 30))
def test_a_step_function_ends_below_the_step(steps, width):
    def rise(r):
        return math.floor(steps * min(r / width, 1.0)) / steps

    found = crossing(rise, 0.3, LADDER)
    assert found.converged and found.slope > 0
    value = rise(found.radius)
    assert abs(value - 0.3) <= 0.003 or value <= 0.3 < rise(found.radius * math.exp(0.0101))
    assert len(found.seen) <= 25


def test_the_ladder_comes_first():
    asked = []
    crossing(lambda r: asked.append(r) or 1e4 * r**2, 0.4, LADDER)
    assert asked[:3] == [0.05, 0.02, 0.01] and asked[3] < 0.005
    asked.clear()
    found = crossing(lambda r: asked.append(r) or 20 * r**2, 0.1, LADDER)
    assert asked == [0.05, 0.1, found.radius] == list(found.seen)
    assert found.radius == pytest.approx(math.sqrt(0.1 / 20), rel=1e-12) and found.error < 1e-12


def test_a_value_of_the_ladder_that_is_the_answer_still_has_a_slope():
    found = crossing(lambda r: 40 * r**2, 0.1, LADDER)
    assert found.radius == 0.05 and found.slope == pytest.approx(0.2) and len(found.seen) == 3


def test_curves_that_are_not_numbers_or_fall_below_zero():
    found = crossing(lambda r: math.nan if r > 0.03 else 100 * r**2, 0.1, LADDER)
    assert not math.isnan(found.radius) and found.seen[0.05] == math.inf
    assert found.radius == pytest.approx(0.03, rel=0.011) and found.slope > 0
    found = crossing(lambda r: 100 * r**2 - 0.1 * r, 0.001, LADDER)
    assert 100 * found.radius**2 - 0.1 * found.radius == pytest.approx(0.001, rel=0.0101)
    exact = 200 * found.radius**2 - 0.1 * found.radius
    assert found.slope == pytest.approx(exact, rel=0.4)
    wall = crossing(lambda r: 0.0 if r < 0.03 else math.inf, 0.1, LADDER)
    assert wall.radius == pytest.approx(0.03, rel=0.011) and math.isnan(wall.slope)


def test_never_reached_and_always_exceeded():
    with pytest.raises(NotApplicable, match="0.1 is not reached even at the radius 1000"):
        crossing(lambda r: 0.0, 0.1, (0.01, 0.1))
    with pytest.raises(NotApplicable, match="0.1 is exceeded even at the radius 1e-05"):
        crossing(lambda r: 5.0, 0.1, LADDER, limits=(1e-5, 1.0))
