"""Methods as settings of one loop: closed forms on quadratics, and loops of their own on networks."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_problems import tanh_tasks
from quadratic_tasks import (
    BATCH,
    BETA,
    EYE,
    F64,
    PAIR,
    THETA,
    Spy,
    adapted,
    fomaml,
    maml,
    power,
    vector,
)
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.adapt import adapt, path
from sharpmaml.adaptable import contracted_rates, initial_rates
from sharpmaml.config import METHODS, TrainConfig
from sharpmaml.execution.loop import Loop
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import MetaGradient
from sharpmaml.plan import PlainTasks, Plan, Task
from sharpmaml.plans import ascent_of, plan_of, step_weights

PLANE = ParameterSpace.of_vector(2)
TASKS, NET_THETA, NET = tanh_tasks(2)
NET_BATCH = PlainTasks(tuple(TASKS))
HEAD = torch.arange(13) >= 9


def config_of(**given) -> TrainConfig:
    return TrainConfig(**{**dict(inner_rate=BETA, dtype="float64"), **given})


def rates_of(config: TrainConfig, space: ParameterSpace) -> Tensor | None:
    return initial_rates(space, config.chosen("rates"), config.inner_steps, config.inner_rate, F64)


def update(
    batch=BATCH, theta=THETA, space=PLANE, *, iteration=0, start=None, **given
) -> MetaGradient:
    """One meta-update from settings; learned rates as they start, or as given."""
    config = config_of(**given)
    rates = rates_of(config, space) if start is None else start
    plan = plan_of(config, space, rates, iteration, "cpu")
    return ascent_of(config, space)(batch, theta, plan, Loop(), iteration)


def close(got: Tensor, expected: Tensor, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def differences(value, at: Tensor, h: float = 1e-5) -> Tensor:
    """Central differences of a scalar function of any tensor."""
    slope = torch.zeros_like(at)
    for index in range(at.numel()):
        step = torch.zeros(at.numel(), dtype=at.dtype)
        step[index] = h
        step = step.view_as(at)
        slope.view(-1)[index] = (value(at + step) - value(at - step)) / (2 * h)
    return slope


def own_gradient(moves: Tensor, steps: int, rate=BETA, lower=0.0, second_order=True) -> Tensor:
    """MAML by plain autograd, with the inner gradients cut to ``moves``."""
    total = torch.zeros_like(NET_THETA)
    for task in TASKS:
        start = NET_THETA.clone().requires_grad_()
        now = start
        for _ in range(steps):
            point = now
            if lower:
                (g,) = torch.autograd.grad(task.support(now), now, retain_graph=True)
                g = g * moves
                point = now + lower * g / g.norm()
            (g,) = torch.autograd.grad(task.support(point), point, create_graph=second_order)
            now = now - rate * g * moves
        (g,) = torch.autograd.grad(task.query(now)[0], start)
        total += g / len(TASKS)
    return total


class TestPartsOfTheNetwork:
    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("lower", [0.0, 0.1])
    @pytest.mark.parametrize("part", ["head", "body", "all"])
    def test_own_loop(self, part, lower, steps):
        moves = {"head": HEAD, "body": ~HEAD, "all": HEAD | ~HEAD}[part].double()
        got = update(
            NET_BATCH, NET_THETA, NET, method="sharp-low", adapted=part, inner_steps=steps, alpha_low=lower
        )  # fmt: skip
        close(got.gradient, own_gradient(moves, steps, lower=lower))

    def test_anil_is_that_setting(self):
        one = update(NET_BATCH, NET_THETA, NET, method="anil", inner_steps=2)
        close(one.gradient, own_gradient(HEAD.double(), 2))
        assert bool((one.gradient[~HEAD] != 0).any())  # the body is learned, not adapted

    @pytest.mark.parametrize("method", ["anil", "maml"])
    def test_what_is_adapted_moves_and_nothing_else(self, method):
        config = config_of(method=method, inner_steps=3)
        inner = plan_of(config, NET, None, 0, "cpu").inner
        moved = adapt(TASKS[0].support, NET_THETA, inner) != NET_THETA
        assert torch.equal(moved, HEAD if method == "anil" else HEAD | ~HEAD)

    @pytest.mark.parametrize("steps", [1, 4])
    def test_fomaml(self, steps):
        close(update(method="fomaml", inner_steps=steps).gradient, fomaml(THETA, steps))
        got = update(NET_BATCH, NET_THETA, NET, method="fomaml", inner_steps=steps).gradient
        close(got, own_gradient(torch.ones(13, dtype=F64), steps, second_order=False))


class TestLearnedRates:
    def loss(self, config: TrainConfig, rates: Tensor, theta: Tensor, weights=None) -> float:
        inner = plan_of(config, NET, rates, 0, "cpu").inner
        total = 0.0
        for task in TASKS:
            points = path(task.support, theta, inner).points[1:]
            shares = weights or [0.0] * (len(points) - 1) + [1.0]
            total += sum(w * float(task.query(p)[0]) for w, p in zip(shares, points, strict=True))
        return total / len(TASKS)

    @pytest.mark.parametrize(("method", "shape"), [("meta-sgd", (13,)), ("maml++", (2, 4))])
    def test_central_differences(self, method, shape):
        config = config_of(method=method, inner_steps=2, multi_step=0)
        rates = rates_of(config, NET)
        assert tuple(rates.shape) == shape
        spread = torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(4))
        rates = rates * (0.5 + spread)
        got = update(
            NET_BATCH, NET_THETA, NET, method=method, inner_steps=2, multi_step=0, start=rates
        )
        numeric = differences(lambda r: self.loss(config, r, NET_THETA), rates)
        close(contracted_rates(got.rates, rates, NET), numeric, 1e-6, 1e-9)
        numeric = differences(lambda t: self.loss(config, rates, t), NET_THETA)
        close(got.gradient, numeric, 1e-6, 1e-9)

    def test_rates_with_the_multi_step_loss(self):
        config = config_of(method="maml++", inner_steps=3, multi_step=10)
        rates, weights = rates_of(config, NET), step_weights(3, 4, 10)
        got = update(
            NET_BATCH, NET_THETA, NET, method="maml++", inner_steps=3, multi_step=10, iteration=4
        )
        numeric = differences(lambda r: self.loss(config, r, NET_THETA, weights), rates)
        close(contracted_rates(got.rates, rates, NET), numeric, 1e-6, 1e-9)

    @pytest.mark.parametrize("method", ["meta-sgd", "maml++"])
    def test_equal_rates_are_maml_bit_for_bit(self, method):
        given = dict(inner_steps=2, multi_step=0)
        one = update(NET_BATCH, NET_THETA, NET, method=method, **given)
        other = update(NET_BATCH, NET_THETA, NET, method="maml", **given)
        assert torch.equal(one.gradient, other.gradient) and one.loss == other.loss

    def test_slope_of_one_rate_by_hand(self):
        """One step on a quadratic: ∂/∂β_i = −∂Q/∂θ'_i · ∂L/∂θ_i."""
        got = update(method="meta-sgd", inner_steps=1)
        each = [-(q.B @ (adapted(q, THETA, 1) - q.b)) * (q.A @ (THETA - q.a)) for q in PAIR]
        close(got.rates, torch.stack(each).mean(0)[None])

    def test_graph_of_the_rates_is_not_held(self):
        rates = torch.full((2,), BETA, dtype=F64, requires_grad=True)
        plan = plan_of(config_of(method="meta-sgd"), PLANE, rates, 0, "cpu")
        assert not plan.inner.rate.requires_grad


