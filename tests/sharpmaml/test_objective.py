"""The meta objective of a checkpoint is a landscape objective like any other, with the right numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import landscape
import sharpmaml
from landscape.operators.hessian import HessianOperator
from landscape.space import ParameterSpace
from sharpmaml import checkpoint as checkpoints
from sharpmaml import models
from sharpmaml.data import Episode, make_source
from sharpmaml.inner import InnerLoop
from sharpmaml.objective import MetaObjective
from sharpmaml.tasks import NetworkTasks, analysis_seed

LOW = {"lower": 0.1, "eps_grad": "through"}


def made_of(model: torch.nn.Module, inner: InnerLoop, count: int = 4, **options) -> MetaObjective:
    """A meta objective of random episodes, 3 classes of images or numbers to fit."""
    images = any(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    rng = np.random.default_rng(0)

    def side(n):
        x = torch.from_numpy(rng.standard_normal((n, 1, 16, 16) if images else (n, 1)))
        y = torch.from_numpy(rng.integers(0, 3, n)) if images else torch.sin(x)
        return x, y

    episodes = tuple(Episode(*side(6), *side(9)) for _ in range(count))
    kind = "classification" if images else "regression"
    space = ParameterSpace.from_module(model)
    network = NetworkTasks(model, space, episodes, kind)
    theta = space.flatten(dict(model.named_parameters()))
    return MetaObjective(network.tasks(), theta, space, inner, {}, network, **options)


def by_hand(run, episodes: int, split: str, steps: int) -> list[float]:
    """Losses after adaptation with stateful torch: module, autograd and in-place steps."""
    given = checkpoints.read(run)
    c = given.config
    source = make_source(
        c.data,
        split=split,
        ways=c.ways,
        shots=c.shots,
        queries=c.queries,
        seed=analysis_seed(0),
        options=c.data_options,
    )
    losses = []
    for i in range(episodes):
        e = source.episode(i).to(dtype=torch.float64)
        model = checkpoints.read(run).model.double()
        for _ in range(steps):
            model.zero_grad()
            F.cross_entropy(model(e.support_x), e.support_y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= c.inner_rate * p.grad
        losses.append(float(F.cross_entropy(model(e.query_x), e.query_y).detach()))
    return losses


@pytest.mark.parametrize("split", ["train", "test"])
def test_values_against_plain_stateful_torch(images_run, split):
    objective = sharpmaml.meta_objective(images_run, episodes=3, dtype="float64", split=split)
    expected = by_hand(images_run, 3, split, steps=3)
    np.testing.assert_allclose(objective.losses(objective.theta).numpy(), expected, rtol=1e-10)
    metrics = objective.metrics(objective.theta)
    assert metrics["loss"] == pytest.approx(np.mean(expected), rel=1e-10)
    assert metrics["loss_stderr"] == pytest.approx(np.std(expected, ddof=1) / 3**0.5, rel=1e-9)
    assert 0 <= metrics["accuracy"] <= 1


def test_it_is_a_landscape_objective(images_run):
    objective = sharpmaml.meta_objective(images_run, episodes=2)
    assert isinstance(objective, landscape.Objective)
    assert objective.theta.dtype == torch.float32
    assert (
        sharpmaml.meta_objective(images_run, episodes=1, dtype="float64").theta.dtype
        == torch.float64
    )
    thetas = torch.stack([objective.theta, objective.theta + 0.1])
    torch.testing.assert_close(objective.values(thetas)[1], objective.value(objective.theta + 0.1))


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_eigenvalues_of_a_small_meta_objective_against_the_dense_hessian(sine_run, method):
    objective = sharpmaml.meta_objective(sine_run, episodes=4, dtype="float64")
    dense = torch.func.hessian(objective.value)(objective.theta)
    exact = np.linalg.eigh(dense.numpy())[0][::-1]
    pairs = landscape.eigenpairs(objective, k=2, method=method, tol=1e-8, max_products=4000)
    assert pairs.converged
    np.testing.assert_allclose(pairs.values.numpy(), exact[:2], rtol=1e-6)


def test_gradient_and_products_of_a_convolutional_meta_objective(images_run):
    objective = sharpmaml.meta_objective(images_run, episodes=2, dtype="float64", steps=2)
    theta = objective.theta
    dense = torch.func.hessian(objective.value)(theta)
    g = torch.Generator().manual_seed(0)
    v = torch.randn(theta.shape, dtype=torch.float64, generator=g)
    torch.testing.assert_close(objective.hvp(theta, v), dense @ v, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(
        objective.gradient(theta), torch.func.grad(objective.value)(theta), rtol=1e-10, atol=1e-12
    )
    exact = np.linalg.eigvalsh(dense.numpy())[-1]
    pairs = landscape.eigenpairs(objective, k=1, tol=1e-8)
    assert float(pairs.values[0]) == pytest.approx(exact, rel=1e-6)


def test_surface_of_the_meta_objective_has_the_checkpoint_at_its_centre(images_run):
    objective = sharpmaml.meta_objective(images_run, episodes=2)
    plane = landscape.random_plane(objective, seed=1)
    surface = landscape.evaluate(objective, plane, points=3, span=0.5)
    centre = surface.sel(alpha=0.0, beta=0.0)
    assert float(centre["loss"]) == pytest.approx(float(objective.value(objective.theta)), rel=1e-6)
    corner = objective.metrics(objective.theta + 0.5 * plane.basis[0] + 0.5 * plane.basis[1])
    assert float(surface["loss"][-1, -1]) == pytest.approx(corner["loss"], rel=1e-5)
    # Li et al. leave biases and norm layers where they are.
    pieces = objective.space.unflatten(plane.basis[0])
    moved = {name for name, piece in pieces.items() if bool(piece.any())}
    assert moved == {
        n
        for n, role in zip(objective.space.names, objective.space.roles, strict=True)
        if role == "weight"
    }


def test_all_measures_of_a_meta_objective_are_finite(sine_run):
    report = landscape.sharpness(sharpmaml.meta_objective(sine_run, episodes=3, dtype="float64"))
    assert all(np.isfinite(row.value) for row in report.values())
    assert report["worst_l2"].value >= report["sam"].value


def test_every_method_is_measured_on_the_same_function(sine_run, tmp_path):
    """Perturbation belongs to training: the objective of a Sharp-MAML checkpoint has none."""
    import dataclasses

    from sharpmaml.training import train

    config = dataclasses.replace(checkpoints.read(sine_run).config, method="sharp-both")
    other = sharpmaml.meta_objective(train(config, tmp_path / "both").path, episodes=3)
    plain = sharpmaml.meta_objective(sine_run, episodes=3)
    assert other.inner == plain.inner and other.inner.lower == 0
    theta = plain.theta
    assert torch.equal(other.losses(theta), plain.losses(theta))
    differ = {k for k in plain.settings if plain.settings[k] != other.settings[k]}
    assert differ == {"checkpoint"}


def test_nothing_is_touched(images_run):
    given = checkpoints.read(images_run)
    before, state = given.theta.clone(), torch.get_rng_state()
    objective = sharpmaml.meta_objective(given, episodes=2, dtype="float64")
    landscape.sharpness(objective, ["sam", "gradient_norm"])
    assert torch.equal(given.theta, before) and torch.equal(objective.theta, before.double())
    assert given.model.state_dict()["0.conv.weight"].dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"episodes": 0}, "at least 1"),
        ({"dtype": "float16"}, "float32 or float64"),
        ({"split": "tests"}, "unknown split"),
        ({"device": "tpu"}, "not usable"),
    ],
)
def test_bad_options_say_what_is_expected(sine_run, options, says):
    with pytest.raises(ValueError, match=says):
        sharpmaml.meta_objective(sine_run, **options)


NETWORKS = {
    "conv4": lambda: models.build("conv4", {"ways": 3, "channels": 3, "image_size": 16}).double(),
    "mlp": lambda: models.build("mlp", {"hidden": 5}).double(),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "inner",
    [InnerLoop(0), InnerLoop(1, 0.1), InnerLoop(2, 0.1), InnerLoop(2, 0.1, **LOW),
     InnerLoop(2, 0.1, first_order=True)],
    ids=["0 steps", "1 step", "2 steps", "low", "first order"],
)  # fmt: skip
def test_tasks_at_once_are_tasks_one_by_one(name, inner):
    one = made_of(NETWORKS[name](), inner, tasks_at_once=1)
    some = made_of(NETWORKS[name](), inner, tasks_at_once=3)
    assert [part.size for part in some.parts()] == [3, 1]
    assert [part.size for part in some.parts(tasks_at_once=1)] == [1, 1, 1, 1]
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, one.theta.numel(), dtype=torch.float64, generator=g)
    expected = torch.stack([one.hvp(one.theta, v) for v in vectors])
    scale = float(expected.abs().max())
    for made in (one, some):
        products = HessianOperator(made).rows(vectors)
        torch.testing.assert_close(products, expected, rtol=0, atol=1e-10 * scale)
    # Some parameters only: the others are held constant.
    names = one.space.names[-2:]
    few = [HessianOperator(made, params=list(names)) for made in (one, some)]
    made, expected = (op.rows(vectors[:, : op.shape[0]]) for op in few)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(few[1].gradient(), few[0].gradient(), rtol=0, atol=1e-12)


def test_products_of_tasks_at_once_keep_no_graph_and_say_so():
    some = made_of(NETWORKS["mlp"](), InnerLoop(1, 0.1), tasks_at_once=3)
    operator = HessianOperator(some, keep_graph=True)
    operator @ some.theta
    assert operator.kept == 0 and operator.product_cost == 3 and operator.cost == pytest.approx(3)
    assert operator.settings["terms_at_once"] == 3 and some.settings["tasks_at_once"] == 3
    assert "tasks_at_once" not in made_of(NETWORKS["mlp"](), InnerLoop(1, 0.1)).settings


def test_auto_leaves_parts_enough_for_an_error():
    inner = InnerLoop(1, 0.1)
    sizes = [part.size for part in made_of(NETWORKS["mlp"](), inner, count=20).parts()]
    assert sizes == [3] * 6 + [2]
    assert {part.size for part in made_of(NETWORKS["conv4"](), inner).parts()} == {1}
    ragged = made_of(NETWORKS["mlp"](), inner)
    first = ragged.network.episodes[0]
    short = Episode(first.support_x[:2], first.support_y[:2], first.query_x, first.query_y)
    network = NetworkTasks(
        ragged.network.model, ragged.space, (short, *ragged.network.episodes), "regression"
    )
    uneven = MetaObjective(network.tasks(), ragged.theta, ragged.space, inner, {}, network)
    assert len(uneven.parts()) == 5
    with pytest.raises(ValueError, match="numbers of examples"):
        uneven.parts(tasks_at_once=2)
    unknown = MetaObjective(ragged.tasks, ragged.theta, ragged.space, inner)
    assert len(unknown.parts()) == 4
    with pytest.raises(ValueError, match="unknown"):
        unknown.parts(tasks_at_once=2)
    for wrong in (0, "all", 1.5):
        with pytest.raises(ValueError, match="'auto' or a number"):
            made_of(NETWORKS["mlp"](), inner, tasks_at_once=wrong)


def test_graphs_of_adaptations_are_measured():
    """``torch.func`` forbids the hooks that graphs are measured with elsewhere."""
    operator = HessianOperator(made_of(NETWORKS["conv4"](), InnerLoop(1, 0.1)))
    assert operator.kept == 4 and operator.settings["kept_graphs"] == "4 of 4"
    many = pytest.MonkeyPatch()
    with many.context() as patch:
        patch.setattr("landscape.device.free_memory", lambda device: 1000)
        assert HessianOperator(made_of(NETWORKS["conv4"](), InnerLoop(1, 0.1))).kept == 0


def normed() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 2, 3, stride=4), torch.nn.BatchNorm2d(2, track_running_stats=False),
            torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(32, 3), torch.nn.LayerNorm(3),
        ).double()  # fmt: skip


def test_native_norms_are_refused_where_they_would_be_wrong():
    o = made_of(normed(), InnerLoop(1, 0.1))
    assert np.isfinite(float(o.value(o.theta))) and o.gradient(o.theta).any()
    for refused in (lambda: o.hvp(o.theta, o.theta), o.parts, lambda: landscape.eigenpairs(o)):
        with pytest.raises(ValueError, match=r"here: 1, 5\).*with_primitive_norms\(model\)"):
            refused()
    assert o.before().hvp(o.theta, o.theta).any()  # second derivatives are right
    assert made_of(normed(), InnerLoop(1, 0.1, first_order=True)).parts()
    with pytest.raises(ValueError, match="with_primitive_norms"):
        o.before().perturbed(upper=0.1).parts()


@pytest.mark.parametrize("at_once", [1, 2])
def test_converted_networks_have_the_same_values_and_right_products(at_once):
    native = made_of(normed(), InnerLoop(1, 0.1))
    o = made_of(models.with_primitive_norms(normed()), InnerLoop(1, 0.1), tasks_at_once=at_once)
    theta = o.theta
    torch.testing.assert_close(o.losses(theta), native.losses(theta), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(o.gradient(theta), native.gradient(theta), rtol=1e-9, atol=1e-11)
    v = torch.ones_like(theta) / theta.numel() ** 0.5
    h = 1e-4
    numeric = (o.gradient(theta + h * v) - o.gradient(theta - h * v)) / (2 * h)
    product = HessianOperator(o).matvec(v)
    assert float((product - numeric).norm() / numeric.norm()) < 1e-6
    torch.testing.assert_close(o.hvp(theta, v), product, rtol=0, atol=1e-11)
