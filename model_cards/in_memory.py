"""What is known about the weights of a model that lies in no folder."""

import hashlib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

_NOTE = "_noted_results"


def note_results(model: nn.Module, results: Mapping[str, object]) -> None:
    """Lets a model remember what its training and evaluation found out; see [`noted_results`]."""
    setattr(model, _NOTE, (digest_of(model), dict(results)))


def noted_results(model: nn.Module) -> dict[str, object] | None:
    """What was noted last, as in results.json.

    Returns:
        `dict`, *optional*: without what was measured if the weights have changed since; None if nothing was noted.
    """
    noted = getattr(model, _NOTE, None)
    if noted is None:
        base = base_model_of(model)
        return {"training": {"base_model": base}} if base else None
    digest, results = noted
    if digest == digest_of(model):
        return dict(results)
    return {name: value for name, value in results.items() if name in ("data", "training")}


def base_model_of(model: Any) -> str | None:
    """The name on the Hub of the pretrained weights that a model of [`from_backbone`] started from, if any."""
    if getattr(model, "pretrained_source", False) is not True:
        return None
    cfg = timm.get_pretrained_cfg(model.config.backbone, allow_unregistered=True)
    return (cfg.hf_hub_id or None) if cfg is not None else None


def digest_of(model: nn.Module) -> str:
    """Of the bits of all weights and buffers, wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()
