"""
The path of training
====================

The plane that holds most of the variance of the checkpoints (the share is told), the loss over it,
and the path. A checkpoint does not lie in the plane: its marker grows with the distance, and its
loss is its own, computed where it is.
"""

from small_network import spirals, trained

import landscape

model, path = trained(steps=300, keep=20)
objective = landscape.DataObjective(model, spirals(), loss="cross_entropy")
plane = landscape.pca_plane(objective, [theta for _, theta in path])
first, second = plane.settings["variance"]
print(f"the plane holds {first + second:.0%} of the variance")
surface = landscape.evaluate(objective, plane, span=1.3, points=25, label="two spirals")
trajectory = landscape.follow(objective, path, plane, label="Adam")
interactive = landscape.plot.trajectory(surface, trajectory)

# %%
# For a paper:
printed = landscape.plot.trajectory(surface, trajectory, backend="matplotlib")

# %%
# How much of it the plane shows: the loss of the checkpoints against that of their feet in the
# plane, and their distance off it.
along = landscape.plot.along_path(trajectory, backend="matplotlib")
