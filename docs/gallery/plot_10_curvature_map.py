"""
Curvature over a plane
======================

A plane shows two directions out of many. The largest and the smallest eigenvalue at each of its
points see all of them: where their ratio is near 0 the loss is nearly convex, in every direction
and not only in the two that are drawn (Li et al. 2018, section 6).
"""

from small_network import spirals, trained

import landscape

objective = landscape.DataObjective(trained(), spirals(200), loss="cross_entropy")
plane = landscape.random_plane(objective, seed=0)
curvature = landscape.curvature_map(
    objective, plane, span=0.5, points=9, tol=0.05, label="two spirals"
)
interactive = landscape.plot.curvature_map(curvature)

# %%
# For a paper:
printed = landscape.plot.curvature_map(curvature, backend="matplotlib")
