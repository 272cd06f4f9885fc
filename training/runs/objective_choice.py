"""Which of the two objectives a run's map learns, `--interpretation_objective`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from antehoc_hf.commands.errors import UsageError

Objective = Literal["energy", "contributions"]

# Options that mean something to energy maps alone: to give one is to choose them.
ENERGY_OPTIONS = (
    *("weight_network", "weight_network_input", "weight_network_depth", "weight_network_width"),
    *("weight_network_stride", "weight_network_skip", "map_scaling", "mask_space"),
    *("channel_reduction", "attention_softmax", "attention_resize", "attention_scaling"),
    *("interpretation_target", "joint_weight", "interpretation_batch_norm", "target_eval"),
    *("reconstruction_weight", "area_weight", "tv_weight", "entropy_weight"),
)


def chosen_objective(asked: Objective | None, given: Mapping[str, Any]) -> Objective | None:
    """
    What the options of a run ask for.

    Args:
        asked (`str`, *optional*): `--interpretation_objective`.
        given: all options of the recipe and the flags.

    Returns:
        `str`, *optional*: None if they leave it open: then the task and its data decide.

    Raises:
        UsageError: if they contradict each other.
    """
    named = given.get("weight_network")
    if named == "contributions":
        if asked == "energy":
            raise UsageError(
                "interpretation_objective='energy' is learned by weight_network autoencoder or scalar, not by "
                "contributions: leave one of the two out."
            )
        return "contributions"
    of_energy = [name for name in ENERGY_OPTIONS if name in given]
    if asked == "contributions" and named is not None:
        raise UsageError(
            f"interpretation_objective='contributions' has a weight network of its own, not {named!r}: leave one of "
            "the two out."
        )
    return asked or ("energy" if of_energy else None)


def weight_network_for(objective: Objective, named: str) -> str:
    """`AnteHocConfig.weight_network` for an objective, where the options name (or leave) this one."""
    return "contributions" if objective == "contributions" else named
