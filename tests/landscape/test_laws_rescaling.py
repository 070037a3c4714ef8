"""Laws of the measures on networks: rescalings that leave a ReLU network as it is, and pieces of the data."""

import copy

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import SEEDS, classifiers, close, examples, layers_of, rescaled_layers, rescaled_neurons
from torch import nn

from landscape.data_objective import DataObjective
from landscape.operators.hessian import HessianOperator
from landscape.sharpness import MEASURES
from landscape.sharpness.point import Point

ELEMENTWISE = {
    "asam": {"rho": 0.2}, "average_adaptive": {"sigma": 0.1, "pairs": 4, "ladder": ()}, "fisher_rao": {},
    "worst_linf_adaptive": {"rho": 1e-3, "steps": 4, "ladder": ()},
}  # fmt: skip
BY_TENSOR = {
    "filter_average": {"radius": 0.1, "pairs": 4, "ladder": ()},
    "layer_relative": {"xi": 0.1, "pairs": 4, "worst": 0.0},
}
FACTORS = st.lists(st.sampled_from([0.01, 0.3, 5.0, 100.0]), min_size=3, max_size=3)

quiet = pytest.mark.filterwarnings("ignore::landscape.spectra.eigenpairs.ConvergenceWarning")


def value(name, objective, theta, **options):
    return MEASURES[name](Point(objective, theta), **options).value


@quiet
@examples(25)
@given(classifiers(), SEEDS, st.sampled_from(sorted(ELEMENTWISE)))
def test_elementwise_measures_do_not_see_a_rescaling_of_neurons(objective, seed, name):
    """Of any factors that leave the function as it is; elementwise steps of ``w`` and ``cw`` are the same steps."""
    moved = rescaled_neurons(objective, seed)
    assume(float(objective.gradient(objective.theta).norm()) > 1e-6)
    close(objective.losses(moved), objective.losses(objective.theta), 1e-10, 1e-13)
    here, there = (value(name, objective, t, **ELEMENTWISE[name]) for t in (objective.theta, moved))
    assert there == pytest.approx(here, rel=1e-6, abs=1e-11)


@quiet
@examples(25)
@given(classifiers(), FACTORS, st.sampled_from(sorted(ELEMENTWISE) + sorted(BY_TENSOR)))
def test_relative_measures_do_not_see_a_rescaling_of_layers(objective, factors, name):
    moved = rescaled_layers(objective, factors)
    assume(float(objective.gradient(objective.theta).norm()) > 1e-6)
    options = (ELEMENTWISE | BY_TENSOR)[name]
    here, there = (value(name, objective, t, **options) for t in (objective.theta, moved))
    assert there == pytest.approx(here, rel=1e-6, abs=1e-11)


@examples(25)
@given(classifiers(), SEEDS)
def test_curvature_in_units_of_the_weights_does_not_see_a_rescaling_of_neurons(objective, seed):
    """``DHD`` with ``D = diag(|w|)`` is the same matrix up to signs of zero, and so is ``wᵀHw``; H is another."""
    moved = rescaled_neurons(objective, seed)
    eye = torch.eye(len(moved), dtype=torch.float64)
    found = []
    for theta in (objective.theta, moved):
        hessian = HessianOperator(objective, theta).rows(eye)
        found.append(
            (torch.diag(theta.abs()) @ hessian @ torch.diag(theta.abs()), theta @ hessian @ theta)
        )
    close(found[1][0], found[0][0], 1e-8, 1e-12)
    assert float(found[1][1]) == pytest.approx(float(found[0][1]), rel=1e-8, abs=1e-12)


@quiet
@examples(20)
@given(classifiers(nn.Tanh), st.integers(1, 4), st.sampled_from([0.05, 0.5]))
def test_pieces_have_a_worst_case_at_least_that_of_the_whole(objective, m, rho):
    """m-sharpness: a mean of maxima is at least the maximum of the mean, whatever the last piece holds."""
    row = MEASURES["worst_l2"](Point(objective), rho=rho, steps=6, ladder=(), m=m)
    rows = {r.settings["m"]: r.value for r in (row, *row.variants)}
    whole = rows.pop("all")
    for found in rows.values():
        assert found >= whole * (1 - 1e-9) - 1e-12
    assert whole >= value("sam", objective, objective.theta, rho=rho) * (1 - 1e-9) - 1e-12


@quiet
@examples(20)
@given(classifiers())
def test_the_best_scales_make_no_larger_trace(objective):
    """Minimum sharpness is ``ℓ (Π tr H_l)^(1/ℓ)``: at most ``Σ tr H_l`` (arithmetic and geometric mean)."""
    eye = torch.eye(len(objective.theta), dtype=torch.float64)
    diagonal = HessianOperator(objective).rows(eye).diagonal()
    sizes = [layer.numel() for layer in layers_of(objective, objective.theta)]
    traces = torch.stack([part.sum() for part in diagonal.split(sizes)])
    assume(float(traces.min()) > 1e-3 * float(traces.max()) > 1e-9)
    exact = len(traces) * float(traces.log().mean().exp())
    found = value("minimum_sharpness", objective, objective.theta, probes=4 * len(objective.theta))
    assert found == pytest.approx(exact, rel=1e-2)
    assert found <= float(traces.sum()) * (1 + 1e-2)


@examples(25)
@given(classifiers(), st.integers(1, 9))
def test_measures_do_not_see_how_the_data_are_cut(objective, size):
    """One batch or many, of any length: rises and slopes are means over examples."""
    joined = [
        torch.cat(t) for t in zip(*((b.args[0], b.target) for b in objective.batches), strict=True)
    ]
    other = DataObjective(
        copy.deepcopy(objective.module).requires_grad_(), tuple(joined), batch_size=size
    )
    assume(float(objective.gradient(objective.theta).norm()) > 1e-6)
    for name, options in {"sam": {}, "asam": {}, "gradient_norm": {}, "fisher_rao": {}}.items():
        one, two = (MEASURES[name](Point(o), **options) for o in (objective, other))
        assert two.value == pytest.approx(one.value, rel=1e-8, abs=1e-13)
        if one.stderr is not None and two.stderr is not None:
            assert two.stderr == pytest.approx(one.stderr, rel=1e-6, abs=1e-12)
