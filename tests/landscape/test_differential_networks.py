"""The library against naive computations on 50 random small networks: values, surfaces, derivatives, spectra."""

from functools import cache

import differential
import numpy as np
import pytest
import torch
from differential import RULES, Subject, agree
from problems import normal
from random_networks import network, networks
from torch import nn

from landscape.data_objective import DataObjective
from landscape.executors import Unsupported, candidates
from landscape.norms import native_norms, with_primitive_norms
from landscape.operators.gauss_newton import GGNOperator
from landscape.operators.hessian import HessianOperator
from landscape.operators.selftest import check

SEEDS = range(50)
DENSE = range(8)  # of small ones, where matrices are cheap
SMALL = 40  # parameters

subject = cache(lambda seed: Subject(network(seed)))
small = cache(lambda seed: Subject(network(seed, most=SMALL)))


@pytest.mark.parametrize("seed", SEEDS)
def test_values_gradients_and_a_product_with_the_hessian(seed):
    agree([*differential.values(subject(seed)), *differential.differences(subject(seed))])


@pytest.mark.parametrize("seed", SEEDS)
def test_surfaces_by_every_executor(seed):
    agree(differential.surfaces(subject(seed), [RULES[seed // 5 % len(RULES)]]))


@pytest.mark.parametrize("seed", SEEDS)
def test_directions_under_every_rule(seed):
    agree(finding for _, _, found in differential.planes(subject(seed)) for finding in found)


@pytest.mark.parametrize("seed", DENSE)
def test_matrices_and_their_spectra(seed):
    agree(differential.products(small(seed)))
    agree([*differential.other_operators(small(seed)), *differential.spectra(small(seed))])


def test_most_layers_are_among_the_networks():
    """Where the generator is changed, this tells what is no longer tried."""
    met = {
        name for case in networks(len(SEEDS)) for name in (*case.layers, case.task.name, case.norm)
    }
    wanted = (
        "Linear Conv1d Conv2d ConvTranspose2d BatchNorm1d BatchNorm2d GroupNorm LayerNorm InstanceNorm2d RMSNorm "
        "Embedding LSTM GRU RNN MultiheadAttention TransformerEncoderLayer Residual Tied Twice Dropout PReLU GELU "
        "SiLU Tanh ReLU Softplus MaxPool2d AvgPool2d Temperature WeightNorm Spectrum Bilinear "
        "cross_entropy mse_loss binary_cross_entropy_with_logits nll_loss eval batch recalibrate"
    )
    assert not set(wanted.split()) - met, sorted(set(wanted.split()) - met)


@pytest.mark.parametrize("way", differential.WAYS)
def test_every_executor_takes_some_of_the_networks(way):
    """Findings of an executor that takes no network would all be right."""

    def takes(seed):
        objective = subject(seed).objective
        try:
            return candidates(objective, differential.landscape.random_plane(objective))[way]()
        except Unsupported:
            return None

    assert sum(takes(seed) is not None for seed in SEEDS) > 4


WEIGHT_NORMED = {
    "linear": (lambda: nn.Linear(3, 4), {}, (6, 3)),
    "along the inputs": (lambda: nn.Linear(3, 4), {"dim": 1}, (6, 3)),
    "the whole matrix": (lambda: nn.Linear(3, 4), {"dim": None}, (6, 3)),
    "convolution": (lambda: nn.Conv1d(2, 4, 2), {}, (6, 2, 3)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 4, 2), {"dim": 1}, (6, 2, 3)),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", WEIGHT_NORMED)
def test_second_derivatives_through_weight_norm(name, older):
    """torch takes the length of the weights for a constant in its second backward pass."""
    make, options, shape = WEIGHT_NORMED[name]
    normed = nn.utils.weight_norm if older else nn.utils.parametrizations.weight_norm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(normed(make(), **options), nn.Flatten()).double()
    x = normal(*shape, seed=1)
    with torch.no_grad():
        y = model(x) + normal(
            *model(x).shape, seed=2
        )  # called without a graph: the older one can be copied
    assert len(native_norms(model, order=2)) == 1
    primitive = with_primitive_norms(model)
    assert not native_norms(primitive)
    with torch.no_grad():
        torch.testing.assert_close(primitive(x), model(x), rtol=1e-12, atol=1e-12)
    result = check(HessianOperator(DataObjective(model, (x, y), loss="mse_loss")))
    assert result.passed and result.symmetry < 1e-12 and result.difference < 1e-6
    assert len(native_norms(model, order=2)) == 1  # the user's own stays as it was


def test_the_second_derivatives_of_torch_through_weight_norm_are_still_wrong():
    """Why the test before is there; when torch mends it, this one says so."""
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)).double()
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(model(normal(5, 3)).pow(3).sum(), parameters, create_graph=True)
    rows = [
        torch.autograd.grad(e, parameters, retain_graph=True) for s in slopes for e in s.flatten()
    ]
    hessian = torch.stack([torch.cat([t.flatten() for t in row]) for row in rows])
    assert float((hessian - hessian.T).norm() / hessian.norm()) > 0.01


class Empty(nn.Module):
    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.empty(0, 2))
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x) + self.none.sum()


def test_a_parameter_without_entries():
    objective = DataObjective(Empty().double(), (normal(5, 2), torch.zeros(5, dtype=torch.long)))
    plane = differential.landscape.random_plane(objective)
    assert candidates(objective, plane)["plain"]()(np.zeros((1, 2)))["loss"].shape == (1,)
    assert torch.isfinite(objective.gradient(objective.theta)).all()
    vectors = torch.eye(objective.space.size).double()
    made = HessianOperator(objective, keep_graph=True).rows(vectors)
    torch.testing.assert_close(made, HessianOperator(objective, chunk=8).rows(vectors))


def test_the_ggn_of_a_complex_output_is_refused():
    case = next(case for case in networks(50) if case.task.name == "complex output")
    objective = Subject(case).objective
    with pytest.raises(ValueError, match="output is complex, and has no GGN"):
        GGNOperator(objective) @ objective.theta


def test_chunks_through_group_norm():
    """torch's batched second backward pass of group norm raises."""
    model = nn.Sequential(nn.Conv1d(2, 4, 2), nn.GroupNorm(2, 4), nn.Flatten()).double()
    objective = DataObjective(model, (normal(3, 2, 3), normal(3, 8)), loss="mse_loss")
    vectors = torch.eye(objective.space.size).double()
    made = HessianOperator(objective, keep_graph=False, chunk=8).rows(vectors)
    torch.testing.assert_close(made, HessianOperator(objective, chunk=1).rows(vectors))


class Padded(nn.Module):
    """The usual classifier of short sequences: rows of the padding go through it like all others."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3, padding_idx=0)
        self.head = nn.Linear(3, 2)

    def forward(self, tokens):
        return self.head(torch.tanh(self.embed(tokens)).mean(1))


def test_the_operator_of_a_network_with_a_padding_row_passes_its_test():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Padded().double()
    tokens = torch.tensor([[1, 2, 0], [3, 0, 0], [2, 2, 1]])
    objective = DataObjective(model, (tokens, torch.tensor([0, 1, 1])))
    assert check(HessianOperator(objective)).passed
