"""The parts of the meta-Hessian against dense derivatives, and spectra at the three places."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from meta_problems import tanh_tasks
from problems import normal, symmetric
from torch.func import grad, hessian, jacrev

import landscape
from landscape.operators.hessian import HessianOperator
from landscape.space import ParameterSpace
from sharpmaml import checkpoint as checkpoints
from sharpmaml import study
from sharpmaml.adapt import adapt
from sharpmaml.curvature import AdaptedPart, split
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_gradient
from sharpmaml.objective import MetaObjective
from sharpmaml.spectra import AdaptedSpectra, Spectra, spectra, table

F64 = torch.float64
LOW = {"lower": 0.1, "eps_grad": "through"}


def objective(inner: InnerLoop, count: int = 3) -> MetaObjective:
    tasks, theta, space = tanh_tasks(count)
    return MetaObjective(tasks, theta, space, inner)


def dense(operator) -> torch.Tensor:
    return operator.rows(torch.eye(operator.shape[0], dtype=F64))


def test_one_step_of_maml_against_explicit_matrices():
    o, beta = objective(InnerLoop(1, 0.3)), 0.3
    eye = torch.eye(o.space.size, dtype=F64)
    adapted, third = torch.zeros_like(eye), torch.zeros_like(eye)
    for task in o.tasks:
        h_s = jacrev(grad(task.support))(o.theta)
        end = o.theta - beta * grad(task.support)(o.theta)
        g_q = grad(lambda t, q=task.query: q(t)[0])(end)
        h_q = jacrev(grad(lambda t, q=task.query: q(t)[0]))(end)
        t3 = jacrev(lambda t, s=task.support, g=g_q: jacrev(grad(s))(t) @ g)(o.theta)
        adapted += (eye - beta * h_s) @ h_q @ (eye - beta * h_s) / len(o.tasks)
        third += -beta * t3 / len(o.tasks)
    parts = split(o)
    torch.testing.assert_close(dense(parts.adapted), adapted, rtol=0, atol=2e-15)
    torch.testing.assert_close(dense(parts.third), third, rtol=0, atol=2e-15)
    whole = jacrev(grad(o.value))(o.theta)
    assert float((adapted + third - whole).norm() / whole.norm()) < 1e-15
    assert float(third.norm() / whole.norm()) > 0.01  # or nothing was tested


@pytest.mark.parametrize("keep", [True, False, "auto"])
@pytest.mark.parametrize(
    "inner",
    [InnerLoop(0), InnerLoop(1, 0.2), InnerLoop(2, 0.2), InnerLoop(2, 0.2, **LOW),
     InnerLoop(2, 0.2, first_order=True)],
    ids=["0 steps", "1 step", "2 steps", "low", "first order"],
)  # fmt: skip
def test_the_parts_sum_to_the_hessian_and_are_symmetric(inner, keep):
    o = objective(inner)
    parts = split(o, keep_graph=keep)
    vectors = normal(3, o.space.size, seed=9)
    expected = HessianOperator(o).rows(vectors)
    for _ in range(2):  # graphs that were kept serve again
        total = parts.adapted.rows(vectors) + parts.third.rows(vectors)
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-12)
    together = AdaptedPart(o, keep_graph=keep, chunk=2).rows(vectors)
    torch.testing.assert_close(together, parts.adapted.rows(vectors), rtol=0, atol=1e-13)
    for operator in (parts.adapted, parts.third):
        matrix = dense(operator)
        torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-13)
    if not inner.steps or inner.first_order:
        assert not dense(parts.third).any()


def test_two_steps_against_the_dense_jacobian_of_the_adaptation():
    o = objective(InnerLoop(2, 0.3))
    expected = torch.zeros(o.space.size, o.space.size, dtype=F64)
    for task in o.tasks:
        jacobian = jacrev(lambda t, s=task.support: adapt(s, t, o.inner))(o.theta)
        assert float((jacobian - jacobian.T).norm()) > 1e-3  # a transpose forgotten would show
        h_q = hessian(lambda t, q=task.query: q(t)[0])(adapt(task.support, o.theta, o.inner))
        expected += jacobian.T @ h_q @ jacobian / len(o.tasks)
    torch.testing.assert_close(dense(split(o).adapted), expected, rtol=0, atol=1e-13)


def quadratic_tasks() -> MetaObjective:
    def task(i):
        a, b = symmetric([1.0, 2.0, 4.0], seed=i), symmetric([-1.0, 3.0, 5.0], seed=10 + i)
        return Task(lambda t: 0.5 * t @ a @ t, lambda t: (0.5 * t @ b @ t, {}))

    space = ParameterSpace.of_vector(3)
    return MetaObjective([task(0), task(1)], normal(3), space, InnerLoop(2, 0.1))


def test_quadratic_losses_have_no_third_derivative_part():
    o = quadratic_tasks()
    parts = split(o)
    assert not dense(parts.third).any()
    whole = jacrev(grad(o.value))(o.theta)
    torch.testing.assert_close(dense(parts.adapted), whole, rtol=1e-12, atol=1e-12)
    share = parts.share(probes=4)
    assert share.value == share.third == share.stderr == 0 and share.whole == share.adapted


def test_the_share_against_dense_norms():
    o = objective(InnerLoop(1, 0.3))
    parts = split(o)
    adapted, third = dense(parts.adapted), dense(parts.third)
    share = parts.share(probes=100)
    exact = float(third.norm() / (adapted + third).norm())
    for value, stderr, truth in [
        (share.value, share.stderr, exact),
        (share.adapted, share.stderrs[0], float(adapted.norm())),
        (share.third, share.stderrs[1], float(third.norm())),
        (share.whole, share.stderrs[2], float((adapted + third).norm())),
    ]:
        assert 0 < stderr < 0.2 * truth
        assert abs(value - truth) < 3 * stderr
    with pytest.raises(ValueError, match="at least 2"):
        parts.share(probes=1)


def test_what_cannot_be_split_says_why():
    o = objective(InnerLoop(1, 0.2))
    with pytest.raises(ValueError, match="couples the tasks"):
        split(o.perturbed(upper=0.1))
    with pytest.raises(ValueError, match="'through'"):
        split(objective(InnerLoop(1, 0.2, lower=0.1)))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("lower", "upper"), [(0.2, 0.0), (0.0, 0.3), (0.2, 0.3)])
def test_sharp_maml_objectives_against_formulas_and_dense_hessians(lower, upper, steps):
    beta = 0.2
    o = objective(InnerLoop(steps, beta))
    sharp = o.perturbed(lower=lower, upper=upper)

    def ascent(function, t, radius):
        g = grad(function)(t)
        return t + radius * g / g.square().sum().sqrt() if radius else t

    def adapted(task, t):
        for _ in range(steps):
            t = t - beta * grad(task.support)(ascent(task.support, t, lower))
        return t

    def h(t):
        return sum(task.query(adapted(task, t))[0] for task in o.tasks) / len(o.tasks)

    def by_hand(t):
        return h(ascent(h, t, upper))

    theta, vectors = o.theta, normal(2, o.space.size, seed=3)
    assert float(sharp.value(theta)) == pytest.approx(float(by_hand(theta)), rel=1e-13)
    assert sharp.metrics(theta)["loss"] == pytest.approx(float(by_hand(theta)), rel=1e-13)
    torch.testing.assert_close(sharp.gradient(theta), grad(by_hand)(theta), rtol=0, atol=1e-13)
    expected = vectors @ jacrev(grad(by_hand))(theta)
    torch.testing.assert_close(sharp.hvp(theta, vectors[0]), expected[0], rtol=0, atol=1e-11)
    for keep in (True, False):
        made = HessianOperator(sharp, keep_graph=keep).rows(vectors)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-11)
    assert float((expected - vectors @ jacrev(grad(o.value))(theta)).norm()) > 1e-2


def test_the_rise_of_the_upper_ascent_is_the_one_that_training_sees():
    o = objective(InnerLoop(1, 0.2))
    low = o.perturbed(lower=0.2)
    trained = meta_gradient(o.tasks, o.theta, low.inner, upper=0.3)
    both = o.perturbed(lower=0.2, upper=0.3)
    rise = float(both.value(o.theta) - low.value(o.theta))
    assert rise == pytest.approx(trained.rise, rel=1e-10) and rise > 0
    # The ascent is a part of the function: its gradient is not the one that training descends.
    assert float((both.gradient(o.theta) - trained.gradient).norm()) > 1e-3
    assert both.settings["upper"] == 0.3 and both.settings["lower"] == 0.2
    assert "upper" not in o.settings


def test_a_surface_of_an_ascended_objective_is_that_of_its_values():
    up = objective(InnerLoop(1, 0.2)).perturbed(upper=0.3)
    plane = landscape.random_plane(up, seed=0)
    surface = landscape.evaluate(up, plane, points=3, span=0.5)
    corner = float(up.value(up.theta + 0.5 * plane.basis[0] + 0.5 * plane.basis[1]))
    assert float(surface["loss"][-1, -1]) == pytest.approx(corner, rel=1e-10)


def test_an_ascent_held_constant_has_values_and_no_hessian():
    o = objective(InnerLoop(1, 0.2, lower=0.1))
    assert math.isfinite(float(o.value(o.theta))) and o.gradient(o.theta).any()
    for refused in (lambda: o.hvp(o.theta, o.theta), o.parts, lambda: HessianOperator(o)):
        with pytest.raises(ValueError, match="use eps_grad='through'"):
            refused()
    assert len(o.before().parts()) == 3  # without steps there is no ascent
    assert len(objective(InnerLoop(1, 0.2, lower=0.1, first_order=True)).parts()) == 3
    with pytest.raises(ValueError, match="at least 0"):
        o.perturbed(upper=-0.1)


@pytest.fixture(scope="module")
def measured():
    return objective(InnerLoop(2, 0.3)), spectra(objective(InnerLoop(2, 0.3)), 3, tol=1e-8)


def test_spectra_against_dense_eigenvalues(measured):
    o, found = measured
    queries = [lambda t, q=task.query: q(t)[0] for task in o.tasks]
    for place, function in [
        (found.initialization, lambda t: sum(q(t) for q in queries) / 3),
        (found.meta, o.value),
    ]:
        exact, vectors = np.linalg.eigh(jacrev(grad(function))(o.theta).numpy())
        np.testing.assert_allclose(place.values, exact[::-1][:3], rtol=1e-7)
        assert place.lowest == pytest.approx(exact[0], rel=1e-6)
        for (low, high), value in zip(place.intervals, exact[::-1], strict=False):
            assert low - 1e-12 <= value <= high + 1e-12
        assert place.converged and place.products > 0
        assert place.gradient_norm == pytest.approx(float(grad(function)(o.theta).norm()))
    # Data noise: the spread over tasks of the quotients of the eigenvector of the mean.
    v = torch.from_numpy(vectors[:, -1].copy())
    each = [
        float(v @ jacrev(grad(MetaObjective([t], o.theta, o.space, o.inner).value))(o.theta) @ v)
        for t in o.tasks
    ]
    assert found.meta.stderrs[0] == pytest.approx(np.std(each, ddof=1) / 3**0.5, rel=1e-5)
    for m, (task, query) in enumerate(zip(o.tasks, queries, strict=True)):
        end = adapt(task.support, o.theta, o.inner)
        exact = np.linalg.eigvalsh(jacrev(grad(query))(end).numpy())
        assert found.adapted.largest[m] == pytest.approx(exact[-1], rel=1e-7)
        assert found.adapted.lowest[m] == pytest.approx(exact[0], rel=1e-6)
        slope = float(grad(query)(end).norm())
        assert found.adapted.gradient_norms[m] == pytest.approx(slope, rel=1e-10)
    assert found.third is not None and found.third.value > 0


def test_spectra_go_through_json(measured):
    _, found = measured
    assert Spectra.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(KeyError):
        Spectra.from_dict({})


def test_table_pairs_the_tasks_and_flags_what_did_not_converge(measured):
    _, found = measured
    shifted = tuple(
        value + shift for value, shift in zip(found.adapted.largest, (1, 2, 3), strict=True)
    )
    adapted = dataclasses.replace(found.adapted, largest=shifted, converged=False, outcome="why")
    other = dataclasses.replace(found, adapted=adapted, third=None)
    made = table({"MAML": found, "Sharp-MAML both": other})
    first, second = (dict(zip(made.columns, row, strict=True)) for row in made.rows)
    assert first["meta: λ max"].value == found.meta.values[0]
    assert first["meta: λ max"].error == found.meta.stderrs[0]
    change = second["− first"]
    assert change.value == pytest.approx(2) and change.error == pytest.approx(1 / 3**0.5)
    assert first["− first"].value is None
    assert second["adapted: λ max"].flag and second["adapted: λ max"].note == "why"
    assert not first["adapted: λ max"].flag
    assert second["3rd, %"].value is None
    assert "3 tasks" in made.caption
    with pytest.raises(ValueError, match="same tasks"):
        found.adapted.difference(dataclasses.replace(found.adapted, largest=(1.0,)))


def test_one_task_has_no_data_noise():
    found = spectra(objective(InnerLoop(1, 0.2)), 1, tasks=1, probes=0)
    assert math.isnan(found.meta.stderrs[0]) and math.isnan(found.adapted.stderr)
    assert found.third is None and found.settings["tasks"] == 1
    assert isinstance(found.adapted, AdaptedSpectra) and len(found.adapted.largest) == 1
    with pytest.raises(ValueError, match="expected 1 to 3"):
        spectra(objective(InnerLoop(1, 0.2)), tasks=4)


def test_a_study_keeps_its_spectra(images_run, tmp_path, monkeypatch):
    made = study.Study(
        out=tmp_path, test_episodes=2, tasks=2, points=0, line_points=0, measures=(), settings={},
        eigenvalues={"k": 1, "tol": 0.05, "probes": 2},
    )  # fmt: skip
    given = checkpoints.read(images_run)
    found = made.spectra(given)
    calls = []
    monkeypatch.setattr(study, "spectra", lambda *a, **k: calls.append(k) or found)
    assert made.spectra(given) == found and not calls
    for change in ({"tasks": 1}, {"seed": 1}, {"eigenvalues": {"k": 1, "tol": 0.1, "probes": 2}}):
        dataclasses.replace(made, **change).spectra(given)
    assert len(calls) == 3
    (kept, *_) = (tmp_path / "measurements").glob("spectra-*-0.json")
    kept.write_text("{", encoding="utf-8")
    made.spectra(given)
    assert len(calls) == 4
