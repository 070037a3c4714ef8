import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator
from scipy.stats import hypergeom

import landscape.interpolant as interpolant
import landscape.refine as subject
from landscape.refine import Refiner


def axes(points=51):
    return np.meshgrid(*[np.linspace(-1, 1, points)] * 2, indexing="ij")


def bowl(points=51):
    x, y = axes(points)
    return 0.01 + x**2 + 20 * y**2 + 0.5 * x * y


def log_sum_exp():
    x, y = axes()
    return np.log(np.exp(8 * x + 3 * y) + np.exp(-6 * x + 5 * y) + np.exp(-2 * x - 9 * y))


def kinked_ridge():
    x, y = axes()
    return 2 + x**2 + 2 * y**2 + 0.6 * np.abs(0.8 * x + 0.6 * y - 0.13)


def steep_walls():
    """From 0.003 in a narrow basin to about 50, as the loss of a network with batch norm does."""
    x, y = axes()
    r2 = x**2 + 1.5 * y**2 + 0.3 * x * y
    return 0.003 + 50 * r2**2 / (r2**2 + 0.25)


def wide_basin():
    """Flat for half of the width, so that most of the grid is in the basin."""
    x, y = axes()
    return 1 + 0.3 * np.sin(2 * x + 1) * np.cos(2 * y) + 10 * np.maximum(x**2 + y**2 - 0.8, 0) ** 2


SURFACES = (bowl, log_sum_exp, kinked_ridge, steep_walls, wide_basin)


def run(surface, *args, **kwargs):
    refiner = Refiner(surface.shape, *args, **kwargs)
    while batch := refiner.ask():
        refiner.tell(batch, [surface[index] for index in batch])
    return refiner.result()


def batches(refiner, surface, count=10**6):
    seen = []
    while len(seen) < count and (batch := refiner.ask()):
        seen.append(batch)
        refiner.tell(batch, [surface[index] for index in batch])
    return seen


def basin_of(surface):
    """The definition, written once more: below twice the mean at a tenth of the half-width."""
    centre = (surface.shape[0] - 1) / 2
    i, j = np.indices(surface.shape) - centre
    ring = np.abs(np.sqrt(i**2 + j**2) - centre / 10) <= 0.5
    return surface < 2 * surface[ring].mean()


@pytest.mark.parametrize("make", SURFACES)
def test_one_percent_of_the_range_from_far_fewer_points(make):
    surface = make()
    found = run(surface, 0.01)
    misses = np.abs(found.values - surface) / np.ptp(surface)
    assert found.outcome == "certified"
    assert found.evaluated.sum() <= 300
    assert (misses > 0.01).mean() <= subject.SHARE
    assert misses.max() < 0.02
    assert found.achieved <= 0.01
    assert 60 <= found.held_out <= 80
    assert 0 < found.held_out_max_error <= 0.01


@pytest.mark.parametrize("make", [bowl, kinked_ridge, steep_walls, wide_basin])
def test_five_percent_pointwise_in_the_basin(make):
    surface = make()
    found = run(surface, 0.01, basin_tolerance=0.05)
    basin = basin_of(surface)
    misses = (np.abs(found.values - surface) / surface)[basin]
    assert found.outcome == "certified"
    assert found.evaluated.sum() <= 600
    assert (misses > 0.05).mean() <= subject.SHARE
    assert misses.max() < 0.08
    assert found.basin_achieved <= 0.05
    assert found.basin[basin].all()
    known = found.evaluated[basin].all()
    assert known == (found.basin_held_out == 0)
    assert known == (make is steep_walls)


def test_a_flat_looking_fit_of_the_range_is_not_enough_for_the_basin():
    surface = steep_walls()
    misses = np.abs(run(surface, 0.01).values - surface) / surface
    assert misses[basin_of(surface)].max() > 0.05


