"""The upper ascent over a training: its cheap forms by hand, their memory, and laws that all of them obey."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic_tasks import (
    ALPHA,
    BATCH,
    BETA,
    F64,
    PAIR,
    THETA,
    Quadratic,
    Spy,
    fomaml,
    maml,
    unit,
    value,
    vector,
)  # fmt: skip
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.adaptable import adapted_mask
from sharpmaml.ascent import UpperAscent, across, first_order, turned
from sharpmaml.config import TrainConfig
from sharpmaml.execution.loop import Loop
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import MetaGradient, Upper, meta_gradient_of
from sharpmaml.perturb import RULES, asam, sam
from sharpmaml.plan import PlainTasks, Plan, Task
from sharpmaml.plans import ascent_of

PLAN = Plan(InnerLoop(2, BETA))
UP = Upper(ALPHA)
MASK = torch.tensor([True, False])

FORMS = {
    "full": {},
    "first-order": {"gradient": "first-order"},
    "momentum": {"gradient": "momentum", "momentum": 0.6},
    "every": {"every": 3},
    "look": {"every": 3, "reuse": 0.4},
    "part": {"part": MASK},
    "first-order every": {"gradient": "first-order", "every": 2},
    "momentum part": {"gradient": "momentum", "part": MASK},
    "momentum every": {"gradient": "momentum", "every": 2},
    "look part": {"every": 2, "reuse": 0.7, "part": MASK},
    "sum": {"reduction": "sum", "every": 2, "reuse": 0.5},
}


def train(form: dict, updates: int = 5, *, upper: Upper = UP, plan: Plan = PLAN, batch=BATCH):
    """Plain descent, and what every update returned."""
    ascent, theta, results, spies = UpperAscent(upper, **form), THETA, [], []
    for iteration in range(updates):
        spies.append(Spy())
        results.append(ascent(batch, theta, plan, spies[-1], iteration))
        theta = theta - 0.3 * results[-1].gradient
    return results, spies


def close(got: Tensor, expected: Tensor, atol: float = 1e-14) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=atol)


class TestForms:
    @pytest.mark.parametrize("eps_m", ["recompute", "reuse"])
    @pytest.mark.parametrize("radius", [0.0, 0.2])
    def test_full_is_the_meta_gradient(self, radius, eps_m):
        plan, upper = Plan(InnerLoop(2, BETA, 0.1, "through")), Upper(radius, "sam", eps_m)
        got = UpperAscent(upper)(BATCH, THETA, plan, Loop(), 3)
        expected = meta_gradient_of(BATCH, THETA, plan, upper, Loop())
        assert torch.equal(got.gradient, expected.gradient)
        assert dataclasses.replace(got, gradient=THETA) == dataclasses.replace(
            expected, gradient=THETA
        )

    def test_first_order_ascent_second_order_descent(self):
        (result,), (spy,) = train(FORMS["first-order"], 1)
        slope = fomaml(THETA, 2)
        epsilon = ALPHA * unit(slope)
        close(spy.points[1] - THETA, epsilon)
        close(result.gradient, maml(THETA + epsilon, 2))
        assert [plan.inner.first_order for plan in spy.plans] == [True, False]
        assert result.loss == pytest.approx(value(THETA, 2), rel=1e-14)
        assert result.rise == pytest.approx(value(THETA + epsilon, 2) - value(THETA, 2), rel=1e-12)
        assert result.norm == pytest.approx(float(slope.norm()), rel=1e-14)
        assert result.predicted_rise == pytest.approx(ALPHA * float(slope.norm()), rel=1e-13)
        assert float(unit(slope) @ unit(maml(THETA, 2))) < 0.99  # a different direction here

    @pytest.mark.parametrize("form", ["momentum", "momentum part"])
    def test_momentum_by_hand(self, form):
        results, spies = train(FORMS[form])
        share = FORMS[form].get("momentum", 0.9)
        theta, before = THETA, []
        for result, spy in zip(results, spies, strict=True):
            epsilon = torch.zeros(2, dtype=F64)
            if before:
                ages = range(len(before) - 1, -1, -1)
                mean = sum(share**age * g for age, g in zip(ages, before, strict=True))
                epsilon = ALPHA * unit(mean * FORMS[form].get("part", 1.0))
            assert len(spy.points) == result.passes == 1
            close(result.gradient, maml(theta + epsilon, 2))
            assert result.loss == pytest.approx(value(theta + epsilon, 2), rel=1e-13)
            known = (0.0, 0.0) if not before else (None, None)
            assert (result.rise, result.predicted_rise) == known
            before.append(result.gradient)
            theta = theta - 0.3 * result.gradient

    def test_every_third_update_climbs(self):
        results, spies = train(FORMS["every"])
        assert [r.passes for r in results] == [len(s.points) for s in spies] == [2, 1, 1, 2, 1]
        theta = THETA
        for iteration, result in enumerate(results):
            epsilon = ALPHA * unit(maml(theta, 2)) if iteration % 3 == 0 else 0.0
            close(result.gradient, maml(theta + epsilon, 2))
            assert (result.rise == 0) == (iteration % 3 > 0)
            theta = theta - 0.3 * result.gradient

    @pytest.mark.parametrize("form", ["look", "look part"])
    def test_looksam_by_hand(self, form):
        every, share = FORMS[form]["every"], FORMS[form]["reuse"]
        results, _ = train(FORMS[form])
        theta = THETA
        for iteration, result in enumerate(results):
            plain = maml(theta, 2)
            if iteration % every == 0:
                epsilon = ALPHA * unit(plain * FORMS[form].get("part", 1.0))
                expected = maml(theta + epsilon, 2)
                cosine = unit(plain) @ unit(expected)
                v = expected - expected.norm() * cosine * unit(plain)
            else:
                expected = plain + share * plain.norm() / v.norm() * v
                # Across the plain gradient of then, not of now; as long as a share of the one of now.
                turn = float((result.gradient - plain).norm())
                assert turn == pytest.approx(share * float(plain.norm()), rel=1e-9)
            close(result.gradient, expected, 1e-12)
            assert result.loss == pytest.approx(value(theta, 2), rel=1e-13)
            theta = theta - 0.3 * result.gradient

    def test_across_is_across(self):
        g, s = vector(1, 2, -1), vector(0.5, 1, 3)
        assert float(across(s, g) @ g) == pytest.approx(0, abs=1e-14)
        assert float(across(s, g) @ s) > 0

    @pytest.mark.parametrize("rule", RULES)
    def test_part_of_the_parameters(self, rule):
        theta = vector(0.5, -2.0)
        spy = Spy()
        UpperAscent(Upper(ALPHA, rule), part=MASK)(BATCH, theta, PLAN, spy, 0)
        epsilon = spy.points[1] - spy.points[0]
        assert epsilon[1] == 0
        scale = 0.5 if rule == "asam" else 1.0
        assert float(epsilon[0].abs()) == pytest.approx(ALPHA * scale, rel=1e-12)

    def test_asam_climbs_by_its_own_rule(self):
        spy = Spy()
        UpperAscent(Upper(0.2, "asam"))(BATCH, 3 * THETA, PLAN, spy, 0)
        close(spy.points[1] - spy.points[0], asam(maml(3 * THETA, 2), 3 * THETA, 0.2))

    def test_inner_ascents_are_reused_after_a_first_order_pass(self):
        plan, upper = Plan(InnerLoop(2, BETA, 0.1)), Upper(ALPHA, eps_m="reuse")
        result = UpperAscent(upper, gradient="first-order")(BATCH, THETA, plan, Loop(), 0)
        first = Loop()(BATCH, THETA, dataclasses.replace(first_order(plan), keeps_ascents=True))
        there = THETA + ALPHA * unit(first.gradient)
        expected = Loop()(BATCH, there, plan, first.ascents)
        assert torch.equal(result.gradient, expected.gradient)
        recomputed = Loop()(BATCH, there, plan)
        assert not torch.allclose(result.gradient, recomputed.gradient, rtol=1e-6)

    def test_first_order_ascent_of_other_estimators(self):
        implicit = Plan(InnerLoop(3, BETA, proximal=2.0), estimator="implicit")
        assert first_order(implicit).estimator == "unrolled"
        reptile = Plan(InnerLoop(3, BETA), estimator="reptile")
        assert first_order(reptile) == reptile


class TestLaws:
    @pytest.mark.parametrize("form", FORMS)
    @given(theta=st.lists(st.floats(-3, 3), min_size=2, max_size=2), iteration=st.integers(0, 5))
    @settings(max_examples=4, deadline=None)
    def test_radius_zero_is_maml_bit_for_bit(self, form, theta, iteration):
        point = torch.tensor(theta, dtype=F64)
        ascent = UpperAscent(Upper(0.0), **FORMS[form])
        got = ascent(BATCH, point, PLAN, Loop(), iteration)
        plain = Loop()(BATCH, point, PLAN).gradient
        assert torch.equal(got.gradient, 2 * plain if form == "sum" else plain)
        assert got.passes == 1 and not ascent.state_dict()

    @pytest.mark.parametrize("form", FORMS)
    def test_resumed_anywhere_to_the_same_bits(self, form):
        whole, _ = train(FORMS[form], 5)
        for cut in (1, 2, 4):
            ascent, theta = UpperAscent(UP, **FORMS[form]), THETA
            for iteration in range(5):
                if iteration == cut:
                    state = ascent.state_dict()
                    ascent = UpperAscent(UP, **FORMS[form])
                    ascent.load_state_dict(state)
                got = ascent(BATCH, theta, PLAN, Loop(), iteration)
                assert torch.equal(got.gradient, whole[iteration].gradient)
                theta = theta - 0.3 * got.gradient

    def test_state_is_a_copy(self):
        ascent = UpperAscent(UP, gradient="momentum")
        ascent(BATCH, THETA, PLAN, Loop(), 0)
        state = ascent.state_dict()
        ascent.load_state_dict(state)
        state["mean"].zero_()
        close(ascent.state_dict()["mean"], 0.1 * maml(THETA, 2))

    def test_nothing_to_reuse_is_computed_first(self):
        """Resumed in between without a state, LookSAM climbs at once instead of going on plain."""
        ascent = UpperAscent(UP, **FORMS["look"])
        assert [ascent(BATCH, THETA, PLAN, Loop(), i).passes for i in (1, 2, 3, 4)] == [2, 1, 2, 1]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("scale", [1e-3, 70.0])
    def test_scale_of_the_query_loss(self, form, scale):
        """Ascents do not see it: gradients scale, points do not move (the first update's; then θ would)."""
        scaled = PlainTasks(
            tuple(Task(t.support, lambda x, t=t: (scale * t.query(x)[0], {})) for t in BATCH.given)
        )
        one, other = UpperAscent(UP, **FORMS[form]), UpperAscent(UP, **FORMS[form])
        for iteration in range(4):
            theta = THETA + 0.1 * iteration
            a, b = Spy(), Spy()
            got = one(BATCH, theta, PLAN, a, iteration).gradient
            large = other(scaled, theta, PLAN, b, iteration).gradient
            for p, q in zip(a.points, b.points, strict=True):
                close(p, q)
            torch.testing.assert_close(large, scale * got, rtol=1e-10, atol=0)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("radius", [0.05, 50.0])
    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    def test_flat_loss_moves_nothing(self, form, radius, dtype):
        flat = Task(lambda t: 0 * (t * t).sum(), lambda t: (0 * (t * t).sum(), {}))
        point = THETA.to(dtype)
        for upper in (Upper(radius), Upper(radius, "asam")):
            ascent = UpperAscent(upper, **FORMS[form])
            for iteration in range(3):
                spy = Spy()
                inner = InnerLoop(1, BETA, radius, "through")
                got = ascent(PlainTasks((flat,)), point, Plan(inner), spy, iteration)
                assert torch.equal(got.gradient, torch.zeros_like(point))
                assert all(torch.equal(p, point) for p in spy.points)

    @pytest.mark.parametrize("rule", [sam, asam])
    @pytest.mark.parametrize("size", [1e-18, 1e-25, 1e-37, 1e-44])
    def test_vanishing_gradients_stay_within_the_radius(self, rule, size):
        """Their squares vanish in float32: a norm of 0 must not blow the ascent up."""
        gradient = torch.full((10,), size)
        epsilon = rule(gradient, torch.ones(10), 0.5)
        assert float(epsilon.norm()) <= 0.5 * (1 + 1e-6)

    @pytest.mark.parametrize("form", FORMS)
    def test_order_of_tasks(self, form):
        one, _ = train(FORMS[form], 3)
        other, _ = train(FORMS[form], 3, batch=PlainTasks(BATCH.given[::-1]))
        for a, b in zip(one, other, strict=True):
            close(a.gradient, b.gradient, 1e-13)

    def test_full_and_first_order_ascents_agree_without_support_curvature(self):
        slope = vector(0.4, -1.0)
        flat = PlainTasks(
            tuple(Task(lambda t: slope @ t + 0 * (t * t).sum(), t.query) for t in BATCH.given)
        )
        one, _ = train(FORMS["full"], 2, batch=flat)
        other, _ = train(FORMS["first-order"], 2, batch=flat)
        for a, b in zip(one, other, strict=True):
            close(a.gradient, b.gradient)

    @pytest.mark.parametrize("upper", [0.0, 0.2])
    def test_through_is_detach_in_one_dimension(self, upper):
        line = PlainTasks(
            (Task(lambda t: 1.7 * (t**2).sum(), lambda t: (((t - 1) ** 2).sum(), {})),)
        )
        one, other = (
            UpperAscent(Upper(upper), gradient="first-order")(
                line, vector(0.8), Plan(InnerLoop(3, BETA, 0.05, mode)), Loop(), 0
            ).gradient
            for mode in ("detach", "through")
        )
        close(one, other)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("inner", [InnerLoop(0, BETA), InnerLoop(4, 0.0)])
    def test_no_adaptation_is_joint_training(self, form, inner):
        """K = 0 or β = 0: SAM on the mean query loss."""
        joint = [Quadratic(q.A, q.a, q.B, q.b) for q in PAIR]
        results, spies = train(FORMS[form], 1, plan=Plan(inner))
        slope = sum(q.B @ (spies[0].points[-1] - q.b) for q in joint) / 2
        close(results[0].gradient, 2 * slope if form == "sum" else slope)

    @pytest.mark.parametrize("form", FORMS)
    def test_broken_off_in_the_ascent_leaves_everything(self, form):
        class Stops(Spy):
            def __call__(self, *arguments, **named):
                result = super().__call__(*arguments, **named)
                if len(self.points) == 2 or FORMS[form].get("gradient") == "momentum":
                    raise KeyboardInterrupt
                return result

        ascent, theta = UpperAscent(UP, **FORMS[form]), THETA.clone()
        ascent(BATCH, theta, PLAN, Loop(), 0)
        before = ascent.state_dict()
        iteration = 6  # all of them climb
        with pytest.raises(KeyboardInterrupt):
            ascent(BATCH, theta, PLAN, Stops(), iteration)
        assert torch.equal(theta, THETA)
        after = ascent.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    @pytest.mark.parametrize("form", FORMS)
    def test_what_is_logged_is_json(self, form):
        for result in train(FORMS[form], 4)[0]:
            assert isinstance(result, MetaGradient)
            shown = [result.loss, result.norm, result.rise, result.predicted_rise, result.passes]
            json.dumps(shown, allow_nan=False)
            assert math.isfinite(result.loss)

    @pytest.mark.parametrize("form", ["momentum", "every", "look", "first-order"])
    def test_sum_steers_like_the_mean(self, form):
        mean, other = (
            UpperAscent(UP, **FORMS[form]),
            UpperAscent(UP, reduction="sum", **FORMS[form]),
        )
        for iteration in range(4):
            theta = THETA + 0.2 * iteration
            one = mean(BATCH, theta, PLAN, Loop(), iteration)
            two = other(BATCH, theta, PLAN, Loop(), iteration)
            close(two.gradient, 2 * one.gradient)

    @pytest.mark.parametrize("form", ["full", "first-order", "momentum", "look"])
    def test_rates_follow(self, form):
        """The gradient of learned rates is that of the point the parameters' is from."""
        plan = Plan(InnerLoop(2, vector(0.1, 0.2)), learns_rates=True)
        results, spies = train({**FORMS[form], "reduction": "sum"}, 4, plan=plan)
        for result, spy in zip(results, spies, strict=True):
            there = Loop()(BATCH, spy.points[-1], plan)
            torch.testing.assert_close(result.rates, 2 * there.rates, rtol=1e-14, atol=0)
            if len(spy.plans) == 2:
                assert not spy.plans[0].learns_rates


class TestSettings:
    @pytest.mark.parametrize(
        ("form", "says"),
        [
            ({"gradient": "none"}, "full, first-order, momentum"),
            ({"reduction": "max"}, "mean, sum"),
            ({"every": 0}, "at least 1"),
            ({"reuse": 1.5, "every": 2}, "at most 1"),
            ({"momentum": 1.0}, "below 1"),
            ({"reuse": 0.5}, "ascent_every"),
            ({"reuse": 0.5, "every": 2, "gradient": "momentum"}, "full gradient"),
            ({"reuse": 0.5, "every": 2, "gradient": "first-order"}, "full gradient"),
        ],
    )
    def test_contradictions(self, form, says):
        with pytest.raises(ValueError, match=says):
            UpperAscent(UP, **form)

    def test_momentum_knows_no_inner_ascents(self):
        ascent = UpperAscent(Upper(ALPHA, eps_m="reuse"), gradient="momentum")
        with pytest.raises(ValueError, match="eps_m"):
            ascent(BATCH, THETA, Plan(InnerLoop(1, BETA, 0.1)), Loop(), 0)
        assert ascent(BATCH, THETA, PLAN, Loop(), 0).passes == 1
        config = TrainConfig(method="sharp-both", ascent_gradient="momentum", eps_m="reuse")
        with pytest.raises(ValueError, match="eps_m"):
            ascent_of(config, ParameterSpace.of_vector(2))

    def test_unknown_state(self):
        with pytest.raises(ValueError, match="'velocity'"):
            UpperAscent(UP).load_state_dict({"velocity": THETA})

    def test_settings_of_a_run(self):
        net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Linear(2, 1))
        space = ParameterSpace.from_module(net)
        config = TrainConfig(
            method="sharp-up", alpha_up=0.3, perturbation="asam", eps_m="reuse", ascent_every=4,
            ascent_reuse=0.25, ascent_part="head", reduction="sum",
        )  # fmt: skip
        made = ascent_of(config, space)
        assert made.upper == Upper(0.3, "asam", "reuse")
        assert (made.gradient, made.every, made.reuse, made.reduction) == ("full", 4, 0.25, "sum")
        assert torch.equal(made.part, adapted_mask(space, "head"))
        assert ascent_of(TrainConfig(method="maml", ascent_reuse=0.5), space).upper.radius == 0

    def test_turned_by_nothing(self):
        assert torch.equal(turned(THETA, torch.zeros(2, dtype=F64), 0.5), THETA)
