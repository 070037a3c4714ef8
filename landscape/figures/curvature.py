"""Figures of spectra, as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.figure import Figure

from landscape import plot
from landscape.figures.saving import described
from landscape.plot.readings import labelled


def hessian_density(
    densities: xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset],
    *,
    log: bool | None = None,
) -> Figure:
    """Spectral densities of Hessians on a logarithmic scale, several on one.

    The figure of Yao, Gholami, Keutzer & Mahoney 2020, "PyHessian: Neural Networks Through the Lens of
    the Hessian" (the eigenvalue density of networks with and without batch norm and residuals). Unlike
    theirs it says what one eigenvalue is worth (dotted), has 95 % bands over the probes, and the share
    below each eigenvalue underneath.

    Args:
        densities: what ``landscape.density(...).to_dataset()`` gives, one, several or by label.
        log: eigenvalues on a signed logarithmic axis; None: where they range far.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing to draw, or a missing variable.
    """
    figure = plot.density(densities, "matplotlib", title="", log=log)
    words = (
        "Density of the Hessian's eigenvalues, each of them spread by a Gaussian; bands are 95 % intervals "
        "over probes, the dotted line is the height of a single eigenvalue. Below: share of all "
        "eigenvalues under each value"
    )
    return described(figure, words, labelled(densities, "density"))