def test_values_are_kept_and_errors_tell_where_they_were_not_taken():
    surface = kinked_ridge()
    found = run(surface, 0.01)
    assert (found.values[found.evaluated] == surface[found.evaluated]).all()
    assert (found.error[found.evaluated] == 0).all()
    assert (found.error[~found.evaluated] > 0).all()
    assert not found.uncertain.any()
    misses = np.abs(found.values - surface)[~found.evaluated]
    assert (misses <= found.error[~found.evaluated]).mean() > 0.9


def test_points_gather_where_the_surface_is_hard():
    x, y = axes()
    surface = x + y + np.maximum(0, 0.3 - np.hypot(x - 0.5, y - 0.5)) * 10
    found = run(surface, 0.01)
    hard = np.hypot(x - 0.5, y - 0.5) < 0.4
    assert found.evaluated[hard].mean() > 3 * found.evaluated[~hard].mean()


def test_a_plane_needs_the_start_and_the_check_only():
    x, y = axes()
    found = run(2 * x - y + 5, 0.01)
    np.testing.assert_allclose(found.values, 2 * x - y + 5, atol=1e-9)
    # 49 points of the start, the centre's neighbours, and two batches to learn that it is a plane.
    assert found.evaluated.sum() <= found.held_out + 49 + 4 + 24


@pytest.mark.parametrize("value", [0.0, 7.25])
def test_a_constant_is_certified_at_once(value):
    found = run(np.full((21, 21), value), 0.01, basin_tolerance=0.05)
    assert found.outcome == "certified"
    np.testing.assert_allclose(found.values, value, atol=1e-12)
    assert found.achieved == 0.0


@pytest.mark.parametrize("make", [kinked_ridge, wide_basin])
@pytest.mark.parametrize("cut", [1, 3, 8])
def test_a_resumed_run_asks_for_the_same_batches(make, cut):
    surface = make()
    whole = batches(Refiner(surface.shape, 0.01, 0.05, seed=3), surface)
    first = Refiner(surface.shape, 0.01, 0.05, seed=3)
    known = [index for batch in batches(first, surface, cut) for index in batch]
    half = whole[cut][::2]  # the run stopped in the middle of a batch
    resumed = Refiner(surface.shape, 0.01, 0.05, seed=3)
    told = (known + half)[::-1]
    resumed.tell(told, [surface[index] for index in told])
    rest = batches(resumed, surface)
    assert rest[0] == whole[cut][1::2]
    assert rest[1:] == whole[cut + 1 :]
    one, two = first, resumed
    batches(one, surface)
    np.testing.assert_array_equal(one.result().values, two.result().values)
    np.testing.assert_array_equal(one.result().error, two.result().error)


def test_an_interrupt_while_it_computes_is_survived(monkeypatch):
    surface = bowl()
    whole = batches(Refiner(surface.shape, 0.01), surface)
    refiner = Refiner(surface.shape, 0.01)
    seen = batches(refiner, surface, 2)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(subject, "_greatest", interrupted)
        patch.setattr(Refiner, "_drawn", interrupted)
        refiner.ask()
    assert seen + batches(refiner, surface) == whole
    assert refiner.outcome == "certified"


def test_values_nobody_asked_for_change_no_batch():
    surface = kinked_ridge()
    whole = batches(Refiner(surface.shape, 0.01), surface)
    refiner = Refiner(surface.shape, 0.01)
    extra = (17, 29)
    refiner.tell([extra], [surface[extra]])
    seen = [[i for i in batch if i != extra] for batch in whole]
    assert batches(refiner, surface) == [batch for batch in seen if batch]
    assert refiner.result().values[extra] == surface[extra]


def test_the_seed_draws_the_held_out_points():
    surface = bowl()
    one, two, three = (batches(Refiner(surface.shape, 0.01, seed=s), surface) for s in (0, 0, 1))
    assert one == two
    assert one[0] == three[0]
    assert one[-1] != three[-1]


