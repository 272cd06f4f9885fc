"""The model's own map, and maps that explain nothing, behind the same interface."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from antehoc_hf.evaluation.controls import center_map, constant_map, random_map, sobel_map
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.targets import Ask
from antehoc_hf.modeling.contribution_map import contribution_map, of_target


class AnteHoc(Explainer):
    """
    The interpretation map of an ante-hoc model: one forward pass. The same map whatever the target, unless the model
    has a map for each class (`weight_network="contributions"`).
    """

    name = "antehoc"

    def __init__(self, model: Any) -> None:
        if not hasattr(model, "map_head"):
            raise ValueError(f"{type(model).__name__} is no ante-hoc model and has no map of its own.")
        super().__init__(model)

    @torch.no_grad()
    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        model: Any = self.network.model
        if model.map_head.per_target:
            outputs = model(pixel_values, output_attention_maps=True)
            size = (pixel_values.shape[-2], pixel_values.shape[-1])
            target: Any = ask(outputs.logits)
            maps, degenerate = contribution_map(of_target(outputs.contributions, target.classes), size)
            return RawMaps(maps * ~degenerate[:, None, None, None], scaled=True)
        explained = model.interpretation(pixel_values)
        shows = ~explained.degenerate[:, None, None, None]
        return RawMaps(explained.interpretation_map * shows, scaled=True)


class _Control(Explainer):
    """A map that knows no model."""

    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        return RawMaps(self._of_images(pixel_values), scaled=True)

    @abstractmethod
    def _of_images(self, pixel_values: Tensor) -> Tensor:
        """The maps, (B, 1, H, W) in [0, 1]."""


class Constant(_Control):
    """The same value everywhere, in (0, 1]."""

    name = "constant"

    def __init__(self, model: Any, value: float = 1.0) -> None:
        super().__init__(model)
        self.value = value

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return constant_map(pixel_values, self.value)


class Random(_Control):
    """Independent uniform values, the same at every call for the image in the same place of a batch."""

    name = "random"

    def __init__(self, model: Any, seed: int = 0) -> None:
        super().__init__(model)
        self.seed = seed

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return random_map(pixel_values, self.seed)


class Center(_Control):
    """A Gaussian blob in the centre."""

    name = "center"

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return center_map(pixel_values)


class Sobel(_Control):
    """Edges."""

    name = "sobel"

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return sobel_map(pixel_values)
