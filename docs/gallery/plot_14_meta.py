"""
Before and after adaptation
===========================

The loss of a meta-learned initialization, over one plane and with the same tasks at every point:
without adaptation, and after three steps on each task. The second is the function that MAML
minimizes; nothing is low in the first.
"""

import tempfile

import landscape
import sharpmaml

settings = sharpmaml.presets.preset("finn-sinusoid")
settings |= {"inner_rate": 0.03, "inner_steps": 3, "iterations": 250, "meta_batch": 4}
with tempfile.TemporaryDirectory() as folder:
    run = sharpmaml.train(sharpmaml.TrainConfig(**settings), folder)
    after = sharpmaml.meta_objective(run.path, episodes=8, seed=0)
surfaces = []
for label, objective in {"before adaptation": after.before(), "after adaptation": after}.items():
    plane = landscape.random_plane(objective, seed=0)
    surface = landscape.evaluate(objective, plane, span=0.7, points=13, label=label)
    surfaces.append(surface)
interactive = landscape.plot.compare(
    surfaces, "surface3d", title="Loss before and after adaptation"
)

# %%
# For a paper:
printed = landscape.plot.compare(surfaces, "contour", backend="matplotlib")
