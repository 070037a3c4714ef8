import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_objective, full_hessian, quadratic, symmetric

from landscape.operators.symmetric import MatrixOperator
from landscape.spectra.density import density
from landscape.spectra.eigenpairs import eigenpairs
from landscape.spectra.quadrature import rule, tridiagonals

OUTLIERS = [30.0, 20.0, -10.0, *np.linspace(-0.5, 1, 117)]


def operator(spectrum, dtype=torch.float64, seed=0):
    return MatrixOperator(symmetric(spectrum, seed).to(dtype))


def total(found):
    """The mass of everything, by probe."""
    share = found.complement / found.params
    return [len(found.outliers) / found.params + share * w.sum() for w in found.weights]


def test_moments_of_a_probe_are_those_of_the_matrix():
    """``Σ τ θʲ = qᵀ Aʲ q`` for j below twice the steps, by multiplying the matrix out."""
    matrix = symmetric([*np.linspace(-1, 2, 40)])
    q = torch.from_numpy(np.random.default_rng(0).standard_normal(40))
    q = q / q.norm()
    (made,) = tridiagonals(MatrixOperator(matrix), q[None], q.new_empty(0, 40), 6)
    nodes, weights = rule(made)
    image = q
    for power in range(12):
        assert weights @ nodes**power == pytest.approx(float(q @ image), rel=1e-10, abs=1e-12)
        image = matrix @ image
    assert weights @ nodes**12 != pytest.approx(float(q @ image), rel=1e-10)


def test_as_many_steps_as_dimensions_give_the_eigenvalues():
    spectrum = np.sort(np.random.default_rng(1).standard_normal(25))
    found = density(operator(spectrum), steps=80, outliers=0, probes=3)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        np.testing.assert_allclose(nodes, spectrum, atol=1e-10)
        assert weights.sum() == pytest.approx(1, abs=1e-13)
    assert found.products == 75


def test_outliers_are_spikes_of_exact_mass():
    op = operator(OUTLIERS)
    found = density(op, outliers=3)
    np.testing.assert_allclose(found.outliers, [30, 20, -10], atol=1e-3)
    assert found.complement == 117 and found.products == op.products
    assert total(found) == pytest.approx([1.0] * 10, abs=1e-13)
    for nodes in found.nodes:
        assert nodes.min() >= -0.5 - 1e-6 and nodes.max() <= 1 + 1e-6
    assert found.width == pytest.approx(0.015, rel=1e-2)
    mean, low, high = found.cumulative(np.array([-11.0, -5, 1.5, 25, 31]))
    np.testing.assert_allclose(mean, np.array([0, 1, 118, 119, 120]) / 120, atol=1e-12)
    np.testing.assert_allclose(low, high, atol=1e-12)  # nothing random lies between the outliers


def test_a_bulk_without_outliers_keeps_its_mass():
    found = density(operator(np.linspace(0, 1, 400)), steps=30, outliers=10)
    assert len(found.outliers) <= 10 and (found.residuals <= 0.01 * 1.01).all()
    assert total(found) == pytest.approx([1.0] * 10, abs=1e-13)


def test_the_curves_against_the_eigenvalues():
    spectrum = np.sort(np.concatenate([np.linspace(-1, 3, 300) ** 3, [80.0, 60.0]]))
    found = density(operator(spectrum), steps=60, probes=20)
    grid = np.linspace(-2, 30, 200)
    exact = (spectrum[None] <= grid[:, None]).mean(1)
    mean, low, high = found.cumulative(grid)
    assert np.abs(mean - exact).max() < 0.05
    assert ((low <= mean) & (mean <= high) & (low >= 0) & (high <= 1)).all()
    inside = (low - 0.01 <= exact) & (exact <= high + 0.01)
    assert inside.mean() > 0.9
    wide = replace(found, width=1.0)
    z = grid[:, None] - spectrum
    smooth = np.exp(-z * z / 2).mean(1) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(wide.curve(grid), smooth, atol=0.01)
    low, high = wide.band(grid)[1:]
    assert (high - low).max() < 0.05 and (low <= wide.curve(grid)).all()


def test_the_band_covers_as_often_as_it_says():
    spectrum = np.linspace(-1, 1, 24)
    op = operator(spectrum)
    at = np.array([0.3])
    exact = float((spectrum <= 0.3).mean())
    hits = []
    for seed in range(100):
        _, low, high = density(op, seed=seed, steps=24, outliers=0, probes=5, block=5).cumulative(
            at
        )
        hits.append(low[0] <= exact <= high[0])
    assert 0.89 <= np.mean(hits) <= 0.995


