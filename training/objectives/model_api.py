"""The few places where objectives and trainer touch a model's map, until the models have these names themselves."""

from typing import Any

from torch import Tensor, nn


def map_head(model: Any) -> nn.Module:
    return model.weight_network


def has_map_head(model: Any) -> bool:
    return hasattr(model, "weight_network")


def objective_name(model: Any) -> str:
    return "coalitions" if getattr(model, "class_conditional", False) else "energy"


def tap_values(outputs: Any) -> Tensor:
    return outputs.soft_attention_maps if outputs.soft_attention_maps is not None else outputs.tap_features


def tap_argument(model: Any, values: Tensor) -> dict[str, Tensor]:
    return {"tap_features" if model.class_conditional else "soft_attention_maps": values}


def worth(model: Any, outputs: Any) -> Tensor:
    return model.class_probabilities(outputs.logits)


def grid(model: Any) -> int:
    return model.config.contribution_grid
