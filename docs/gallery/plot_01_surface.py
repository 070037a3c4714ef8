"""
A loss surface in 3-D
=====================

The loss around a trained network, along two random directions that are scaled filter by filter (Li
et al. 2018). The network sits in the middle. Turn the surface, or point at it: every point has its
standard error.
"""

from small_network import spirals, trained

import landscape

objective = landscape.DataObjective(trained(), spirals(), loss="cross_entropy")
plane = landscape.random_plane(objective, normalize="filter", seed=0)
surface = landscape.evaluate(objective, plane, points=41, label="two spirals")
interactive = landscape.plot.surface3d(surface)

# %%
# The same for a paper: vector graphics at the width of a column,
# ``printed.savefig("surface.pdf")``.
printed = landscape.plot.surface3d(surface, backend="matplotlib")
