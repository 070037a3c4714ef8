"""Loss surfaces, Hessian spectra and sharpness of any objective over a parameter vector.

    objective = landscape.DataObjective(model, (x, y), loss="cross_entropy")
    plane = landscape.random_plane(objective, normalize="filter", seed=0)
    surface = landscape.evaluate(objective, plane, points=51)
    landscape.plot.surface3d(surface).show()
    landscape.eigenpairs(objective, k=3).values
    print(landscape.sharpness(objective).table())

Names are loaded when they are first used: a saved surface can be drawn without importing torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={"plot", "report", "sharpness"},
    submod_attrs={
        "directions": ["Plane", "interpolation", "random_plane"],
        "hessian": ["HessianOperator"],
        "data_objective": ["DataObjective"],
        "objective": ["FunctionObjective", "Objective"],
        "space": ["ParameterSpace"],
        "spectrum": ["ConvergenceWarning", "Eigenpairs", "Trace", "eigenpairs", "trace"],
        "store": ["load", "save"],
        "resume": ["merge"],
        "surface": ["evaluate"],
    },
)

if TYPE_CHECKING:
    from landscape import plot, report, sharpness
    from landscape.data_objective import DataObjective
    from landscape.directions import Plane, interpolation, random_plane
    from landscape.hessian import HessianOperator
    from landscape.objective import FunctionObjective, Objective
    from landscape.resume import merge
    from landscape.space import ParameterSpace
    from landscape.spectrum import ConvergenceWarning, Eigenpairs, Trace, eigenpairs, trace
    from landscape.store import load, save
    from landscape.surface import evaluate

__version__ = "0.1.0"
