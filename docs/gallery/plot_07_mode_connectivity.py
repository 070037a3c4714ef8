"""
Two solutions, and a way between them
=====================================

Networks trained from two different initial weights. On the straight line between them stands a
barrier; a curve that is trained to keep the loss low passes at a fraction of its height (Garipov et
al. 2018). A barrier on the straight line is no proof of two valleys.
"""

from small_network import spirals, trained
from torch.nn.utils import parameters_to_vector

import landscape

objective = landscape.DataObjective(trained(seed=0), spirals(), loss="cross_entropy")
other = parameters_to_vector(trained(seed=1).parameters()).detach()
found = landscape.connect(objective, objective.theta, other, iterations=300, seed=0)
print(
    f"barrier on the line {found.straight_barrier.height:.3f}, {found.barrier.height:.3f} on the curve"
)
lines = [found.straight.assign_attrs(label="line"), found.line.assign_attrs(label="curve")]
interactive = landscape.plot.line(lines, title="Loss between two solutions")

# %%
# The plane through both solutions and the bend of the curve, for a paper:
surface = landscape.evaluate(objective, found.plane, points=25, label="two solutions")
printed = landscape.plot.contour(surface, backend="matplotlib")
