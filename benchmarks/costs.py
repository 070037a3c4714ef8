"""What a method costs, as ratios within one run: meta-gradients, Hessian products, eigenpairs.

    python benchmarks/costs.py

CPU seconds of this process on one thread, median of five, candidates interleaved; Markdown on standard
output. One unit is MAML's second-order meta-gradient on the same tasks.
"""

from __future__ import annotations

import platform
import statistics
import time
import warnings
from collections.abc import Callable

import torch

from landscape.space import ParameterSpace
from landscape.spectra.eigenpairs import ConvergenceWarning, eigenpairs
from sharpmaml import models
from sharpmaml.data import make_source
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import meta_gradient
from sharpmaml.objective import MetaObjective
from sharpmaml.tasks import network_task

ROUNDS = 5
ALPHA = 0.05


def main() -> None:
    torch.set_num_threads(1)
    source = make_source("strokes", ways=5, shots=1, queries=15)
    model = models.build("conv4", {"ways": 5, "downsample": "stride"})
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters()))
    tasks = [network_task(model, space, source.episode(i), "classification") for i in range(4)]
    pooled = models.build("conv4", {"ways": 5, "downsample": "max"})
    pooled_space = ParameterSpace.from_module(pooled)
    pooled_theta = pooled_space.flatten(dict(pooled.named_parameters()))
    pooled_tasks = [
        network_task(pooled, pooled_space, source.episode(i), "classification") for i in range(4)
    ]
    v = torch.randn(space.size, generator=torch.Generator().manual_seed(0))
    print(
        f"conv4 (strided, 32 channels, {space.size} parameters), 5-way 1-shot, 15 queries, 4 tasks, 1 inner step,"
    )
    print(
        f"float32, 1 thread, torch {torch.__version__}, {platform.machine()}; median of {ROUNDS}.\n"
    )

    def gradient(upper: float = 0.0, **inner: object) -> Callable[[], object]:
        loop = InnerLoop(steps=1, rate=0.4, **inner)  # type: ignore[arg-type]
        return lambda: meta_gradient(tasks, theta, loop, upper=upper)

    objective = MetaObjective(tasks, theta, space, InnerLoop(1, 0.4))
    table(
        {
            "MAML": gradient(),
            "FOMAML": gradient(first_order=True),
            "Sharp-MAML low, detach": gradient(lower=ALPHA),
            "Sharp-MAML low, through": gradient(lower=ALPHA, eps_grad="through"),
            "Sharp-MAML up": gradient(upper=ALPHA),
            "Sharp-MAML both, detach": gradient(lower=ALPHA, upper=ALPHA),
            "MAML, conv4 with max-pooling": lambda: meta_gradient(
                pooled_tasks, pooled_theta, InnerLoop(steps=1, rate=0.4)
            ),
            "meta loss alone": lambda: objective.metrics(theta),
            "product with the meta-Hessian": lambda: objective.hvp(theta, v),
        }
    )
    print(
        "\n| top eigenpair of the meta-Hessian | products | value | residual |\n| --- | ---: | ---: | ---: |"
    )
    for method in ("lanczos", "power"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            pairs = eigenpairs(
                objective, k=1, method=method, which="LM", tol=1e-3, max_products=100
            )
        value, residual = float(pairs.values[0]), float(pairs.residuals[0])
        name = method if pairs.converged else f"{method} (not converged)"
        print(f"| {name} | {pairs.products} | {value:.6g} | {residual:.1g} |")


def table(candidates: dict[str, Callable[[], object]]) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS + 1):
        for name, run in candidates.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    base = statistics.median(seconds["MAML"][1:])  # the first round warms up
    print("| | in meta-gradients of MAML | lowest to highest |\n| --- | ---: | --- |")
    for name, values in seconds.items():
        ratios = sorted(value / base for value in values[1:])
        print(f"| {name} | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")


if __name__ == "__main__":
    main()
