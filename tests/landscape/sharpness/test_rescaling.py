"""Rescaled points are other weights of the same function; what changes the function is not accepted."""

import networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zoo
from problems import normal, quadratic, seeded, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.sharpness import rescaling
from landscape.sharpness.rescaling import rescalings


def classes(n: int, seed: int = 0, high: int = 3):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, n))


def made(model, *shape, n=40, dtype=torch.float64, **options):
    """The loss of a network with random biases on random inputs of this shape."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if "bias" in name:
                parameter.copy_(0.1 * normal(*parameter.shape, seed=100 + i))
    data = (normal(n, *shape, seed=1), classes(n))
    return DataObjective(model.to(dtype), data, **options)


def sequence(*layers):
    return seeded(lambda: nn.Sequential(*(layer() for layer in layers)))


def factors(objective, moved):
    """By tensor, what multiplies it."""
    space = objective.space
    before, after = space.unflatten(objective.theta), space.unflatten(moved)
    return {name: after[name] / before[name] for name in space.names}


def elsewhere(objective, theta):
    """Outputs for inputs that no search has seen."""
    shape = objective.batches[0].args[0].shape[1:]
    x = normal(50, *shape, seed=9).to(theta)
    state = objective.space.unflatten(theta)
    return torch.func.functional_call(objective.module, state, (x,))


def assert_same_function(objective, found, rtol=1e-9):
    before = elsewhere(objective, objective.theta)
    for moved in (found.layers, found.neurons):
        assert not torch.equal(moved, objective.theta)
        torch.testing.assert_close(elsewhere(objective, moved), before, rtol=rtol, atol=rtol)


def perceptron(activation=nn.ReLU, bias=True):
    return sequence(
        lambda: nn.Linear(6, 8, bias=bias), activation,
        lambda: nn.Linear(8, 7, bias=bias), activation, lambda: nn.Linear(7, 3, bias=bias),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.PReLU])
def test_layers_around_a_homogeneous_activation(activation, dtype):
    objective = made(perceptron(activation), 6, dtype=dtype)
    found = rescalings(objective)
    assert found.pairs == (("0", "2"), ("2", "4")) and found.reason == ""
    assert_same_function(objective, found, rtol=1e-12 if dtype == torch.float64 else 1e-6)
    scaled = factors(objective, found.layers)
    first, second = scaled["0.weight"].unique().item(), scaled["2.bias"].unique().item()
    assert {first, second} == {4.0, 0.25}
    assert scaled["0.bias"].unique().item() == first
    assert scaled["2.weight"].unique().item() == second / first
    assert scaled["4.weight"].unique().item() == 1 / second
    assert scaled["4.bias"].unique().item() == 1


def test_a_factor_for_each_neuron():
    objective = made(perceptron(), 6)
    scaled = factors(objective, rescalings(objective).neurons)
    a, b = scaled["0.bias"], scaled["2.bias"]
    assert len(a.unique()) > 2 and set(a.tolist() + b.tolist()) <= {0.25, 0.5, 2.0, 4.0}
    torch.testing.assert_close(scaled["0.weight"], a[:, None].expand(8, 6))
    torch.testing.assert_close(scaled["2.weight"], b[:, None] / a)
    torch.testing.assert_close(scaled["4.weight"], (1 / b).expand(3, 7))


@pytest.mark.parametrize("activation", [nn.GELU, nn.Sigmoid, nn.Tanh, nn.Softplus])
def test_other_activations_are_refused(activation):
    found = rescalings(made(perceptron(activation), 6))
    assert found.layers is None and found.neurons is None and found.pairs == ()
    assert "no layers" in found.reason and "no neurons" in found.reason
    assert "2 pairs of layers tried" in found.reason


def test_the_same_seed_draws_the_same_factors():
    objective = made(perceptron(), 6)
    one, two, other = (rescalings(objective, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.neurons, two.neurons) and torch.equal(one.layers, two.layers)
    assert not torch.equal(one.neurons, other.neurons)
    assert not torch.equal(one.layers, other.layers)


def test_another_point():
    objective = made(perceptron(), 6)
    theta = objective.theta + 1
    moved = rescalings(objective, theta).layers
    assert set((moved / theta).unique().tolist()) <= {1 / 16, 0.25, 1.0, 4.0, 16.0}


@pytest.mark.parametrize(
    "layers",
    {
        "grouped": [lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: nn.Conv2d(6, 9, 3, groups=3)],
        "depthwise": [lambda: nn.Conv2d(4, 8, 1), lambda: nn.Conv2d(8, 8, 3, groups=8)],
        "transposed": [
            lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
            lambda: nn.ConvTranspose2d(6, 9, 2, groups=3),
        ],
        "pooled": [lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2)), lambda: nn.Conv2d(6, 5, 1)],
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_convolutions(layers):
    first, second = layers[1]
    model = sequence(first, nn.ReLU, second, nn.ReLU, nn.Flatten, lambda: nn.LazyLinear(3))
    with torch.no_grad():
        model(torch.zeros(2, 4, 7, 7))
    objective = made(model, 4, 7, 7)
    found = rescalings(objective)
    assert [b for _, b in found.pairs] == ["2", "5"]
    assert_same_function(objective, found)
    first = factors(objective, found.neurons)[f"{found.pairs[0][0]}.weight"]
    assert bool((first != 1).any())
    after = factors(objective, found.neurons)["5.weight"]  # a channel's entries lie side by side
    channels = model[2].out_channels
    assert after.unflatten(1, (channels, -1)).std(2).max() == 0
    assert len(after[0].unique()) > 1


class Residual(nn.Module):
    """Two blocks with functional ReLUs and skip connections."""

    def __init__(self, norms: bool):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.one = nn.ModuleList([nn.Linear(5, 7), nn.Linear(7, 5)])
        self.two = nn.ModuleList([nn.Linear(5, 7), nn.Linear(7, 5)])
        self.norms = nn.ModuleList([nn.LayerNorm(5) if norms else nn.Identity() for _ in range(2)])

    def forward(self, x):
        x = F.relu(self.stem(x))
        for (a, b), norm in zip((self.one, self.two), self.norms, strict=True):
            x = x + b(F.relu(a(norm(x))))
        return self.head(x)


def test_a_skip_connection_holds_the_scale_of_what_it_passes():
    objective = made(seeded(lambda: Residual(False)), 6)
    found = rescalings(objective)
    assert found.pairs == (("one.0", "one.1"), ("two.0", "two.1"))
    assert_same_function(objective, found)


def test_scale_and_shift_of_a_norm_go_into_the_layer_after_it():
    objective = made(seeded(lambda: Residual(True)), 6)
    found = rescalings(objective)
    assert found.pairs == (
        ("norms.0", "one.0"), ("one.0", "one.1"), ("norms.1", "two.0"), ("two.0", "two.1"),
    )  # fmt: skip
    assert_same_function(objective, found)


def normed():
    return sequence(
        lambda: nn.Conv2d(1, 4, 3), lambda: networks.norm(4), nn.ReLU,
        lambda: nn.Conv2d(4, 5, 3), lambda: networks.norm(5), nn.ReLU,
        lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, lambda: nn.Linear(5, 3),
    )  # fmt: skip


def test_stored_statistics_fix_the_scale_before_a_batch_norm():
    objective = made(normed(), 1, 8, 8, norm="eval")
    found = rescalings(objective)
    assert found.pairs == (("1", "3"), ("4", "8"))
    assert_same_function(objective, found)


@pytest.mark.parametrize("norm", ["batch", "recalibrate"])
def test_statistics_of_the_batch_take_back_the_scale_of_a_convolution(norm):
    model = normed()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    objective = made(model, 1, 8, 8, norm=norm)
    found = rescalings(objective)
    assert found.pairs == (("0", "1"), ("1", "3"), ("3", "4"), ("4", "8"))
    for moved in (found.layers, found.neurons):
        scaled = factors(objective, moved)
        assert set(scaled["0.weight"].unique().tolist()) <= {2.0, 4.0}
        loss = float(objective.value(objective.theta))
        assert float(objective.value(moved)) == pytest.approx(loss, rel=1e-3)
    assert len(factors(objective, found.layers)["0.weight"].unique()) == 1
    # What the rescaling is for: the gradient of such a convolution shrinks as it grows.
    first = objective.space.unflatten(objective.gradient(objective.theta))["0.weight"]
    moved = objective.space.unflatten(objective.gradient(found.layers))["0.weight"]
    assert float(moved.norm() / first.norm()) == pytest.approx(0.25, rel=1e-2)


def test_a_large_eps_is_no_symmetry():
    """At eps = 1 the scale of the convolution matters; the pairs that are exact remain."""
    model = normed()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1.0
    assert rescalings(made(model, 1, 8, 8, norm="batch")).pairs == (("1", "3"), ("4", "8"))


def test_a_layer_norm_takes_back_one_factor_for_the_layer_alone():
    model = sequence(
        lambda: nn.Linear(6, 8), lambda: nn.LayerNorm(8), nn.GELU, lambda: nn.Linear(8, 3)
    )
    found = rescalings(made(model, 6))
    assert found.pairs == (("0", "1"),)
    assert (
        found.neurons is None and "no neurons" in found.reason and "no layers" not in found.reason
    )


def test_values_go_into_the_output_of_attention():
    plain = rescalings(zoo.objective_of("multihead"))
    assert plain.pairs == (("attention", "attention.out_proj"),)
    fused = rescalings(zoo.objective_of("encoder"))
    assert ("layer.self_attn", "layer.self_attn.out_proj") in fused.pairs
    assert ("layer.linear1", "layer.linear2") not in fused.pairs  # GELU
    for name, found in (("multihead", plain), ("encoder", fused)):
        objective = zoo.objective_of(name)
        before = objective.losses(objective.theta)
        for moved in (found.layers, found.neurons):
            torch.testing.assert_close(objective.losses(moved), before, rtol=1e-9, atol=0)


class Attention(nn.Module):
    """Queries, keys and values in one layer; two heads, a projection."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(torch.tanh(self.out(mixed)).mean(1))


