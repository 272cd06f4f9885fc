"""What a map learns from: objectives by name, their options, and the seam for further ones."""

from antehoc_hf.training.objectives.base import CardSentences, Objective
from antehoc_hf.training.objectives.coalitions import CoalitionObjective
from antehoc_hf.training.objectives.energy import EnergyObjective
from antehoc_hf.training.objectives.registry import OBJECTIVES
from antehoc_hf.training.objectives.step import FirstPassRecord, SecondPassResult, TrainingStep

__all__ = [
    "OBJECTIVES",
    "CardSentences",
    "CoalitionObjective",
    "EnergyObjective",
    "FirstPassRecord",
    "Objective",
    "SecondPassResult",
    "TrainingStep",
]
