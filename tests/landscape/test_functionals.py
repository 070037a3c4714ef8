import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import symmetric

from landscape.operators.symmetric import MatrixOperator
from landscape.spectra.density import density
from landscape.spectra.eigenpairs import eigenpairs
from landscape.spectra.functionals import NAMES, functional

OPTIONS = {
    "effective_dimension": {"alpha": 0.3},
    "log_determinant": {"gamma": 0.7},
    "schatten": {"p": 1.5},
}


def operator(spectrum, dtype=torch.float64, seed=0):
    return MatrixOperator(symmetric(spectrum, seed).to(dtype))


def exact(name, spectrum):
    x = np.asarray(spectrum, dtype=float)
    positive = x[x > 0]
    return {
        "trace": x.sum(),
        "absolute_trace": np.abs(x).sum(),
        "frobenius": np.sqrt((x**2).sum()),
        "schatten": (np.abs(x) ** 1.5).sum() ** (1 / 1.5),
        "effective_dimension": (positive / (positive + 0.3)).sum(),
        "log_determinant": 0.5 * np.log(1 + positive / 0.7).sum(),
        "negative_mass": -x[x < 0].sum() / max(np.abs(x).sum(), 1e-300),
    }[name]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-4, 4).map(lambda x: round(x, 2)), min_size=1, max_size=10))
def test_exact_where_every_eigenvalue_is_an_outlier(spectrum):
    found = density(operator(spectrum), outliers=len(spectrum))
    for name in NAMES:
        if found.complement or not np.any(spectrum):
            continue
        made = functional(found, name, **OPTIONS.get(name, {}))
        assert made.value == pytest.approx(exact(name, spectrum), abs=1e-4)
        assert made.stderr == 0 and made.quadrature_change == 0
        assert made.interval == pytest.approx((made.value, made.value))


@pytest.mark.parametrize("outliers", [0, 3])
def test_the_intervals_cover_as_often_as_they_say(outliers):
    spectrum = np.array([9.0, 6.0, -5.0, *np.linspace(-1, 2, 21)])
    op = operator(spectrum)
    pairs = eigenpairs(op, k=3, which="LM", tol=1e-8) if outliers else None
    options = {"pairs": pairs, "outliers": 0, "probes": 6, "steps": 24, "block": 6}
    runs = [density(op, seed=s, **options) for s in range(60)]
    for name in NAMES:
        made = [functional(run, name, **OPTIONS.get(name, {})) for run in runs]
        truth = exact(name, spectrum)
        inside = np.mean([e.interval[0] <= truth <= e.interval[1] for e in made])
        assert inside >= 0.85, name
        values = np.array([e.value for e in made])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(60) + 0.01 * truth, name
        errors = np.mean([e.stderr for e in made])
        assert 0.7 * values.std() < errors < 1.4 * values.std(), name


def test_deflated_outliers_take_their_noise_with_them():
    spectrum = np.array([90.0, 60.0, -50.0, *np.linspace(-1, 2, 57)])
    plain, deflated = (density(operator(spectrum), outliers=k) for k in (0, 3))
    for name in ("trace", "absolute_trace", "frobenius"):
        assert functional(deflated, name).stderr < functional(plain, name).stderr / 10


def test_a_trace_of_zero_and_its_negative_mass():
    spectrum = np.linspace(-1, 1, 80)
    found = density(operator(spectrum), outliers=0, probes=20)
    made = functional(found, "trace")
    assert made.interval[0] < 0 < made.interval[1]
    negative = functional(found, "negative_mass")
    assert negative.interval[0] <= 0.5 <= negative.interval[1]
    assert negative.stderr < 0.05


def test_a_spectrum_of_one_sign_has_a_negative_mass_without_error():
    for sign, mass in ((-1.0, 1.0), (1.0, 0.0)):
        found = density(operator(sign * np.linspace(1, 9, 40)), outliers=0, steps=10, probes=4)
        assert functional(found, "absolute_trace").stderr > 0
        made = functional(found, "negative_mass")
        assert made.value == mass and made.stderr == pytest.approx(0, abs=1e-12)


def test_negative_mass_is_that_of_weights_not_of_nodes():
    """Three negative eigenvalues of 300 give a third of the nodes and a hundredth of the mass."""
    spectrum = np.array([-1.0, -0.9, -0.8, *np.linspace(0.5, 1, 297)])
    found = density(operator(spectrum), outliers=0, steps=12, probes=20)
    assert np.mean([(nodes < 0).mean() for nodes in found.nodes]) > 0.15
    assert functional(found, "negative_mass").value == pytest.approx(2.7 / 225.5, abs=0.008)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("outliers", [0, 4, 10])
def test_rank_deficient(dtype, outliers):
    spectrum = [4.0, 3.0, 2.0, 1.0] + [0.0] * 60
    found = density(operator(spectrum, dtype), outliers=outliers, probes=30)
    for name in ("trace", "frobenius", "effective_dimension"):
        made = functional(found, name, **OPTIONS.get(name, {}))
        assert abs(made.value - exact(name, spectrum)) < 3.5 * made.stderr + 1e-4
    assert functional(found, "negative_mass").value < 1e-5


def test_nothing_at_all():
    found = density(operator([0.0] * 6), outliers=0)
    assert functional(found, "frobenius").value == 0 and functional(found, "frobenius").stderr == 0
    assert functional(found, "log_determinant", gamma=1.0).value == 0
    made = functional(found, "negative_mass")
    assert np.isnan(made.value) and np.isnan(made.stderr)


def test_the_change_says_when_the_steps_are_too_few():
    spectrum = np.linspace(0, 1, 200) ** 6
    few, many = (density(operator(spectrum), outliers=0, steps=s) for s in (4, 40))
    assert functional(few, "effective_dimension", alpha=1e-3).quadrature_change > 1
    settled = functional(many, "effective_dimension", alpha=0.05)
    assert settled.quadrature_change < 0.1 * settled.stderr
    for name in ("trace", "frobenius"):  # polynomials: exact with half the steps too
        assert functional(many, name).quadrature_change < 1e-9


def test_a_callable_and_names():
    found = density(operator(np.linspace(0, 2, 30)), outliers=0)
    made = functional(found, np.exp)
    assert made.name == "exp"
    assert abs(made.value - np.exp(np.linspace(0, 2, 30)).sum()) < 4 * made.stderr
    assert functional(found, "schatten", p=2).value == pytest.approx(
        functional(found, "frobenius").value
    )
    assert functional(found, "schatten", p=1).value == pytest.approx(
        functional(found, "absolute_trace").value
    )
    assert functional(found, "log_determinant", gamma=0.5).name == "log_determinant(gamma=0.5)"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("determinant", {}, "unknown functional 'determinant': expected one of trace"),
        ("effective_dimension", {}, "alpha is None: this functional needs it"),
        ("effective_dimension", {"alpha": 0.0}, "alpha is 0.0: expected above 0"),
        ("trace", {"gamma": 1.0}, "gamma is 1.0: this functional has no such parameter"),
        ("schatten", {"p": 0.5}, "p is 0.5: expected 1 or more"),
        ("log_determinant", {"gamma": -1.0}, "gamma is -1.0"),
    ],
)
def test_bad_requests(name, options, message):
    with pytest.raises(ValueError, match=message):
        functional(density(operator([1.0, 2.0]), outliers=0), name, **options)