def test_a_point_is_asked_for_once():
    surface = kinked_ridge()
    asked = [i for batch in batches(Refiner(surface.shape, 0.01, 0.05), surface) for i in batch]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("spike", [2.0, math.nan, -math.inf])
def test_held_out_points_were_predicted_before(spike):
    """The check must fail on a spike that only its own points have met."""
    surface = bowl()
    plain = Refiner(surface.shape, 0.01)
    seen = batches(plain, surface)
    first = len(seen) - math.ceil(plain.result().held_out / 12)
    spiked = surface.copy()
    spiked[seen[first + 1][3]] += 0.01 * np.ptp(surface) * spike
    second = Refiner(surface.shape, 0.01)
    after = batches(second, spiked)
    assert after[: first + 2] == seen[: first + 2]  # the attempt ends with the batch that failed
    assert after[first + 2] != seen[first + 2]
    assert second.outcome == "certified"
    assert second.result().held_out > plain.result().held_out  # the next one has to prove more


def test_held_out_points_are_spread_over_the_grid():
    surface = bowl()
    refiner = Refiner(surface.shape, 0.01)
    asked = [index for batch in batches(refiner, surface) for index in batch]
    count = refiner.result().held_out
    blocks, numbers = np.unique(np.array(asked[-count:]) // 17, axis=0, return_counts=True)
    assert len(blocks) == 9  # thirds of either axis
    assert numbers.min() >= count // 9 - 4


def test_probes_are_judged_by_the_fit_before_them():
    surface = steep_walls()
    refiner = Refiner(surface.shape, 0.01)
    batches(refiner, surface, 1)
    before = refiner.result()
    batch = refiner.ask()
    refiner.tell(batch, [surface[index] for index in batch])
    refiner.ask()
    assert len(refiner._probes) == 3
    for (point, residual, _), index in zip(refiner._probes, batch, strict=False):
        assert np.unravel_index(point, surface.shape) == index
        assert residual == pytest.approx(abs(before.values[index] - surface[index]), rel=1e-6)


def test_a_looser_basin_tolerance_loosens_nothing():
    found = run(kinked_ridge(), 0.01, basin_tolerance=0.5)
    assert found.achieved <= 0.01


def test_rounding_is_not_a_surface():
    surface = 1 + 1e-15 * np.random.default_rng(0).standard_normal((51, 51))
    found = run(surface, 0.01)
    assert found.outcome == "certified"
    assert found.evaluated.sum() < 150


def test_noise_is_not_certified_away():
    """A surface without structure cannot be predicted: every point must be evaluated."""
    surface = np.random.default_rng(0).standard_normal((21, 21))
    found = run(surface, 0.01)
    assert found.outcome == "complete"
    assert found.evaluated.all()
    np.testing.assert_array_equal(found.values, surface)


@pytest.mark.parametrize("limit", [1, 50, 85, 100, 150])
def test_the_limit_is_kept(limit):
    surface = kinked_ridge()
    refiner = Refiner(surface.shape, 0.001, limit=limit)
    batches(refiner, surface)
    assert refiner.outcome == "limit reached"
    assert refiner.done
    found = refiner.result()
    assert found.evaluated.sum() == limit
    assert found.held_out == 0
    assert found.achieved > 0.001 or limit == 1


def test_losses_that_are_not_finite_are_kept_and_their_border_is_traced():
    x, y = axes()
    surface = x**2 + y**2
    surface[np.hypot(x - 0.2, y) > 0.9] = np.inf
    surface[x + y < -0.9] = np.nan
    found = run(surface, 0.01)
    assert found.outcome == "certified"
    assert found.evaluated.sum() < 1000
    np.testing.assert_array_equal(found.values[found.evaluated], surface[found.evaluated])
    assert np.isnan(found.values[found.uncertain]).all()
    assert np.isinf(found.error[found.uncertain]).all()
    assert not (found.uncertain & found.evaluated).any()
    predicted = ~found.uncertain & ~found.evaluated
    # Right about what is finite but for points next to the border, and accurate where it is.
    assert np.isfinite(surface[predicted]).mean() > 0.98
    assert np.isfinite(surface[found.uncertain]).mean() < 0.1
    known = predicted & np.isfinite(surface)
    assert np.abs(found.values[known] - surface[known]).max() < 0.02 * np.ptp(surface[known])


def test_the_border_of_the_finite_losses_is_traced():
    x, y = axes()
    beyond = x + 0.7 * y - 0.27
    found = run(np.where(beyond < 0, 1 + x**2, np.nan), 0.01)
    wrong = np.isnan(found.values) != (beyond >= 0)
    assert found.evaluated.sum() < 350  # chance alone, in the checks, needs more than twice as many
    assert not wrong[np.abs(beyond) > 0.1].any()  # two steps of the grid


def test_a_single_nan_costs_its_neighbourhood_only():
    surface = bowl()
    surface[25, 25] = np.nan
    found = run(surface, 0.01)
    assert np.isnan(found.values[25, 25]) and found.evaluated[25, 25]
    assert found.uncertain.sum() <= 4
    assert found.outcome == "certified"


@pytest.mark.parametrize("finite", [0, 1, 3])
def test_nothing_finite_to_fit(finite):
    surface = np.full((9, 9), np.nan)
    surface[4, :finite] = 1.0
    found = run(surface, 0.01)
    assert found.evaluated.all()
    np.testing.assert_array_equal(found.values, surface)
    assert found.outcome == "complete"


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([(5,), (6,), (51,), (5, 5), (6, 6), (12, 12), (17, 9), (30, 30)]),
    st.integers(0, 5),
    st.sampled_from([None, 0.05]),
)
def test_every_shape_of_grid_is_served(shape, seed, basin):
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    surface = 1 + (places**2).sum(axis=0) + 0.3 * np.sin(4 * places[0])
    found = run(surface, 0.02, basin, seed)
    assert found.outcome in ("certified", "complete")
    misses = np.abs(found.values - surface) / np.ptp(surface)
    assert (misses > 0.02).mean() <= subject.SHARE
    assert found.values.shape == found.error.shape == found.evaluated.shape == shape


