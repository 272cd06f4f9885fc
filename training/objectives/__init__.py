"""What a map learns from: objectives by name, their options, and the seam for further ones."""

from antehoc_hf.training.objectives.base import (
    CardSentences,
    Objective,
)
from antehoc_hf.training.objectives.coalitions import CoalitionObjective, CoalitionOptions
from antehoc_hf.training.objectives.energy import EnergyObjective, EnergyOptions
from antehoc_hf.training.objectives.registry import OBJECTIVES, objective_for
from antehoc_hf.training.objectives.step import FirstPassRecord, SecondPassResult, TrainingStep

__all__ = [
    "OBJECTIVES",
    "CardSentences",
    "CoalitionObjective",
    "CoalitionOptions",
    "EnergyObjective",
    "EnergyOptions",
    "FirstPassRecord",
    "Objective",
    "SecondPassResult",
    "TrainingStep",
    "objective_for",
]
