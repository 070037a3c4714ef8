"""What the paper leaves open, as settings: each reading of Sharp-MAML has numbers of its own.

The numbers were worked out by hand-written formulas, without automatic differentiation, for two quadratic
tasks in two dimensions; here they are reached from the settings of a run.
"""

import itertools

import pytest
import torch
from quadratic_tasks import ALPHA, BATCH, BETA, EYE, F64, PAIR, THETA, Spy, unit, vector
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml import models
from sharpmaml.adapt import adapt
from sharpmaml.checkpoint import inner_loop
from sharpmaml.config import TrainConfig
from sharpmaml.plan import PlainTasks, Task
from sharpmaml.plans import ascent_of, plan_of

PLANE = ParameterSpace.of_vector(2)
THROUGH, REUSE = {"eps_grad": "through"}, {"eps_m": "reuse"}

WORKED = {
    "maml": (dict(method="maml"), (-0.155, 0.535)),
    "fomaml": (dict(method="fomaml"), (-0.150, 0.850)),
    "maml K=5": (dict(method="maml", inner_steps=5), (-0.17551623755, -0.25405073015)),
    "fomaml K=5": (dict(method="fomaml", inner_steps=5), (-0.415965, -0.368615)),
    "low through": (dict(method="sharp-low", **THROUGH), (-0.157278598800, 0.513785725781)),
    "low detach": (dict(method="sharp-low"), (-0.158730204243, 0.516033315696)),
    "up": (dict(method="sharp-up"), (-0.168999079773, 0.587019664818)),
    "both as released": (dict(method="sharp-both", **THROUGH), (-0.171788375032, 0.565746016461)),
    "both recompute detach": (dict(method="sharp-both"), (-0.173234331443, 0.567778344135)),
    "both as in the paper": (dict(method="sharp-both", **REUSE), (-0.173284513003, 0.567866972556)),
}
EPSILON = {
    "up": (-0.013913801634, 0.048025057252),
    "both as released": (-0.014635479986, 0.047810069291),
}
READINGS = [name for name in WORKED if name.startswith(("low", "both"))]


def config_of(**settings) -> TrainConfig:
    given = dict(inner_rate=BETA, alpha_low=ALPHA, alpha_up=ALPHA, dtype="float64")
    return TrainConfig(**{**given, **settings})


def update(batch=BATCH, theta: Tensor = THETA, **settings):
    """One meta-update from settings: its result, and the points where passes were made."""
    config, spy = config_of(**settings), Spy()
    plan = plan_of(config, PLANE, None, 0, "cpu")
    return ascent_of(config, PLANE)(batch, theta, plan, spy, 0), spy


def close(got: Tensor, expected, atol: float = 2e-11) -> None:
    wanted = torch.as_tensor(expected, dtype=F64)
    torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("name", WORKED)
def test_worked_gradient(name):
    settings, expected = WORKED[name]
    close(update(**settings)[0].gradient, expected)


@pytest.mark.parametrize("name", EPSILON)
def test_worked_ascent(name):
    _, spy = update(**WORKED[name][0])
    close(spy.points[1] - spy.points[0], EPSILON[name])


def test_ascents_held_constant_share_the_upper_ascent():
    """Reused or recomputed, the first pass is that of low: the two differ in the second only."""
    first = unit(vector(*WORKED["low detach"][1])) * ALPHA
    for name in ("both recompute detach", "both as in the paper"):
        _, spy = update(**WORKED[name][0])
        close(spy.points[1] - spy.points[0], first.tolist())


def test_five_readings_are_five_numbers():
    assert len(READINGS) == 5
    gradients = [update(**WORKED[name][0])[0].gradient for name in READINGS]
    for one, other in itertools.combinations(gradients, 2):
        assert float((one - other).norm()) > 5e-5


def by_hand(steps: int, low: float, up: float, through: bool, reuse: bool) -> Tensor:
    """Mean meta-gradient of any reading by the chain rule written out, after the ascent of ``up``."""

    def mean(at: Tensor, kept: list[list[Tensor]] | None) -> tuple[Tensor, list[list[Tensor]]]:
        total, used = torch.zeros_like(at), []
        for number, q in enumerate(PAIR):
            t, J, ascents = at, EYE, []
            for k in range(steps):
                g = q.A @ (t - q.a)
                epsilon, D = low * unit(g), EYE
                if kept is not None:
                    epsilon = kept[number][k]
                elif through:
                    D = EYE + low / g.norm() * (EYE - torch.outer(unit(g), unit(g))) @ q.A
                ascents.append(epsilon)
                t = t - BETA * q.A @ (t + epsilon - q.a)
                J = (EYE - BETA * q.A @ D) @ J
            total += J.T @ q.B @ (t - q.b) / len(PAIR)
            used.append(ascents)
        return total, used

    gradient, ascents = mean(THETA, None)
    return mean(THETA + up * unit(gradient), ascents if reuse else None)[0]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(("low", "up"), [(0.05, 0.2), (0.3, 0.05)])
def test_two_radii_by_hand(steps, through, reuse, low, up):
    result, _ = update(
        method="sharp-both", inner_steps=steps, alpha_low=low, alpha_up=up,
        eps_grad="through" if through else "detach", eps_m="reuse" if reuse else "recompute",
    )  # fmt: skip
    close(result.gradient, by_hand(steps, low, up, through, reuse), 1e-13)


def test_each_method_uses_its_own_radius():
    radii = dict(alpha_low=0.3, alpha_up=0.7)
    used = {
        m: config_of(method=m, **radii) for m in ("maml", "sharp-low", "sharp-up", "sharp-both")
    }
    assert [(c.lower, c.upper) for c in used.values()] == [(0, 0), (0.3, 0), (0, 0.7), (0.3, 0.7)]