class TestMultiStepLoss:
    @given(steps=st.integers(2, 8), over=st.integers(1, 50), iteration=st.integers(0, 60))
    @settings(max_examples=60, deadline=None)
    def test_weights(self, steps, over, iteration):
        weights = step_weights(steps, iteration, over)
        if iteration >= over:
            assert weights is None
            return
        assert sum(weights) == pytest.approx(1, abs=1e-14)
        assert len(set(weights[:-1])) == 1
        assert weights[0] == pytest.approx((1 - iteration / over) / steps, abs=1e-15)

    def test_ends(self):
        assert step_weights(5, 0, 100) == pytest.approx([0.2] * 5)
        assert step_weights(5, 50, 100) == pytest.approx([0.1] * 4 + [0.6])
        assert step_weights(5, 100, 100) is step_weights(5, 3, 0) is step_weights(1, 0, 9) is None
        assert step_weights(0, 0, 9) is None

    @pytest.mark.parametrize("iteration", [0, 3, 9, 10])
    def test_quadratics(self, iteration):
        """Σ w_k J_kᵀ B (θ_k − b); what is reported is the loss after the last step."""
        got = update(inner_steps=3, multi_step=10, iteration=iteration)
        share = max(0.0, 1 - iteration / 10) / 3
        weights = (share, share, 1 - 2 * share)
        expected = sum(w * maml(THETA, k + 1) for k, w in enumerate(weights))
        close(got.gradient, expected)
        assert got.loss == update(inner_steps=3).loss

    def test_later_the_last_step_alone_bit_for_bit(self):
        one = update(inner_steps=3, multi_step=10, iteration=10)
        assert torch.equal(one.gradient, update(inner_steps=3).gradient)


