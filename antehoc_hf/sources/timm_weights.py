"""Weights of a known architecture, whatever stands before their names."""

from collections.abc import Mapping
from typing import Any

import timm
import torch

from antehoc_hf.modeling.configuration_antehoc import backbone_defaults, check_backbone_kwargs
from antehoc_hf.modeling.other_network import build_other_network, check_other_network, is_other_network
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
    """Weights of a network of this name.

    Args:
        weights: as saved, with any prefix.
        backbone (`str`): timm's architecture, or one of torchvision (`"torchvision:resnet50"`).
        backbone_kwargs (`dict`, *optional*): its options.
        origin (`str`): for messages.
        cfg (`dict`, *optional*): timm's `pretrained_cfg` of these weights; None: nothing is known of their images.
        names (`list[str]`, *optional*): of the classes.

    Raises:
        ValueError: if the architecture is not known, or the weights hold no classifier of it.
    """
    backbone_defaults(backbone)  # for its error
    check_backbone_kwargs(backbone_kwargs)  # before timm sees options that may come from a stranger's file
    other, options = is_other_network(backbone), backbone_kwargs or {}
    if other:
        check_other_network(backbone, backbone_kwargs)
    try:
        with torch.device("meta"):
            made: Any = build_other_network(backbone, 2, options) if other else timm.create_model(backbone, **options)
    except Exception as error:  # timm's own reasons
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"timm cannot build {backbone!r} with backbone_kwargs={backbone_kwargs}: {reason}") from error
    prefix = "network." if other else ""
    fitting = without_prefix(weights, {name.removeprefix(prefix) for name in made.state_dict()})
    registered = None if other else timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    classifier = made.classifier_name if other else (cfg or {}).get("classifier")
    classifier = classifier or (registered.classifier if registered is not None else None)
    count = classes_of(fitting, classifier)
    if count is None:
        raise ValueError(
            f"The weights of {origin} hold no classifier {classifier!r} of {backbone!r}: a network without one "
            "predicts nothing that could be explained. Was it trained in another architecture?"
        )
    return FinishedClassifier(
        backbone=backbone,
        backbone_kwargs=backbone_kwargs,
        weights={prefix + name: value for name, value in fitting.items()},
        num_labels=count,
        names=names,
        preprocessing=of_timm(cfg) if cfg else Preprocessing(),
        origin=origin,
    )
