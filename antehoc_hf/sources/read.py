"""From a name, a folder, a file or a network to a [`FinishedClassifier`]."""

import json
from dataclasses import replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from antehoc_hf.commands.errors import in_a_sentence
from antehoc_hf.modeling.backbone import hub_in_one_try, reason_of
from antehoc_hf.modeling.configuration_antehoc import backbone_defaults, check_backbone_kwargs
from antehoc_hf.modeling.timm_model import check_inside, pretrained_labels
from antehoc_hf.sources.classifier import FinishedClassifier, Preprocessing
from antehoc_hf.sources.hub import fetched
from antehoc_hf.sources.module import as_mapping, as_names, imagenet_names, of_module
from antehoc_hf.sources.ours import KINDS, of_our_folder
from antehoc_hf.sources.preprocessing import of_timm, of_transformers
from antehoc_hf.sources.timm_weights import of_weights
from antehoc_hf.sources.weights import SUFFIXES, read_weights

Source = str | PathLike[str] | nn.Module
_PROCESSOR = "preprocessor_config.json"
_NAMES_OTHER_FILES = (
    *("transformers_weights", "quantization_config", "use_pretrained_backbone", "use_timm_backbone", "backbone"),
)


def read_classifier(
    source: Source,
    *,
    backbone: str | None = None,
    backbone_kwargs: dict[str, Any] | None = None,
    token: str | None = None,
) -> FinishedClassifier:
    """A finished classifier, wherever it is.

    Args:
        source: a network in memory (timm's, torchvision's, or an image classifier of transformers); the folder or Hub
            name of a checkpoint in timm's or transformers' format (`"timm/resnet50.a1_in1k"`, `"hf-hub:org/name"`); a
            timm name, whose pretrained weights are meant; or a file of weights.
        backbone (`str`, *optional*): for a file of weights: the architecture of timm, or `"torchvision:resnet50"`.
        backbone_kwargs (`dict`, *optional*): options that timm's network was made with.
        token (`str`, *optional*): for a private repository on the Hub.

    Returns:
        `FinishedClassifier`: its `model()` is the ante-hoc model around it.

    Raises:
        ValueError: if it is not such a classifier, in one sentence.
        OSError: if it cannot be read or fetched.
    """
    if isinstance(source, nn.Module):
        return of_module(source, backbone, backbone_kwargs)
    if not isinstance(source, str | Path) or not str(source):
        raise ValueError(f"A network, a name, a folder or a file of weights is needed, not {str(source)[:60]!r}.")
    name, path = str(source), Path(source)
    if path.is_dir():
        with in_a_sentence(f"{name} cannot be read, its files are damaged or of no kind that is known"):
            return _of_folder(path, name, backbone_kwargs)
    if path.is_file() or path.suffix in SUFFIXES:
        return _of_file(path, backbone, backbone_kwargs)
    timm_name = name.removeprefix("timm/")
    if "/" not in timm_name and timm.is_model(timm_name.split(".", 1)[0]):
        return _of_timm(timm_name, backbone_kwargs)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "/" not in name:
        near = get_close_matches(timm_name.split(".", 1)[0], timm.list_models(), n=3, cutoff=0.6)
        hint = f" Did you mean {', '.join(near)}?" if near and "/" not in name else ""
        raise ValueError(f"There is no folder or file {name!r}, and timm has no architecture of that name.{hint}")
    repository = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if repository.startswith("timm/"):  # named after architectures: a misspelt one need not be looked for
        backbone_defaults(repository.removeprefix("timm/"))
    return _of_folder(fetched(repository, token), name, backbone_kwargs)


def _of_timm(name: str, backbone_kwargs: dict[str, Any] | None) -> FinishedClassifier:
    """timm's pretrained weights of a tag."""
    backbone_defaults(name)  # for its error
    check_backbone_kwargs(backbone_kwargs)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise ValueError(f"timm has no pretrained weights for {name!r}: name a tag of timm.list_pretrained().")
    try:
        with torch.random.fork_rng(), hub_in_one_try():
            network = timm.create_model(name, pretrained=True, **(backbone_kwargs or {}))
    except Exception as error:  # huggingface_hub and httpx raise many kinds
        raise OSError(
            f"Could not load the pretrained weights of {name!r} ({reason_of(error)}). Without a network, "
            "download the file beforehand and give its path with backbone=…."
        ) from error
    if not getattr(network, "num_classes", 0):
        raise ValueError(f"The weights {name!r} have no classifier: they give features, and nothing to explain.")
    labels = pretrained_labels(name).get("id2label")
    return FinishedClassifier(
        backbone=name,
        backbone_kwargs=backbone_kwargs,
        weights=network.state_dict(),
        num_labels=int(getattr(network, "num_classes", 0)),
        names=list(labels.values()) if labels and len(labels) == network.num_classes else None,
        preprocessing=of_timm(cfg.to_dict()),
        origin=f"timm/{name}",
    )


