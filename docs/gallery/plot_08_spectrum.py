"""
The largest eigenvalues of the Hessian
======================================

Each with the residual that proves it: an eigenvalue of the Hessian on these data lies within it.
Early in training a few eigenvalues stand out; how many depends on the classes and on the data.
"""

from small_network import spirals, trained

import landscape

found = {}
for steps in (50, 300):
    objective = landscape.DataObjective(trained(steps), spirals(), loss="cross_entropy")
    pairs = landscape.eigenpairs(objective, k=8, seed=0)
    found[f"after {steps} steps"] = (pairs.values.numpy(), pairs.residuals.numpy())
interactive = landscape.plot.spectrum(found)

# %%
# For a paper:
printed = landscape.plot.spectrum(found, backend="matplotlib")
