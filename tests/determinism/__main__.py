"""``python -m determinism FOLDER CONDITIONS NAMES...``: numbers of subjects, into ``FOLDER/rank0.pkl``."""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path

import torch

from determinism import functions, learning
from determinism.lab import SUBJECTS, Conditions, Numbers
from landscape.parallel import join, leave

__all__ = ["functions", "learning"]


def apply(given: Conditions) -> None:
    """Bring the conditions about in this process."""

    torch.set_num_threads(given.threads)
    if given.few:
        import landscape.executors.loop as loop
        import landscape.surface as surface
        import sharpmaml.evaluating.scorer as scorer
        import sharpmaml.evaluators as evaluators
        import sharpmaml.trainer.validation as validation

        surface._MAX_ROUND = 2
        loop._MAX_BLOCK = 2
        scorer._ACTIVATIONS = evaluators._ACTIVATIONS = 40_000
        validation._TOGETHER = 2


def main() -> None:
    """Compute, and leave the numbers."""
    folder, given = Path(sys.argv[1]), Conditions(**json.loads(sys.argv[2]))
    warnings.simplefilter("ignore")
    apply(given)
    team = join()
    found: dict[str, Numbers] = {}
    for name in sys.argv[3:]:
        place = folder / "".join(c if c.isalnum() else "-" for c in name)
        place.mkdir(exist_ok=True)
        try:
            found[name] = SUBJECTS[name].work(given, team, place)
        except Exception as error:  # the other subjects go on; this one is told
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    leave()
    (folder / f"rank{team.rank}.pkl").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
