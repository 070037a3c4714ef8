import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import quadratic, symmetric

from landscape.objective import FunctionObjective
from landscape.operators.symmetric import MatrixOperator
from landscape.spectra.eigenpairs import ConvergenceWarning, eigenpairs
from landscape.spectra.estimators import Exchangeable, Hutchinson, holder
from landscape.spectra.traces import trace

OUTLIERS = [40.0, 20.0, -30.0, *np.linspace(0, 1, 97)]


def operator(spectrum, dtype=torch.float64, seed=0):
    return MatrixOperator(symmetric(spectrum, seed).to(dtype))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(0, 100))
@example([0.0, 0.0, 1.7e-270], 0)
def test_the_trace_of_a_diagonal_matrix_is_exact(diagonal, seed):
    found = trace(
        quadratic(torch.diag(torch.tensor(diagonal, dtype=torch.float64))), probes=2, seed=seed
    )
    assert found.value == pytest.approx(sum(diagonal), abs=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-12)


def test_the_interval_of_the_trace_covers_as_often_as_it_says():
    matrix = symmetric(list(np.linspace(-1, 4, 12)), seed=3)
    exact = float(matrix.trace())
    runs = [trace(MatrixOperator(matrix), probes=6, seed=seed) for seed in range(200)]
    inside = np.mean([run.interval[0] <= exact <= run.interval[1] for run in runs])
    assert 0.89 <= inside <= 0.99
    assert np.mean([run.value for run in runs]) == pytest.approx(exact, abs=0.3)
    assert runs[0].products == runs[0].probes == 6 and runs[0].method == "hutchinson"


def test_deflation_leaves_the_trace_and_cuts_the_noise():
    matrix = symmetric([40.0, 20.0, *np.linspace(0, 1, 60)])
    objective = quadratic(matrix)
    pairs = eigenpairs(objective, k=2)
    plain, deflated = trace(objective), trace(objective, pairs=pairs)
    exact = float(matrix.trace())
    assert plain.interval[0] <= exact <= plain.interval[1]
    assert deflated.interval[0] <= exact <= deflated.interval[1]
    assert deflated.stderr < plain.stderr / 5
    with pytest.raises(ValueError, match="pairs have 62 parameters"):
        trace(quadratic(symmetric([1.0, 2])), pairs=pairs)
    with pytest.raises(ValueError, match="probes is 1"):
        trace(objective, probes=1)