def _of_file(path: Path, backbone: str | None, backbone_kwargs: dict[str, Any] | None) -> FinishedClassifier:
    """Weights alone: the architecture is given, the number of classes is read from them."""
    weights = read_weights(path)
    if backbone is None:
        raise ValueError(
            f"{path} holds weights alone: say which network they are of, backbone='resnet50' for timm's, or "
            "'torchvision:resnet50'."
        )
    return of_weights(weights, backbone, backbone_kwargs, origin=path.name)


def _of_folder(folder: Path, origin: str, backbone_kwargs: dict[str, Any] | None) -> FinishedClassifier:
    """A checkpoint in timm's format, in that of TimmWrapper, or in transformers'."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{origin} holds no config.json, which says what network it is: give the file of weights itself."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json in {origin} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"config.json in {origin} describes no network.")
    if "map_head" in config:
        raise ValueError(
            f"{origin} explains itself already: use it as it is, or let its map learn on (antehoc train "
            "--model_name_or_path … --train_task false)."
        )
    _refuse_what_is_elsewhere(folder, origin)
    if config.get("model_type") in KINDS:
        return of_our_folder(folder, config["model_type"], origin)
    if "architecture" in config:
        return _of_timm_folder(folder, config, origin, backbone_kwargs)
    return _of_transformers_folder(folder, config, origin)


def _refuse_what_is_elsewhere(folder: Path, origin: str) -> None:
    """Raises a ValueError if the weights are pickled, are an adapter to another model's, or lie outside the folder."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{origin} holds an adapter to another model: merge the two, and save the whole network.")
    for index in folder.glob("*.safetensors.index.json"):
        names = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        outside = [name for name in names if Path(str(name)).name != name or not (folder / str(name)).is_file()]
        if outside:
            raise ValueError(f"{index.name} in {origin} names a file that is not in the folder: {outside[0]!r}.")
    check_inside(folder)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt", ".ckpt"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{origin} holds pickled weights alone ({pickles[0]}), which may hide code: give that file itself and its "
            "backbone, or save the network as safetensors."
        )


def _of_timm_folder(
    folder: Path, config: dict[str, Any], origin: str, backbone_kwargs: dict[str, Any] | None
) -> FinishedClassifier:
    cfg = as_mapping(config.get("pretrained_cfg"))
    names = as_names(config.get("label_names") or cfg.get("label_names"))
    if not names and isinstance(config.get("id2label"), dict):
        names = [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    files = sorted(folder.glob("model.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{origin} holds no weights (model.safetensors).")
    weights = {name: value for path in files for name, value in read_weights(path).items()}
    options = backbone_kwargs or config.get("model_args") or None
    found = of_weights(weights, str(config["architecture"]), options, origin, cfg, names)
    if not names:
        return replace(found, names=imagenet_names(cfg, found.num_labels))
    if len(names) != found.num_labels:
        raise ValueError(
            f"config.json of {origin} names {len(names)} classes, but its weights have {found.num_labels}: give the "
            "names with id2label."
        )
    return found


def _of_transformers_folder(folder: Path, config: dict[str, Any], origin: str) -> FinishedClassifier:
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING or "auto_map" in config:
        asks = " and wants to run code of its own" if "auto_map" in config else ""
        raise ValueError(
            f"{origin} is of model type {kind!r}, which transformers does not know{asks}: load it yourself, with "
            "trust_remote_code=True if you trust it, and hand the network over."
        )
    if kind == "timm_wrapper":
        raise ValueError(f"config.json in {origin} does not say which architecture of timm it is ('architecture').")
    elsewhere = {name: config[name] for name in _NAMES_OTHER_FILES if config.get(name)}
    if elsewhere:
        raise ValueError(
            f"config.json in {origin} has {min(elsewhere)!r}, for which more would be read than its weights: load the "
            "network yourself, and hand it over."
        )
    attention = {"_attn_implementation", "attn_implementation"}  # may name code on the Hub
    known = {name: value for name, value in config.items() if name not in attention}
    try:
        network, report = AutoModelForImageClassification.from_pretrained(
            folder, config=AutoConfig.for_model(**known), use_safetensors=True, output_loading_info=True
        )
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{origin} is not an image classifier that transformers can load: {reason}") from error
    if report["missing_keys"]:
        raise ValueError(
            f"The weights of {origin} lack {len(report['missing_keys'])} tensors, such as "
            f"{sorted(report['missing_keys'])[0]}: it is not a finished classifier."
        )
    preprocessing = Preprocessing()
    if (folder / _PROCESSOR).is_file():
        values = json.loads((folder / _PROCESSOR).read_text(encoding="utf-8"))
        preprocessing = of_transformers(values, origin)
    return of_module(network.eval(), origin=origin, preprocessing=preprocessing)
