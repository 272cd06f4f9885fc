"""Grad-CAM, Grad-CAM++ and Score-CAM, computed by torchcam."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.extras import needed
from antehoc_hf.explainers.layers import last_layer, named_layers
from antehoc_hf.explainers.targets import Ask, Target
from antehoc_hf.modeling.taps import TapPoint


class LayerExplainer(Explainer):
    """A method that reads one layer: the named one, or else the last on whose positions the score depends."""

    def __init__(self, model: Any, layer: str | None = None) -> None:
        if layer is not None and not isinstance(layer, str):
            raise ValueError(f"{self.name} reads one layer: layer={layer!r} must be the name of a module.")
        super().__init__(model, layer)
        self._found: TapPoint | None = None

    def point(self, pixel_values: Tensor, ask: Ask) -> TapPoint:
        """The layer; looked for once, at the first images."""
        if self._found is None:
            if isinstance(self.layer, str):
                self._found = named_layers(self.network, pixel_values, [self.layer])[0]
            else:
                self._found = last_layer(self.network, pixel_values, ask)
        return self._found

    def _layers(self) -> tuple[str, ...]:
        return () if self._found is None else (self._found.module,)


class _TorchCam(LayerExplainer):
    """One of torchcam's methods on the layer's grid."""

    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        point = self.point(pixel_values, ask)
        layer = self.network.body.get_submodule(point.module)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        bare = replace(point, item=None)

        def reshape(output: Tensor) -> Tensor:
            # A copy: what follows may overwrite the layer's output in place.
            return bare.features(output, size).float().clone()

        # Gradients exist also where every parameter is frozen.
        images = pixel_values.detach().requires_grad_(self._needs_gradients)
        with (
            torch.set_grad_enabled(self._needs_gradients),
            self._method(self.network, layer, reshape) as method,
            _shielded(layer),
        ):
            return self._computed(method, images, ask)

    _needs_gradients = True

    @abstractmethod
    def _method(self, network: nn.Module, layer: nn.Module, reshape: Callable[[Tensor], Tensor]) -> Any:
        """torchcam's extractor."""

    def _computed(self, method: Any, images: Tensor, ask: Ask) -> RawMaps:
        outputs = self.network(images)
        scores = ask(outputs.detach()).score(outputs)
        return RawMaps(method(targets=_itself, scores=scores, normalized=False)[0])


class GradCam(_TorchCam):
    """
    Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017, Eq. 1 and 2): ReLU(Σ_k w_k A_k) with w_k the mean gradient of the logit over the positions of channel k.
    """

    name = "grad-cam"

    def _method(self, network: nn.Module, layer: nn.Module, reshape: Callable[[Tensor], Tensor]) -> Any:
        return needed("torchcam.methods").GradCAM(network, layer, reshape_transform=reshape)


class GradCamPlusPlus(_TorchCam):
    """
    Grad-CAM++ (Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional
    Networks", WACV 2018, Eq. 10 and 19, in the closed form for exp(score)).

    torchcam 0.5 divides a copy of the pixels' coefficients, so that they are left as g²: the division is done here.
    """

    name = "grad-cam++"

    def _method(self, network: nn.Module, layer: nn.Module, reshape: Callable[[Tensor], Tensor]) -> Any:
        methods = needed("torchcam.methods")

        class Corrected(methods.GradCAMpp):  # type: ignore[name-defined, misc]
            def _get_weights(self, class_idx: Any, scores: Tensor, **kwargs: Any) -> list[Tensor]:
                self._backprop(scores, class_idx, **kwargs)
                return [
                    plus_plus_weights(features, slopes)
                    for features, slopes in zip(self.hook_a, self.hook_g, strict=True)
                ]

        return Corrected(network, layer, reshape_transform=reshape)


def plus_plus_weights(features: Tensor, gradients: Tensor) -> Tensor:
    """
    The channel weights of Grad-CAM++: Σ_ij α_ij ReLU(g_ij) with α = g² / (2 g² + g³ Σ_ab A_ab), 0 where g is 0.

    Args:
        features, gradients (`Tensor`): (B, C, h, w).

    Returns:
        `Tensor`: (B, C).
    """
    # α is a quotient of the same power of the gradients' scale up to g: divided by their largest, nothing underflows.
    squared = gradients.square()
    mass = features.sum(dim=(2, 3), keepdim=True)
    below = 2 * squared + gradients**3 * mass
    alpha = torch.where(below != 0, squared / torch.where(below != 0, below, torch.ones_like(below)), 0.0)
    return (alpha * gradients.relu()).sum(dim=(2, 3))


class ScoreCam(_TorchCam):
    """
    Score-CAM (Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR
    workshops 2020, Algorithm 1): channel weights are the softmax of the logits of image ⊙ upsampled channel.

    Args:
        batch_size (`int`): masked images a pass.
    """

    name = "score-cam"
    _needs_gradients = False

    def __init__(self, model: Any, layer: str | None = None, batch_size: int = 64) -> None:
        super().__init__(model, layer)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        self.batch_size = batch_size

    def _method(self, network: nn.Module, layer: nn.Module, reshape: Callable[[Tensor], Tensor]) -> Any:
        return needed("torchcam.methods").ScoreCAM(
            network, layer, batch_size=self.batch_size, reshape_transform=reshape
        )

    def _computed(self, method: Any, images: Tensor, ask: Ask) -> RawMaps:
        target = ask(self.network(images))
        maps = []
        # One by one: a target may differ from image to image in more than a class.
        for position in range(len(images)):
            at = torch.tensor([position], device=images.device)
            with self.network.one_of_the_batch(at):
                self.network(images[position : position + 1])
                channels = method.hook_a[0].shape[1]
                maps.append(method(targets=_scored_by(target.select(at)), normalized=False)[0])
        # The unmasked image is scored as well.
        return RawMaps(torch.cat(maps), torch.full((len(images),), channels + 1))


def _itself(score: Tensor) -> Tensor:
    return score


def _scored_by(target: Target) -> Callable[[Tensor], Tensor]:
    return lambda output: target.score(output.unsqueeze(0)).squeeze(0)


@contextmanager
def _shielded(layer: nn.Module) -> Iterator[None]:
    """What follows the layer gets a copy of its output, after torchcam has taken it: it may overwrite it in place."""
    handle = layer.register_forward_hook(lambda module, inputs, output: output.clone())
    try:
        yield
    finally:
        handle.remove()
