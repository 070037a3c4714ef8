"""
Two networks on one scale
=========================

Trained from the same weights, one with weight decay. Both surfaces use the same seed,
normalization, span and grid, and share one scale and one range of colours; surfaces that do not are
refused. Whether one *is* flatter is a question for :doc:`numbers with intervals
<plot_12_sharpness>`, not for the eye.
"""

from small_network import spirals, trained

import landscape

surfaces = []
for label, decay in {"no weight decay": 0.0, "weight decay 0.01": 0.01}.items():
    model = trained(weight_decay=decay)
    objective = landscape.DataObjective(model, spirals(), loss="cross_entropy")
    plane = landscape.random_plane(objective, seed=0)
    surfaces.append(landscape.evaluate(objective, plane, points=31, label=label))
interactive = landscape.plot.compare(surfaces, "surface3d", title="With and without weight decay")

# %%
# The same as contours, for a paper:
printed = landscape.plot.compare(surfaces, "contour", backend="matplotlib")
