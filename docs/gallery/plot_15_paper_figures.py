"""
Figures as papers have them
===========================

One call for each kind of figure that is published, at the width of a column, with a caption that
states every setting. ``figures.save(figure, "figure.pdf")`` writes vector graphics and the caption
beside them.
"""

from small_network import spirals, trained

import landscape
from landscape import figures

surfaces, lines = [], []
for label, decay in {"no weight decay": 0.0, "weight decay 0.01": 0.01}.items():
    objective = landscape.DataObjective(trained(weight_decay=decay), spirals())
    for axes, found in ((2, surfaces), (1, lines)):
        plane = landscape.random_plane(objective, seed=0, axes=axes)
        found.append(landscape.evaluate(objective, plane, points=31, label=label))
contours = figures.li2018_figure5(surfaces)
text = figures.caption(contours)
print(*text.split("\n\n")[:2], sep="\n")  # the rest are the settings, one a line

# %%
# Loss and accuracy along a line:
along_a_line = figures.li2018_figure2(lines)
