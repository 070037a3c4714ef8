"""The meta objective of a checkpoint is a landscape objective like any other, with the right numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import landscape
import sharpmaml
from sharpmaml import checkpoint as checkpoints
from sharpmaml.data import make_source
from sharpmaml.tasks import analysis_seed


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
