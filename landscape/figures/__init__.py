"""Published kinds of figures, one call each: matplotlib figures in column widths, with captions.

    figure = landscape.figures.li2018_figure1(plain, residual)
    landscape.figures.save(figure, "figure1.pdf")

Every figure carries a caption with all settings of what it shows; `save` writes it as text beside the
figure, and `caption` gives it.
"""

from landscape.figures.curvature import hessian_density
from landscape.figures.minima import topology
from landscape.figures.relation import Run, kendall, sharpness_vs_generalization
from landscape.figures.saving import caption, described, save
from landscape.figures.surfaces import (
    li2018_figure1,
    li2018_figure2,
    li2018_figure5,
    sharp_maml_landscape,
)

__all__ = [
    "Run",
    "caption",
    "described",
    "hessian_density",
    "kendall",
    "li2018_figure1",
    "li2018_figure2",
    "li2018_figure5",
    "save",
    "sharp_maml_landscape",
    "sharpness_vs_generalization",
    "topology",
]
