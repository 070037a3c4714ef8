import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    conv_net,
    conv_objective,
    full_hessian,
    images,
    linear_regression,
    normal,
    quadratic,
    symmetric,
)

from landscape.data_objective import DataObjective
from landscape.krylov.wanted import ENDS
from landscape.objective import FunctionObjective
from landscape.operators.symmetric import MatrixOperator
from landscape.spectra.eigenpairs import METHODS, ConvergenceWarning, eigenpairs
from landscape.spectra.traces import trace

SADDLE = [10.0, 6.0, 2.0, -3.0, -12.0, -7.0, *np.linspace(-1, 1, 20)]


def wanted(spectrum, which, k):
    values = np.asarray(spectrum, dtype=float)
    if which == "BE":
        high = (k + 1) // 2
        return np.concatenate([np.sort(values)[::-1][:high], np.sort(values)[: k - high]])
    key = {"LA": -values, "SA": values, "LM": -np.abs(values)}[which]
    return values[np.argsort(key, kind="stable")][:k]


def check_certificate(objective, pairs):
    """What every result claims, recomputed: unit orthogonal vectors and true residuals."""
    gram = pairs.vectors.double() @ pairs.vectors.double().T
    tight = 1e-12 if pairs.vectors.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(gram, torch.eye(len(gram)).double(), rtol=0, atol=tight)
    for value, v, residual in zip(pairs.values, pairs.vectors, pairs.residuals, strict=True):
        true = (objective.hvp(objective.theta, v) - value.to(v) * v).double().norm()
        assert float(true) == pytest.approx(float(residual), rel=0.05, abs=30 * tight)
    torch.testing.assert_close(
        pairs.intervals,
        torch.stack([pairs.values - pairs.residuals, pairs.values + pairs.residuals], 1),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["eval", "batch"])
def test_a_network_against_a_dense_eigensolver(method, norm):
    objective = conv_objective(norm=norm)
    exact = np.linalg.eigh(full_hessian(objective).numpy())[0]
    pairs = eigenpairs(objective, k=2, method=method, tol=1e-7)
    assert pairs.converged and pairs.method == method and pairs.which == "LA"
    np.testing.assert_allclose(pairs.values, exact[::-1][:2], rtol=1e-6)
    check_certificate(objective, pairs)


@pytest.mark.parametrize(
    ("method", "which", "k"),
    itertools.product(METHODS, ENDS, [1, 4]),
)
def test_a_saddle_gives_the_end_asked_for(method, which, k):
    objective = quadratic(symmetric(SADDLE))
    pairs = eigenpairs(objective, k=k, method=method, which=which, tol=1e-6, seed=1)
    np.testing.assert_allclose(pairs.values, wanted(SADDLE, which, k), rtol=1e-6)
    check_certificate(objective, pairs)


def test_power_iteration_is_not_stopped_by_a_tie_of_signs():
    objective = quadratic(symmetric([4.0, -4.0, 1.0, 0.5, -2.0]))
    for which, value in (("LA", 4.0), ("SA", -4.0)):
        pairs = eigenpairs(objective, method="power", which=which, tol=1e-6)
        assert float(pairs.values[0]) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rank_deficient_without_ghosts(method, dtype):
    objective = quadratic(symmetric([4.0, 3.0, 2.0, 1.0] + [0.0] * 60), dtype=dtype)
    pairs = eigenpairs(objective, k=8, method=method, tol=1e-5)
    np.testing.assert_allclose(pairs.values, [4, 3, 2, 1, 0, 0, 0, 0], atol=1e-4)
    check_certificate(objective, pairs)


def test_no_ghosts_over_many_steps():
    spectrum = [100.0, 50.0, *np.linspace(0, 1, 150)]
    for dtype in (torch.float64, torch.float32):
        pairs = eigenpairs(quadratic(symmetric(spectrum), dtype=dtype), k=12, tol=1e-5)
        assert pairs.products > 60
        np.testing.assert_allclose(pairs.values, wanted(spectrum, "LA", 12), atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "spectrum",
    [
        [5.0, 5.0, 5.0, 2.0, 2.0, *np.linspace(0, 1, 40)],
        [1.0] * 12,
        [3.0, 3.0, 1.0] + [0.0] * 20,
        [0.0] * 6,
    ],
)
def test_repeated_eigenvalues_are_all_found(method, spectrum):
    pairs = eigenpairs(quadratic(symmetric(spectrum)), k=5, method=method, tol=1e-8)
    np.testing.assert_allclose(pairs.values, wanted(spectrum, "LA", 5), atol=1e-7)


def test_each_output_of_a_regression_repeats_the_spectrum():
    objective, x = linear_regression(outputs=3)
    exact = np.linalg.eigvalsh((x.T @ x / len(x) * 2 / 3).numpy())[::-1]
    pairs = eigenpairs(objective, k=6, tol=1e-6)
    np.testing.assert_allclose(pairs.values, np.repeat(exact, 3)[:6], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=9),
    st.sampled_from(ENDS),
    st.sampled_from(["lanczos", "block"]),
    st.integers(0, 5),
    st.data(),
)
def test_any_small_spectrum_is_found(spectrum, which, method, seed, data):
    k = data.draw(st.integers(1, len(spectrum)))
    operator = MatrixOperator(symmetric(spectrum, seed))
    pairs = eigenpairs(operator, k, method, which, tol=1e-8, seed=seed)
    found, true = pairs.values.numpy(), wanted(spectrum, which, k)
    if which == "LM":  # of -3 and 3 either may come first
        found, true = np.abs(found), np.abs(true)
    np.testing.assert_allclose(found, true, atol=1e-6)


