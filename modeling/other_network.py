"""Networks that are not timm's, as backbones: image classifiers of transformers and torchvision behind timm's
interface.

A configuration names them with a prefix, `"transformers:vit"` or `"torchvision:resnet50"`; `backbone_kwargs` are then
the options of transformers' own configuration, or of torchvision's function.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

PREFIXES = ("transformers:", "torchvision:")


def is_other_network(backbone: Any) -> bool:
    """Whether a backbone's name is that of a network which is not timm's."""
    return isinstance(backbone, str) and backbone.startswith(PREFIXES)


def check_other_network(backbone: str, options: dict[str, Any] | None) -> None:
    """Raises a ValueError if transformers or torchvision has no such image classifier, or not with these options."""
    library, name = backbone.split(":", 1)
    try:
        if library == "transformers":
            _transformers_class(_transformers_config(name, options or {}, num_labels=2), backbone)
        else:
            _torchvision_builder(name)
    except ValueError:
        raise
    except Exception as error:  # strict configurations raise kinds of their own
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"transformers cannot make sense of backbone_kwargs for {backbone!r}: {reason}") from error


def build_other_network(backbone: str, num_outputs: int, options: dict[str, Any]) -> "OtherNetwork":
    """A network with its library's own initialisation.

    Args:
        backbone (`str`): its name with the library's prefix.
        num_outputs (`int`): size of its classifier.
        options (`dict`): `backbone_kwargs`.

    Raises:
        ValueError: if there is no such network, or it has no linear classifier.
    """
    library, name = backbone.split(":", 1)
    if library == "transformers":
        config = _transformers_config(name, options, num_labels=max(num_outputs, 1))
        return OtherNetwork(_transformers_class(config, backbone)(config))
    return OtherNetwork(_torchvision_builder(name)(num_classes=max(num_outputs, 1), **options))


def _transformers_config(model_type: str, options: dict[str, Any], num_labels: int) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no model type {model_type!r}, which backbone='transformers:…' names.")
    return AutoConfig.for_model(model_type, **{**options, "num_labels": num_labels})


def _transformers_class(config: Any, backbone: str) -> Any:
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(f"transformers has no image classifier of the type that backbone={backbone!r} names.")
    kind = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    return kind[0] if isinstance(kind, (tuple, list)) else kind


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    from torchvision.models import get_model_builder

    try:
        return get_model_builder(name)
    except ValueError:
        raise ValueError(f"torchvision has no network {name!r}, which backbone='torchvision:…' names.") from None


class OtherNetwork(nn.Module):
    """An image classifier behind the interface of timm's networks.

    Args:
        network (`nn.Module`): pixels (B, 3, H, W) → logits (B, K), or an output of transformers that has `logits`.

    Raises:
        ValueError: if it has no linear layer that could be its classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(f"{type(network).__name__} has no linear classifier, whose evidence the map is made of.")
        self.classifier_name = linear[-1]
        self.num_features: int = self.get_classifier().in_features
        self.pretrained_cfg: dict[str, Any] = {"classifier": f"network.{self.classifier_name}"}
        self.feature_info = [{"module": f"network.{name}", "num_chs": None} for name in _blocks(network, linear[-1])]

    def get_classifier(self) -> Any:
        """The last linear layer."""
        return self.network.get_submodule(self.classifier_name)

    def num_prefix_tokens_of(self, tokens: int, size: tuple[int, int]) -> int:
        """How many of a block's tokens are no positions of an image of this height and width."""
        patch = getattr(getattr(self.network, "config", None), "patch_size", None)
        if patch is None:
            return 0
        rows, columns = (patch, patch) if isinstance(patch, int) else tuple(patch)[-2:]
        return max(tokens - (size[0] // rows) * (size[1] // columns), 0)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits, (B, K)."""
        output = self.network(pixel_values)
        logits = getattr(output, "logits", output)
        return logits[0] if isinstance(logits, tuple) else logits

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """What the classifier reads, (B, C)."""
        read: list[Tensor] = []
        classifier = self.get_classifier()
        handle = classifier.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        try:
            self(pixel_values)
        finally:
            handle.remove()
        return read[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Of what [`forward_features`] gives: the same, or its logits."""
        return features if pre_logits else self.get_classifier()(features)


def _blocks(network: nn.Module, classifier: str) -> list[str]:
    """Names of the whole blocks, in order: the entries of that list of modules which holds most of the parameters and
    is not the classifier.
    """
    lists = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in network.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1 and not classifier.startswith(name)
    }
    if not lists:
        return []
    largest = max(lists, key=lambda name: lists[name])
    of_largest = network.get_submodule(largest)
    return [f"{largest}.{name}" for name, _ in of_largest.named_children()]
