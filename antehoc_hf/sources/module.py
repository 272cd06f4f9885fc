"""A network in memory: which library it is of, and how to build it again."""

import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.sources.classifier import FinishedClassifier, Preprocessing
from antehoc_hf.sources.ours import of_our_module
from antehoc_hf.sources.preprocessing import of_timm, of_transformers
from antehoc_hf.sources.timm_weights import of_weights
from antehoc_hf.sources.weights import without_prefix

_WRAPPERS = ("module", "_orig_mod")


def of_module(
    network: nn.Module,
    backbone: str | None = None,
    backbone_kwargs: dict[str, Any] | None = None,
    origin: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> FinishedClassifier:
    """A network of timm, torchvision or transformers, or one that has the weights of a timm architecture.

    Args:
        network (`nn.Module`): left as it is; wrappers (`DataParallel`, `torch.compile`) are looked into.
        backbone (`str`, *optional*): timm's architecture, where the network's class does not say.
        backbone_kwargs (`dict`, *optional*): options that timm's network was made with.
        origin (`str`, *optional*): for messages.
        preprocessing (`Preprocessing`, *optional*): what is known of its images.

    Raises:
        ValueError: if it cannot be built again from a configuration.
    """
    network = without_wrappers(network)
    origin = origin or type(network).__name__
    if isinstance(network, TimmPreTrainedModel):
        return of_our_module(network, origin, preprocessing)
    library = type(network).__module__.split(".", 1)[0]
    if library == "transformers" and hasattr(network, "timm_model"):  # TimmWrapper
        return of_timm_module(network, network.timm_model, backbone, backbone_kwargs, origin, preprocessing)
    if library == "transformers":
        return _of_transformers_module(network, origin, preprocessing)
    if backbone is not None or hasattr(network, "pretrained_cfg"):
        return of_timm_module(network, network, backbone, backbone_kwargs, origin, preprocessing)
    if library == "torchvision":
        return _of_torchvision_module(network, origin, preprocessing)
    raise ValueError(
        f"{type(network).__name__} is not a network of timm, torchvision or transformers, so a model around it "
        "could not be loaded again. If its weights are those of a timm architecture, name it: backbone='resnet50'."
    )


def without_wrappers(network: nn.Module) -> nn.Module:
    """The network within `DataParallel`, `DistributedDataParallel` and `torch.compile`."""
    while (
        any(isinstance(getattr(network, name, None), nn.Module) for name in _WRAPPERS)
        and len(list(network.children())) == 1
    ):
        network = next(iter(network.children()))
    return network


def of_timm_module(
    network: nn.Module,
    inner: Any,
    backbone: str | None,
    backbone_kwargs: dict[str, Any] | None,
    origin: str,
    preprocessing: Preprocessing | None,
) -> FinishedClassifier:
    """A network of timm, or one whose weights have the names of one."""
    cfg = as_mapping(getattr(inner, "pretrained_cfg", None))
    cfg |= as_mapping(getattr(getattr(network, "config", None), "pretrained_cfg", None))  # a TimmWrapper's own
    name = backbone or cfg.get("architecture")
    if not name:
        raise ValueError(f"{origin} does not say which architecture of timm it is: name it with backbone=….")
    if not isinstance(name, str):
        raise ValueError(f"The architecture of timm must be a name, not {name!r}: give it with backbone=….")
    tagged = f"{name}.{cfg['tag']}" if backbone is None and cfg.get("tag") else name
    own_cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = cfg.get("classifier") or (own_cfg.classifier if own_cfg is not None else None)
    found = of_weights(_state(inner), tagged if timm.is_model_pretrained(tagged) else name, backbone_kwargs, origin)
    labels = _names(getattr(getattr(network, "config", None), "id2label", None))
    return FinishedClassifier(
        backbone=found.backbone,
        backbone_kwargs=backbone_kwargs,
        weights=found.weights,
        num_labels=found.num_labels,
        names=labels or as_names(cfg.get("label_names")) or imagenet_names(cfg, found.num_labels),
        preprocessing=preprocessing or (of_timm(cfg) if cfg and classifier else Preprocessing()),
        origin=origin,
        network=network,
    )


def _of_transformers_module(network: Any, origin: str, preprocessing: Preprocessing | None) -> FinishedClassifier:
    config = network.config
    if not type(network).__name__.endswith("ForImageClassification"):
        raise ValueError(f"{origin} is not an image classifier: transformers' …ForImageClassification is needed.")
    if preprocessing is None and getattr(config, "name_or_path", None):
        preprocessing = _preprocessing_of(config.name_or_path, origin)
    options = {name: value for name, value in config.to_diff_dict().items() if name not in _NOT_THE_NETWORKS}
    if getattr(config, "_attn_implementation", None) == "eager":  # it rounds otherwise than the default
        options["attn_implementation"] = "eager"
    size = getattr(config, "image_size", None)
    known = preprocessing or Preprocessing()
    if known.image_size is None and size is not None:
        known = known.completed(image_size=[size, size] if isinstance(size, int) else list(size))
    return FinishedClassifier(
        backbone=f"transformers:{config.model_type}",
        backbone_kwargs=options,
        weights={f"network.{name}": value for name, value in _state(network).items()},
        num_labels=config.num_labels,
        names=_names(config.id2label),
        preprocessing=known,
        origin=origin,
        problem_type=config.problem_type,
        network=network,
    )


# Of transformers' configuration what says nothing about the network.
_NOT_THE_NETWORKS = frozenset(
    (
        *("architectures", "id2label", "label2id", "num_labels", "dtype", "transformers_version", "_name_or_path"),
        *("problem_type", "model_type", "auto_map", "_attn_implementation_autoset", "_attn_implementation"),
        *("attn_implementation", "output_hidden_states", "output_attentions", "return_dict"),
    )
)


def _preprocessing_of(name: str, origin: str) -> Preprocessing | None:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name, local_files_only=True)
    except Exception:  # no such file, or none that transformers can read: then the user is asked
        return None
    return of_transformers(processor.to_dict(), origin)


