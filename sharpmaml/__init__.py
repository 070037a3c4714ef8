"""Train few-shot learners with MAML and Sharp-MAML, and hand their meta objective to `landscape`.

    run = sharpmaml.train(sharpmaml.TrainConfig(method="sharp-both", iterations=500), "runs/both")
    objective = sharpmaml.meta_objective(run.path, episodes=64)

The parts are pure functions: `sharpmaml.adapt.adapt` (the inner loop), `sharpmaml.perturb` (the ascent),
`sharpmaml.meta.meta_gradient` (the meta objective and its gradient).
"""

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={
        "adapt",
        "checkpoint",
        "config",
        "curvature",
        "data",
        "evaluation",
        "meta",
        "models",
        "perturb",
        "presets",
        "spectra",
    },
    submod_attrs={
        "checkpoint": ["Checkpoint", "CheckpointError"],
        "config": ["TrainConfig"],
        "evaluation": ["Evaluation", "evaluate"],
        "objective": ["MetaObjective", "meta_objective"],
        "runs": ["load_run"],
        "training": ["DivergedError", "Run", "train"],
    },
)

if TYPE_CHECKING:
    from sharpmaml.checkpoint import Checkpoint, CheckpointError
    from sharpmaml.config import TrainConfig
    from sharpmaml.evaluation import Evaluation, evaluate
    from sharpmaml.objective import MetaObjective, meta_objective
    from sharpmaml.runs import load_run
    from sharpmaml.training import DivergedError, Run, train

__version__ = "0.1.0"
