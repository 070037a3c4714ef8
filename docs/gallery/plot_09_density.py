"""
The whole spectrum
==================

The density of all eigenvalues by stochastic Lanczos quadrature, the largest ones found one by one
and drawn as spikes. A density below the dotted line holds less than one eigenvalue. The part left
of zero is negative curvature: this is no minimum yet.
"""

from small_network import spirals, trained

import landscape

objective = landscape.DataObjective(trained(), spirals(), loss="cross_entropy")
hessian = landscape.operator_of(objective)
pairs = landscape.eigenpairs(hessian, k=5, seed=0)
density = landscape.density(hessian, pairs=pairs, probes=8, seed=0)
mass = landscape.functional(density, "negative_mass")
print(
    f"negative mass {mass.value:.3f}, 95 % interval {mass.interval[0]:.3f} to {mass.interval[1]:.3f}"
)
interactive = landscape.plot.density({"two spirals": density.to_dataset()})

# %%
# For a paper:
printed = landscape.plot.density({"two spirals": density.to_dataset()}, backend="matplotlib")
