"""What is known of a finished classifier, and the model of ours around it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.model_weights import check_finite, check_predicts
from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocImageProcessor


@dataclass(frozen=True)
class Preprocessing:
    """How images become the network's input; None where the source does not say.

    Args:
        image_size (`list[int]`): height and width in pixels.
        image_mean, image_std (`list[float]`): of pixels in [0, 1].
        interpolation (`str`): of resizing, `"bilinear"`, `"bicubic"`, ….
        crop_pct (`float`): share of the resized image that is cropped.
        crop_mode (`str`): `"center"`, `"squash"` or `"border"`, as in timm.
    """

    image_size: list[int] | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None

    def known(self) -> dict[str, Any]:
        """The values that the source says."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def completed(self, **given: Any) -> Preprocessing:
        """The same, where `given` has values with these."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class FinishedClassifier:
    """A network that classifies, with all that is needed to build it again.

    Args:
        backbone (`str`): timm's name, or one with a prefix, see `antehoc_hf.modeling.other_network`.
        backbone_kwargs (`dict`, *optional*): its options.
        weights (`dict[str, Tensor]`): its state, by the names of the network that `backbone` builds.
        num_labels (`int`): number K of classes.
        names (`list[str]`, *optional*): the classes' names, in order.
        preprocessing (`Preprocessing`): how images become its input.
        origin (`str`): where it comes from, for cards and messages.
        problem_type (`str`, *optional*): as in transformers.
        network (`nn.Module`, *optional*): the network itself, where it was given in memory.
    """

    backbone: str
    weights: dict[str, Tensor] = field(repr=False)
    num_labels: int
    origin: str
    backbone_kwargs: dict[str, Any] | None = None
    names: list[str] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    problem_type: str | None = None
    network: nn.Module | None = field(default=None, repr=False)

    def model(self, **config: Any) -> AnteHocForImageClassification:
        """The ante-hoc model around it, in evaluation mode: the same network to the bit, and a map head to be taught.

        Args:
            config: options of [`AnteHocConfig`], e.g. `map_head="energy"`; they go before what the source says.

        Raises:
            ValueError: if size or normalisation of its images are not known, the weights do not fit, or the network
                built from the configuration predicts something else than the one in memory.
        """
        known = self.preprocessing.completed(
            **{name: config.pop(name, None) for name in ("image_size", "image_mean", "image_std")}
        )
        missing = [name for name in ("image_size", "image_mean", "image_std") if getattr(known, name) is None]
        if missing:
            raise ValueError(
                f"{self.origin} does not say how its images are prepared: give {' and '.join(missing)}, which for "
                "many networks trained on ImageNet are 224, [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225]."
            )
        options: dict[str, Any] = {
            "backbone_kwargs": self.backbone_kwargs,
            "problem_type": self.problem_type,
            **config,
        }
        names = options.pop("id2label", None) or (dict(enumerate(self.names)) if self.names else None)
        if names is not None:
            if not isinstance(names, Mapping):
                raise ValueError(f"id2label={names!r} must be a dictionary, class → name.")
            if len(names) != self.num_labels:
                raise ValueError(
                    f"{self.origin} predicts {self.num_labels} classes, but there are {len(names)} names: give one "
                    "for each, in the order of its outputs."
                )
            labels = {int(index): str(name) for index, name in names.items()}
            options |= {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
        else:
            options["num_labels"] = self.num_labels
        images = {name: getattr(known, name) for name in ("image_size", "image_mean", "image_std")}
        model: Any = AnteHocForImageClassification.from_backbone(self.backbone, **images, **options)
        load_exactly(model.backbone, self.weights, self.origin, self.backbone)
        check_predicts(model, self.origin)
        if self.network is not None:
            check_same_predictions(self.network, model)
        return model  # type: ignore[no-any-return]

    def processor(self, **options: Any) -> AnteHocImageProcessor:
        """The image processor that makes its input as the source does.

        Args:
            options: of [`AnteHocImageProcessor`]; they go before what the source says.
        """
        return AnteHocImageProcessor(**{**self.preprocessing.known(), **options})


def load_exactly(network: nn.Module, weights: dict[str, Tensor], origin: str, backbone: str) -> None:
    """Puts weights into a network that has exactly these.

    Raises:
        ValueError: if one is missing, left over, of another shape, or not finite.
    """
    own = network.state_dict()
    wrong = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"The weights of {origin} do not fit {backbone!r}: {wrong[0]} is {tuple(weights[wrong[0]].shape)} there "
            f"and {tuple(own[wrong[0]].shape)} in the network. Name the architecture that they were trained in, or "
            "its backbone_kwargs."
        )
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    extra = [name for name in weights if name not in own]
    if missing or extra:
        what = f"{len(missing)} of {len(own)} are missing, such as {missing[0]}" if missing else ""
        more = f"{len(extra)} have no place in it, such as {extra[0]}" if extra else ""
        raise ValueError(
            f"The weights of {origin} are not those of {backbone!r}: {' and '.join(filter(None, (what, more)))}. Name "
            "the architecture that they were trained in."
        )
    network.load_state_dict(weights, strict=not any(name not in weights for name in own))
    check_finite(network, origin)


@torch.no_grad()
def check_same_predictions(network: nn.Module, model: AnteHocForImageClassification) -> None:
    """Compares logits on two images of noise, to the bit: those of a copy of the network that is, as the model, on the
    CPU, in float32, and in ordinary memory.

    Raises:
        ValueError: if they differ.
    """
    twin = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format).eval()
    pixels = torch.rand(2, 3, *model.config.image_size, generator=torch.Generator().manual_seed(0))
    expected = twin(pixels)
    if not torch.equal(getattr(expected, "logits", expected), model.backbone(pixels)):
        raise ValueError(
            f"A network built as {model.config.backbone!r} with the weights of this {type(network).__name__} predicts "
            "something else: it was made with options that are not known here. Give them as backbone_kwargs."
        )
