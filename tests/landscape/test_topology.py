"""Minima, passes and persistence: closed forms, another program, laws, and surfaces made of noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from wells import plane, wells

from landscape import plot, save
from landscape.merge_tree import beside_gaps, merge_tree
from landscape.topology import Topology, analyze
from landscape.topology_tables import minima_table, summary, tables


def pairs(values, connectivity) -> list[tuple[float, float]]:
    flat = np.ravel(values)
    return sorted(
        (float(flat[b.minimum]), math.inf if b.saddle is None else float(flat[b.saddle]))
        for b in merge_tree(np.asarray(values, float), connectivity)
    )


def test_a_double_well_with_a_tilt():
    # (x² - 1)² + t·x: the minima are at about ∓1 - t/8, the pass is at about t/4.
    x = np.linspace(-1.5, 1.5, 3001)
    tilt = 0.08
    line = xr.Dataset({"loss": ("alpha", (x**2 - 1) ** 2 + tilt * x)}, {"alpha": x})
    found = analyze(line)
    roots = np.sort(np.roots([4, 0, -4, tilt]).real)
    f = (roots**2 - 1) ** 2 + tilt * roots
    assert len(found.minima) == len(found.significant) == 2
    low, high = found.significant
    assert low.position[0] == pytest.approx(roots[0], abs=1e-3)
    assert high.position[0] == pytest.approx(roots[2], abs=1e-3)
    assert high.saddle[0] == pytest.approx(roots[1], abs=1e-3)
    np.testing.assert_allclose(
        found.barriers, [[0, f[1] - f[0]], [f[1] - f[2], 0]], rtol=0, atol=1e-5
    )
    assert (low.saddle, low.into, high.into) == (None, None, 0)
    assert math.isinf(low.persistence) and high.persistence == found.barriers[1, 0]


@pytest.mark.parametrize("transposed", [False, True])
def test_two_wells_in_a_plane(transposed):
    loss = wells()
    data = plane(loss)
    found = analyze(data.transpose() if transposed else data)
    first, second = found.significant
    assert first.position == pytest.approx((-0.5, -0.5), abs=0.051)
    assert second.position == pytest.approx((0.5, 0.5), abs=0.051)
    # The pass lies on the diagonal between both; by symmetry nothing lower leads around.
    diagonal = np.diag(loss)[10:31].max()
    assert second.saddle_loss == diagonal == found.passes[0, 1] == found.passes[1, 0]
    assert second.saddle[0] == pytest.approx(second.saddle[1])
    assert found.barriers[0, 1] == pytest.approx(diagonal - loss.min())
    assert first.cells == loss.size
    assert not (first.on_boundary or first.beside_gap)


def test_alpha_is_along_the_columns():
    loss = np.ones((4, 7))
    loss[1, 5] = 0.0
    (only,) = analyze(plane(loss)).minima
    assert only.position == pytest.approx((2 / 3, -1 / 3))


def test_three_wells_the_barrier_goes_through_the_one_between():
    #               A     B     C
    loss = np.array([5, 0, 4, 2, 3, 1, 5.0])
    found = analyze(plane(loss))
    # By persistence: A (0, never), C (1, meets the older A at 4 through B), B (2, meets C at 3).
    assert [m.loss for m in found.minima] == [0, 1, 2]
    assert [m.into for m in found.minima] == [None, 0, 1]
    assert [m.saddle_loss for m in found.minima] == [math.inf, 4, 3]
    assert found.passes.tolist() == [[0, 4, 4], [4, 1, 3], [4, 3, 2]]
    assert found.barriers.tolist() == [[0, 4, 4], [3, 0, 2], [2, 1, 0]]


def test_a_diagonal_ravine_is_one_basin_for_eight_neighbours():
    loss = np.full((6, 6), 5.0)
    loss[np.diag_indices(6)] = [1, 2, 1.5, 2, 1, 0.5]
    assert [len(analyze(plane(loss), connectivity=c).minima) for c in (4, 8)] == [6, 3]
    barriers = [analyze(plane(loss), connectivity=c).minima[1].saddle_loss for c in (4, 8)]
    assert barriers == [5, 2]  # from above, from below


def test_components_by_level():
    loss = np.array([5, 0, 4, 2, 3, 1, 5.0])
    found = analyze(plane(loss), [-1, 0, 1, 2, 2.9, 3, 4, 5])
    assert found.components.tolist() == [0, 1, 2, 3, 3, 2, 1, 1]
    assert analyze(plane(loss), 2.5).components.tolist() == [3]
    assert analyze(plane(loss)).levels[[0, -1]].tolist() == [0, 5]


def test_plateaus_have_one_minimum():
    loss = np.array([[3, 1, 1, 1, 3], [3, 3, 3, 1, 3], [1, 1, 1, 1, 3.0]])
    for connectivity in (4, 8):
        assert pairs(loss, connectivity) == [(1.0, math.inf)]
    assert pairs(np.zeros((3, 3)), 8) == [(0.0, math.inf)]


def test_edges_and_gaps_are_said():
    loss = wells()
    (first, second) = analyze(plane(loss[:, :31])).significant
    assert not first.on_boundary and second.on_boundary  # the window ends in the second well
    cut = analyze(plane(loss[:, :31]))
    assert any("minimum 1 lies on the edge" in doubt for doubt in cut.doubts())
    low_edge = analyze(plane(np.array([0, 1, 2.0])))
    assert "the lowest point lies on the edge" in low_edge.doubts()[0]
    loss[10, 11] = np.nan
    beside = analyze(plane(loss))
    assert beside.minima[0].beside_gap and not beside.minima[1].beside_gap
    assert beside.absent == 1 and "1 points are NaN" in beside.doubts()[0]
    edge, gap = beside_gaps(np.array([[1, 1, 1], [1, 1, 1], [1, 1, np.nan]]), 4)
    assert edge.sum() == 8 and gap.sum() == 2
    assert beside_gaps(np.array([[1, 1, 1], [1, 1, 1], [1, 1, np.nan]]), 8)[1].sum() == 3


def test_walls_of_gaps_part_basins():
    loss = wells()
    loss[:, 20] = np.inf
    found = analyze(plane(loss))
    assert [m.saddle for m in found.minima[:2]] == [None, None] and found.absent == 41
    assert np.isinf(found.passes[0, 1]) and found.minima[0].loss < found.minima[1].loss
    data = plane(loss)
    data["evaluated"].values[:, 20] = 0
    unfinished = analyze(data)
    assert (unfinished.absent, unfinished.missing) == (0, 41)
    assert "upper bound" in unfinished.doubts()[0]


def test_the_paired_error_decides():
    # Terms that all move together: their mean is uncertain, their differences are exact.
    loss = np.array([1.0, 0.0, 1.0, 0.2, 1.0])
    common = np.linspace(-30, 30, 20)
    terms = loss[:, None] + common
    spread = np.full(5, common.std(ddof=1) / math.sqrt(20))
    found = analyze(plane(loss, terms=terms, loss_stderr=spread))
    assert len(found.significant) == 2 and found.minima[1].stderr < 1e-12
    assert found.errors == "paired differences of 20 terms"
    assert len(analyze(plane(loss, loss_stderr=spread)).significant) == 1


def test_the_threshold_in_numbers():
    loss = np.array([9.0, 0.0, 5.0, 1.0, 9.0])
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(5, 12))
    noise -= noise.mean(1, keepdims=True)
    found = analyze(plane(loss, terms=loss[:, None] + noise), z=2.5)
    difference = noise[2] - noise[3]
    stderr = math.sqrt((difference**2).sum() / 11 / 12)
    assert found.minima[1].stderr == pytest.approx(stderr)
    assert found.minima[1].threshold == pytest.approx(2.5 * stderr)
    bound = analyze(plane(loss, loss_stderr=np.arange(5.0), rise_stderr=[1, 1, 0.5, 0.1, 1.0]), z=2)
    assert bound.minima[1].stderr == pytest.approx(0.6)  # the smaller of 0.5 + 0.1 and 2 + 3
    assert bound.minima[1].threshold == pytest.approx(1.2)
    bare = analyze(plane(loss))
    assert bare.minima[1].threshold < 1e-13 and bare.errors == "no standard errors in the file"


def test_an_interpolated_point_carries_its_error():
    loss = np.array([9.0, 0.0, 5.0, 4.0, 9.0])
    made = np.array([0, 0, 0, 1, 0], np.int8)
    stderr = np.array([0.1, 0.1, 0.1, np.nan, 0.1])

    def threshold(error):
        errors = np.array([0, 0, 0, error, 0.0])
        data = plane(loss, loss_stderr=stderr, interpolated=made, loss_error=errors)
        return analyze(data, z=1.0).minima[1]

    assert threshold(0.5).threshold == pytest.approx(0.5)  # the nearest computed point is the pass
    assert threshold(0.5).significant and not threshold(1.5).significant
    assert not threshold(math.inf).significant


def test_rounding_makes_no_minima():
    rng = np.random.default_rng(3)
    loss = 2.3 + 1e-7 * rng.integers(0, 3, size=(15, 15))
    data = plane(loss)
    assert len(analyze(data).significant) > 1
    data.attrs["dtype"] = "float32"
    assert len(analyze(data).significant) == 1


@pytest.mark.parametrize(("terms", "kept"), [(6, True), (60, True), (60, False)])
def test_noise_alone_has_one_minimum(terms, kept):
    """Flat surfaces with independent noise at every point; a threshold of one error finds minima there."""
    rng = np.random.default_rng(0)
    false, naive = 0, 0
    for _ in range(25):
        values = rng.normal(size=(11, 11, terms))
        stderr = values.std(-1, ddof=1) / math.sqrt(terms)
        data = plane(values.mean(-1), loss_stderr=stderr, **({"terms": values} if kept else {}))
        false += len(analyze(data).significant) > 1
        naive += len(analyze(data, z=1.0 if kept else 0.5).significant) > 1
    assert false <= 1 < naive


def test_student_and_bonferroni():
    loss = wells(11)
    few = plane(loss, terms=loss[..., None] + np.random.default_rng(0).normal(size=(11, 11, 3)))
    # t with 2 degrees of freedom: p = (1 - t / √(2 + t²)) / 2, solved for 0.05 / (2 · 121).
    p = 0.05 / 242
    t = (1 - 2 * p) * math.sqrt(2 / (4 * p * (1 - p)))
    assert analyze(few).z == pytest.approx(t, rel=1e-6)
    z = analyze(plane(loss, loss_stderr=np.ones((11, 11)))).z
    assert math.erfc(z / math.sqrt(2)) / 2 == pytest.approx(p, rel=1e-6)


grids = arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    elements=st.one_of(st.integers(-4, 4).map(float), st.just(math.nan)),
).filter(lambda a: np.isfinite(a).any())


@given(grids, st.sampled_from([4, 8]))
@settings(max_examples=60, deadline=None)
def test_laws_of_the_merge_tree(values, connectivity):
    branches = merge_tree(values, connectivity)
    flat = values.ravel()
    # A monotone map moves levels and keeps who meets whom, where.
    assert merge_tree(np.exp(values) - 7, connectivity) == branches
    for b in branches:
        if b.saddle is not None:
            assert flat[b.minimum] < flat[b.saddle] and flat[b.into] <= flat[b.minimum]
    # Components by another way: flood fill of a sub-level set.
    for level in (-2.0, 0.0, 3.0):
        assert _alive(branches, flat, level) == _flooded(values <= level, connectivity)
    # No cell is counted in two final components.
    ends = [b.cells for b in branches if b.saddle is None]
    assert sum(ends) == np.isfinite(values).sum()
    mirrored = [pairs(v, connectivity) for v in (values[::-1], values[:, ::-1], values.T)]
    assert all(found == pairs(values, connectivity) for found in mirrored)
    more, fewer = len(merge_tree(values, 4)), len(merge_tree(values, 8))
    assert fewer <= more


def _alive(branches, flat, level) -> int:
    ends = [(flat[b.minimum], math.inf if b.saddle is None else flat[b.saddle]) for b in branches]
    return sum(birth <= level < death for birth, death in ends)


def _flooded(inside, connectivity) -> int:
    left = {tuple(int(i) for i in where) for where in np.argwhere(inside)}
    count = 0
    while left:
        stack, count = [left.pop()], count + 1
        while stack:
            i, j = stack.pop()
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    near = (i + di, j + dj)
                    if near in left and (connectivity == 8 or abs(di) + abs(dj) == 1):
                        left.discard(near)
                        stack.append(near)
    return count


@given(st.integers(0, 10_000), st.floats(1e-4, 0.05))
@settings(max_examples=10, deadline=None)
def test_noise_below_the_threshold_adds_no_minimum(seed, size):
    # A perturbation of at most e everywhere moves every persistence by at most 2e.
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-size, size, size=(41, 41))
    found = analyze(plane(wells() + noise, loss_stderr=np.full((41, 41), size)), z=1.0)
    assert len(found.significant) == 2
    calm = analyze(plane(wells()))
    assert abs(found.barriers[1, 0] - calm.barriers[1, 0]) <= 2 * size + 1e-12


def test_another_program_agrees():
    gudhi = pytest.importorskip("gudhi")
    rng = np.random.default_rng(0)
    for case in range(60):
        shape = tuple(rng.integers(2, 12, 2))
        values = rng.normal(size=shape) if case % 2 else rng.integers(0, 6, shape).astype(float)
        values[rng.random(shape) < 0.1 * (case % 3)] = np.inf
        if not np.isfinite(values).any():
            continue
        for connectivity, name in ((4, "vertices"), (8, "top_dimensional_cells")):
            cubes = gudhi.CubicalComplex(**{name: values})
            cubes.compute_persistence(min_persistence=0)
            theirs = cubes.persistence_intervals_in_dimension(0)
            assert pairs(values, connectivity) == sorted(
                tuple(map(float, p)) for p in theirs if math.isfinite(p[0])
            )


def test_as_arrays_and_as_text(tmp_path):
    found = analyze(plane(wells()), [1.5, 2.5])
    data = found.to_dataset()
    assert data["alpha"].values.tolist() == [m.position[0] for m in found.minima]
    assert data["saddle_beta"].values[1] == found.minima[1].saddle[1]
    assert data["into"].values.tolist()[:2] == [-1, 0] and data.attrs["connectivity"] == 8
    assert data["components"].values.tolist() == found.components.tolist()
    save(data, tmp_path / "t.nc")  # NetCDF can hold all of it
    document = json.loads(found.to_json())
    assert document["minima"][1]["saddle_loss"] == found.minima[1].saddle_loss
    assert document["barriers"] == found.barriers.tolist()
    text = tables(found)[1].to_text()
    assert f"{found.barriers[0, 1]:.4g}" in text
    assert "2 minima stand out of the noise, of 2 on the grid (8 neighbours)" in summary(found)
    flagged = minima_table(analyze(plane(wells()[:, :31]))).rows[1]
    assert any(getattr(cell, "flag", False) for cell in flagged)


def test_figures(tmp_path):
    data = plane(wells(), loss_stderr=np.full((41, 41), 0.01))
    found = analyze(data)
    figure = plot.topology(data, found)
    named = {trace.name: trace for trace in figure.data if trace.xaxis == "x2"}
    assert list(named["minima"].x) == pytest.approx([-0.5, 0.5], abs=1e-6)
    assert list(named["passes"].x) == [found.minima[1].saddle[0]]
    shown = next(t for t in figure.data if t.name == "minima" and t.xaxis != "x2")
    assert shown.x[1] == pytest.approx(found.minima[1].loss)
    assert shown.y[1] == pytest.approx(found.minima[1].saddle_loss)
    band = next(t for t in figure.data if t.name == "noise band")
    middle = list(band.x).index(pytest.approx(found.minima[1].loss))
    assert band.y[middle] - band.x[middle] == pytest.approx(found.minima[1].threshold, rel=1e-4)
    static = plot.topology(data, found.to_dataset(), "matplotlib")
    assert [a.get_title() for a in static.axes[:2]] == ["Persistence", "wells"]
    x = np.linspace(-1.5, 1.5, 61)
    line = xr.Dataset({"loss": ("alpha", (x**2 - 1) ** 2 + 1e-3)}, {"alpha": x}, {"label": "line"})
    assert plot.topology(line, analyze(line), "matplotlib").axes[1].get_ylabel() == "loss"
    assert plot.topology(line, analyze(line)).layout.yaxis2.title.text == "loss"
    with pytest.raises(ValueError, match="of a line"):
        plot.topology(data, analyze(line))
    with pytest.raises(TypeError, match="analyze"):
        plot.topology(data, 3)
    single = plane(np.add.outer(np.arange(5.0) ** 2, np.arange(5.0) ** 2))
    plot.topology(single, analyze(single), "matplotlib").savefig(tmp_path / "one.pdf")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"connectivity": 6}, "expected 4 or 8"),
        ({"z": -1.0}, "0 or more"),
        ({"z": math.nan}, "0 or more"),
    ],
)
def test_bad_requests(change, says):
    with pytest.raises(ValueError, match=says):
        analyze(plane(wells()), **change)


def test_bad_surfaces():
    with pytest.raises(ValueError, match="no finite loss"):
        analyze(plane(np.full((3, 3), np.nan)))
    with pytest.raises(ValueError, match="loss over alpha"):
        analyze(xr.Dataset())


def test_results_are_frozen():
    found = analyze(plane(wells()))
    assert isinstance(found, Topology)
    with pytest.raises(AttributeError):
        found.z = 1.0
