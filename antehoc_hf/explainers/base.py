"""What every explanation method has in common: one call, one kind of result, and a model that is left alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers.network import ModelOptions, Network, Question
from antehoc_hf.modeling.scaling import full_precision
from antehoc_hf.modeling.taps import TapPoint


@dataclass(frozen=True)
class Attribution:
    """Maps, and what must be known to read them.

    Attributes:
        maps (`Tensor`): (B, 1, H, W) float32 in [0, 1], at input size.
        degenerate (`Tensor`): (B,) bool; the method found no evidence (or numbers that are not finite) and its map is
            zero throughout.
        passes (`Tensor`): (B,) how many masked or interpolated images the network has seen for each map; 0 for methods
            that need none.
        layers (`tuple[str, ...]`): the layers that were read, without what wrappers add to their names.
    """

    maps: Tensor
    degenerate: Tensor
    passes: Tensor
    layers: tuple[str, ...] = ()


@dataclass
class RawMaps:
    """What a method computes, before it is brought to size and scale.

    Attributes:
        maps (`Tensor`): (B, h, w) or (B, 1, h, w), positive where there is evidence.
        passes (`Tensor`, *optional*): (B,), as in [`Attribution`].
        points: the layers that were read.
        scaled (`bool`): whether the maps are in [0, 1] already and must stay as they are.
    """

    maps: Tensor
    passes: Tensor | None = None
    points: Sequence[TapPoint] = ()
    scaled: bool = False


class Explainer(ABC):
    """Explains the predictions of one model.

    `explainer(pixel_values)` gives maps for the model's own predictions, `explainer(pixel_values, target)` for a
    target: a class (index or name) for all images or a list of one each; a landmark, a group of them; a caption or
    one of its words (see [`antehoc_hf.explainers.targets`]). The model is never touched: each call runs a private
    copy that shares its weights. Several threads may use an explainer at once, while others run, train, copy or
    pickle the model.

    Args:
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.
        image_mean, image_std (`Sequence[float]`, *optional*): the normalisation of its images, where the model does
            not say it and the method must know what black is.
        problem_type (`str`, *optional*): `"multi_label_classification"` or `"regression"`, where the model does not
            say it.

    Raises:
        ValueError: if the model is none of these.
    """

    name: ClassVar[str]
    float32: ClassVar[bool] = False
    """Whether a model in half precision is run in float32: where rounding would change what is chosen, or hide it."""

    def __init__(self, model: nn.Module, **options: Unpack[ModelOptions]) -> None:
        self.network = Network(model, **options)

    def __call__(self, pixel_values: Tensor, target: object = None) -> Tensor:
        """Maps of a batch.

        Args:
            pixel_values (`Tensor`): (B, C, H, W), normalised as the model expects it.
            target (*optional*): what is explained; None: the model's own predictions.

        Returns:
            `Tensor`: (B, 1, H, W) float32 in [0, 1].

        Raises:
            ValueError: if images or target do not fit the model.
        """
        return self.explain(pixel_values, target).maps

    def explain(self, pixel_values: Tensor, target: object = None) -> Attribution:
        """Like a call, with what must be known to read the maps."""
        images = self.network.checked(pixel_values, self.float32)
        if not len(images):
            nothing = torch.zeros(0, dtype=torch.long)
            return Attribution(images.new_zeros(0, 1, *images.shape[2:]).float(), nothing.bool(), nothing)
        # Gradients exist even if the caller has switched them off.
        with torch.inference_mode(False), torch.no_grad(), full_precision(images):
            return _finished(self.raw_maps(self.network.question(images, target, self.float32)), images)

    @abstractmethod
    def raw_maps(self, question: Question) -> RawMaps:
        """The method itself; called without gradients, which it may switch on.

        Args:
            question: the images, a private copy of the model to run them through, and what is asked.
        """


def _finished(raw: RawMaps, images: Tensor) -> Attribution:
    maps = raw.maps.detach().float()
    maps = maps.unsqueeze(1) if maps.ndim == 3 else maps
    finite = torch.isfinite(maps).flatten(1).all(dim=1)
    maps = torch.where(finite[:, None, None, None], maps, torch.zeros_like(maps))
    if maps.shape[-2:] != images.shape[-2:]:
        maps = F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)
    nothing = ~finite | (maps.flatten(1).amax(dim=1) <= 0)
    if not raw.scaled:
        scaled = minmax_maps(maps)
        # A positive map of a single value is evidence everywhere alike: that tells nothing.
        nothing |= scaled.flatten(1).amax(dim=1) <= 0
        maps = scaled
    maps = torch.where(nothing[:, None, None, None], torch.zeros_like(maps), maps).contiguous()
    passes = torch.zeros(len(maps), dtype=torch.long) if raw.passes is None else raw.passes.cpu()
    return Attribution(maps, nothing, passes, tuple(point.module for point in raw.points))
