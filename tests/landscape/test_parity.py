"""Our losses against the conventions of Li et al.'s released code, written out here a second time.

What is written out: filter normalization with tensors of one dimension left alone (``filter``, ``biasbn``), a
point ``fl32(theta) + fl32(alpha dx + beta dy)`` with the bracket in float64, and the loss, a float32 mean over
each batch, summed with the batch sizes as weights. ``benchmarks/parity.py`` runs the released code itself.
"""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import conv_net, images
from torch import nn
from torch.nn import functional as F

import landscape
from landscape.checkpoint import read_weights

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SHARP_LANDSCAPE_SHARED", ROOT.parent / "shared"))
DATA = SHARED / "data"
CHECKPOINT = DATA / "checkpoints" / "resnet56_sgd_lr0.1_bs128_wd5e-4_model_300.t7"


def reference_direction(model: nn.Module, seed: int) -> list[np.ndarray]:
    """One array a parameter: ``d_i ||w_i|| / (||d_i|| + 1e-10)`` for each slice of dimension 0."""
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for weights in model.parameters():
        drawn = torch.randn(weights.shape, generator=generator)
        if weights.dim() <= 1:
            drawn.zero_()
        else:
            for d, w in zip(drawn, weights.detach(), strict=True):
                d *= w.norm() / (d.norm() + 1e-10)
        direction.append(drawn.numpy())
    return direction


def reference_surface(model, batches, axis, dx, dy) -> np.ndarray:
    """Losses on a grid, rows ``dy``; the model is moved in place as there, and put back."""
    start = [p.detach().clone() for p in model.parameters()]
    losses = np.empty((len(axis), len(axis)))
    for j, i in np.ndindex(losses.shape):
        changes = [x * axis[i] + y * axis[j] for x, y in zip(dx, dy, strict=True)]  # float64
        for p, w, change in zip(model.parameters(), start, changes, strict=True):
            p.data = w + torch.from_numpy(change.astype(np.float32))
        total, count = 0.0, 0
        with torch.no_grad():
            for x, y in batches:
                total += F.cross_entropy(model(x), y).item() * len(x)
                count += len(x)
        losses[j, i] = total / count
    for p, w in zip(model.parameters(), start, strict=True):
        p.data = w
    return losses


def both(model, batches, span, points):
    """The reference's surface and ours along the same two directions, and our plane."""
    dx, dy = (reference_direction(model, seed) for seed in (0, 1))
    theirs = reference_surface(model, batches, np.linspace(-span, span, points), dx, dy)
    objective = landscape.DataObjective(model, batches, loss="cross_entropy")
    rows = [np.concatenate([d.reshape(-1) for d in row]) for row in (dx, dy)]
    plane = landscape.Plane(objective.theta, torch.from_numpy(np.stack(rows)))
    surface = landscape.evaluate(objective, plane, span=span, points=points)
    return theirs, surface["loss"].values


def cut(x, y, size):
    return list(zip(torch.split(x, size), torch.split(y, size), strict=True))


def test_a_small_convolutional_net():
    x, y = images(30)
    model = conv_net(torch.float32).eval()
    theirs, ours = both(model, cut(x.float(), y, 8), 1.0, 7)  # the last batch has six
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert np.ptp(theirs) > 0.1 and np.abs(theirs - theirs.T).max() > 0.01


@pytest.mark.parametrize("rule", ["filter", "layer", "weight", "none"])
def test_our_rules_are_theirs_on_tensors_with_filters(rule):
    model = conv_net(torch.float32)
    objective = landscape.DataObjective(model, cut(images(4)[0].float(), images(4)[1], 4))
    drawn, scaled = (
        objective.space.unflatten(landscape.random_plane(objective, r, ("bias", "norm")).basis[0])
        for r in ("none", rule)
    )
    for name, w in model.named_parameters():
        d, w = drawn[name].clone(), w.detach()
        if w.dim() <= 1:
            d.zero_()
        elif rule == "filter":
            for slice_, filter_ in zip(d, w, strict=True):
                slice_ *= filter_.norm() / (slice_.norm() + 1e-10)
        elif rule == "layer":
            d *= w.norm() / d.norm()
        elif rule == "weight":
            d *= w
        torch.testing.assert_close(scaled[name], d, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(
    not CHECKPOINT.exists(), reason="no real data: set SHARP_LANDSCAPE_SHARED to its folder"
)
def test_the_resnet_of_the_paper():
    net = runpy.run_path(str(ROOT / "benchmarks" / "nets.py"))["ResNet"](9, convolve=True)
    net.load_state_dict(read_weights(CHECKPOINT).tensors)
    with np.load(DATA / "cifar10.npz") as stored:
        pixels, labels = stored["test_images"][:48], stored["test_labels"][:48]
    mean, scale = (
        torch.tensor(v).view(3, 1, 1) / 255 for v in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7])
    )
    x = (torch.from_numpy(pixels).float() / 255 - mean) / scale
    batches = cut(x, torch.from_numpy(labels.astype(np.int64)), 32)
    theirs, ours = both(net.eval(), batches, 0.5, 3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert theirs[1, 1] < 0.5 and theirs.max() > 1.0