def _of_torchvision_module(network: nn.Module, origin: str, preprocessing: Preprocessing | None) -> FinishedClassifier:
    """torchvision's networks do not know which function made them: the one that gives the same shapes is taken."""
    from torchvision.models import get_model_builder, list_models

    state = _state(network)
    shapes = {name: value.shape for name, value in state.items()}
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{origin} has no linear classifier, whose evidence the map is made of.")
    count = linear[-1].out_features
    home = type(network).__module__
    for name in list_models():
        builder = get_model_builder(name)
        if getattr(builder, "__module__", None) != home:
            continue
        try:
            with torch.device("meta"):
                candidate = builder(num_classes=count)
        except (TypeError, ValueError, RuntimeError):
            continue
        if {key: value.shape for key, value in candidate.state_dict().items()} == shapes:
            return FinishedClassifier(
                backbone=f"torchvision:{name}",
                weights={f"network.{key}": value for key, value in state.items()},
                num_labels=count,
                preprocessing=preprocessing or Preprocessing(),
                origin=origin,
                network=network,
            )
    raise ValueError(
        f"No function of torchvision makes a network with the layers of {origin}: it was changed after it was made, "
        "so a model around it could not be loaded again."
    )


def _state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's state, on the CPU and in full precision, without what wrappers put before the names."""
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    return without_prefix(state, [name.replace("_orig_mod.", "") for name in state])


def as_mapping(cfg: Any) -> dict[str, Any]:
    """A network's `pretrained_cfg`, empty where there is none; a ValueError if it is something else."""
    if not isinstance(cfg or {}, Mapping):
        raise ValueError(
            f"pretrained_cfg must be a dictionary as timm's, not {cfg!r}: correct it where the network is."
        )
    return dict(cfg or {})


def as_names(names: Any) -> list[str] | None:
    """The classes' names as timm has them, None where there are none; a ValueError if they are not a list."""
    if not isinstance(names or [], list | tuple):
        raise ValueError(
            f"label_names of timm's pretrained_cfg must be a list of names, not {names!r}: correct it where the "
            "network is."
        )
    return list(map(str, names or [])) or None


def _names(labels: Any) -> list[str] | None:
    """Names of classes, unless they are transformers' placeholders."""
    if not labels:
        return None
    names = [str(labels[index]) for index in sorted(labels, key=int)]
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def imagenet_names(cfg: dict[str, Any], count: int) -> list[str] | None:
    """Names of ImageNet's classes, if the tag of timm's weights (`a1_in1k`) says that they were trained on it."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    on_imagenet = re.search(r"in\d+k", str(cfg.get("tag") or ""))
    subset = infer_imagenet_subset(cfg) if on_imagenet else None
    if not subset or cfg.get("num_classes") != count:
        return None
    info = ImageNetInfo(subset)
    descriptions = info.label_descriptions(as_dict=True)
    return [descriptions[synset] for synset in info.label_names()]