def test_the_whole_spectrum():
    pairs = eigenpairs(quadratic(symmetric(SADDLE)), k=len(SADDLE), tol=1e-10)
    np.testing.assert_allclose(pairs.values, sorted(SADDLE, reverse=True), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_unconverged_is_loud(method):
    objective = quadratic(symmetric([*np.linspace(0.9, 1, 60), 1.001]))
    with pytest.warns(ConvergenceWarning, match="raise max_products"):
        pairs = eigenpairs(objective, k=2, method=method, tol=1e-9, max_products=8)
    assert not pairs.converged and pairs.products <= 8
    assert "not converged after 8 products" in pairs.outcome
    check_certificate(objective, pairs)


@pytest.mark.parametrize("method", METHODS)
def test_products_and_passes_are_counted_and_few(method):
    calls = []

    class Counted(MatrixOperator):
        def _products(self, vectors):
            calls.append(len(vectors))
            return super()._products(vectors)

    operator = Counted(symmetric([50.0, 20.0, *np.linspace(0, 1, 300)]))
    operator.matvec(torch.ones(302).double())  # made before: not counted
    pairs = eigenpairs(operator, k=2, method=method)
    assert pairs.products == sum(calls) - 1 < 30
    assert pairs.passes == len(calls) - 1
    assert pairs.outcome == f"2 pairs converged in {pairs.products} products"


def test_single_and_double_precision_agree():
    low = eigenpairs(conv_objective(torch.float32), k=3)
    high = eigenpairs(conv_objective(), k=3)
    assert low.vectors.dtype == torch.float32 and low.values.dtype == torch.float64
    torch.testing.assert_close(low.values, high.values, rtol=1e-4, atol=0)


def test_a_seed_fixes_the_result_and_theta_is_followed():
    cubic = FunctionObjective(lambda t: (t**3).sum() / 6, torch.tensor([1.0, 2.0, 3.0]).double())
    one, two = (eigenpairs(cubic, k=2, seed=5) for _ in range(2))
    assert torch.equal(one.vectors, two.vectors)
    elsewhere = eigenpairs(cubic, theta=torch.tensor([7.0, 8.0, 9.0]).double())
    assert float(elsewhere.values) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0: expected 1 to 3"),
        ({"k": 4}, "k is 4: expected 1 to 3, the number of parameters"),
        ({"method": "arnoldi"}, "expected one of lanczos, power, block"),
        ({"which": "SM"}, "expected one of LA, SA, LM, BE"),
        ({"tol": 0.0}, "tol is"),
        ({"max_products": 1}, "max_products is 1: expected at least 2"),
        ({"multiplicity": "no"}, "unknown multiplicity 'no': expected one of check, full, skip"),
        ({"max_vectors": 11}, "max_vectors is 11: expected at least 2 k . 10 = 12"),
        ({"method": "block", "block_size": 4}, "block_size is 4: expected 1 to 3"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        eigenpairs(quadratic(symmetric([1.0, 2, 3])), **options)


def test_a_hessian_that_is_not_finite_is_an_error():
    broken = FunctionObjective(lambda t: torch.sqrt(t).sum(), torch.zeros(2))
    for call in (eigenpairs, trace):
        with pytest.raises(ValueError, match="not finite"):
            call(broken)


def test_the_model_and_the_random_state_stay():
    net = conv_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    objective = DataObjective(net, images(), norm="batch")
    theta = objective.theta.clone()
    eigenpairs(objective)
    trace(objective, probes=2)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert net.training and all(p.grad is None for p in net.parameters())
    assert torch.equal(theta, objective.theta)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002


def test_a_small_change_of_the_start_changes_nothing_that_matters():
    objective = quadratic(symmetric([9.0, 8.9, *np.linspace(0, 1, 50)]), normal(52))
    values = [eigenpairs(objective, k=2, tol=1e-8, seed=s).values for s in range(4)]
    for other in values[1:]:
        torch.testing.assert_close(values[0], other, rtol=1e-10, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_large_eigenvalue_of_the_other_sign_hides_nothing(method):
    """Next to -900, a pair near 0 has a residual under 1 % of the norm after three products: not the top."""
    bulk = np.random.default_rng(0).standard_normal(2000) * 0.05
    diagonal = torch.from_numpy(np.concatenate([[-900.0, 70.0], bulk]))
    objective = FunctionObjective(
        lambda t: 0.5 * (diagonal * t * t).sum(), torch.zeros(2002).double()
    )
    pairs = eigenpairs(objective, k=1, method=method, which="LA", tol=1e-2, max_products=2000)
    assert pairs.converged
    assert float(pairs.values[0]) == pytest.approx(70, rel=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_a_single_parameter_whatever_the_signs_of_start_and_gradient(seed):
    objective = FunctionObjective(lambda t: 3 * (t * t).sum(), torch.ones(1).double())
    assert float(eigenpairs(objective, seed=seed).values) == pytest.approx(6.0)
