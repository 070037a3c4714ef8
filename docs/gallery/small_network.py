"""Two interleaved spirals, and a small network trained on them in about a second."""

import torch
from torch import nn


def spirals(points: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of two noisy spirals ``(points, 2)`` and the spiral of each, 0 or 1."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(points) % 2
    turn = 1.5 + 7 * torch.rand(points, generator=draw).sqrt()
    angle = turn + torch.pi * y
    x = torch.stack([angle.cos(), angle.sin()], dim=1) * turn[:, None] / 4
    return x + 0.08 * torch.randn(points, 2, generator=draw), y


def network(seed: int = 0, width: int = 24) -> nn.Sequential:
    """Two hidden layers; the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(width, 2))


def trained(steps: int = 300, seed: int = 0, rate: float = 0.02, keep: int = 0, **options):
    """A network after ``steps`` steps of Adam on all points; ``options`` are Adam's.

    With ``keep``, also the weights at every so many steps, as ``[(step, theta), ...]``.
    """
    torch.set_num_threads(1)
    (x, y), model = spirals(), network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, **options)
    path = []
    for step in range(steps + 1):
        if keep and step % keep == 0:
            theta = nn.utils.parameters_to_vector(model.parameters())
            path.append((step, theta.detach().clone()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if step < steps:
            optimizer.step()
    return (model, path) if keep else model