def test_a_line_is_predicted_too():
    x = np.linspace(-1, 1, 201)
    surface = np.log1p(np.exp(8 * x)) + np.log1p(np.exp(-12 * x - 3))
    found = run(surface, 0.01)
    assert found.evaluated.sum() < 100
    assert np.abs(found.values - surface).max() < 0.01 * np.ptp(surface)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-100, 100))
def test_units_do_not_matter(scale, shift):
    surface = kinked_ridge()[::2, ::2]
    one = run(surface, 0.02)
    two = run(scale * (surface + shift), 0.02)
    assert (
        abs(int(one.evaluated.sum()) - int(two.evaluated.sum())) <= 60
    )  # rounding may tip a choice
    assert two.outcome == one.outcome


@pytest.mark.parametrize(
    ("points", "unknown", "level"), [(2601, 2400, 0.025), (51, 35, 0.05), (400, 300, 0.01)]
)
def test_the_sample_is_just_large_enough(points, unknown, level):
    """Against the hypergeometric distribution of SciPy."""
    size = subject._sample_size(points, unknown, level)
    misses = math.floor(0.05 * points) + 1
    assert hypergeom(unknown, misses, size).pmf(0) <= level
    assert size == 24 or hypergeom(unknown, misses, size - 1).pmf(0) > level
    assert subject._sample_size(10**6, 10**6, 0.05) == 59  # the rule of three: about 3 / 0.05