def pairs_of(op, vectors):
    """Any orthonormal rows with their Rayleigh quotients, as if a search had ended early."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = eigenpairs(op, k=len(vectors), tol=1.0, max_products=3 * len(vectors))
    values = (vectors * (vectors @ op.dense)).sum(1)
    return replace(found, values=values, vectors=vectors)


@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_pairs_that_have_not_converged_leave_no_bias(method):
    op = operator(OUTLIERS)
    op.dense = symmetric(OUTLIERS)
    rough = torch.linalg.qr(torch.from_numpy(np.random.default_rng(5).standard_normal((100, 4))))[0]
    pairs = pairs_of(op, rough.T.contiguous())
    runs = [trace(op, 12, seed, pairs=pairs, method=method) for seed in range(200)]
    values = np.array([run.value for run in runs])
    assert abs(values.mean() - sum(OUTLIERS)) < 3.5 * values.std() / np.sqrt(200)


def independent_xtrace(a, omega):
    """Leave-one-out by forming every basis anew: the definition, without a downdate."""
    n, m = omega.shape
    found = []
    for i in range(m):
        q = np.linalg.qr(a @ np.delete(omega, i, 1))[0]
        rest = omega[:, i] - q @ (q.T @ omega[:, i])
        scale = (n - m + 1) / (rest @ rest)
        found.append(np.trace(q.T @ a @ q) + scale * rest @ a @ rest)
    return np.array(found)


@pytest.mark.parametrize("spectrum", [OUTLIERS, [*np.linspace(-2, 2, 30)]])
def test_xtrace_against_its_definition(spectrum):
    op = operator(spectrum)
    made = Exchangeable(op, op.theta.new_empty(0, len(spectrum)), seed=3, block=4)
    made.add(3)
    made.add(6)
    value, stderr = made.estimate()
    samples = independent_xtrace(
        symmetric(spectrum).numpy(), made._draw(range(9)).numpy().T.astype(float)
    )
    assert value == pytest.approx(samples.mean(), rel=1e-9)
    assert stderr == pytest.approx(samples.std(ddof=1) / 3, rel=1e-7)
    assert op.products == 18


def test_xtrace_with_deflation_is_xtrace_of_the_complement():
    spectrum = np.array(OUTLIERS)
    op = operator(spectrum)
    values, vectors = np.linalg.eigh(symmetric(spectrum).numpy())
    v = torch.from_numpy(vectors[:, [0, -1, -2]].T.copy())
    made = Exchangeable(op, v, seed=1, block=8)
    made.add(8)
    basis = vectors[:, 1:-2]
    omega = basis.T @ made._draw(range(8)).numpy().T
    samples = independent_xtrace(np.diag(values[1:-2]), omega)
    assert made.estimate()[0] == pytest.approx(samples.mean(), rel=1e-9)


def test_xtrace_is_unbiased_and_its_interval_covers_about_as_often_as_it_says():
    op = operator(OUTLIERS)
    runs = [trace(op, 24, seed, method="xtrace") for seed in range(120)]
    values, exact = np.array([run.value for run in runs]), sum(OUTLIERS)
    assert abs(values.mean() - exact) < 3 * values.std() / np.sqrt(120)
    assert np.mean([run.interval[0] <= exact <= run.interval[1] for run in runs]) >= 0.86
    plain = [trace(op, 24, seed, method="hutchinson").value for seed in range(120)]
    assert values.std() < np.std(plain) / 5
    assert runs[0].products == 24 and runs[0].probes == 12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spectrum", [[4.0, 3, 2, 1] + [0.0] * 60, [0.0] * 40, [-2.0] + [0.0] * 50])
def test_xtrace_is_exact_where_the_images_run_out_of_rank(spectrum, dtype):
    found = trace(operator(spectrum, dtype), 20, method="xtrace")
    tight = 1e-10 if dtype == torch.float64 else 1e-4
    assert found.value == pytest.approx(sum(spectrum), abs=tight)
    assert found.stderr <= tight


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.integers(0, 9), st.data())
def test_as_many_products_as_dimensions_are_exact(spectrum, seed, data):
    op = operator(spectrum, seed=seed)
    k = data.draw(st.integers(0, len(spectrum)))
    vectors = torch.linalg.eigh(symmetric(spectrum, seed))[1].T[:k].contiguous()
    pairs = None
    if k:
        op.dense = symmetric(spectrum, seed)
        pairs = pairs_of(op, vectors)
    begin = op.products
    found = trace(op, 20, method="xtrace", pairs=pairs)
    assert found.method == "exact" and found.stderr == 0
    assert found.products == op.products - begin == len(spectrum) - k
    assert found.value == pytest.approx(sum(spectrum), abs=1e-10)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_the_draws_and_blocks_do_not_matter(method, deflate):
    op = operator(OUTLIERS)
    pairs = eigenpairs(op, k=2) if deflate else None
    one = trace(op, 30, 4, pairs=pairs, method=method, block=1)
    two = trace(op, 30, 4, pairs=pairs, method=method, block=7)
    assert one.value == pytest.approx(two.value, rel=1e-11)
    assert one.stderr == pytest.approx(two.stderr, rel=1e-9)
    assert one.value != trace(op, 30, 5, pairs=pairs, method=method).value


def test_auto_takes_xtrace_from_60_products_on():
    op = operator(OUTLIERS)
    assert [trace(op, n).method for n in (32, 59, 60)] == ["hutchinson", "hutchinson", "xtrace"]
    assert trace(op, tolerance=0.5).method == "xtrace"
    assert trace(op, 40, tolerance=0.5).method == "hutchinson"


@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_a_tolerance_is_met_with_as_many_probes_as_it_takes(method):
    spectrum = np.array([*np.linspace(-1, 3, 400)])
    op = operator(spectrum)
    runs = [trace(op, seed=s, tolerance=0.08, method=method) for s in range(20)]
    errors = [abs(run.value - spectrum.sum()) / np.abs(spectrum).sum() for run in runs]
    assert np.mean(np.array(errors) <= 0.08) >= 0.85
    for run in runs:
        assert run.converged and run.products < 400
        assert (run.interval[1] - run.interval[0]) / 2 <= 0.08 * run.scale
        assert run.scale <= 1.25 * np.abs(spectrum).sum()
    finer = trace(op, tolerance=0.04, method=method)
    assert finer.products > max(run.products for run in runs) / 2
    assert finer.settings["tolerance"] == 0.04


def test_a_trace_of_zero_is_compared_with_the_size_of_the_spectrum():
    spectrum = np.linspace(-1, 1, 300)
    found = trace(operator(spectrum), tolerance=0.1)
    assert found.converged and abs(found.value) <= 0.1 * np.abs(spectrum).sum()
    assert 0.5 * np.abs(spectrum).sum() <= found.scale <= 1.1 * np.abs(spectrum).sum()


def test_a_tolerance_out_of_reach_is_loud():
    with pytest.warns(ConvergenceWarning, match="after 12 products, asked for .*raise probes"):
        found = trace(operator(OUTLIERS), 12, tolerance=1e-6)
    assert not found.converged and found.products == 12
    # with more probes than dimensions the answer is exact, whatever was asked for
    found = trace(operator([3.0, 1.0, -5.0]), tolerance=1e-9)
    assert (found.method, found.products) == ("exact", 3)
    assert found.value == pytest.approx(-1)


def test_three_times_fewer_products_than_plain_hutchinson():
    spectrum = np.array([60.0, 50, 40, -30, -60, *np.random.default_rng(0).standard_normal(495)])
    matrix = symmetric(spectrum)
    exact, size = spectrum.sum(), np.abs(spectrum).sum()
    variance = 2 * float((matrix**2).sum() - (matrix.diagonal() ** 2).sum())
    needed = variance / (0.02 * size) ** 2  # products of Hutchinson's for an error of 2 %
    op = MatrixOperator(matrix)
    pairs = eigenpairs(op, k=5, which="LM", tol=1e-2)
    for made in ({"pairs": pairs, "method": "hutchinson"}, {"method": "xtrace"}):
        budget = int(needed / 3) - (pairs.products if "pairs" in made else 0)
        errors = [trace(op, budget, s, **made).value - exact for s in range(20)]
        assert np.sqrt(np.mean(np.square(errors))) < 0.02 * size


def test_the_size_of_the_spectrum_is_bounded_from_below():
    spectrum = np.random.default_rng(1).standard_normal(300)
    exact = np.abs(spectrum).sum()
    for cls in (Hutchinson, Exchangeable):
        op = operator(spectrum)
        made = cls(op, op.theta.new_empty(0, 300), 0, 16)
        made.add(48)
        assert 0.6 * exact < made.size() < 1.1 * exact
    images = np.random.default_rng(2).standard_normal((300, 40))  # of the identity
    assert holder([images.T @ images], 300) == pytest.approx(300, rel=0.1)
    assert holder([np.zeros((3, 3))], 5) == 0


def test_single_precision():
    for method in ("hutchinson", "xtrace"):
        low = trace(operator(OUTLIERS, torch.float32), 30, method=method)
        high = trace(operator(OUTLIERS), 30, method=method)
        assert low.value == pytest.approx(high.value, abs=1e-4)
        assert low.stderr == pytest.approx(high.stderr, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hutch++"}, "unknown method 'hutch\\+\\+': expected auto, hutchinson, xtrace"),
        ({"probes": 3, "method": "xtrace"}, "probes is 3: expected at least 4"),
        ({"tolerance": 0.0}, "tolerance is 0.0: expected a positive number"),
        ({"block": 0}, "block is 0"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        trace(operator(OUTLIERS), **options)


def test_a_hessian_that_is_not_finite_is_an_error():
    broken = FunctionObjective(lambda t: torch.sqrt(t).sum(), torch.zeros(2))
    with pytest.raises(ValueError, match="not finite"):
        trace(broken)
