"""Objectives by name."""

from typing import Any

from torch import nn

from antehoc_hf.training.objectives.base import Objective, has_map
from antehoc_hf.training.objectives.coalitions import CoalitionObjective
from antehoc_hf.training.objectives.energy import EnergyObjective

OBJECTIVES: dict[str, type[Any]] = {kind.name: kind for kind in (CoalitionObjective, EnergyObjective)}
"""Name → class, with the dataclass of its options as `options_class`. An objective of your own may be added."""


def objective_for(model: nn.Module, objective: Objective | str | None = "auto") -> Objective | None:
    """The objective that is meant.

    Args:
        model: whose map learns.
        objective: itself, its name, `"auto"` for the one that the model's map names, or None for none.

    Returns:
        `Objective`, *optional*: None: the model is trained in one pass; so is a model without a map head, by default.

    Raises:
        ValueError: if there is no such objective, or the model has no map to teach.
    """
    if objective is None or (objective == "auto" and not has_map(model)):
        return None
    if not has_map(model):
        raise ValueError(
            f"{type(model).__name__} has no map head that an objective could teach: pass objective=None to train it "
            "in one pass, or leave objective out."
        )
    if not isinstance(objective, str):
        return objective
    name = model.config.map_head.objective if objective == "auto" else objective
    if name not in OBJECTIVES:
        raise ValueError(
            f"There is no objective {name!r}: choose one of {', '.join(map(repr, OBJECTIVES))}, or pass an object."
        )
    return OBJECTIVES[name]()  # type: ignore[no-any-return]
