"""Both ends of the spectrum over a plane, and the warm-started search behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_objective, symmetric

from landscape.directions import Plane, random_plane
from landscape.krylov.extremes import extremes
from landscape.objective import FunctionObjective
from landscape.operators.hessian import HessianOperator
from landscape.operators.symmetric import MatrixOperator
from landscape.spectra.plane_map import curvature_map
from landscape.store import CURVATURE_MAP, load

F64 = torch.float64
ENDS = ("lambda_max", "lambda_min")


def quartic() -> FunctionObjective:
    """``Σ cᵢ tᵢ⁴ / 12 + ½ tᵀ A t``: the Hessian at ``t`` is ``A + diag(c t²)``."""
    n = 12
    a, c = symmetric(np.linspace(-2, 3, n)), torch.linspace(-1, 2, n, dtype=F64)
    return FunctionObjective(
        lambda t: (c * t**4).sum() / 12 + 0.5 * t @ (a @ t), torch.ones(n, dtype=F64) * 0.7
    )


def exact(objective, theta: torch.Tensor) -> tuple[float, float]:
    values = torch.linalg.eigvalsh(torch.func.jacrev(torch.func.grad(objective.value))(theta))
    return float(values[-1]), float(values[0])


@pytest.mark.parametrize("make", [quartic, lambda: conv_objective(norm="eval")])
def test_every_point_against_a_dense_solver(make):
    objective = make()
    plane = random_plane(objective, seed=3, ignore=())
    found = curvature_map(objective, plane, span=(-1.0, 0.5), points=3, tol=1e-6)
    assert found["loss"].dims == ("beta", "alpha")
    for i, beta in enumerate(found["beta"].values):
        for j, alpha in enumerate(found["alpha"].values):
            theta = plane.point(alpha, beta)
            here = found.isel(beta=i, alpha=j)
            for name, value in zip(ENDS, exact(objective, theta), strict=True):
                error = abs(float(here[name]) - value)
                assert error <= float(here[f"{name}_residual"]) + 1e-9
                assert error <= 1e-6 * abs(value) + 1e-8
            assert float(here["loss"]) == pytest.approx(float(objective.value(theta)), rel=1e-12)
    assert (found["converged"].values == 1).all()
    assert found.attrs["products"] == found["products"].values.sum()
    assert found.attrs["schema"] == "landscape.curvature_map/1"
    for name in ("normalize", "ignore", "seed", "span", "label", "objective", "tol"):
        assert name in found.attrs


def test_a_line_has_one_dimension():
    objective = quartic()
    line = random_plane(objective, seed=1, axes=1, ignore=())
    found = curvature_map(objective, line, points=5, tol=1e-6)
    assert found["lambda_max"].dims == ("alpha",)
    assert float(found["lambda_max"][2]) == pytest.approx(exact(objective, line.origin)[0])


def test_a_warm_start_takes_fewer_products():
    objective = conv_objective(norm="eval")
    line = random_plane(objective, seed=3, axes=1)
    found = curvature_map(objective, line, span=0.1, points=11)
    cold = [
        extremes(HessianOperator(objective, line.point(a)), key=(i,)).products
        for i, a in enumerate(found["alpha"].values)
    ]
    products = found["products"].values
    assert products[0] == cold[0]
    assert products[1:].sum() < 0.8 * sum(cold[1:])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 5, 9])
def test_an_interrupted_map_continues_to_the_same_bits(tmp_path, stop):
    objective = conv_objective(norm="eval")
    plane = random_plane(objective, seed=2)
    options = {"points": 3, "span": 0.5, "seed": 7}
    whole = curvature_map(objective, plane, **options)
    path = tmp_path / "map.nc"

    def interrupt(done: int, total: int) -> None:
        assert total == 9
        if done == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        curvature_map(objective, plane, **options, out=path, progress=interrupt)
    assert int(load(path, CURVATURE_MAP)["evaluated"].sum()) == stop
    continued = curvature_map(objective, plane, **options, out=path)
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name], continued[name])
    kept = load(path, CURVATURE_MAP)
    np.testing.assert_array_equal(whole["lambda_min"], kept["lambda_min"])
    assert kept.attrs["products"] == whole.attrs["products"]


def test_a_finished_map_is_read_and_not_computed(tmp_path):
    objective, path = quartic(), tmp_path / "map.nc"
    plane = random_plane(objective, ignore=())
    curvature_map(objective, plane, points=2, out=path)

    def never(done: int, total: int) -> None:
        raise AssertionError

    again = curvature_map(objective, plane, points=2, out=path, progress=never, label="late")
    assert again.attrs["label"] == "late"


def test_another_run_in_the_file_is_refused(tmp_path):
    objective, path = quartic(), tmp_path / "map.nc"
    plane = random_plane(objective, ignore=())
    curvature_map(objective, plane, points=2, out=path)
    with pytest.raises(ValueError, match=r"tol is 0\.01 there and 0\.1 here"):
        curvature_map(objective, plane, points=2, out=path, tol=0.1)
    with pytest.raises(ValueError, match="search_seed is 0 there and 1 here"):
        curvature_map(objective, plane, points=2, out=path, seed=1)
    with pytest.raises(ValueError, match="operator is .* there and .*keep_graph"):
        curvature_map(objective, plane, points=2, out=path, keep_graph=False)
    with pytest.raises(ValueError, match="plane.seed"):
        curvature_map(objective, random_plane(objective, seed=5, ignore=()), points=2, out=path)
    other = FunctionObjective(lambda t: 2 * objective.value(t), objective.theta)
    with pytest.raises(ValueError, match="centre_loss"):
        curvature_map(other, plane, points=2, out=path)
    path.write_bytes(b"no file")
    with pytest.raises(ValueError, match="not a NetCDF file"):
        curvature_map(objective, plane, points=2, out=path)


def test_points_that_are_not_finite_are_marked_and_left():
    walled = FunctionObjective(lambda t: torch.log(t[0]) + t[1] ** 2 + t[2] ** 2, torch.ones(3))
    plane = Plane(walled.theta, torch.eye(3)[:1])
    found = curvature_map(walled, plane, span=2.0, points=5, tol=1e-4)
    assert np.isnan(found["lambda_max"].values[:2]).all()  # log of -1 and of 0
    np.testing.assert_allclose(found["lambda_min"].values[2:], [-1, -1 / 4, -1 / 9], rtol=1e-3)
    assert (found["evaluated"].values == 1).all()


def test_arguments_out_of_range():
    objective = quartic()
    plane = random_plane(objective, ignore=())
    with pytest.raises(ValueError, match="tol is 0"):
        curvature_map(objective, plane, tol=0)
    with pytest.raises(ValueError, match="unknown operator 'x'"):
        curvature_map(objective, plane, kind="x")
    with pytest.raises(ValueError, match="points is 1"):
        curvature_map(objective, plane, points=1)
    moving = Plane(plane.origin, plane.basis, {}, {"mean": torch.zeros(3, 1)})
    with pytest.raises(ValueError, match="norm statistics"):
        curvature_map(objective, moving)
    single = FunctionObjective(lambda t: t[0] ** 2, torch.zeros(1))
    with pytest.raises(ValueError, match="has 1 parameter"):
        curvature_map(single, Plane(torch.zeros(1), torch.ones(1, 1)))


SPECTRA = {
    "repeated": [3, 3, 1, -2, -2, 0.5],
    "rank one": [5.0, *[0.0] * 20],
    "zero": [0.0] * 5,
    "identity": [2.0] * 4,
    "bulk": [*np.linspace(-1, 1, 60), 10, 9.99, -4],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (1, 0), (0, 1), (3, 1)])
def test_extremes_of_known_matrices(name, ends):
    values, (top, bottom) = np.sort(SPECTRA[name]), ends
    found = extremes(MatrixOperator(symmetric(SPECTRA[name])), *ends, tol=1e-7)
    expected = [*values[::-1][:top], *values[:bottom]]
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.converged
    torch.testing.assert_close(
        found.vectors @ found.vectors.T, torch.eye(sum(ends), dtype=F64), atol=1e-10, rtol=0
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3))
def test_residuals_are_true_and_hold_an_eigenvalue_wherever_the_start_is(seed, shift):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(15) * rng.choice([0.1, 1, 10], 15)
    matrix = symmetric(values, seed)
    near = extremes(MatrixOperator(matrix)).vectors
    moved = matrix + shift * symmetric(rng.standard_normal(15), seed + 1)
    found = extremes(MatrixOperator(moved), near=near, tol=1e-3, seed=seed)
    errors = found.vectors @ moved - torch.from_numpy(found.values)[:, None] * found.vectors
    slack = 1e-12 * float(moved.norm())
    assert (errors.norm(dim=1).numpy() <= found.residuals + slack).all()
    eigenvalues = torch.linalg.eigvalsh(moved).numpy()
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.abs(eigenvalues - value).min() <= residual + slack
    assert found.values[0] <= eigenvalues[-1] + slack


def test_an_eigenvector_that_overtakes_where_nothing_couples_is_found():
    """The old eigenvectors are exact for the new matrix, which has larger ones elsewhere."""
    old = torch.diag(torch.tensor([10.0, *np.linspace(-1, 1, 60), 2.0, -1.5, -8.0], dtype=F64))
    new = old.clone()
    new[61, 61], new[62, 62] = 15.0, -12.0
    near = extremes(MatrixOperator(old)).vectors
    found = extremes(MatrixOperator(new), near=near)
    np.testing.assert_allclose(found.values, [15, -12], rtol=1e-3)


def test_an_operator_that_does_not_repeat_itself_is_found_out():
    class Noisy(MatrixOperator):
        def _products(self, vectors):
            return super()._products(vectors) * (1 + 0.2 * (self.products % 3))

    found = extremes(Noisy(symmetric([9.0, *np.linspace(-1, 1, 20)])))
    assert not found.converged


def test_an_eigenvalue_near_zero_is_found_to_a_hundredth_of_the_tolerance_of_the_norm():
    found = extremes(MatrixOperator(symmetric([100.0, *np.linspace(1e-3, 20, 60)])), tol=1e-2)
    assert found.converged
    assert found.residuals[1] <= 1.01e-4 * 100
    assert found.values[1] < 0.03


def test_extremes_out_of_range():
    operator = MatrixOperator(torch.eye(3))
    with pytest.raises(ValueError, match="at most 3"):
        extremes(operator, 3, 1)
    with pytest.raises(ValueError, match="tol is -1"):
        extremes(operator, tol=-1)
    with pytest.raises(ValueError, match="max_products is 2"):
        extremes(operator, max_products=2)
    short = extremes(MatrixOperator(symmetric(np.linspace(0, 1, 50))), tol=1e-9, max_products=8)
    assert not short.converged
    assert short.products == 8
