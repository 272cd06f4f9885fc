"""What every explanation method has in common: one call, one kind of result, and the model left as it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers.network import Network
from antehoc_hf.explainers.targets import Ask
from antehoc_hf.modeling.scaling import full_precision


@dataclass(frozen=True)
class Explanation:
    """
    Maps, and what must be known to read them.

    Attributes:
        maps (`Tensor`): (B, 1, H, W) float32 in [0, 1], at input size.
        degenerate (`Tensor`): (B,) bool; the method found no evidence (or numbers that are not finite) and its map is
            zero throughout.
        passes (`Tensor`): (B,) how many masked or interpolated images the network has seen for each map; 0 for methods
            that need none.
        layers (`tuple[str, ...]`): the layers that were read.
    """

    maps: Tensor
    degenerate: Tensor
    passes: Tensor
    layers: tuple[str, ...] = ()


@dataclass
class RawMaps:
    """
    What a method computes, before it is brought to size and scale.

    Attributes:
        maps (`Tensor`): (B, h, w), not negative where there is evidence.
        passes (`Tensor`, *optional*): (B,), as in [`Explanation`].
        scaled (`bool`): whether the maps are in [0, 1] already and must stay as they are.
    """

    maps: Tensor
    passes: Tensor | None = None
    scaled: bool = False


class Explainer(ABC):
    """
    Explains the predictions of one model.

    `explainer(pixel_values)` gives maps for the model's own predictions, `explainer(pixel_values, target)` for a
    target: a class index for all images or a list of one each; a landmark, a group of them; a caption or one of its
    words (see [`antehoc_hf.explainers.targets`]). The model comes back as it was: mode, `requires_grad`, `.grad`,
    hooks.

    Args:
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.
        layer (`str` or `list[str]`, *optional*): names of the modules to read, where the method reads any; found by
            itself otherwise.

    Raises:
        ValueError: if the model is none of these or has no such layer.
    """

    name: ClassVar[str]

    def __init__(self, model: Any, layer: str | list[str] | None = None) -> None:
        self.network = Network(model)
        self.layer = layer

    def __call__(self, pixel_values: Tensor, target: Any = None) -> Tensor:
        """
        Maps of a batch.

        Args:
            pixel_values (`Tensor`): (B, 3, H, W), normalised as the model expects it.
            target (*optional*): what is explained; None: the model's own predictions.

        Returns:
            `Tensor`: (B, 1, H, W) float32 in [0, 1].

        Raises:
            ValueError: if images or target do not fit the model.
        """
        return self.explain(pixel_values, target).maps

    def explain(self, pixel_values: Tensor, target: Any = None) -> Explanation:
        """Like a call, with what must be known to read the maps."""
        pixel_values = self.network.checked(pixel_values)
        with self.network.as_it_was():
            ask = self.network.question(pixel_values, target)
            with full_precision(pixel_values):
                raw = self._maps(pixel_values, ask)
        return self._finished(raw, pixel_values)

    @abstractmethod
    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        """The method itself."""

    def _layers(self) -> tuple[str, ...]:
        """The layers that were read."""
        return ()

    def _finished(self, raw: RawMaps, pixel_values: Tensor) -> Explanation:
        maps = raw.maps.detach().float()
        maps = maps.unsqueeze(1) if maps.ndim == 3 else maps
        finite = torch.isfinite(maps).flatten(1).all(dim=1)
        maps = torch.where(finite[:, None, None, None], maps, torch.zeros_like(maps))
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        if maps.shape[-2:] != size:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        nothing = ~finite | (maps.flatten(1).amax(dim=1) <= 0)
        if not raw.scaled:
            scaled = minmax_maps(maps)
            # A positive map of a single value is evidence everywhere alike: that tells nothing.
            nothing |= scaled.flatten(1).amax(dim=1) <= 0
            maps = scaled
        maps = torch.where(nothing[:, None, None, None], torch.zeros_like(maps), maps).contiguous()
        passes = torch.zeros(len(maps), dtype=torch.long) if raw.passes is None else raw.passes.cpu()
        return Explanation(maps, nothing, passes, self._layers())
