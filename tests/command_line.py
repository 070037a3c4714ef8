"""A small problem on disk for tests of the command line."""

import numpy as np

NET = """
import torch

def make():
    return torch.nn.Linear(3, 1)

def classifier():
    return torch.nn.Linear(3, 2)
"""

LINEAR = (
    "w.pt", "--model", "net.py:make", "--data", "d.npz", "--loss", "mse_loss", "--dtype", "float64",
    "--device", "cpu",
)  # fmt: skip
TASKS = ("--episodes", "2", "--device", "cpu")


def dense_hessian(place):
    with np.load(place / "d.npz") as arrays:
        x = np.hstack([arrays["x"], np.ones((20, 1))])
    return 2 / 20 * x.T @ x
