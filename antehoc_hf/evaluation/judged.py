"""A classifier as metrics see it: scores of images, and images with a map multiplied in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.networks import normalisation_of

# What most image classifiers were trained with, where a model does not say.


@dataclass(frozen=True)
class Judgement:
    """
    What a model makes of images.

    Attributes:
        logits (`Tensor`): (B, K).
        maps (`Tensor`, *optional*): (B, 1, H, W), where the model explains itself.
        degenerate (`Tensor`, *optional*): (B,) bool: where it says that it has nothing to show.
    """

    logits: Tensor
    maps: Tensor | None = None
    degenerate: Tensor | None = None


def explains_itself(model: nn.Module) -> bool:
    """Whether a model has a map of its own."""
    return callable(getattr(model, "energy_map", None))


class JudgedClassifier:
    """
    One of our classifiers, a network that gives scores (B, K), or any `…ForImageClassification` of transformers.

    Args:
        model (`nn.Module`): the classifier.
        image_mean, image_std (*optional*): the normalisation of its images, three numbers each; None: what the model's
            configuration or timm's says. They say what black is.

    Raises:
        ValueError: if it does not classify images into one of several classes, or its normalisation is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
    ) -> None:
        self.model: Any = model
        self.explains_itself = explains_itself(model)
        config = getattr(model, "config", None)
        problem = getattr(config, "problem_type", None)
        if problem not in (None, "single_label_classification") or getattr(config, "num_labels", 2) < 2:
            raise ValueError(
                "Maps are measured with a classifier of one of several classes for each image, but this model has "
                f"problem_type {problem!r} and {getattr(config, 'num_labels', None)} labels."
            )
        first = next(model.parameters(), torch.zeros(()))
        self.device, self.dtype = first.device, first.dtype
        self._black = black_pixel(model, image_mean, image_std)

    def see(self, pixel_values: Tensor) -> Judgement:
        """The prediction, with the model's own map if it has one."""
        if not self.explains_itself:
            return Judgement(self.logits(pixel_values))
        outputs = self.model(pixel_values=pixel_values)
        return Judgement(outputs.logits, outputs.interpretation_map, outputs.degenerate)

    def logits(self, pixel_values: Tensor) -> Tensor:
        """
        Scores (B, K), without any map.

        Raises:
            ValueError: if the model gives something else.
        """
        outputs = (self.model.backbone if self.explains_itself else self.model)(pixel_values)
        scores = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise ValueError(
                f"{type(self.model).__name__} gives no scores (B, K), one for each class: wrap it so that it does."
            )
        return scores

    def probabilities(self, pixel_values: Tensor) -> Tensor:
        """Of every class, (B, K) float32."""
        return self.logits(pixel_values).float().softmax(dim=1)

    def masked(self, pixel_values: Tensor, maps: Tensor) -> Tensor:
        """The energy map, image ⊙ map: pixels fade to black, or to what the configuration of our model says."""
        if self.explains_itself:
            return self.model.energy_map(pixel_values, maps)
        black = self._black.to(pixel_values)
        return black + (pixel_values - black) * maps.to(pixel_values.dtype)

    @property
    def num_labels(self) -> int | None:
        """Number of classes, where the model says."""
        return getattr(getattr(self.model, "config", None), "num_labels", None) or getattr(
            self.model, "num_classes", None
        )


def black_pixel(
    model: Any, image_mean: Sequence[float] | None = None, image_std: Sequence[float] | None = None
) -> Tensor:
    """
    Black as the model sees it, (1, 3, 1, 1): pixel 0 after its normalisation.

    Args:
        model: one of ours, of timm, of torchvision or of transformers.
        image_mean, image_std: known better than the model says.

    Raises:
        ValueError: if the normalisation of the model's images is not known.
    """
    known = normalisation_of(model) or (None, None)
    mean, std = image_mean or known[0], image_std or known[1]
    if mean is None or std is None:
        raise ValueError(
            f"It is not known how {type(model).__name__} normalises its images, and so not what black is: pass "
            "image_mean and image_std."
        )
    ratio = torch.tensor(list(mean), dtype=torch.float64) / torch.tensor(list(std), dtype=torch.float64)
    return (-ratio).view(1, 3, 1, 1)
