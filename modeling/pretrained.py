"""Weights from elsewhere: timm's pretrained ones, and timm's initial ones where a checkpoint has none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .backbone import create_backbone
from .configuration_antehoc import AnteHocConfig


def load_pretrained_backbone(backbone: nn.Module, config: AnteHocConfig, num_outputs: int, source: bool | str) -> None:
    """
    Puts timm's pretrained weights into `backbone`. A classifier of another size keeps its initial weights.

    Args:
        backbone: the network of `config`.
        config: its configuration.
        num_outputs: size of its classifier.
        source: True for timm's weights from the Hub, or the path of a file of weights.

    Raises:
        OSError: if the weights cannot be had.
        ValueError: if they do not fit.
    """
    overrides: dict[str, Any] = {"pretrained": True}
    if isinstance(source, str):
        overrides["pretrained_cfg_overlay"] = {"file": source}
    try:
        # A build of its own, with timm's own care for other sizes of head, position embedding and input.
        with torch.random.fork_rng():
            loaded = create_backbone(config, num_outputs, **overrides)
    except ValueError as error:
        raise ValueError(f"The pretrained weights do not fit: {error}") from error
    except Exception as error:  # huggingface_hub and httpx raise many kinds
        where = source if isinstance(source, str) else f"the pretrained weights of {config.backbone!r}"
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"Could not load {where} ({type(error).__name__}: {reason}). Without a network, download the file "
            "beforehand and pass its path as pretrained=…, or use pretrained=False."
        ) from error
    backbone.load_state_dict(loaded.state_dict())


def pretrained_labels(backbone: str) -> dict[str, Any]:
    """`id2label` and `label2id` of the data set a timm tag was trained on; empty where timm does not know it."""
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset

    cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    subset = infer_imagenet_subset(cfg.to_dict()) if cfg is not None else None
    if not subset:
        return {"num_labels": cfg.num_classes} if cfg is not None and cfg.num_classes else {}
    info = ImageNetInfo(subset)
    descriptions = info.label_descriptions(as_dict=True)
    names = [descriptions[synset] for synset in info.label_names()]
    unique = len(set(names)) == len(names)
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)} if unique else None,
    }


def restore_missing(model: nn.Module, module: nn.Module, build: Callable[[], nn.Module]) -> None:
    """
    Fills the parameters and buffers of `module` that no checkpoint filled from a freshly built model.

    transformers builds on the meta device and leaves non-persistent buffers (blur kernels, position indices) and
    missing parameters without value; a generic initialisation would be wrong for many timm families.

    Args:
        model: the whole model.
        module: one of its modules.
        build: makes a fresh model of the same configuration on the CPU; called at most once a model.
    """
    own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    missing = {name: tensor for name, tensor in own.items() if not getattr(tensor, "_is_hf_initialized", False)}
    if not missing:
        return
    fresh = model.__dict__.get("_fresh_values")
    if fresh is None:
        with torch.random.fork_rng(), torch.device("cpu"):
            source = build()
        fresh = {**dict(source.named_parameters()), **dict(source.named_buffers())}
        prefixes = {id(child): name for name, child in model.named_modules()}
        model.__dict__["_fresh_values"], model.__dict__["_module_names"] = fresh, prefixes
    prefix = model.__dict__["_module_names"][id(module)]
    for name, tensor in missing.items():
        value = fresh[f"{prefix}.{name}" if prefix else name]
        with torch.no_grad():
            tensor.copy_(value.to(device=tensor.device, dtype=tensor.dtype))
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]
