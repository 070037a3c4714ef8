"""What a comparison page is made of: solutions, and everything that was measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from landscape.compared_spectra import Spectrum


@dataclass(frozen=True)
class Subject:
    """One solution to be compared with others.

    Attributes:
        label: its name on figures and in tables; takes the place of the Datasets' own label.
        surfaces: group (such as ``"test episodes"``) -> surface over a plane.
        lines: group -> surface along a line.
        settings: how the solution was made; shown on the page.
        spectra: group -> largest eigenvalues, and the density of the spectrum where it was asked for.
    """

    label: str
    surfaces: Mapping[str, xr.Dataset] = field(default_factory=dict)
    lines: Mapping[str, xr.Dataset] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    spectra: Mapping[str, Spectrum] = field(default_factory=dict)


def groups(subjects: Sequence[Subject]) -> list[str]:
    """All groups, in the order in which they first appear."""
    kinds = ("surfaces", "lines", "spectra")
    return list(dict.fromkeys(g for s in subjects for kind in kinds for g in getattr(s, kind)))


def labelled(subjects: Sequence[Subject], group: str, kind: str) -> list[xr.Dataset]:
    """The ``surfaces`` or ``lines`` of a group under the subjects' labels; who has none is left out."""
    return [
        getattr(s, kind)[group].assign_attrs(label=s.label)
        for s in subjects
        if group in getattr(s, kind)
    ]
