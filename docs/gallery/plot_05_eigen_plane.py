"""
Along the sharpest directions
=============================

A random plane misses the few directions in which the loss bends most. This one is spanned by the
two leading eigenvectors of the Hessian, in curvature units: one step along either axis raises the
quadratic model of the loss by 0.1. Where the loss is quadratic the contours are circles; what is
not round is what the Hessian does not see.
"""

from small_network import spirals, trained

import landscape

objective = landscape.DataObjective(trained(100), spirals(), loss="cross_entropy")
plane = landscape.eigen_plane(objective, rise=0.1, seed=0)
surface = landscape.evaluate(objective, plane, span=2, points=31, label="two spirals")
interactive = landscape.plot.contour(surface)

# %%
# For a paper:
printed = landscape.plot.contour(surface, backend="matplotlib")
