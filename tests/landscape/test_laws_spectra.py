"""Laws of eigenvalues, quadrature, traces and functionals of a spectrum: bounds, moments, interlacing, units."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import SCALES, SEEDS, close, examples, matrices, spectra
from problems import normal, symmetric

from landscape.krylov.extremes import extremes
from landscape.operators.symmetric import MatrixOperator
from landscape.space import ParameterSpace
from landscape.spectra.data_noise import spread_of
from landscape.spectra.density import density
from landscape.spectra.dynamics import dynamics
from landscape.spectra.eigenpairs import METHODS, eigenpairs
from landscape.spectra.functionals import functional
from landscape.spectra.quadrature import rule, tridiagonals
from landscape.spectra.traces import trace

loose = pytest.mark.filterwarnings("ignore::landscape.spectra.eigenpairs.ConvergenceWarning")


def lanczos(matrix, seed, steps):
    """A unit start and the Lanczos matrix of so many steps from it."""
    q = normal(len(matrix), seed=seed)
    q = q / q.norm()
    (made,) = tridiagonals(MatrixOperator(matrix), q[None], q.new_empty(0, len(q)), steps)
    return q, made


@examples(50)
@given(matrices(1, 9), SEEDS, st.integers(1, 6))
def test_gauss_quadrature_integrates_moments(matrix, seed, steps):
    """``Σ τ θʲ = qᵀAʲq`` for ``j < 2 steps``; nodes lie within the spectrum; weights are a probability."""
    q, made = lanczos(matrix, seed, steps)
    nodes, weights = rule(made)
    values = torch.linalg.eigvalsh(matrix)
    size = max(float(values.abs().max()), 1e-30)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1, abs=1e-12)
    assert nodes.min() >= float(values[0]) - 1e-9 * size
    assert nodes.max() <= float(values[-1]) + 1e-9 * size
    image = q
    for power in range(2 * len(nodes)):
        assert weights @ nodes**power == pytest.approx(float(q @ image), abs=1e-8 * size**power)
        image = matrix @ image


@examples(50)
@given(matrices(3, 9), SEEDS)
def test_nodes_interlace(matrix, seed):
    """Of one step more, one lies between any two; and between the eigenvalues by Cauchy."""
    _, (diagonal, off) = lanczos(matrix, seed, len(matrix))
    size = float(matrix.norm()) + 1e-30
    for steps in range(1, len(diagonal)):
        fewer, more = (rule((diagonal[:k], off[: k - 1]))[0] for k in (steps, steps + 1))
        assert (more[:-1] <= fewer + 1e-12 * size).all() and (
            fewer <= more[1:] + 1e-12 * size
        ).all()
    values = torch.linalg.eigvalsh(matrix).numpy()
    part = torch.linalg.eigvalsh(matrix[:-1, :-1]).numpy()
    assert (values[:-1] <= part + 1e-12 * size).all() and (part <= values[1:] + 1e-12 * size).all()


@loose
@examples(40)
@given(matrices(2, 12), st.sampled_from(METHODS), SEEDS, st.integers(2, 6))
def test_residuals_bound_errors_twice(matrix, method, seed, products):
    """Some eigenvalue lies within ``‖r‖``, and within ``‖r‖²/gap`` where the others are farther than ``gap``."""
    pairs = eigenpairs(
        MatrixOperator(matrix), 1, method, tol=1e-12, seed=seed, max_products=products
    )
    values = torch.linalg.eigvalsh(matrix)
    near = (values - pairs.values[0]).abs().sort().values
    residual, rounding = float(pairs.residuals[0]), 1e-13 * float(matrix.norm())
    assert float(near[0]) <= residual + rounding
    if float(near[1]) > 0:
        assert float(near[0]) <= residual**2 / float(near[1]) + 10 * rounding
    assert float(pairs.values[0]) <= float(values[-1]) + rounding  # a quotient is never above


@loose
@examples(25)
@given(
    spectra(1, 8),
    SEEDS,
    st.sampled_from(METHODS),
    st.sampled_from([1e-8, 1e-3, 1e5, 1e8]),
    st.integers(1, 3),
)
def test_eigenpairs_follow_the_unit_and_the_sign(spectrum, seed, method, scale, k):
    """``cA`` has eigenvalues c times those of A; of a negative c, from the other end."""
    assume(k <= len(spectrum))
    matrix = symmetric(spectrum, seed)
    size = float(matrix.norm()) + 1e-30
    exact = torch.linalg.eigvalsh(matrix).flip(0)[:k]

    def found(factor, which):
        operator = MatrixOperator(factor * matrix)
        pairs = eigenpairs(operator, k, method, which, seed=seed, multiplicity="full", tol=1e-4)
        rows = pairs.vectors
        close(rows @ rows.T, torch.eye(k, dtype=torch.float64), 1e-8)
        return pairs.values / factor

    for factor, which in ((1.0, "LA"), (scale, "LA"), (-1.0, "SA"), (-scale, "SA")):
        close(found(factor, which), exact, 1e-3, 1e-6 * size)


@pytest.mark.parametrize(
    ("spectrum", "seed"),
    [([-3.0, -1, 3, -3, -2, 3], 6912), ([3.0, -2, -1, -2, 3, -2, 0], 5023)],
)
@pytest.mark.parametrize("multiplicity", ["check", "full"])
def test_rounding_at_the_end_of_a_krylov_space_hides_no_copy(spectrum, seed, multiplicity):
    """Of four distinct eigenvalues four products say all; the fifth basis vector is rounding, of any direction."""
    operator = MatrixOperator(symmetric(spectrum, seed))
    pairs = eigenpairs(operator, 2, seed=seed, multiplicity=multiplicity)
    close(pairs.values, [3.0, 3.0], 1e-9)


def test_power_iteration_of_equal_eigenvalues_ends_within_its_tolerance():
    """Ritz vectors of equal eigenvalues mix what is left of both: each must be left with less."""
    pairs = eigenpairs(MatrixOperator(symmetric([3.0, 5.0, 5.0])), 2, "power")
    assert pairs.converged and pairs.products < 100


@examples(25)
@given(spectra(2, 9), SEEDS)
def test_both_extremes_are_found(spectrum, seed):
    matrix = symmetric(spectrum, seed)
    found = extremes(MatrixOperator(matrix), tol=1e-8, seed=seed)
    exact = torch.linalg.eigvalsh(matrix)
    size = float(matrix.norm())
    assert sorted(found.values) == pytest.approx(
        [float(exact[0]), float(exact[-1])], abs=1e-6 * size + 1e-12
    )


@examples(30)
@given(
    spectra(1, 9),
    SEEDS,
    st.sampled_from([1e-8, 1e-3, 1e5, 1e8]),
    st.sampled_from(["hutchinson", "xtrace"]),
)
def test_traces_follow_the_unit_and_are_sums_of_eigenvalues(spectrum, seed, scale, method):
    """Value, error and interval; as many products as dimensions make the sum itself."""
    matrix = symmetric(spectrum, seed)
    few, all_of_them = max(4, len(matrix) // 2), 4 * len(matrix) + 4
    one, large = (
        trace(MatrixOperator(m), few, seed, method=method) for m in (matrix, scale * matrix)
    )
    size = sum(map(abs, spectrum)) + 1e-12
    assert large.value == pytest.approx(scale * one.value, rel=1e-9, abs=1e-11 * scale * size)
    close(large.interval, [scale * end for end in one.interval], 1e-8, 1e-11 * scale * size)
    assert one.interval[0] <= one.value <= one.interval[1]
    if method == "xtrace":
        full = trace(MatrixOperator(matrix), all_of_them, seed, method=method)
        assert full.value == pytest.approx(sum(spectrum), abs=1e-9 * size)


@examples(30)
@given(spectra(1, 9), SEEDS, st.floats(-5, 5))
def test_a_density_moves_with_a_shift(spectrum, seed, shift):
    """``A + cI`` has the nodes of A plus c, and the same weights."""
    matrix = symmetric(spectrum, seed)
    moved = matrix + shift * torch.eye(len(matrix))
    size = float(matrix.norm()) + abs(shift) + 1e-30
    for probe in range(2):
        rules = [rule(lanczos(m, seed + probe, 4)[1]) for m in (matrix, moved)]
        if len(rules[0][0]) != len(rules[1][0]):  # an exhausted space: rounding decides
            continue
        (nodes, weights), (other, again) = rules
        grid = np.linspace(-9, 9, 13)
        for x in grid:
            one, two = (
                w @ np.exp(-((n - x) ** 2)) for n, w in ((nodes, weights), (other - shift, again))
            )
            assert one == pytest.approx(two, abs=1e-7 * max(size, 1))


def exact_density(spectrum, seed):
    """Of as many steps as dimensions: every probe alike says all of the spectrum but the weights."""
    return density(
        MatrixOperator(symmetric(spectrum, seed)),
        steps=40,
        probes=3,
        outliers=len(spectrum),
        seed=seed,
    )


@loose
@examples(40)
@given(spectra(1, 8), SEEDS, SCALES)
def test_functionals_are_sums_over_eigenvalues(spectrum, seed, scale):
    """And follow the unit: α and γ are in units of the eigenvalues."""
    values = scale * np.array(spectrum)
    assume(
        np.abs(values).max() > 1e-3 * scale and np.abs(values).min() > 1e-2 * np.abs(values).max()
    )
    found = exact_density(values.tolist(), seed)
    high = np.maximum(values, 0)
    expected = {
        ("trace", ()): values.sum(),
        ("absolute_trace", ()): np.abs(values).sum(),
        ("frobenius", ()): np.sqrt((values**2).sum()),
        ("schatten", (("p", 3.0),)): (np.abs(values) ** 3).sum() ** (1 / 3),
        ("effective_dimension", (("alpha", 0.5 * scale),)): (high / (high + 0.5 * scale)).sum(),
        ("log_determinant", (("gamma", 2 * scale),)): 0.5 * np.log1p(high / (2 * scale)).sum(),
        ("negative_mass", ()): np.maximum(-values, 0).sum() / np.abs(values).sum(),
    }
    for (name, options), value in expected.items():
        unit = scale if name in ("trace", "absolute_trace", "frobenius", "schatten") else 1.0
        got = functional(found, name, **dict(options)).value
        assert got == pytest.approx(value, rel=2e-3, abs=2e-3 * unit * len(spectrum)), name


@loose
@examples(40)
@given(st.lists(st.floats(-3, 5), min_size=2, max_size=30), SEEDS, st.integers(0, 5))
def test_inequalities_between_functionals_hold_for_estimates(spectrum, seed, outliers):
    """They hold for any measure, so for few probes and steps: norms fall with p, ``|tr| ≤ Σ|λ| ≤ √P ‖H‖_F``."""
    assume(max(map(abs, spectrum)) > 1e-3)  # the powers of a p-norm of much less underflow
    op = MatrixOperator(symmetric(spectrum, seed))
    found = density(op, steps=5, probes=2, seed=seed, outliers=outliers)

    def value(name, **options):
        return functional(found, name, **options).value

    params, slack = len(spectrum), 1 + 1e-9
    norms = [value("schatten", p=p) for p in (1.0, 1.5, 2.0, 4.0)]
    assert norms[0] == pytest.approx(value("absolute_trace")) and norms[2] == pytest.approx(
        value("frobenius")
    )
    assert abs(value("trace")) <= norms[0] * slack
    assert norms[0] <= math.sqrt(params) * norms[2] * slack
    assert norms[2] <= params**0.25 * norms[3] * slack
    assert 0 <= value("negative_mass") <= 1
    dims = [value("effective_dimension", alpha=a) for a in (0.1, 1.0, 10.0)]
    logs = [value("log_determinant", gamma=g) for g in (0.1, 1.0, 10.0)]
    for falling in (dims, logs):
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))
        assert min(falling) >= 0
    assert dims[0] <= params * slack
    # x / (1 + x) <= log(1 + x) <= x
    assert dims[1] <= 2 * logs[1] * slack <= value("absolute_trace") * slack**2 + 1e-12


@examples(40)
@given(matrices(2, 9), matrices(2, 9), st.floats(0.1, 0.9), SEEDS)
def test_the_largest_eigenvalue_of_a_mean_is_at_most_the_mean_of_the_largest(
    first, second, share, seed
):
    """λ₁ is convex, so batches overstate it; quotients of the one vector have the eigenvalue as their mean."""
    n = min(len(first), len(second))
    parts, weights = (first[:n, :n], second[:n, :n]), (share, 1 - share)
    mean = sum(w * p for w, p in zip(weights, parts, strict=True))
    pair = eigenpairs(MatrixOperator(mean), tol=1e-8, seed=seed)
    tops = [float(eigenpairs(MatrixOperator(p), tol=1e-8, seed=seed).values[0]) for p in parts]
    size = float(first.norm() + second.norm()) + 1e-12
    assert (
        float(pair.values[0])
        <= sum(w * t for w, t in zip(weights, tops, strict=True)) + 1e-6 * size
    )
    v, w = pair.vectors[0], torch.tensor(weights, dtype=torch.float64)
    quotients = torch.stack([v @ p @ v for p in parts])
    found = spread_of(quotients[:, None], 7 * w)
    assert float(found.mean[0]) == pytest.approx(float(pair.values[0]), abs=1e-9 * size)
    scatter = float((w @ (quotients - w @ quotients).square()).sqrt())
    assert float(found.stderr[0]) == pytest.approx(scatter, rel=1e-9, abs=1e-15)


@examples(60)
@given(st.floats(0, 0.99), st.booleans(), st.floats(1e-4, 10))
def test_thresholds_are_where_the_iteration_ceases_to_contract(beta, nesterov, rate):
    """The companion matrix of (heavy ball, Nesterov) on ``½λx²`` has spectral radius 1 at the threshold."""
    nesterov = nesterov and beta > 0
    settings = {"lr": rate, "momentum": beta, "nesterov": nesterov}
    edge = dynamics(settings, ParameterSpace.of_vector(1)).threshold * rate
    assert edge == pytest.approx((2 + 2 * beta) / (1 + 2 * beta if nesterov else 1), rel=1e-12)

    def radius(step):  # of (x, v) -> (x - step-wise update), with torch's v' = beta v + g
        direct = 1.0 + beta if nesterov else 1.0
        kick = beta**2 if nesterov else beta
        matrix = np.array([[1 - direct * step, -kick], [step, beta]])  # v in units of the rate
        return np.abs(np.linalg.eigvals(matrix)).max()

    assert radius(edge) == pytest.approx(1, abs=1e-6)
    assert radius(edge * 1.01) > 1 and radius(edge * 0.99) < 1