class TestReptile:
    @pytest.mark.parametrize("steps", [0, 1, 5])
    def test_direction(self, steps):
        expected = sum((EYE - power(q, steps)) @ (THETA - q.a) for q in PAIR) / 2
        close(update(method="reptile", inner_steps=steps).gradient, expected)

    @pytest.mark.parametrize("given", [{"adapted": "head"}, {"adapt_norm_affine": False}])
    def test_needs_everything_adapted(self, given):
        net = torch.nn.Sequential(
            torch.nn.Linear(1, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 1)
        )
        config = config_of(method="reptile", **given)
        with pytest.raises(ValueError, match="adapted='all'"):
            plan_of(config, ParameterSpace.from_module(net), None, 0, "cpu")


class TestImplicit:
    LAMBDA = 2.0

    def exact(self, q, theta: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        """φ by solving for the adapted entries, and the total derivative of its query loss."""

        def end(t: Tensor) -> Tensor:
            A = q.A[moves][:, moves] + self.LAMBDA * torch.eye(int(moves.sum()), dtype=F64)
            right = q.A[moves] @ q.a - q.A[moves][:, ~moves] @ t[~moves] + self.LAMBDA * t[moves]
            return t.clone().index_put((moves,), torch.linalg.solve(A, right))

        phi = end(theta)
        jacobian = torch.func.jacrev(end)(theta)
        return phi, jacobian.T @ q.B @ (phi - q.b)

    def far(self, q, steps: int, solver: int, moves: Tensor) -> Tensor:
        mask = None if bool(moves.all()) else moves
        inner = InnerLoop(steps, BETA, proximal=self.LAMBDA, adapted=mask)
        plan = Plan(inner, estimator="implicit", solver_steps=solver)
        return Loop()(PlainTasks((q.task(),)), THETA, plan).gradient

    def test_worked_numbers(self):
        """Task 1, λ = 2: φ = (2/3, 0.4), gradient (−8/9, 0.48)."""
        everything = torch.tensor([True, True])
        phi, gradient = self.exact(PAIR[0], THETA, everything)
        close(phi, vector(2 / 3, 0.4))
        close(gradient, vector(-8 / 9, 0.48))
        inner = InnerLoop(200, BETA, proximal=2.0)
        close(adapt(PAIR[0].task().support, THETA, inner), phi)
        close(self.far(PAIR[0], 200, 2, everything), gradient)
        got = update(PlainTasks((PAIR[0].task(),)), method="imaml", inner_steps=200, solver_steps=2)
        close(got.gradient, gradient)

    @pytest.mark.parametrize("moves", [[True, True], [True, False], [False, True]])
    @pytest.mark.parametrize("number", [0, 1])
    def test_converges_to_the_total_derivative(self, number, moves):
        """Also for parameters that are not adapted: the adapted ones depend on them."""
        q, mask = PAIR[number], torch.tensor(moves)
        _, expected = self.exact(q, THETA, mask)
        errors = [
            float((self.far(q, steps, 2, mask) - expected).norm()) for steps in (1, 5, 20, 100)
        ]
        assert errors[-1] < 1e-12
        assert all(b < 0.7 * a for a, b in itertools.pairwise(errors))

    def test_solver_converges(self):
        _, expected = self.exact(PAIR[1], THETA, torch.tensor([True, True]))
        everything = torch.tensor([True, True])
        errors = [
            float((self.far(PAIR[1], 300, n, everything) - expected).norm()) for n in (1, 2, 5)
        ]
        assert errors[0] > 1e-3 and max(errors[1:]) < 1e-12

    def test_network_against_differences_of_the_far_end(self):
        """After many steps the adapted point is a function of the initialization alone."""
        task, inner = TASKS[0], InnerLoop(150, 0.2, proximal=self.LAMBDA, adapted=HEAD)
        plan = Plan(inner, estimator="implicit", solver_steps=6)
        got = Loop()(PlainTasks((task,)), NET_THETA, plan).gradient
        entries = torch.tensor([0, 5, 9, 12])

        def value(moved: Tensor) -> Tensor:
            theta = NET_THETA.clone().index_put((entries,), moved)
            return task.query(adapt(task.support, theta, inner))[0]

        close(got[entries], differences(value, NET_THETA[entries].clone()), 1e-6, 1e-8)


class TestLaws:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("eps_grad", ["detach", "through"])
    def test_radii_of_zero_change_no_bit(self, method, eps_grad):
        """Of every method, with its other settings as they are."""
        given = dict(inner_steps=2, alpha_low=0.0, alpha_up=0.0)
        one = update(NET_BATCH, NET_THETA, NET, method=method, eps_grad=eps_grad, **given)
        stands = {} if method == "fomaml" else dict(METHODS[method])
        base = "fomaml" if method == "fomaml" else "maml"
        other = update(NET_BATCH, NET_THETA, NET, method=base, **stands, **given)
        assert torch.equal(one.gradient, other.gradient) and one.passes == 1

    @pytest.mark.parametrize("method", sorted(set(METHODS) - {"reptile", "imaml"}))
    @pytest.mark.parametrize("given", [{"inner_steps": 0}, {"inner_rate": 0.0}])
    def test_no_adaptation_is_joint_training(self, method, given):
        config, spy = config_of(method=method, multi_step=0, **given), Spy()
        if config.inner_steps == 0 and config.chosen("rates") != "fixed":
            with pytest.raises(ValueError, match="no inner steps"):
                plan_of(config, NET, rates_of(config, NET), 0, "cpu")
            return
        plan = plan_of(config, NET, rates_of(config, NET), 0, "cpu")
        got = ascent_of(config, NET)(NET_BATCH, NET_THETA, plan, spy, 0)
        there = spy.points[-1].clone().requires_grad_()
        loss = sum(task.query(there)[0] for task in TASKS) / len(TASKS)
        close(got.gradient, torch.autograd.grad(loss, there)[0])

    @pytest.mark.parametrize("method", ["maml", "sharp-low", "sharp-up", "sharp-both"])
    def test_first_order_is_second_order_without_curvature(self, method):
        slopes = (vector(0.4, -1.0), vector(-0.3, 0.2))
        flat = PlainTasks(
            tuple(
                Task(lambda t, s=s: s @ t + 0 * (t * t).sum(), task.query)
                for s, task in zip(slopes, BATCH.given, strict=True)
            )
        )
        config = config_of(method=method, inner_steps=3, eps_grad="through")
        plan = plan_of(config, PLANE, None, 0, "cpu")
        still = dataclasses.replace(plan, inner=dataclasses.replace(plan.inner, first_order=True))
        one, other = (
            ascent_of(config, PLANE)(flat, THETA, p, Loop(), 0).gradient for p in (plan, still)
        )
        close(one, other)

    @pytest.mark.parametrize("method", METHODS)
    def test_order_of_tasks(self, method):
        given = dict(method=method, inner_steps=2)
        one = update(NET_BATCH, NET_THETA, NET, **given).gradient
        turned = PlainTasks(NET_BATCH.given[::-1])
        close(one, update(turned, NET_THETA, NET, **given).gradient, 1e-12, 1e-14)

    @pytest.mark.parametrize("estimator", ["reptile", "implicit"])
    def test_upper_ascent_climbs_any_estimator(self, estimator):
        """Its own direction is what is climbed, and then evaluated there."""
        given = dict(
            method="sharp-up", estimator=estimator, proximal=2.0, inner_steps=4, alpha_up=0.2
        )
        config, spy = config_of(**given), Spy()
        plan = plan_of(config, PLANE, None, 0, "cpu")
        got = ascent_of(config, PLANE)(BATCH, THETA, plan, spy, 0)
        first = Loop()(BATCH, THETA, plan).gradient
        close(spy.points[1], THETA + 0.2 * first / first.norm())
        close(got.gradient, Loop()(BATCH, spy.points[1], plan).gradient)

    def test_mask_is_the_same_tensor_for_a_device(self):
        plan = plan_of(config_of(method="anil"), NET, None, 0, torch.device("cpu"))
        assert torch.equal(plan.inner.adapted, HEAD)

    @pytest.mark.parametrize(
        ("given", "rates"), [({}, torch.ones(2)), ({"method": "meta-sgd"}, None)]
    )
    def test_rates_and_settings_agree(self, given, rates):
        with pytest.raises(ValueError, match="initial_rates"):
            plan_of(config_of(**given), PLANE, rates, 0, "cpu")
