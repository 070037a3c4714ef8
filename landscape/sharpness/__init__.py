"""Sharpness measures: one file per family, one table of all, one report."""

import sys
from types import ModuleType
from typing import Any

from landscape.sharpness.measurement import Measurement, NotApplicable
from landscape.sharpness.paired import difference, differences
from landscape.sharpness.point import Point
from landscape.sharpness.registry import ENTRIES, MEASURES, Entry, WithMeasures
from landscape.sharpness.report import SharpnessReport
from landscape.sharpness.running import sharpness
from landscape.sharpness.verdicts import Difference, Differences

__all__ = [
    "ENTRIES",
    "MEASURES",
    "Difference",
    "Differences",
    "Entry",
    "Measurement",
    "NotApplicable",
    "Point",
    "SharpnessReport",
    "WithMeasures",
    "difference",
    "differences",
    "sharpness",
]


class _CallableModule(ModuleType):
    # `landscape.sharpness` is this package as soon as anything imports a part of it, and a function
    # to its users: calling the package calls the function, so both readings work.
    def __call__(self, *args: Any, **kwargs: Any) -> SharpnessReport:
        return sharpness(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
