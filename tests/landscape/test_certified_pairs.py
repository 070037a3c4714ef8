"""What `eigenpairs` says about its own results, against matrices that are known."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net, full_hessian, images, linear_regression, symmetric
from scipy.special import betainc

from landscape.data_objective import DataObjective
from landscape.krylov.calibration import choose_method
from landscape.krylov.lanczos import Complement
from landscape.krylov.wanted import ENDS, Wanted
from landscape.operators import operator_of
from landscape.operators.symmetric import MatrixOperator
from landscape.space import ParameterSpace
from landscape.spectra.eigenpairs import METHODS, ConvergenceWarning, eigenpairs, memory_bound


class Diagonal(MatrixOperator):
    """A diagonal matrix, kept as its diagonal."""

    def __init__(self, diagonal):
        super().__init__(torch.zeros(1, 1))
        self.entries = torch.as_tensor(diagonal)
        self.theta = torch.zeros_like(self.entries)
        self.space = ParameterSpace.of_vector(len(self.entries))

    def _products(self, vectors):
        return vectors * self.entries


class Noisy(MatrixOperator):
    """A matrix plus new noise in every product, as dropout or random batches would make."""

    def __init__(self, matrix, noise):
        super().__init__(matrix)
        self.noise, self.random = noise, np.random.default_rng(0)

    def _products(self, vectors):
        drawn = torch.from_numpy(self.random.standard_normal(tuple(vectors.shape)))
        return super()._products(vectors) + self.noise * drawn / vectors.shape[1] ** 0.5


def outliers(values, bulk=2000, radius=0.3):
    return [*values, *(radius * np.random.default_rng(0).standard_normal(bulk)).tolist()]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=3, max_size=25),
    st.sampled_from(ENDS),
    st.sampled_from(METHODS),
    st.integers(1, 3),
    st.integers(0, 1000),
)
@pytest.mark.filterwarnings("ignore::landscape.spectra.eigenpairs.ConvergenceWarning")
def test_residuals_are_true_and_intervals_hold_an_eigenvalue(spectrum, which, method, k, seed):
    """Converged or not: a loose tolerance and few products leave residuals of all sizes."""
    matrix = symmetric(spectrum, seed)
    pairs = eigenpairs(
        MatrixOperator(matrix), k, method, which, tol=0.05, seed=seed, max_products=12
    )
    true = (pairs.vectors @ matrix - pairs.values[:, None] * pairs.vectors).norm(dim=1)
    # Never too small; what is given up as rounding, below √eps of the norm, counts in full.
    given_up = max(1e-12, np.finfo(float).eps ** 0.5 * float(matrix.norm()))
    assert (pairs.residuals >= true * (1 - 1e-6) - 1e-12).all()
    assert (pairs.residuals <= true * (1 + 1e-6) + given_up).all()
    exact = torch.linalg.eigvalsh(matrix)
    for low, high in pairs.intervals:
        assert ((exact >= low - 1e-12) & (exact <= high + 1e-12)).any()


@pytest.mark.parametrize("method", ["lanczos", "block"])
def test_float32_residuals_are_those_of_the_vectors_returned(method):
    matrix = symmetric(outliers([90.0, 30.0, 10.0, -20.0], 400))
    pairs = eigenpairs(MatrixOperator(matrix.float()), 3, method)
    rows = pairs.vectors.double()
    true = (rows @ matrix.float().double() - pairs.values[:, None] * rows).norm(dim=1)
    torch.testing.assert_close(pairs.residuals, true, rtol=0.05, atol=90 * 1e-6)
    assert pairs.converged and 0 < pairs.discrepancy < 90 * 1e-6
    assert (pairs.residuals >= 3**0.5 * pairs.discrepancy).all()  # the audit is in them


def test_both_ends_put_the_high_one_first():
    pairs = eigenpairs(MatrixOperator(symmetric([9.0, 5.0, 3.0, 0.1, -4.0, -7.0])), 5, which="BE")
    np.testing.assert_allclose(pairs.values, [9, 5, 3, -7, -4], rtol=1e-5)
    assert pairs.opposite is None


@pytest.mark.parametrize(("which", "near"), [("LA", -20.0), ("SA", 90.0), ("LM", -20.0)])
def test_the_other_end_comes_for_free(which, near):
    operator = MatrixOperator(symmetric(outliers([90.0, 30.0, -20.0, -8.0], 300)))
    value, error = eigenpairs(operator, 2, which=which).opposite
    assert value == pytest.approx(near, abs=max(error, 1e-9)) and error < 2


@pytest.mark.parametrize("method", METHODS)
def test_products_that_do_not_repeat_are_refused_loudly(method):
    operator = Noisy(symmetric(outliers([50.0, 20.0, 9.0], 100)), noise=0.5)
    with pytest.warns(ConvergenceWarning, match="does not repeat itself"):
        pairs = eigenpairs(operator, 2, method, max_products=150)
    assert not pairs.converged and pairs.discrepancy > 0.2
    assert pairs.residuals.max() > 0.2


def test_lanczos_gives_noise_up_early():
    operator = Noisy(symmetric(outliers([50.0, 20.0, 9.0], 100)), noise=0.5)
    with pytest.warns(ConvergenceWarning, match="switch off what is random"):
        assert eigenpairs(operator, 2).products < 40


def test_noise_of_only_the_last_product_is_caught_and_cured():
    """The audit is what differs: fresh products for every pair decide."""

    class Once(MatrixOperator):
        def _products(self, vectors):
            made = super()._products(vectors)
            return made + 1.0 if self.products == self.at else made

    operator = Once(symmetric(outliers([50.0, 20.0, 9.0], 100)))
    operator.at = None
    plain = eigenpairs(operator, 2, multiplicity="skip")
    operator.at = 2 * plain.products - 1
    audited = eigenpairs(operator, 2, multiplicity="skip")
    assert audited.products == plain.products + 2 and audited.converged
    assert audited.discrepancy > 1 and "differs by" in audited.outcome
    torch.testing.assert_close(audited.residuals, plain.residuals, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("top", "k"),
    [
        ([9.0, 9.0, 5.0, 5.0, 5.0], 5),
        ([9.0, 9.0 - 1e-6, 5.0, 5.0 - 1e-6, 3.0], 5),
        ([4.0] * 6, 4),
        ([9.0, 8.0, 7.0, 6.0, 6.0, 6.0], 6),
    ],
)
def test_a_short_check_finds_copies_of_what_stands_out(top, k, seed):
    operator = Diagonal(torch.tensor(outliers(top), dtype=torch.float64))
    pairs = eigenpairs(operator, k, seed=seed)
    np.testing.assert_allclose(pairs.values, np.sort(top)[::-1][:k], rtol=2e-6)
    assert pairs.settings["overlooked"] < 0.5
    assert (
        pairs.products < 75
    )  # most where k pairs need some of the bulk before copies are looked for


def test_a_check_is_three_products_and_says_what_it_may_miss():
    operator = Diagonal(torch.tensor(outliers([9.0, 8.0, 7.0, 6.0, 5.0]), dtype=torch.float64))
    skipped, checked, full = (
        eigenpairs(operator, 5, multiplicity=how) for how in ("skip", "check", "full")
    )
    assert 1 <= checked.products - skipped.products <= 3 <= full.products - skipped.products
    assert "overlooked" not in skipped.settings
    assert full.settings["overlooked"] <= 1e-4
    repeated = Diagonal(torch.tensor(outliers([9.0, 9.0, 7.0]), dtype=torch.float64))
    assert float(eigenpairs(repeated, 2, multiplicity="skip").values[1]) == pytest.approx(7)
    assert (
        "overlooked" not in eigenpairs(repeated, 1).settings
    )  # of one, a copy makes no difference


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 40), st.integers(1, 12), st.integers(0, 1000), st.floats(0.5, 5))
def test_no_weight_is_larger_than_the_run_allows(n, steps, seed, x):
    """The Christoffel bound on which the check rests, with the weight of an eigenvalue known."""
    random = np.random.default_rng(seed)
    diagonal = np.append(random.uniform(-1, 0.4, n - 1), x)
    start = random.standard_normal(n)
    q = start / np.linalg.norm(start)
    check, basis = Complement(n, (-np.inf, x)), [q]
    for _ in range(min(steps, (n + 1) // 2)):  # at the end the bound is met, up to rounding
        w = diagonal * basis[-1]
        check.diagonal.append(float(basis[-1] @ w))
        for _ in range(2):
            w = w - np.array(basis).T @ (np.array(basis) @ w)
        check.off.append(float(np.linalg.norm(w)))
        basis.append(w / check.off[-1])
    weight = start[-1] ** 2 / (start @ start)
    assert betainc(0.5, (n - 1) / 2, weight) <= check.chance + 1e-6


def test_the_chance_is_a_chance():
    """Of runs beside a hidden copy, a share c at most may end with a chance below c."""
    n, steps, runs = 300, 4, 400
    hidden = np.append(np.linspace(-1, 1, n - 1), 3.0)
    random, chances = np.random.default_rng(0), []
    for _ in range(runs):
        check, q, last, beta = Complement(n, (-np.inf, 3.0)), random.standard_normal(n), 0.0, 0.0
        q /= np.linalg.norm(q)
        for _ in range(steps):
            w = hidden * q - beta * last
            check.diagonal.append(float(q @ w))
            w -= check.diagonal[-1] * q
            beta = float(np.linalg.norm(w))
            check.off.append(beta)
            last, q = q, w / beta
        chances.append(check.chance)
    for c in (0.02, 0.1, 0.3):
        assert np.mean(np.array(chances) <= c) <= c + 2 * np.sqrt(c / runs)
    assert np.median(chances) < 0.9  # and it is not said of every run that it saw nothing


@pytest.mark.parametrize("which", ENDS)
def test_restarts_bound_the_memory_and_change_no_result(which):
    values = [*np.linspace(1, 2, 60), 2.05, 2.1, *np.linspace(-1, 0.9, 300), -1.1, -1.2]
    operator = MatrixOperator(symmetric(values))
    free = eigenpairs(operator, 2, which=which, tol=1e-6, max_products=2000)
    bound = eigenpairs(operator, 2, which=which, tol=1e-6, max_products=2000, max_vectors=20)
    torch.testing.assert_close(free.values, bound.values, rtol=1e-9, atol=0)
    assert bound.products > free.products > 25
    size = len(values) * 8
    assert bound.memory_bytes <= 24 * size < free.memory_bytes
    assert bound.memory_bytes <= memory_bound(operator, 2, max_products=2000, max_vectors=20)
    assert free.memory_bytes <= memory_bound(operator, 2, max_products=2000)


@pytest.mark.parametrize(
    "options", [{}, {"max_vectors": 16}, {"method": "block"}, {"which": "BE"}, {"norm": "batch"}]
)
def test_quotients_of_the_parts_come_at_no_extra_product(options):
    x, y = images(30)
    cuts = [(0, 12), (12, 24), (24, 30)]  # the last batch is short
    norm = options.pop("norm", "eval")
    objective = DataObjective(conv_net(), [(x[a:b], y[a:b]) for a, b in cuts], norm=norm)
    pairs = eigenpairs(objective, 3, tol=1e-6, spread=True, **options)
    plain = eigenpairs(objective, 3, tol=1e-6, **options)
    assert pairs.products == plain.products and plain.quotients is None and plain.weights is None
    torch.testing.assert_close(pairs.weights, torch.tensor([12, 12, 6]).double() / 30)
    torch.testing.assert_close(pairs.weights @ pairs.quotients, pairs.values)
    for (a, b), found in zip(cuts, pairs.quotients, strict=True):
        part = full_hessian(DataObjective(conv_net(), [(x[a:b], y[a:b])], norm=norm))
        torch.testing.assert_close(found, ((pairs.vectors @ part) * pairs.vectors).sum(1))


def test_an_operator_without_parts_has_no_quotients():
    pairs = eigenpairs(MatrixOperator(symmetric([3.0, 2.0, 1.0])), 1, spread=True)
    assert pairs.quotients is None and pairs.weights is None


def test_a_known_start_saves_products_and_is_left_alone_for_the_smallest():
    diagonal = torch.tensor(outliers([40.0, 20.0, -5.0]), dtype=torch.float64)
    plain = eigenpairs(Diagonal(diagonal), 2)
    operator, calls = Diagonal(diagonal), []

    def start():
        calls.append(1)
        return 100 * (torch.eye(len(diagonal))[0] + torch.eye(len(diagonal))[1]).double()

    operator.start = start
    helped = eigenpairs(operator, 2)
    assert helped.products < plain.products and len(calls) == 1
    torch.testing.assert_close(helped.values, plain.values, rtol=1e-6, atol=0)
    eigenpairs(operator, 1, which="SA")
    assert len(calls) == 1
    operator.start = lambda: torch.zeros(len(diagonal)).double()
    assert eigenpairs(operator, 2).products == plain.products


def test_an_operator_that_returns_its_own_input():
    class Identity(MatrixOperator):
        def _products(self, vectors):
            return vectors

    for method in METHODS:
        pairs = eigenpairs(Identity(torch.eye(6).double()), 3, method)
        np.testing.assert_allclose(pairs.values, 1, rtol=1e-12)
        torch.testing.assert_close(pairs.vectors @ pairs.vectors.T, torch.eye(3).double())


def test_the_method_is_chosen_by_the_clock(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    class Timed(MatrixOperator):
        def _products(self, vectors):
            clock[0] += self.a_pass + self.a_vector * len(vectors)
            return super()._products(vectors)

    operator = Timed(symmetric([9.0, 5.0, *np.linspace(0, 1, 20)]))
    operator.a_pass, operator.a_vector = 1.0, 0.1
    assert choose_method(operator, 5).method == "block"
    operator.a_pass, operator.a_vector = 0.1, 1.0
    chosen = choose_method(operator, 5)
    assert chosen.method == "lanczos" and "at once" in chosen.reason
    before = operator.products
    pairs = eigenpairs(operator, 1, method="auto")
    assert pairs.method == "lanczos" and "by block" in pairs.settings["choice"]
    assert pairs.products == operator.products - before  # the seven of the timing too


def test_an_exhausted_space_is_looked_beyond_even_where_the_check_is_skipped():
    operator = MatrixOperator(symmetric([3.0, 3.0, 2.0, 1.0] + [0.0] * 20))
    pairs = eigenpairs(operator, 4, multiplicity="skip", tol=1e-8)
    np.testing.assert_allclose(pairs.values, [3, 3, 2, 1], rtol=1e-8)


def test_a_block_smaller_than_the_multiplicity_is_looked_beyond_once_it_is_exhausted():
    operator = MatrixOperator(symmetric([5.0] * 3 + [0.0] * 20))
    pairs = eigenpairs(operator, 3, "block", block_size=2, tol=1e-8)
    np.testing.assert_allclose(pairs.values, 5, rtol=1e-8)


@pytest.mark.parametrize(
    ("which", "values", "bounds"),
    [
        ("LA", [5.0, 4.0, 3.0], (-np.inf, 3.0)),
        ("SA", [-5.0, -4.0, 1.0], (1.0, np.inf)),
        ("LM", [-5.0, 4.0, -3.0], (-3.0, 3.0)),
        ("BE", [5.0, 4.0, -9.0], (-9.0, 4.0)),
    ],
)
def test_what_would_be_wanted_beside_what_is_there(which, values, bounds):
    assert Wanted(3, which, 1e-3, torch.float64).bounds(np.array(values)) == bounds


def test_options_reach_the_operator_and_settings_the_result():
    objective, _ = linear_regression(outputs=2)
    pairs = eigenpairs(objective, 2, seed=3, params="weight", keep_graph=False)
    assert pairs.settings["params"] == "weight" and pairs.settings["operator"] == "hessian"
    assert pairs.settings["seed"] == 3 and pairs.settings["tol"] == 1e-3
    with pytest.raises(ValueError, match="an operator was given"):
        eigenpairs(operator_of(objective), params="weight")


MEMORY = """
import sys, warnings, torch
sys.path[:0] = ["tests/landscape", "tests"]
from test_certified_pairs import Diagonal
from landscape.spectra.eigenpairs import eigenpairs
warnings.simplefilter("ignore")
def kib(name):  # not `ru_maxrss`, which a process inherits from the one that started it
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0])
params = 500_000
operator = Diagonal(torch.linspace(0, 1, params))
eigenpairs(Diagonal(torch.linspace(0, 1, 50_000)), 5, max_products=8)
before = kib("VmRSS")
pairs = eigenpairs(operator, 10, max_products=41)
print(pairs.products, (kib("VmHWM") - before) * 1024 / (4 * params), pairs.memory_bytes / (4 * params))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_kept_vectors():
    """40 kept vectors of half a million parameters: at most a quarter more at the peak of the process."""
    out = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed goes back at once
    )
    products, peak, told = map(float, out.stdout.split())
    assert products == 41
    assert 36 < peak <= 1.25 * 41
    assert 41 <= told <= 45
