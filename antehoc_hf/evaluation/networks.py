"""What can be known of a network, whatever it is wrapped in."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

_PASSING_ON = ("torch.nn.parallel", "torch.optim.swa_utils", "timm.utils.model_ema")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel`, `DistributedDataParallel` or an average of weights."""
    while True:
        parts = dict(model.named_children())
        if "_orig_mod" in parts:
            model = parts["_orig_mod"]
        elif set(parts) == {"module"} and type(model).__module__.startswith(_PASSING_ON):
            model = parts["module"]
        else:
            return model


def is_ante_hoc(model: nn.Module) -> bool:
    """Whether it is one of ours, with a map of its own."""
    return hasattr(model, "map_head") and hasattr(model, "backbone")


def body_of(model: nn.Module) -> nn.Module:
    """The network itself: the backbone of one of ours, timm's own inside transformers' wrapper."""
    inner = model.backbone if is_ante_hoc(model) else getattr(model, "timm_model", model)
    assert isinstance(inner, nn.Module)
    return unwrapped(inner)


def normalisation_of(model: nn.Module) -> tuple[Sequence[float], Sequence[float]] | None:
    """
    Mean and standard deviation of the colours (pixels in [0, 1]), three numbers each, as far as the model's
    configuration or timm's says them; None where neither does: it must be asked for and not guessed.
    """
    model = unwrapped(model)
    config = getattr(model, "config", None)
    timm_says = getattr(body_of(model), "pretrained_cfg", None) or {}
    mean = getattr(config, "image_mean", None) or timm_says.get("mean")
    std = getattr(config, "image_std", None) or timm_says.get("std")
    return None if mean is None or std is None else (mean, std)
