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
    submodules={"figures", "plot", "report", "sharpness", "topology"},
    submod_attrs={
        "barriers": ["Barrier", "barrier"],
        "connectivity": ["Connection", "connect"],
        "contrast": ["surface_difference"],
        "data_objective": ["DataObjective"],
        "directions": ["Plane", "interpolation", "random_plane"],
        "exchange": ["export"],
        "objective": ["FunctionObjective", "Objective"],
        "operators": ["operator_of"],
        "operators.gauss_newton": ["FisherOperator", "GGNOperator"],
        "operators.hessian": ["HessianOperator"],
        "operators.recording": ["Recording", "recording"],
        "operators.selftest": ["OperatorError"],
        "pca": ["pca_plane"],
        "projection": ["Projection", "project"],
        "planes": ["eigen_plane", "plane_through"],
        "quadratic": ["QuadraticModel", "quadratic_from_slopes", "quadratic_model"],
        "resume": ["merge"],
        "space": ["ParameterSpace"],
        "spectra.along_training": ["along_training"],
        "spectra.data_noise": ["HeldOut", "held_out"],
        "spectra.density": ["Density", "density"],
        "spectra.eigenpairs": ["ConvergenceWarning", "Eigenpairs", "eigenpairs"],
        "spectra.functionals": ["Estimate", "functional"],
        "spectra.layers": ["layer_eigenpairs"],
        "spectra.plane_map": ["curvature_map"],
        "spectra.stability": ["Stability", "stability"],
        "spectra.traces": ["Trace", "trace"],
        "store": ["load", "save"],
        "surface": ["evaluate"],
        "trajectory": ["follow"],
    },
)

if TYPE_CHECKING:
    from landscape import figures, plot, report, sharpness, topology
    from landscape.barriers import Barrier, barrier
    from landscape.connectivity import Connection, connect
    from landscape.contrast import surface_difference
    from landscape.data_objective import DataObjective
    from landscape.directions import Plane, interpolation, random_plane
    from landscape.exchange import export
    from landscape.objective import FunctionObjective, Objective
    from landscape.operators import operator_of
    from landscape.operators.gauss_newton import FisherOperator, GGNOperator
    from landscape.operators.hessian import HessianOperator
    from landscape.operators.recording import Recording, recording
    from landscape.operators.selftest import OperatorError
    from landscape.pca import pca_plane
    from landscape.planes import eigen_plane, plane_through
    from landscape.projection import Projection, project
    from landscape.quadratic import QuadraticModel, quadratic_from_slopes, quadratic_model
    from landscape.resume import merge
    from landscape.space import ParameterSpace
    from landscape.spectra.along_training import along_training
    from landscape.spectra.data_noise import HeldOut, held_out
    from landscape.spectra.density import Density, density
    from landscape.spectra.eigenpairs import ConvergenceWarning, Eigenpairs, eigenpairs
    from landscape.spectra.functionals import Estimate, functional
    from landscape.spectra.layers import layer_eigenpairs
    from landscape.spectra.plane_map import curvature_map
    from landscape.spectra.stability import Stability, stability
    from landscape.spectra.traces import Trace, trace
    from landscape.store import load, save
    from landscape.surface import evaluate
    from landscape.trajectory import follow

__version__ = "0.1.0"
