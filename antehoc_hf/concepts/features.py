"""The features of one layer: recorded for many images, and put in the place of what the layer would give."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.activations import record, with_item
from antehoc_hf.explainers.layers import last_layer, named_layers
from antehoc_hf.explainers.network import Network
from antehoc_hf.modeling.taps import TapPoint


class LayerFeatures:
    """One layer of a classifier, cut in two: images → features, features → logits.

    Args:
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.
        layer (`str`, *optional*): name of the module; the last with a grid otherwise.
        batch_size (`int`): images a pass.

    Raises:
        ValueError: if the model is not a classifier.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, batch_size: int = 64) -> None:
        self.network = Network(model)
        if self.network.kind != "classes":
            raise ValueError("Concepts are measured on classifiers; this model predicts something else.")
        self.layer = layer
        self.batch_size = batch_size
        self._point: TapPoint | None = None

    def point(self, images: Tensor) -> TapPoint:
        """Where the layer's grid is; found at the first images."""
        if self._point is None:
            question = self.network.question(self.network.checked(images[:1]))
            self._point = last_layer(question) if self.layer is None else named_layers(question, [self.layer])[0]
        return self._point

    def of_images(self, images: Tensor) -> Tensor:
        """Features (N, C, h, w) float32 of images (N, 3, H, W)."""
        point, question = self.point(images), self.network.question(self.network.checked(images))
        chunks = question.images.split(self.batch_size)
        return torch.cat([record(question, chunk, [point]).features[0].cpu() for chunk in chunks])

    def gradients(self, images: Tensor, target: int) -> Tensor:
        """Gradients (N, C, h, w) of the logit of one class with respect to the features of images."""
        point, found = self.point(images), []
        for chunk in self.network.checked(images).split(self.batch_size):
            question = self.network.question(chunk, target)
            found.append(record(question, chunk, [point], question.own_score).gradients[0].cpu())
        return torch.cat(found)

    @contextmanager
    def tail(self, images: Tensor) -> Iterator[Any]:
        """Inside, a function from features (N, C, h, w) to logits (N, K), differentiable.

        Args:
            images (`Tensor`): one or more images; only their size matters.

        Raises:
            ValueError: if the layer does not cut the network in two: what comes after it must depend on it alone.
        """
        images = self.network.checked(images[:1])
        point, question = self.point(images), self.network.question(images)
        if point.layout not in ("NCHW", "NHWC"):
            raise ValueError(
                f"The layer {point.module!r} gives tokens; concepts are measured on the grids of convolutional layers."
            )
        nothing = torch.zeros_like(self.of_images(images))
        replaced: dict[str, Tensor] = {}

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            features = replaced["features"]
            features = features if point.layout == "NCHW" else features.movedim(1, -1)
            return with_item(output, point.item, features.to(images.dtype).clone())

        def logits(features: Tensor, image: Tensor = images) -> Tensor:
            replaced["features"] = features.to(image.device)
            return question(image.expand(len(features), -1, -1, -1)).float()

        question.body.get_submodule(point.module).register_forward_hook(hook)
        _check_cut(logits, nothing, images, point.module)
        yield logits


def _check_cut(logits: Any, features: Tensor, images: Tensor, name: str) -> None:
    with torch.no_grad():
        same = torch.equal(logits(features, images), logits(features, torch.ones_like(images)))
    if not same:
        raise ValueError(
            f"The layer {name!r} does not cut the network in two: something after it depends on the image "
            "in another way. Use the end of a block or stage."
        )