def test_reuse_without_a_lower_radius_is_up():
    one, _ = update(method="sharp-up", **REUSE)
    other, _ = update(method="sharp-up")
    assert torch.equal(one.gradient, other.gradient)


@pytest.mark.parametrize("method", ["maml", "sharp-both"])
def test_sum_is_the_mean_times_the_tasks(method):
    """(13) and (15) sum over tasks: the ascent is normalized, so only the applied direction is longer."""
    mean, at_mean = update(method=method, eps_m="reuse")
    total, at_sum = update(method=method, eps_m="reuse", reduction="sum")
    torch.testing.assert_close(total.gradient, 2 * mean.gradient, rtol=1e-15, atol=0)
    for name in ("loss", "norm", "rise", "predicted_rise", "passes"):
        assert getattr(total, name) == getattr(mean, name)
    assert all(torch.equal(a, b) for a, b in zip(at_mean.points, at_sum.points, strict=True))


def test_sum_of_three_tasks():
    three = PlainTasks((*BATCH.given, BATCH.given[0]))
    mean, _ = update(three, method="sharp-up")
    total, _ = update(three, method="sharp-up", reduction="sum")
    torch.testing.assert_close(total.gradient, 3 * mean.gradient, rtol=1e-15, atol=0)
    assert mean.tasks == 3


def test_adaptation_at_test_is_plain_unless_asked():
    task, q = BATCH.given[0], PAIR[0]
    plain = THETA - BETA * q.A @ (THETA - q.a)
    climbed = THETA - BETA * q.A @ (THETA + ALPHA * unit(q.A @ (THETA - q.a)) - q.a)
    for method, at_test, expected in (
        ("sharp-low", False, plain),
        ("sharp-low", True, climbed),
        ("sharp-both", True, climbed),
        ("sharp-up", True, plain),
    ):
        config = config_of(method=method, sam_at_test=at_test, test_steps=1)
        inner = inner_loop(config.test_inner(), config, PLANE, None)
        close(adapt(task.support, THETA, inner), expected, 1e-15)


class TestNormLayers:
    """Scale and shift of norm layers outside the inner loop: learned, but the same for all tasks."""

    model = models.build("conv4", {"ways": 3, "channels": 2, "image_size": 16}).double()
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))
    theta += 0.1 * torch.randn(theta.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    x = torch.randn(9, 1, 16, 16, dtype=F64, generator=torch.Generator().manual_seed(2))
    y = torch.arange(3).repeat(3)
    norms = torch.cat(
        [
            torch.full((size,), role == "norm")
            for size, role in zip(space.sizes, space.roles, strict=True)
        ]
    )

    def loss(self, t: Tensor, part: slice) -> Tensor:
        out = torch.func.functional_call(self.model, self.space.unflatten(t), (self.x[part],))
        return torch.nn.functional.cross_entropy(out, self.y[part])

    def batch(self) -> PlainTasks:
        return PlainTasks(
            (Task(lambda t: self.loss(t, slice(0, 3)), lambda t: (self.loss(t, slice(3, 9)), {})),)
        )

    def of(self, affine: bool, method: str):
        config = config_of(
            method=method, adapt_norm_affine=affine, inner_steps=2, eps_grad="through"
        )
        plan, spy = plan_of(config, self.space, None, 0, "cpu"), Spy()
        return ascent_of(config, self.space)(self.batch(), self.theta, plan, spy, 0), plan, spy

    @pytest.mark.parametrize("affine", [True, False])
    def test_adaptation(self, affine):
        _, plan, _ = self.of(affine, "sharp-low")
        moved = adapt(self.batch().given[0].support, self.theta, plan.inner) != self.theta
        assert bool(moved[~self.norms].any()) and bool(moved[self.norms].any()) == affine

    @pytest.mark.parametrize("affine", [True, False])
    def test_gradient_of_an_own_loop(self, affine):
        """Against plain autograd over a list of tensors; what is not adapted is left out of the list."""
        result, _, spy = self.of(affine, "sharp-both")

        def own(theta: Tensor) -> Tensor:
            start = self.space.unflatten(theta.clone().requires_grad_())
            now = dict(start)
            keys = [
                k for k, r in zip(self.space.names, self.space.roles, strict=True) if affine or r != "norm"
            ]  # fmt: skip

            def slopes(at: dict[str, Tensor]) -> list[Tensor]:
                out = torch.func.functional_call(self.model, at, (self.x[:3],))
                support = torch.nn.functional.cross_entropy(out, self.y[:3])
                return list(torch.autograd.grad(support, [at[k] for k in keys], create_graph=True))

            for _ in range(2):
                g = slopes(now)
                length = torch.cat([s.flatten() for s in g]).norm()
                up = {k: now[k] + ALPHA * s / length for k, s in zip(keys, g, strict=True)}
                down = slopes({**now, **up})
                now.update({k: now[k] - BETA * s for k, s in zip(keys, down, strict=True)})
            out = torch.func.functional_call(self.model, now, (self.x[3:],))
            query = torch.nn.functional.cross_entropy(out, self.y[3:])
            return self.space.flatten(
                dict(zip(start, torch.autograd.grad(query, list(start.values())), strict=True))
            )

        first = own(self.theta)
        epsilon = ALPHA * unit(first)
        torch.testing.assert_close(spy.points[1], self.theta + epsilon, rtol=1e-11, atol=1e-13)
        assert bool((epsilon[self.norms] != 0).any())  # the upper ascent moves them either way
        torch.testing.assert_close(
            result.gradient, own(self.theta + epsilon), rtol=1e-9, atol=1e-11
        )
