"""What the ante-hoc models return."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class AnteHocOutput(ModelOutput):
    """
    The map and what it was made from; every model's output holds these.

    Args:
        interpretation_map (`Tensor`): (B, 1, H, W), float32 in [0, 1], at input size.
        degenerate (`Tensor`): (B,), bool; true where the map shows nothing (constant or not finite).
        soft_attention_maps (`Tensor`, *optional*): (B, η, H, W), float32, each of sum 1.
        weight_maps (`Tensor`, *optional*): (B, η, H, W), float32, summing to 1 over η.
        weight_logits (`Tensor`, *optional*): (B, η, h, w), the weight network's output, on its own grid.
    """

    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None


# The task's own values come first, as transformers has it: as a tuple, an output begins with the loss. Fields of a
# base class would stand before them, hence no inheritance.
@dataclass
class AnteHocModelOutput(ModelOutput):
    """
    Output of [`AnteHocModel`].

    Args:
        last_hidden_state (`Tensor`): the backbone's features, (B, C, h, w) for most.
        pooler_output (`Tensor`): pooled features, (B, C).
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits: as in [`AnteHocOutput`].
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None


@dataclass
class AnteHocImageClassifierOutput(ModelOutput):
    """
    Output of [`AnteHocForImageClassification`].

    Args:
        loss (`Tensor`, *optional*): the task's loss, a scalar, if labels were given.
        logits (`Tensor`): (B, num_labels).
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits: as in [`AnteHocOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None


def as_object(return_dict: bool | None, config: Any) -> bool:
    """Whether a forward pass gives an output object and no tuple: as asked for, or else as configured."""
    return bool(config.return_dict if return_dict is None else return_dict)
