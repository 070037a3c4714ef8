"""
Sharpness, measured and compared
================================

Every measure with its error and its cost; then the difference of two networks, paired over the same
examples and random draws: *flatter*, *sharper* or *cannot tell* is the sign of a 95 % interval. The
figure shows which radius asks what the Hessian answers (at 1), and which asks something else.
"""

from small_network import spirals, trained

import landscape
from landscape.sharpness.consistency import consistency

measures = ["lambda_max", "trace", "average", "average_adaptive", "worst_l2"]
settings = {"lambda_max": {"k": 1}, "worst_l2": {"m": None}}
reports = {}
for label, decay in {"no decay": 0.0, "decay 0.01": 0.01}.items():
    model = trained(weight_decay=decay)
    objective = landscape.DataObjective(model, spirals(200), loss="cross_entropy")
    reports[label] = landscape.sharpness(objective, measures, seed=0, settings=settings)
print(reports["no decay"].table())

# %%
# Which is flatter? Here the network without weight decay, and that is a warning: it is so sure of
# its answers that the loss and all its derivatives vanish. A flat minimum is a description, not a
# forecast.
print(landscape.sharpness.differences(*reports.values(), *reports).table())

# %%
# Which radius?
ladders = {label: consistency(report) for label, report in reports.items()}
interactive = landscape.plot.consistency(ladders)

# %%
# For a paper:
printed = landscape.plot.consistency(ladders, backend="matplotlib")
