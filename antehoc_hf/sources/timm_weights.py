"""Weights of a timm architecture, whatever stands before their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch

from antehoc_hf.modeling.configuration_antehoc import backbone_defaults, check_backbone_kwargs
from antehoc_hf.sources.classifier import FinishedClassifier, Preprocessing
from antehoc_hf.sources.preprocessing import of_timm
from antehoc_hf.sources.weights import classes_of, without_prefix


def of_weights(
    weights: Mapping[str, torch.Tensor],
    backbone: str,
    backbone_kwargs: dict[str, Any] | None,
    origin: str,
    cfg: Mapping[str, Any] | None = None,
    names: list[str] | None = None,
) -> FinishedClassifier:
    """
    Weights of a timm network of this name.

    Args:
        weights: as saved, with any prefix.
        backbone (`str`): timm's architecture.
        backbone_kwargs (`dict`, *optional*): its options.
        origin (`str`): for messages.
        cfg (`dict`, *optional*): timm's `pretrained_cfg` of these weights; None: nothing is known of their images.
        names (`list[str]`, *optional*): of the classes.

    Raises:
        ValueError: if timm does not know the architecture, or the weights hold no classifier of it.
    """
    backbone_defaults(backbone)  # for its error
    check_backbone_kwargs(backbone_kwargs)  # before timm sees options that may come from a stranger's file
    registered = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    classifier = (cfg or {}).get("classifier") or (registered.classifier if registered is not None else None)
    try:
        with torch.device("meta"):
            expected = timm.create_model(backbone, **(backbone_kwargs or {})).state_dict()
    except Exception as error:  # timm's own reasons
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"timm cannot build {backbone!r} with backbone_kwargs={backbone_kwargs}: {reason}") from error
    fitting = without_prefix(weights, expected)
    count = classes_of(fitting, classifier)
    if count is None:
        raise ValueError(
            f"The weights of {origin} hold no classifier {classifier!r} of {backbone!r}: a network without one "
            "predicts nothing that could be explained. Was it trained in another architecture?"
        )
    return FinishedClassifier(
        backbone=backbone,
        backbone_kwargs=backbone_kwargs,
        weights=fitting,
        num_labels=count,
        names=names,
        preprocessing=of_timm(cfg) if cfg else Preprocessing(),
        origin=origin,
    )