def test_values_that_come_out_of_one_layer_with_queries_and_keys():
    objective = made(seeded(Attention), 5, 4)
    found = rescalings(objective)
    assert found.pairs == (("qkv", "out"),)
    assert_same_function(objective, found)
    scaled = factors(objective, found.neurons)["qkv.weight"]
    assert torch.equal(scaled[:8], torch.ones_like(scaled[:8])) and len(scaled[8:].unique()) > 1


class Tokens(nn.Module):
    """Embedding, LSTM, head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.cell = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.cell(self.embed(x))[0][:, -1])


def test_an_embedding_goes_into_a_recurrent_layer():
    model = seeded(Tokens).double()
    objective = DataObjective(
        model, (classes(20, 1, 7)[:, None].expand(20, 5).clone(), classes(20))
    )
    found = rescalings(objective)
    assert found.pairs == (("embed", "cell"),)
    for moved in (found.layers, found.neurons):
        torch.testing.assert_close(objective.losses(moved), objective.losses(objective.theta))
    scaled = factors(objective, found.neurons)
    assert torch.equal(scaled["cell.weight_ih_l0"][0], scaled["cell.weight_ih_l0_reverse"][0])


def test_tied_frozen_and_repeated_layers_are_left_alone():
    tied = sequence(  # 4 and ¼ on one tensor would be no rescaling at all
        lambda: nn.Linear(6, 6, bias=False), nn.ReLU, lambda: nn.Linear(6, 6, bias=False), nn.Tanh,
        lambda: nn.Linear(6, 3),
    )  # fmt: skip
    tied[2].weight = tied[0].weight
    assert rescalings(made(tied, 6)).pairs == ()
    spare = perceptron()
    spare.register_module("spare", nn.Module())  # never runs, and may run elsewhere
    spare.spare.weight = spare[0].weight
    forward = networks.Net(lambda m, x: m.body[4](m.body[:4](x)), body=spare)
    assert rescalings(made(forward, 6)).pairs == (("body.2", "body.4"),)
    frozen = perceptron()
    frozen[2].bias.requires_grad_(False)
    assert rescalings(made(frozen, 6)).pairs == (("0", "2"),)
    twice = networks.Net(
        lambda m, x: m.b(F.relu(m.a(x))) + m.b(F.relu(m.a(-x))),
        a=nn.Linear(6, 5),
        b=nn.Linear(5, 3),
    )
    assert rescalings(made(twice, 6)).pairs == ()


def test_what_is_dead_at_the_point_is_not_taken_for_a_symmetry():
    """The head is zero: nothing in the body moves the loss here, but everything does nearby."""
    model = perceptron(nn.GELU)
    nn.init.zeros_(model[4].weight)
    assert rescalings(made(model, 6)).pairs == ()


def test_all_examples_must_keep_their_loss():
    """An activation that saturates on the last examples alone."""
    model = perceptron(nn.ReLU6).double()
    x = 0.01 * normal(40, 6, seed=1)
    assert rescalings(DataObjective(model, (x, classes(40)))).pairs == (("0", "2"), ("2", "4"))
    x[30:] *= 5000
    found = rescalings(DataObjective(model, (x, classes(40))))
    assert found.layers is None and found.neurons is None and found.pairs == ()


def test_what_is_exact_remains_where_an_eps_matters():
    """The last examples are so small that the eps of the layer norm is felt, by the first layer alone."""
    model = sequence(
        lambda: nn.Linear(6, 8, bias=False), lambda: nn.LayerNorm(8), nn.ReLU, lambda: nn.Linear(8, 3)
    ).double()  # fmt: skip
    x = normal(40, 6, seed=1)
    assert rescalings(DataObjective(model, (x, classes(40)))).pairs == (("0", "1"), ("1", "3"))
    x[30:] *= 1e-3
    assert rescalings(DataObjective(model, (x, classes(40)))).pairs == (("1", "3"),)


def test_a_batch_mean_is_enough():
    objective = DataObjective(
        perceptron().double(), (normal(20, 6), classes(20)), loss=lambda out, y: F.cross_entropy(out, y)
    )  # fmt: skip
    assert rescalings(objective).pairs == (("0", "2"), ("2", "4"))


def test_objectives_without_layers_say_so():
    assert "no network" in rescalings(quadratic(symmetric([2.0, 1.0]))).reason
    broken = made(perceptron(), 6)
    assert "not finite" in rescalings(broken, torch.full_like(broken.theta, torch.nan)).reason
    single = rescalings(made(sequence(lambda: nn.Linear(6, 3)), 6))
    assert "0 pairs of layers tried" in single.reason


def test_nothing_is_left_behind_and_the_cost_is_what_was_done(monkeypatch):
    model = perceptron()
    objective = made(model, 6, n=300, batch_size=300)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    random, passed = torch.random.get_rng_state(), []
    plain = objective.call
    monkeypatch.setattr(
        objective, "call", lambda state, batch: (passed.append(batch.size), plain(state, batch))[1]
    )
    found = rescalings(objective)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in objective.module.modules())
    assert found.examples == max(passed) == rescaling.EXAMPLES
    assert found.cost == pytest.approx(sum(passed) / 300 / 3, rel=1e-12)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_networks_of_every_kind(name):
    objective = zoo.objective_of(name)
    found = rescalings(objective)
    before = objective.value(objective.theta)
    assert bool(found.reason) == (found.layers is None or found.neurons is None)
    for moved in (found.layers, found.neurons):
        if moved is not None:
            rtol = 1e-3 if name == "norms" else 1e-9  # the eps of a norm does not scale
            torch.testing.assert_close(objective.value(moved), before, rtol=rtol, atol=0)
