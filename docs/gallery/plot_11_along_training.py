"""
Eigenvalues along training
==========================

The largest eigenvalues of the Hessian and the smallest one at a dozen checkpoints of one run. Each
search starts from the eigenvectors of the checkpoint before it.
"""

from small_network import spirals, trained

import landscape

model, path = trained(steps=300, keep=25)
objective = landscape.DataObjective(model, spirals(), loss="cross_entropy")
eigenvalues = landscape.along_training(path, k=3, objective=objective, label="two spirals")
interactive = landscape.plot.along_training(eigenvalues)

# %%
# For a paper:
printed = landscape.plot.along_training(eigenvalues, backend="matplotlib")
