"""Gives a finished classifier its map: a linear regression on what coalitions of patches are worth, in minutes."""

from antehoc_hf.training.attach.equations import NormalEquations
from antehoc_hf.training.attach.fit import FitOptions, FitReport, fit_map

__all__ = ["FitOptions", "FitReport", "NormalEquations", "fit_map"]
