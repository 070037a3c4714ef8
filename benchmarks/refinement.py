"""How many points a surface needs, and whether its certificate tells the truth, on trained networks.

    python benchmarks/refinement.py [--data DIR] [--nets mlp,conv4,...] [--seeds 0,1,2]

For each network and seed of the directions: the whole 51 x 51 surface, then the one computed with
``tolerance=0.01`` and with ``basin_tolerance=0.05`` besides; evaluations, largest error against the whole
surface, and processor seconds of the calls from end to end on one thread. The ResNets need ``--data``, the
folder with ``cifar10.npz`` and ``checkpoints/``. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import nets
import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

import landscape
from landscape.checkpoint import read_weights
from landscape.refine import Refiner
from sharpmaml.data import load_images

POINTS = 51
EXAMPLES = {"mlp": 512, "conv4": 512, "resnet20": 96, "resnet56": 48, "transformer": 64}
PIXELS = {  # mean and standard deviation of each colour, as the checkpoints want them
    "resnet20": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "resnet56": ([v / 255 for v in (125.3, 123.0, 113.9)], [v / 255 for v in (63.0, 62.1, 66.7)]),
}
CHECKPOINTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet56": "resnet56_sgd_lr0.1_bs128_wd5e-4_model_300.t7",
}


def trained(net: str, data: Path | None) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network and examples that it was trained on."""
    model, x, y = nets.build(net)
    if net in CHECKPOINTS:
        if data is None:
            raise SystemExit(f"{net} needs --data, the folder with cifar10.npz and checkpoints/")
        weights = read_weights(data / "checkpoints" / CHECKPOINTS[net])
        model.load_state_dict(weights.named_as(model.state_dict()), strict=False)
        with np.load(data / "cifar10.npz") as stored:
            x = torch.from_numpy(stored["train_images"]).float() / 255
            y = torch.from_numpy(stored["train_labels"].astype(np.int64))
        mean, scale = (torch.tensor(v).view(3, 1, 1) for v in PIXELS[net])
        return model.eval(), (x - mean) / scale, y
    if net == "transformer":
        x = torch.randint(64, (2000, 32), generator=torch.Generator().manual_seed(0))
        return fitted(model, x, x.sort(1).values, 400, 2e-3)
    characters = torch.tensor(load_images("strokes").images[:340]).float() / 255
    x = characters.flatten(0, 1).reshape(-1, 1, 28, 28)
    y = torch.arange(340).repeat_interleave(characters.shape[1]) // 34
    if net == "conv4":
        model[-1] = nn.Linear(32, 10)
    shuffled = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return fitted(model, x[shuffled], y[shuffled], 600, 2e-3)


def fitted(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, rate: float
) -> tuple[nn.Module, Tensor, Tensor]:
    """The model after so many steps of Adam on batches of 128."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    draws = torch.Generator().manual_seed(1)
    for _ in range(steps):
        some = torch.randint(len(x), (128,), generator=draws)
        loss = F.cross_entropy(model(x[some]), y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval(), x, y


def surface(objective: Any, plane: Any, **options: Any) -> tuple[xr.Dataset, float]:
    """A surface and its processor seconds."""
    start = time.process_time()
    found = landscape.evaluate(objective, plane, points=POINTS, **options)
    return found, time.process_time() - start


def row(net: str, seed: int, objective: Any) -> str:
    """The numbers of one network and one pair of directions."""
    plane = landscape.random_plane(objective, seed=seed)
    whole, whole_seconds = surface(objective, plane)
    executor = whole.attrs["executor"]
    truth = whole["loss"].values
    cells = [net, str(seed), executor, f"{whole_seconds:.0f}"]
    for basin_tolerance in (None, 0.05):
        found, seconds = surface(
            objective, plane, executor=executor, tolerance=0.01, basin_tolerance=basin_tolerance
        )
        record = json.loads(found.attrs["refinement"])
        error = np.abs(found["loss"].values - truth)
        cells += [record["outcome"], str(record["evaluations"]), f"{seconds:.1f}"]
        cells.append(f"{np.nanmax(error) / np.ptp(truth[np.isfinite(truth)]):.2%}")
        if basin_tolerance is not None:
            inside = basin(truth)
            cells += [str(inside.sum()), f"{(error[inside] / truth[inside]).max():.2%}"]
    return "| " + " | ".join(cells) + " |"


def basin(loss: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where the loss is below twice its mean at one tenth of the span, as the refiner has it."""
    refiner = Refiner(loss.shape, 0.01, 0.05)
    places = [tuple(int(i) for i in where) for where in np.argwhere(np.isfinite(loss))]
    refiner.tell(places, [loss[where] for where in places])
    return refiner.result().basin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--nets", default="mlp,conv4,transformer")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {platform.machine()}, one thread, {POINTS} x {POINTS} points.\n"
    )
    print(
        "| net | seed | executor | whole, CPU s | outcome | evaluations | CPU s | largest error / range "
        "| with basin: outcome | evaluations | CPU s | largest error / range | basin points "
        "| largest error in it |"
    )
    print("| --- | " + "---: | " * 13)
    for net in options.nets.split(","):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, x, y = trained(net, options.data)
        count = EXAMPLES[net]
        objective = landscape.DataObjective(model, (x[:count], y[:count]))
        for seed in options.seeds.split(","):
            print(row(net, int(seed), objective), flush=True)


if __name__ == "__main__":
    main()