def test_the_grid_holds_the_mass():
    found = density(operator(OUTLIERS), outliers=3)
    grid = found.grid()
    assert np.trapezoid(found.curve(grid), grid) == pytest.approx(1, abs=2e-3)
    assert (np.diff(grid) > 0).all() and grid.min() < -10 and grid.max() > 30
    mean = found.cumulative(grid)[0]
    assert mean[0] == 0 and mean[-1] == pytest.approx(1) and (np.diff(mean) >= -1e-15).all()


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([1e-6, 1e-3, 7.0, 1e5]), st.integers(0, 5))
def test_everything_follows_the_scale(scale, seed):
    spectrum = np.array(OUTLIERS)
    one = density(operator(spectrum), seed=seed, probes=2, steps=20, outliers=3)
    two = density(operator(scale * spectrum), seed=seed, probes=2, steps=20, outliers=3)
    assert two.width == pytest.approx(scale * one.width, rel=1e-6)
    grid = one.grid(50)
    np.testing.assert_allclose(
        two.curve(scale * grid) * scale, one.curve(grid), rtol=1e-3, atol=1e-4
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-2, 3), min_size=1, max_size=9), st.integers(0, 9), st.integers(0, 12))
def test_any_small_spectrum(spectrum, seed, outliers):
    """Repeated eigenvalues, zeros, fewer parameters than steps or outliers: no node that is not there."""
    found = density(operator(spectrum, seed=seed), seed=seed, probes=2, outliers=outliers)
    assert total(found) == pytest.approx([1.0] * len(found.weights), abs=1e-12)
    for nodes in (*found.nodes, found.outliers):
        for node in nodes:
            # An outlier known to its residual r moves the others by r² over their distance, here 1 and more.
            beyond = 2 * float(np.square(found.residuals).sum())
            assert np.abs(np.array(spectrum) - node).min() < 1e-6 + beyond
    grid = found.grid(20)
    assert np.isfinite(found.curve(grid)).all() and found.width > 0
    mean = found.cumulative(np.array([-2.5, 3.5]))[0]
    np.testing.assert_allclose(mean, [0, 1], atol=1e-12)


@pytest.mark.parametrize("outliers", [0, 4, 10])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rank_deficient_without_invented_nodes(dtype, outliers):
    spectrum = [4.0, 3.0, 2.0, 1.0] + [0.0] * 60
    found = density(operator(spectrum, dtype), outliers=outliers, probes=4)
    for nodes in found.nodes:
        assert len(nodes) <= 6
        assert np.abs(nodes[:, None] - np.array([4.0, 3, 2, 1, 0])).min(1).max() < 1e-4
    mean = found.cumulative(np.array([-0.001, 0.001]))[0]
    assert mean[0] < 1e-6
    if outliers == 4:
        assert mean[1] == pytest.approx(60 / 64, abs=1e-6)


def test_one_parameter():
    found = density(operator([-2.5]), outliers=1)
    np.testing.assert_allclose(found.outliers, [-2.5])
    assert found.nodes == () and found.complement == 0
    mean, low, high = found.cumulative(np.array([-3.0, 0.0]))
    assert mean.tolist() == low.tolist() == high.tolist() == [0.0, 1.0]
    bare = density(operator([-2.5]), outliers=0)
    np.testing.assert_allclose(bare.nodes[0], [-2.5])


@pytest.mark.parametrize("spectrum", [[0.0] * 5, [3.0] * 5])
def test_a_spectrum_without_range(spectrum):
    found = density(operator(spectrum), outliers=0)
    assert all(len(nodes) == 1 for nodes in found.nodes)
    assert found.width == pytest.approx(0.03 if spectrum[0] else 1.0)


def test_a_narrow_bulk_far_from_zero_keeps_its_own_width():
    found = density(operator(100 + np.linspace(-1e-3, 1e-3, 60)), outliers=0)
    assert found.width == pytest.approx(2e-5, rel=0.05)


def test_blocks_change_nothing_but_the_passes():
    op = operator(OUTLIERS)
    one, three = (density(op, outliers=2, probes=5, steps=15, block=b) for b in (1, 3))
    assert one.products == three.products
    for a, b in zip(one.nodes, three.nodes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_pairs_in_hand_are_used():
    objective = quadratic(symmetric(OUTLIERS))
    pairs = eigenpairs(objective, k=2)
    found = density(objective, pairs=pairs, probes=2, steps=10)
    assert found.products == 20 and found.outliers.tolist() == pairs.values.tolist()
    with pytest.raises(ValueError, match="pairs have 120 parameters, the operator 2"):
        density(operator([1.0, 2.0]), pairs=pairs)


def test_a_network_and_its_blocks():
    objective = conv_objective()
    exact = np.linalg.eigvalsh(full_hessian(objective).numpy())
    found = density(objective, steps=75, probes=3, outliers=4)
    assert np.abs(found.outliers[:, None] - exact).min(1).max() < 0.02 * exact.max()
    part = density(objective, params="head.*", steps=39, probes=2, outliers=0)
    assert part.params == 39 and part.settings["params"] == "head.*"
    span = slice(-39, None)
    exact = np.linalg.eigvalsh(full_hessian(objective)[span, span].numpy())
    for nodes in part.nodes:
        assert np.abs(nodes[:, None] - exact).min(1).max() < 1e-8


def test_the_dataset():
    found = density(operator(OUTLIERS), outliers=3, seed=7, probes=3, steps=20)
    made = found.to_dataset()
    assert made["density"].dims == ("grid",) and made["outlier"].dims == ("outliers",)
    for name in ("density", "cumulative"):
        assert (made[f"{name}_low"] <= made[name] + 1e-15).all()
        assert (made[f"{name}_high"] >= made[name] - 1e-15).all()
    np.testing.assert_array_equal(made["outlier"], found.outliers)
    np.testing.assert_array_equal(made["outlier_residual"], found.residuals)
    assert made.attrs["params"] == 120 and made.attrs["seed"] == 7
    assert made.attrs["width"] == found.width and made.attrs["products"] == found.products
    assert json.loads(made.attrs["settings"])["steps"] == 20
    assert found.to_dataset(np.array([0.0, 1.0])).sizes["grid"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"probes": 1}, "probes is 1: expected at least 2"),
        ({"outliers": -1}, "outliers is -1"),
        ({"width": 0.0}, "width is 0.0"),
        ({"block": 0}, "block 0"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        density(operator([1.0, 2.0]), **options)
    with pytest.raises(ValueError, match="points is 1"):
        density(operator([1.0, 2.0])).grid(1)
