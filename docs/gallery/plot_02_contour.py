"""
Contours of a surface
=====================

The same plane seen from above. Contours can be read off, a 3-D picture cannot: prefer them in
print. The cross marks the network itself.
"""

from small_network import spirals, trained

import landscape

objective = landscape.DataObjective(trained(), spirals(), loss="cross_entropy")
plane = landscape.random_plane(objective, normalize="filter", seed=0)
surface = landscape.evaluate(objective, plane, points=41, label="two spirals")
interactive = landscape.plot.contour(surface)

# %%
# For a paper:
printed = landscape.plot.contour(surface, backend="matplotlib")
