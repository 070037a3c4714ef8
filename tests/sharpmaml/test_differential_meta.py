"""Meta-gradients of MAML and Sharp-MAML against written-out ones on random small networks."""

from functools import cache

import meta_differential as checks
import numpy as np
import pytest
import torch
from differential import agree
from torch import nn

from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import meta_gradient, meta_loss
from sharpmaml.models import with_primitive_norms
from sharpmaml.tasks import NetworkTasks

made = cache(lambda seed: checks.problem(seed, most=20))


@pytest.mark.parametrize("seed", range(8))
def test_ascents_and_adaptations(seed):
    agree(checks.steps(made(seed)))


@pytest.mark.parametrize("seed", range(3))
def test_maml_and_sharp_maml_low_by_every_executor(seed):
    agree(checks.gradients(made(seed)))


@pytest.mark.parametrize("seed", range(1))
def test_sharp_maml_up_and_both(seed):
    agree(checks.upper(made(seed)))


@pytest.mark.parametrize("seed", range(8))
def test_the_meta_objective_and_its_hessian(seed):
    agree(checks.curvature(made(seed)))


@pytest.mark.parametrize("how", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchs_weight_norm_is_refused_and_the_primitive_one_is_right(how):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(how(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 1)).double()
    draw = np.random.default_rng(0)
    pieces = [torch.from_numpy(draw.standard_normal((4, n))) for n in (2, 1, 2, 1)]
    episode = Episode(*pieces)
    with pytest.raises(ValueError, match="weight norm are silently wrong, and 0.* has it"):
        NetworkTasks(model, ParameterSpace.from_module(model), [episode], "regression")
    if how is nn.utils.weight_norm:
        with pytest.raises(ValueError, match=r"call it once under torch\.no_grad\(\) first"):
            with_primitive_norms(model)
        with torch.no_grad():
            model(pieces[0])
    primitive = with_primitive_norms(model)
    space = ParameterSpace.from_module(primitive)
    batch = NetworkTasks(primitive, space, [episode], "regression")
    theta = space.flatten(dict(primitive.named_parameters())).detach()
    inner = InnerLoop(rate=0.1, steps=2)
    [task] = batch.tasks()
    found = meta_gradient([task], theta, inner).gradient
    for i in range(space.size):
        step = torch.zeros_like(theta)
        step[i] = 1e-5
        ends = [float(meta_loss(task, theta + s, inner)[0]) for s in (step, -step)]
        assert float(found[i]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)
