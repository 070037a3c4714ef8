"""
The loss along a line, with its error
=====================================

One direction instead of two: cheap, and exact enough to show how well the loss is known. The band
is the 95 % interval of the mean over the examples: with 40 examples it is wide, with 400 narrow.
"""

from small_network import spirals, trained

import landscape

model, lines = trained(), []
for examples in (40, 400):
    objective = landscape.DataObjective(model, spirals(examples, seed=1), loss="cross_entropy")
    line = landscape.random_plane(objective, axes=1, seed=0)
    lines.append(landscape.evaluate(objective, line, points=51, label=f"{examples} examples"))
interactive = landscape.plot.line(lines, log=False)

# %%
# For a paper:
printed = landscape.plot.line(lines, backend="matplotlib", log=False)
