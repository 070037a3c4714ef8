"""Our losses against those of tomgoldstein/loss-landscape itself, along the same given directions.

    python benchmarks/parity.py --reference FOLDER --data FOLDER [--points 5] [--span 1] [--images 932]

``FOLDER`` of the reference is a checkout of github.com/tomgoldstein/loss-landscape, the one of the data
holds ``cifar10.npz`` and ``checkpoints/``. Its own functions do its side: ``ResNet56``,
``create_random_direction`` (filter, biasbn), ``set_weights`` and ``eval_loss``. What is replaced: the files
(its directions are handed over as arrays, as it would read them back), the download of CIFAR-10 by
torchvision, and ``torch.load``, which is asked for plain weights on the CPU. Its main script is not run:
``plot_surface.py`` imports torchvision, seaborn and MPI helpers.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import ResNet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import landscape
from landscape.checkpoint import read_weights

CHECKPOINT = "resnet56_sgd_lr0.1_bs128_wd5e-4_model_300.t7"
BATCH = 128
Array = np.ndarray[Any, np.dtype[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--images", type=int, default=932)
    parser.add_argument("--span", type=float, default=1.0)
    parser.add_argument("--executor", default="plain", help="of our side; see landscape.evaluate")
    parser.add_argument(
        "--batch", type=int, default=BATCH, help="of our side; the reference keeps 128"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, y = images(options.data, options.images)
    weights = read_weights(options.data / "checkpoints" / CHECKPOINT).tensors
    axis = np.linspace(-options.span, options.span, options.points)
    rows, theirs = reference(options.reference, weights, x, y, axis)
    model = ResNet(9, convolve=True)
    model.load_state_dict(weights)
    data = DataLoader(TensorDataset(x, y), batch_size=options.batch)
    objective = landscape.DataObjective(model, data, loss="cross_entropy")
    basis = torch.stack([torch.cat([torch.from_numpy(d).reshape(-1) for d in row]) for row in rows])
    plane = landscape.Plane(objective.theta, basis, {"kind": "given"})
    ours = landscape.evaluate(
        objective, plane, span=options.span, points=options.points, executor=options.executor
    )["loss"].values
    gap = np.abs(ours - theirs)
    print(
        f"ResNet-56, {len(x)} CIFAR-10 test images, batches of {BATCH} (theirs) and {options.batch} (ours),"
    )
    print(
        f"{gap.size} points on [-{options.span:g}, {options.span:g}]^2, float32, torch {torch.__version__},"
    )
    print(f"executor {options.executor}")
    print(f"losses from {theirs.min():.6g} to {theirs.max():.6g}")
    print(
        f"largest |difference| {gap.max():.2g}, in units of max(1, loss) {(gap / np.maximum(theirs, 1)).max():.2g}"
    )
    print(f"largest |difference| where the loss is below 8: {gap[theirs < 8].max():.2g}")


def images(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """CIFAR-10 test images, normalized as the checkpoint wants them, and their labels."""
    with np.load(folder / "cifar10.npz") as stored:
        pixels, labels = stored["test_images"][:count], stored["test_labels"][:count]
    mean, scale = (
        torch.tensor(v).view(3, 1, 1) / 255 for v in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7])
    )
    x = (torch.from_numpy(pixels).float() / 255 - mean) / scale
    return x, torch.from_numpy(labels.astype(np.int64))


def reference(
    folder: Path, weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, axis: Array
) -> tuple[list[list[Array]], Array]:
    """Directions drawn by the reference's code, and its losses along them, rows ``y``."""
    sys.path.insert(0, str(folder.resolve()))
    for name in ("cifar10.model_loader", "model_loader", "torchvision"):
        sys.modules.setdefault(name, type(sys)(name))  # these load files and download data
    import evaluation
    import net_plotter
    from cifar10.models.resnet import ResNet56

    torch.manual_seed(123)
    net = ResNet56()
    net.load_state_dict(weights)
    drawn = [net_plotter.create_random_direction(net, "weights", "biasbn", "filter") for _ in "xy"]
    rows = [[tensor.numpy() for tensor in row] for row in drawn]  # what its file would hold
    start = copy.deepcopy(net_plotter.get_weights(net))
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH)
    losses = np.empty((len(axis), len(axis)))
    for j, i in np.ndindex(losses.shape):
        net_plotter.set_weights(net, start, rows, np.array([axis[i], axis[j]]))
        losses[j, i], _ = evaluation.eval_loss(net, nn.CrossEntropyLoss(), loader)
    return rows, losses


if __name__ == "__main__":
    main()
