"""The fast scorer gives the numbers of the differentiable code; the norms of queries are what they say."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.adapt import path
from sharpmaml.data import Episode
from sharpmaml.evaluating import scorer as scorers
from sharpmaml.evaluating.norms import NORMS, batch_norms, leading
from sharpmaml.evaluating.scorer import Scorer, accuracies, losses
from sharpmaml.evaluation import score
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import meta_loss
from sharpmaml.tasks import NetworkTasks

F64 = torch.float64
CONV = {"ways": 3, "channels": 3, "image_size": 16}
NETWORKS = {
    "max": ("conv4", CONV),
    "stride": ("conv4", {**CONV, "downsample": "stride"}),
    "mlp on images": ("mlp", {"inputs": 256, "hidden": 5, "outputs": 3}),
    "mlp": ("mlp", {"hidden": 6}),
}


class Problem:
    """A network with scales and shifts as after training, and episodes; the same at every call."""

    def __init__(self, network, tasks=3, queries=4):
        name, arguments = NETWORKS[network]
        self.kind = "regression" if network == "mlp" else "classification"
        self.model = models.build(name, arguments).double()
        self.space = ParameterSpace.from_module(self.model)
        g = torch.Generator().manual_seed(1)
        theta = self.space.flatten(dict(self.model.named_parameters())).detach()
        self.theta = theta + 0.1 * torch.randn(theta.shape, dtype=F64, generator=g)
        shape = (1,) if network == "mlp" else (1, 16, 16)
        xs, xq = (torch.randn(tasks, n, *shape, dtype=F64, generator=g) for n in (6, queries))
        if network == "mlp":
            self.whole = Episode(xs, xs.sin(), xq, xq.sin())
        else:
            ys = torch.arange(6).remainder(3).expand(tasks, -1)
            yq = torch.randint(3, (tasks, queries), generator=g)
            self.whole = Episode(xs, ys, xq, yq)

    def scorer(self, inner, **how):
        return Scorer(self.model, self.space, self.kind, self.theta, inner, **how)

    def tasks(self):
        return NetworkTasks.of_stack(self.model, self.space, self.whole, self.kind).tasks()

    def output(self, theta, x, model=None):
        return functional_call(model or self.model, self.space.unflatten(theta), (x,))

    def adapted(self, inner):
        return [path(task.support, self.theta, inner).points for task in self.tasks()]


def inners(theta):
    mask = torch.arange(len(theta)) % 3 > 0
    rates = 0.1 + 0.05 * torch.arange(2 * len(theta), dtype=F64).view(2, -1).cos()
    return {
        "none": InnerLoop(steps=0),
        "plain": InnerLoop(steps=3, rate=0.1),
        "masked": InnerLoop(steps=2, rate=0.2, adapted=mask),
        "learned rates": InnerLoop(steps=3, rate=rates),
        "sam": InnerLoop(steps=2, rate=0.1, lower=0.05),
        "asam, masked": InnerLoop(steps=2, rate=0.1, lower=0.05, perturbation="asam", adapted=mask),
        "proximal": InnerLoop(steps=3, rate=0.1, proximal=2.0),
    }


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_scores_are_those_of_the_differentiable_code(network, stacked):
    problem = Problem(network)
    tasks = problem.tasks()
    for name, inner in inners(problem.theta).items():
        if not stacked and name not in ("none", "asam, masked"):
            continue
        outputs = problem.scorer(inner, stacked=stacked).answers(problem.whole)["query"]
        assert outputs.shape[:3] == (1, 3, 4) and not outputs.requires_grad
        terms = [meta_loss(task, problem.theta, inner) for task in tasks]
        found = losses(outputs, problem.whole.query_y, problem.kind)[0]
        expected = [float(loss) for loss, _ in terms]
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=name)
        if problem.kind == "classification":
            found = accuracies(outputs, problem.whole.query_y)[0]
            assert found.tolist() == [float(aux["accuracy"]) for _, aux in terms]


@pytest.mark.parametrize("network", ["stride", "mlp"])
def test_scores_are_those_of_tasks_of_any_making(network):
    problem, inner = Problem(network), InnerLoop(steps=2, rate=0.1)
    outputs = problem.scorer(inner).answers(problem.whole)["query"]
    metric, scores = score(problem.tasks().__getitem__, problem.theta, inner, 3)
    if metric == "mse":
        found = losses(outputs, problem.whole.query_y, "regression")[0]
    else:
        found = accuracies(outputs, problem.whole.query_y)[0]
    np.testing.assert_allclose(found, scores, rtol=1e-9)


@pytest.mark.parametrize("network", ["stride", "mlp"])
def test_one_pass_has_all_steps(network):
    problem = Problem(network)
    inner = InnerLoop(steps=4, rate=0.1)
    norms = ("query", "one-by-one")
    every = problem.scorer(inner).answers(problem.whole, norms, every=True)
    for steps in range(5):
        alone = problem.scorer(dataclasses.replace(inner, steps=steps))
        for norm, outputs in alone.answers(problem.whole, norms).items():
            assert len(outputs) == 1 and len(every[norm]) == 5
            torch.testing.assert_close(every[norm][steps], outputs[0], rtol=1e-10, atol=1e-12)


def test_how_many_go_together_does_not_matter(monkeypatch):
    problem = Problem("max", tasks=5)
    whole = problem.scorer(InnerLoop(steps=2, rate=0.1)).answers(problem.whole, NORMS)
    monkeypatch.setattr(scorers, "_ACTIVATIONS", 2 * 6 * 3 * 16 * 16)  # two tasks at a time
    parts = problem.scorer(InnerLoop(steps=2, rate=0.1)).answers(problem.whole, NORMS)
    for norm in NORMS:
        torch.testing.assert_close(parts[norm], whole[norm], rtol=1e-10, atol=1e-12)


class Recorded(nn.Module):
    """Batch normalization that keeps its statistics at one call and uses them at the others."""

    def __init__(self, norm, kept):
        super().__init__()
        self.weight, self.bias, self.eps, self.kept = norm.weight, norm.bias, norm.eps, kept

    def forward(self, x):
        if self.kept.get("recording"):
            self.kept[id(self)] = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        mean, variance = (s[:, None, None] for s in self.kept[id(self)])
        scaled = self.weight[:, None, None] * (x - mean) / (variance + self.eps).sqrt()
        return scaled + self.bias[:, None, None]


@pytest.mark.parametrize("network", ["max", "stride"])
def test_support_statistics_are_those_of_the_adapted_network_on_its_support(network):
    problem, inner = Problem(network), InnerLoop(steps=2, rate=0.3)
    answers = problem.scorer(inner).answers(problem.whole, ("support",))["support"][0]
    kept = {}
    name, arguments = NETWORKS[network]
    model = models.build(name, arguments).double()
    for block in list(model)[:4]:
        block.norm = Recorded(block.norm, kept)
    for points, xs, xq, found in zip(
        problem.adapted(inner), problem.whole.support_x, problem.whole.query_x, answers, strict=True
    ):
        kept["recording"] = True
        problem.output(points[-1], xs, model)
        kept["recording"] = False
        torch.testing.assert_close(found, problem.output(points[-1], xq, model), rtol=1e-9, atol=0)


@pytest.mark.parametrize("network", ["max", "stride"])
def test_one_by_one_is_each_query_with_the_support_set(network):
    problem, inner = Problem(network), InnerLoop(steps=2, rate=0.3)
    answers = problem.scorer(inner).answers(problem.whole, ("one-by-one",))["one-by-one"][0]
    for task, points in enumerate(problem.adapted(inner)):
        for query, x in enumerate(problem.whole.query_x[task]):
            batch = torch.cat([x[None], problem.whole.support_x[task]])
            expected = problem.output(points[-1], batch)[0]
            torch.testing.assert_close(answers[task, query], expected, rtol=1e-9, atol=1e-12)


def test_inductive_answers_do_not_see_the_other_queries():
    problem, inner = Problem("stride"), InnerLoop(steps=1, rate=0.3)
    scorer, whole = problem.scorer(inner), problem.whole
    fewer = dataclasses.replace(whole, query_x=whole.query_x[:, :2], query_y=whole.query_y[:, :2])
    all_, some = scorer.answers(whole, NORMS), scorer.answers(fewer, NORMS)
    for norm in NORMS:
        same = torch.allclose(all_[norm][:, :, :2], some[norm], rtol=1e-9, atol=1e-12)
        assert same == (norm != "query")
    values = [all_[norm] for norm in NORMS]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("stacked", [True, False])
def test_without_batch_statistics_all_norms_agree(stacked):
    problem = Problem("mlp on images")
    scorer = problem.scorer(InnerLoop(steps=2, rate=0.1), stacked=stacked)
    found = scorer.answers(problem.whole, NORMS)
    assert all(torch.equal(found[norm], found["query"]) for norm in NORMS)
    scorer._mixes = True  # the long way round, to rounding
    for norm, outputs in scorer.answers(problem.whole, NORMS).items():
        torch.testing.assert_close(outputs, found[norm], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "norm",
    [models.BatchStatNorm(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False),
     nn.BatchNorm2d(2, track_running_stats=False).eval()],
)  # fmt: skip
def test_torchs_batch_norms_listen_to_the_first_examples_too(norm):
    norm = norm.double()
    g = torch.Generator().manual_seed(0)
    if getattr(norm, "weight", None) is not None:
        nn.init.normal_(norm.weight, generator=g)
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    x = torch.randn(7, 2, 3, 3, dtype=F64, generator=g)
    found = leading(norm, 4)(x)
    torch.testing.assert_close(found[:4], leading(norm, 4)(x[:4]), rtol=1e-12, atol=1e-12)
    other = x.clone()
    other[5:] = 100
    assert torch.equal(leading(norm, 4)(other)[:5], found[:5])
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    torch.testing.assert_close(found[:4], norm(x[:4]), rtol=1e-10, atol=1e-10)
    assert "forward" not in vars(norm)


def test_statistics_that_are_stored_are_left_alone():
    model = nn.Sequential(nn.BatchNorm2d(2).eval(), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2))
    assert batch_norms(model) == []
    x = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(leading(model, 1)(x), model(x))


def test_nothing_is_touched():
    problem = Problem("stride")
    tensors = [problem.theta, *problem.model.parameters()]
    tensors += [getattr(problem.whole, f.name) for f in dataclasses.fields(problem.whole)]
    before, state = [t.detach().clone() for t in tensors], torch.get_rng_state()
    inner = InnerLoop(steps=2, rate=0.1, lower=0.05)
    problem.scorer(inner).answers(problem.whole, NORMS, every=True)
    problem.scorer(inner, stacked=False).answers(problem.whole, NORMS)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert all(p.grad is None for p in problem.model.parameters())


def test_an_unknown_norm():
    problem = Problem("mlp")
    with pytest.raises(ValueError, match="norm is 'both': expected one of query, support"):
        problem.scorer(InnerLoop()).answers(problem.whole, ("both",))
