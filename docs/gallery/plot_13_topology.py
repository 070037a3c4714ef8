"""
Minima that stand out of the noise
==================================

Which of the dents of a surface are minima? Each has a persistence, the height of the lowest pass to
a deeper one, and counts only where that exceeds its standard error enough times for all points of
the grid together. In the diagram they stand above the band.
"""

import torch

import landscape


def two_wells(theta):
    """Two minima, at (-1, 0) and (1, 0); the second is deeper."""
    x, y = theta
    return (x**2 - 1) ** 2 + y**2 - 0.3 * x + 0.05 * torch.sin(9 * x) * torch.sin(9 * y)


objective = landscape.FunctionObjective(two_wells, torch.zeros(2))
plane = landscape.Plane(torch.zeros(2), torch.eye(2))
surface = landscape.evaluate(objective, plane, span=1.6, points=65, label="two wells")
found = landscape.topology.analyze(surface)
print(f"{len(found.minima)} minima, {len(found.significant)} above the noise")
interactive = landscape.plot.topology(surface, found)

# %%
# For a paper:
printed = landscape.plot.topology(surface, found, backend="matplotlib")
