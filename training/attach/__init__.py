"""Gives a finished classifier its map: a linear regression on what coalitions of patches are worth, in minutes."""

from antehoc_hf.training.attach.fit import FitOptions, fit_map

__all__ = ["FitOptions", "fit_map"]