def test_the_interpolants_are_those_of_scipy():
    random = np.random.default_rng(1)
    nodes, values, places = random.random((40, 2)), random.random(40), random.random((9, 2))
    model = interpolant._Interpolant(nodes, values, 0.1)
    near, tail = interpolant._squares(places, nodes), interpolant._linear(places)
    for kernel, name, solution in (
        (interpolant._cubic(near), "cubic", model.cubic[:, 0]),
        (interpolant._thin_plate(near), "thin_plate_spline", model.plates),
    ):
        expected = RBFInterpolator(nodes, values, kernel=name, degree=1)(places)
        np.testing.assert_allclose(np.hstack([kernel, tail]) @ solution, expected, rtol=1e-7)


def test_leave_one_out_residuals_are_those_of_leaving_one_out():
    random = np.random.default_rng(2)
    nodes, values = random.random((25, 2)), random.random(25)
    model = interpolant._Interpolant(nodes, values, 0.1)
    apart = np.linalg.norm(nodes[:, None] - nodes, axis=-1)
    np.fill_diagonal(apart, np.inf)
    for left in range(25):
        rest = np.arange(25) != left
        expected = RBFInterpolator(nodes[rest], values[rest], kernel="cubic", degree=1)
        residual = values[left] - expected(nodes[left : left + 1])[0]
        slope = (residual / apart[left].min()) ** 2
        assert model.slopes[left, 0] == pytest.approx(slope, rel=1e-6, abs=1e-12)


def test_neighbours_on_the_curve_are_neighbours_on_the_grid():
    steps = np.indices((16, 16)).reshape(2, -1).T
    order = subject._along_curve(steps)
    assert sorted(order) == list(range(256))
    walked = steps[np.argsort(order)]
    quarter = walked[:64]
    assert quarter.max() < 8
    assert np.mean([np.abs(a - b).sum() for a, b in pairwise(walked)]) < 2.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(shape=(4, 9), tolerance=0.01), r"shape is \(4, 9\): expected one or two axes"),
        (dict(shape=(9, 9, 9), tolerance=0.01), "expected one or two axes"),
        (dict(shape=(9, 9), tolerance=1.0), "tolerance is 1.0: expected a share between 0 and 1"),
        (dict(shape=(9, 9), tolerance=math.nan), "tolerance is nan"),
        (dict(shape=(9, 9), tolerance=0.1, basin_tolerance=0.0), "basin_tolerance is 0.0"),
        (dict(shape=(9, 9), tolerance=0.1, limit=0), "limit is 0: expected at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Refiner(**arguments)


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([(0, 9)], [1.0], r"index \(0, 9\) is outside the grid: expected one below \(9, 9\)"),
        ([(-1, 0)], [1.0], "outside the grid"),
        ([(3,)], [1.0], "outside the grid"),
        ([(0, 0)], [1.0, 2.0], "1 indices but 2 values"),
    ],
)
def test_bad_values_are_refused(indices, values, message):
    refiner = Refiner((9, 9), 0.01)
    with pytest.raises(ValueError, match=message):
        refiner.tell(indices, values)
    with pytest.raises(ValueError, match="no value is known yet"):
        refiner.result()


def test_the_error_is_scaled_by_what_the_probes_showed():
    refiner = Refiner((51, 51), 0.01)
    surface = bowl()
    batches(refiner, surface, 1)
    refiner.tell(refiner.ask(), [surface[index] for index in refiner.ask()])
    fit, allowed = refiner._fit(), np.full(51 * 51, 0.03)
    before = refiner._calibrated(fit, allowed)
    refiner._probes += [(0, 7 * 0.01, 0.0)] * 60  # seven times the floor, a third of the tolerance
    np.testing.assert_allclose(refiner._calibrated(fit, allowed), 7 * np.maximum(fit.raw, 0.01))
    assert (before < refiner._calibrated(fit, allowed)).all()


def test_a_point_of_the_basin_that_the_fit_denies_is_found_beside_its_neighbour():
    surface = steep_walls()
    i, j = np.argwhere(basin_of(surface))[0]  # the rim of the basin, and one more step outwards
    surface[i - 1, j] = surface[25, 25]
    found = run(surface, 0.01, basin_tolerance=0.05)
    assert found.evaluated[i - 1, j]
