"""Subjects about functions: surfaces, spectra, sharpness, paths, curves, files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problems import conv_objective, normal, seeded
from torch import nn

import landscape
from determinism.lab import (
    RANKS,
    SUBJECTS,
    Conditions,
    Numbers,
    Subject,
    Work,
    columns,
    perhaps_stopped,
    tree,
)
from landscape import curvature_page, plot, sharpness_page, surface_page
from landscape.connectivity import connect
from landscape.curvature_report import Asked, measure
from landscape.data_objective import DataObjective
from landscape.directions import random_plane
from landscape.exchange import export
from landscape.figures import save
from landscape.operators.hessian import HessianOperator
from landscape.pca import pca_plane
from landscape.sharpness import sharpness
from landscape.spectra.along_training import along_training
from landscape.spectra.plane_map import curvature_map
from landscape.topology import analyze
from landscape.trajectory import follow


def mlp(width: int = 512) -> DataObjective:
    """A network of 42,000 parameters on 300 examples: enough for torch to use its threads."""
    net = seeded(lambda: nn.Sequential(nn.Linear(70, width), nn.Tanh(), nn.Linear(width, 10)))
    y = torch.from_numpy(np.random.default_rng(6).integers(0, 10, 300))
    return DataObjective(net, (normal(300, 70, seed=5).float(), y), batch_size=100)


def convnet() -> DataObjective:
    """Convolutions and batch norm, 3 batches of images."""

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(),
            nn.Linear(64, 10),
        )  # fmt: skip

    y = torch.from_numpy(np.random.default_rng(6).integers(0, 10, 60))
    x = normal(60, 3, 8, 8, seed=5).float()
    return DataObjective(seeded(make), (x, y), batch_size=20)


def small(dtype: str = "float64") -> DataObjective:
    """75 parameters, 4 batches."""
    return conv_objective(getattr(torch, dtype), batch_size=8)


def surface_of(problem: Callable[[], Any], executor: str, **options: Any) -> Work:
    def work(given: Conditions, team: Any, folder: Path) -> Numbers:
        objective = problem()
        plane = random_plane(objective, "filter", ("bias", "norm"), 3)
        out = folder / "surface.nc"
        return columns(
            perhaps_stopped(
                given, 9,
                lambda progress: landscape.evaluate(
                    objective, plane, 0.5, 7, out, progress=progress, executor=executor,
                    keep_terms=True, team=team, **options,
                ),
            )
        )  # fmt: skip

    return work


def refined(given: Conditions, team: Any, folder: Path) -> Numbers:
    objective = mlp()
    plane = random_plane(objective, "filter", ("bias", "norm"), 3)
    out = folder / "surface.nc"
    return columns(
        perhaps_stopped(
            given, 30,
            lambda progress: landscape.evaluate(
                objective, plane, 1.0, 17, out, progress=progress, executor="repeatable", tolerance=0.03,
                team=team,
            ),
        )
    )  # fmt: skip


def hessian_of(problem: Callable[[], Any], **asked: Any) -> Work:
    def work(given: Conditions, team: Any, folder: Path) -> Numbers:
        options: dict[str, Any] = dict(asked.get("options", {}), team=team)
        found = measure(problem(), Asked(**{**asked, "options": options}))
        told = tree(found.document())
        told["vectors"] = found.pairs.vectors.cpu().numpy()
        # What a graph costs depends on whether it was kept.
        left = ("kept_graphs", "/attrs/settings", "memory_bound", "self_test")
        return {name: value for name, value in told.items() if not any(w in name for w in left)}

    return work


def sharpness_of(problem: Callable[[], Any]) -> Work:
    def work(given: Conditions, team: Any, folder: Path) -> Numbers:
        objective = problem()
        out = folder / "report.json"
        found = perhaps_stopped(
            given, 5,
            lambda progress: sharpness(objective, "all", seed=1, out=out, progress=progress, invariance=True),
        )  # fmt: skip
        told = tree(found.document())
        return {n: v for n, v in told.items() if not n.endswith("/paid") and "overhead" not in n}

    return work


def along_a_path(objective: Any, count: int = 6) -> list[tuple[int, Any]]:
    """Checkpoints of plain gradient descent with noise, not computed with threads."""
    theta = objective.theta.clone()
    found = []
    for step in range(count):
        found.append((step * 10, theta.clone()))
        noise = normal(theta.numel(), seed=20 + step).to(theta)
        theta = theta * 0.97 + torch.full_like(theta, 0.01) * noise
    return found


def trajectory_of(problem: Callable[[], Any], measures: Sequence[str]) -> Work:
    def work(given: Conditions, team: Any, folder: Path) -> Numbers:
        objective = problem()
        path = along_a_path(objective)
        plane = pca_plane(objective, [theta for _, theta in path])
        found = perhaps_stopped(
            given, 3,
            lambda progress: follow(
                objective, path, plane, measures, out=folder / "path.nc", progress=progress
            ),
        )  # fmt: skip
        return {"basis": plane.basis.numpy(), "origin": plane.origin.numpy(), **columns(found)}

    return work


def connected(given: Conditions, team: Any, folder: Path) -> Numbers:
    objective = mlp()
    path = along_a_path(objective)
    found = perhaps_stopped(
        given, 15,
        lambda progress: connect(
            objective, path[0][1], path[-1][1], iterations=30, points=9, out=folder / "training.nc",
            progress=progress, batch=50,
        ),
    )  # fmt: skip
    return {
        **{f"line/{n}": v for n, v in columns(found.line).items()},
        **{f"straight/{n}": v for n, v in columns(found.straight).items()},
        **tree(found.document()),
    }


def mapped(given: Conditions, team: Any, folder: Path) -> Numbers:
    objective = small()
    plane = random_plane(objective, "filter", ("bias", "norm"), 3)
    return columns(
        perhaps_stopped(
            given, 7,
            lambda progress: curvature_map(
                objective, plane, 0.5, 4, out=folder / "map.nc", progress=progress
            ),
        )
    )  # fmt: skip


def along(given: Conditions, team: Any, folder: Path) -> Numbers:
    objective = small()
    return columns(
        perhaps_stopped(
            given, 3,
            lambda progress: along_training(
                along_a_path(objective), 2, objective=objective, out=folder / "along.nc", progress=progress
            ),
        )
    )  # fmt: skip


def minima(given: Conditions, team: Any, folder: Path) -> Numbers:
    objective = small()
    plane = random_plane(objective, "filter", ("bias", "norm"), 3)
    surface = landscape.evaluate(objective, plane, 2.0, 9, executor="plain", keep_terms=True)
    return tree(analyze(surface).to_dict())


def products(given: Conditions, team: Any, folder: Path) -> Numbers:
    """Products with the Hessian, graphs kept and vectors together, or neither."""
    operator = HessianOperator(convnet(), mode="reverse", keep_graph=not given.few)
    vectors = normal(4, operator.shape[0], seed=9).to(operator.theta)
    rows = [vectors[i : i + 1] for i in range(4)] if given.few else [vectors]
    return {"products": torch.cat([operator.rows(some) for some in rows]).numpy()}


def planes(given: Conditions, team: Any, folder: Path) -> Numbers:
    """Random and principal planes, of as many checkpoints and parameters as libraries split among threads."""
    objective = mlp().double()
    thetas = [theta for _, theta in along_a_path(objective, 25)]
    found = {"components": pca_plane(objective, thetas).basis.numpy()}
    for rule in ("filter", "layer", "weight"):
        found[rule] = random_plane(objective, rule, seed=1).basis.numpy()
    return found


def files(given: Conditions, team: Any, folder: Path) -> Numbers:
    """The bytes of files and pages."""
    objective = small()
    plane = random_plane(objective, seed=3)
    surface = landscape.evaluate(
        objective, plane, 0.5, 5, folder / "s.nc", "a label", executor="plain", keep_terms=True
    )
    surface_page.write(folder / "s.html", [surface])
    report = sharpness(objective, ["gradient_norm", "sam", "lambda_max"], out=folder / "r.json")
    sharpness_page.write({"a": report}, folder / "r.html")
    curvature_page.write(measure(objective, Asked(k=2, density=True)), folder / "h.html", "a")
    save(plot.contour(surface, "matplotlib"), folder / "c.pdf")
    export(surface, folder / "s.csv")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


_SURFACE = ("loss", "terms")
_SPECTRUM = ("/value", "trace/value")
_RESUMED, _FEW = "resumed", "few at a time"
for _name, _problem in (("mlp", mlp), ("convnet", convnet)):
    for _executor in ("plain", "fused", "vmap"):
        SUBJECTS[f"surface: {_name}, {_executor}"] = Subject(
            surface_of(_problem, _executor), (_FEW, _RESUMED, *RANKS), ("2 threads",), _SURFACE
        )
SUBJECTS["surface: with slopes"] = Subject(
    surface_of(mlp, "chunked", slopes=True), (_FEW, _RESUMED, *RANKS), ("2 threads",), ("loss", "slope", "curv")
)  # fmt: skip
SUBJECTS["surface: refined, repeatable"] = Subject(
    refined, (_FEW, _RESUMED, *RANKS), ("2 threads",), _SURFACE
)
SUBJECTS["planes: random, principal"] = Subject(planes, ("2 threads",))
SUBJECTS["Hessian: products"] = Subject(products, (_FEW,), ("2 threads",))
SUBJECTS["Hessian: Lanczos, trace, density"] = Subject(
    hessian_of(mlp, k=2, trace=True, density=True), (), (*RANKS, "2 threads"), _SPECTRUM
)
SUBJECTS["Hessian: float64, layers, halves"] = Subject(
    hessian_of(small, k=3, trace=True, layers=True, held_out=True), (), (*RANKS, "2 threads"), _SPECTRUM
)  # fmt: skip
for _label, _asked in (
    ("block", {"method": "block"}), ("power", {"method": "power", "max_products": 60}),
    ("forward mode", {"options": {"mode": "forward"}}), ("GGN", {"options": {"kind": "ggn"}}),
    ("Fisher", {"options": {"kind": "fisher"}}),
):  # fmt: skip
    SUBJECTS[f"Hessian: {_label}"] = Subject(
        hessian_of(convnet, k=2, **_asked), (), (*RANKS, "2 threads"), _SPECTRUM
    )
SUBJECTS["curvature map"] = Subject(
    mapped, (_RESUMED,), ("2 threads",), ("lambda_max", "lambda_min")
)
SUBJECTS["curvature along training"] = Subject(along, (_RESUMED,), ("2 threads",), ("eigenvalue",))
SUBJECTS["sharpness: all measures, float64"] = Subject(
    sharpness_of(small), (_RESUMED,), ("2 threads",), ("/value",)
)
SUBJECTS["sharpness: all measures, float32"] = Subject(
    sharpness_of(lambda: mlp(64)), (_RESUMED,), ("2 threads",), ("/value",)
)
SUBJECTS["trajectory, with measures"] = Subject(
    trajectory_of(small, ("lambda_max", "sam")), (_RESUMED,), ("2 threads",), ("loss", "lambda_max", "sam")
)  # fmt: skip
SUBJECTS["curve between two points"] = Subject(connected, (_RESUMED,), ("2 threads",), ("loss",))
SUBJECTS["topology"] = Subject(minima, (), ("2 threads",))
SUBJECTS["bytes of files and pages"] = Subject(files)
