import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import conv_net, images, normal, quadratic, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.operators import operator_of
from landscape.spectra.data_noise import held_out, spread, spread_of
from landscape.spectra.eigenpairs import eigenpairs

RAGGED = 7  # of 30 images: four batches of 7 and one of 2


def net():
    return DataObjective(conv_net(), images(), batch_size=RAGGED)


def regression(x, batch_size):
    """Least squares without noise: the Hessian is ``(2/n) XᵀX``, whatever the targets."""
    model = nn.Linear(x.shape[1], 1, bias=False, dtype=torch.float64)
    return DataObjective(
        model, (x, torch.zeros(len(x), 1).double()), "mse_loss", batch_size=batch_size
    )


def test_the_quotients_of_batches_against_their_own_hessians():
    x = normal(30, 5, seed=1)
    operator = operator_of(regression(x, RAGGED))
    vectors = torch.linalg.qr(normal(5, 5, seed=2))[0][:3]
    found = spread(operator, vectors)
    for row, batch in zip(found.quotients, x.split(RAGGED), strict=True):
        exact = ((2 / len(batch)) * (batch @ vectors.T) ** 2).sum(0)
        torch.testing.assert_close(row, exact)
    torch.testing.assert_close(found.mean, (2 / 30) * ((x @ vectors.T) ** 2).sum(0))
    torch.testing.assert_close(found.weights, torch.tensor([7.0, 7, 7, 7, 2]).double() / 30)
    assert operator.products == 3
    assert (found.minimum < found.mean).all() and (found.mean < found.maximum).all()


def test_the_standard_error_is_that_of_ragged_batches():
    """Unbiased, and exactly so in the mean: batches of 1 to 8 draws, weighted by their sizes."""
    sizes = torch.tensor([8.0, 8.0, 1.0, 3.0])
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((4000, 4)) / np.sqrt(sizes.numpy()) + 5
    found = spread_of(torch.from_numpy(batches.T.copy()), sizes)
    assert float(found.stderr.square().mean()) == pytest.approx(1 / 20, rel=0.05)
    assert float(found.mean.var()) == pytest.approx(1 / 20, rel=0.07)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(1, 50)), min_size=2, max_size=8))
def test_laws_of_the_spread(pieces):
    values = torch.tensor([[q] for q, _ in pieces], dtype=torch.float64)
    weights = torch.tensor([float(n) for _, n in pieces])
    found = spread_of(values, weights)
    assert float(found.minimum) - 1e-9 <= float(found.mean) <= float(found.maximum) + 1e-9
    scaled = spread_of(-2 * values + 1, 5 * weights)
    torch.testing.assert_close(scaled.mean, 1 - 2 * found.mean)
    torch.testing.assert_close(scaled.stderr, 2 * found.stderr, rtol=1e-7, atol=1e-9)
    constant = spread_of(torch.full_like(values, 3.0), weights)
    assert float(constant.stderr) == pytest.approx(0, abs=1e-12)


def test_a_single_part_has_no_standard_error():
    found = spread_of(torch.tensor([[2.0, 4.0]]), torch.tensor([9.0]))
    assert found.mean.tolist() == [2, 4] and torch.isnan(found.stderr).all()


@pytest.mark.parametrize(
    ("quotients", "weights", "message"),
    [
        (torch.ones(3), torch.ones(3), "expected \\(parts, k\\) and \\(parts,\\)"),
        (torch.ones(3, 2), torch.ones(2), "expected \\(parts, k\\)"),
        (torch.ones(2, 2), torch.tensor([1.0, 0.0]), "weights: expected positive"),
    ],
)
def test_spread_of_bad_input(quotients, weights, message):
    with pytest.raises(ValueError, match=message):
        spread_of(quotients, weights)


def test_the_spread_of_a_network_agrees_with_the_search():
    objective = net()
    pairs = eigenpairs(objective, k=2, tol=1e-8)
    found = spread(operator_of(objective), pairs.vectors)
    torch.testing.assert_close(found.mean, pairs.values)
    assert len(found.quotients) == 5


def test_held_out_against_dense_halves():
    x = normal(30, 5, seed=3)
    objective = regression(x, RAGGED)
    found = held_out(objective, k=2, tol=1e-10, seed=1)
    assert sorted(found.halves[0] + found.halves[1]) == [0, 1, 2, 3, 4]
    rows = [torch.cat([x.split(RAGGED)[i] for i in half]) for half in found.halves]
    a, b = (2 / len(part) * part.T @ part for part in rows)
    for row, own, other in ((0, a, b), (1, b, a)):
        values, vectors = torch.linalg.eigh(own)
        torch.testing.assert_close(found.values[row], values.flip(0)[:2])
        top = vectors.flip(1)[:, :2]
        torch.testing.assert_close(found.quotients[row], ((other @ top) * top).sum(0))
    assert found.shares == pytest.approx((len(rows[0]) / 30, len(rows[1]) / 30))
    whole = torch.linalg.eigvalsh(2 / 30 * x.T @ x)[-1]
    assert float(found.upper[0]) >= float(whole) and found.converged
    torch.testing.assert_close(found.upper, torch.tensor(found.shares).double() @ found.values)
    torch.testing.assert_close(found.lower, torch.tensor(found.shares).double() @ found.quotients)


def test_the_eigenvalue_of_the_distribution_lies_between_on_average():
    """Inputs N(0, I): the true Hessian is 2 I, a sample of 40 in 20 dimensions says 2.5 to 6."""
    runs = [held_out(regression(normal(40, 20, seed=s), 10), tol=1e-4) for s in range(12)]
    upper = np.mean([float(run.upper[0]) for run in runs])
    lower = np.mean([float(run.lower[0]) for run in runs])
    assert lower < 2.1 < 4 < upper  # every direction is worth 2 on data that did not choose it
    whole = np.mean(
        [
            float(np.linalg.eigvalsh(r)[-1])
            for r in (
                (2 / 40 * normal(40, 20, seed=s).T @ normal(40, 20, seed=s)).numpy()
                for s in range(12)
            )
        ]
    )
    assert 2 < whole < upper


def test_the_same_data_in_both_halves_leave_no_gap():
    x = normal(10, 4, seed=7)
    found = held_out(regression(torch.cat([x, x]), 10), tol=1e-8)
    torch.testing.assert_close(found.upper, found.lower)


def test_a_network_and_a_seed():
    objective = net()
    one, two = (held_out(objective, k=2, seed=4) for _ in range(2))
    torch.testing.assert_close(one.values, two.values, rtol=0, atol=0)
    assert one.halves == two.halves and one.products == two.products > 4
    assert any(held_out(objective, seed=s).halves != one.halves for s in range(3))
    part = held_out(objective, params="head.*")
    assert float(part.upper[0]) < float(one.upper[0])


def test_one_part_is_refused():
    with pytest.raises(ValueError, match="single part.*give more batches, or batch_size"):
        held_out(quadratic(symmetric([1.0, 2.0])))
    with pytest.raises(ValueError, match="subset: held_out chooses"):
        held_out(net(), subset=[0])
