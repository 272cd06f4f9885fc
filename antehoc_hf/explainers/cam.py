"""Grad-CAM, Grad-CAM++, LayerCAM, HiResCAM and Score-CAM."""

from abc import abstractmethod
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers.activations import record
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.layers import cancels, last_layer, named_layers
from antehoc_hf.explainers.masked import masked_outputs, upsampled
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one
from antehoc_hf.modeling.taps import TapPoint


class LayerExplainer(Explainer):
    """A method that reads one layer.

    Args:
        layer (`str`, *optional*): name of the module; otherwise the last whole block whose grid the outputs depend on.

    Raises:
        ValueError: if the model is not one that can be explained; when called, if it has no such layer.
    """

    times_gradient: ClassVar[bool] = False
    """Whether each position's features are multiplied by their own gradient."""

    def __init__(self, model: nn.Module, layer: str | None = None, **options: Unpack[ModelOptions]) -> None:
        if layer is not None and not isinstance(layer, str):
            raise ValueError(f"{self.name} reads one layer: layer={layer!r} must be the name of a module.")
        super().__init__(model, **options)
        self.layer = layer
        self._found: dict[tuple[int, ...], TapPoint] = {}

    def point(self, question: Question) -> TapPoint:
        """The layer; looked for once for each size of images."""
        size = tuple(question.images.shape[1:])
        if size not in self._found:
            named = None if self.layer is None else named_layers(question, [self.layer])[0]
            self._found[size] = named or last_layer(question, self.times_gradient)
        return self._found[size]


class _GradientCam(LayerExplainer):
    """ReLU(Σ_k w_k A_k) with channel weights from the gradients of the score."""

    def raw_maps(self, question: Question) -> RawMaps:
        point = self.point(question)
        recorded = record(question, question.images, [point], question.own_score)
        features, gradients = recorded.features[0], recorded.gradients[0]
        terms = self._weights(features, gradients) * features
        maps = terms.sum(dim=1).relu()
        if self.times_gradient:  # what rounding leaves of a sum that is zero is not evidence
            maps = torch.where(cancels(terms)[:, None, None], 0, maps)
        return RawMaps(maps, points=[point])

    @staticmethod
    @abstractmethod
    def _weights(features: Tensor, gradients: Tensor) -> Tensor:
        """(B, C, 1, 1) or (B, C, h, w) from (B, C, h, w)."""


class GradCam(_GradientCam):
    """Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017, Eq. 1 and 2): w_k is the mean gradient of the logit over the positions of channel k.
    """

    name = "grad-cam"

    @staticmethod
    def _weights(features: Tensor, gradients: Tensor) -> Tensor:
        return gradients.mean(dim=(2, 3), keepdim=True)


class GradCamPlusPlus(_GradientCam):
    """Grad-CAM++ (Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
    Convolutional Networks", WACV 2018, Eq. 10 and 19, in the closed form for exp(score)).
    """

    name = "grad-cam++"

    @staticmethod
    def _weights(features: Tensor, gradients: Tensor) -> Tensor:
        return plus_plus_weights(features, gradients)[:, :, None, None]


class LayerCam(_GradientCam):
    """LayerCAM (Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP
    2021, Eq. 6 and 7) of one layer: the weights are the positive part of the gradient, at each position its own.
    """

    name = "layer-cam"

    @staticmethod
    def _weights(features: Tensor, gradients: Tensor) -> Tensor:
        return gradients.relu()


class HiResCam(_GradientCam):
    """HiResCAM (Draelos, Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks", 2020, Eq. 4): gradient times activation, summed over channels; as of Grad-CAM, its positive part.

    Where a network normalises each position before it pools them, as many transformers do, that product is zero before
    the normalisation, and what comes behind it is read.
    """

    name = "hires-cam"
    times_gradient = True
    float32 = True  # products of either sign that all but cancel

    @staticmethod
    def _weights(features: Tensor, gradients: Tensor) -> Tensor:
        return gradients


def plus_plus_weights(features: Tensor, gradients: Tensor) -> Tensor:
    """The channel weights of Grad-CAM++: Σ_ij α_ij ReLU(g_ij) with α = g² / (2 g² + g³ Σ_ab A_ab), 0 where g is 0.

    Args:
        features, gradients (`Tensor`): (B, C, h, w).

    Returns:
        `Tensor`: (B, C).
    """
    squared = gradients.square()
    mass = features.sum(dim=(2, 3), keepdim=True)
    below = 2 * squared + gradients**3 * mass
    alpha = torch.where(below != 0, squared / torch.where(below != 0, below, torch.ones_like(below)), 0.0)
    return (alpha * gradients.relu()).sum(dim=(2, 3))


class ScoreCam(LayerExplainer):
    """Score-CAM (Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR
    workshops 2020, Algorithm 1): channel weights are the softmax of the logits of image ⊙ upsampled channel.

    The channels are stretched to [0, 1] before they are brought to the image's size, as torchcam does it.

    Args:
        batch_size (`int`): masked images a pass at most; fewer of large images on a CPU.
    """

    name = "score-cam"

    def __init__(
        self, model: nn.Module, layer: str | None = None, batch_size: int = 64, **options: Unpack[ModelOptions]
    ) -> None:
        super().__init__(model, layer, **options)
        self.batch_size = at_least_one(batch_size=batch_size)

    def raw_maps(self, question: Question) -> RawMaps:
        point = self.point(question)
        recorded = record(question, question.images, [point])
        target, count = question.target(recorded.outputs), len(question.images)
        features = recorded.features[0]
        channels = minmax_maps(features.flatten(0, 1)[:, None]).view_as(features)
        size = (question.images.shape[-2], question.images.shape[-1])
        maps = []
        for position, of_image in enumerate(features):
            scores = [
                target.select(at).score(outputs)
                for outputs, at in masked_outputs(
                    question, position, upsampled(channels[position], size), self.batch_size
                )
            ]
            # The softmax is the same whether or not the unmasked image's score is subtracted.
            maps.append((torch.cat(scores).softmax(dim=0)[:, None, None] * of_image).sum(dim=0).relu())
        return RawMaps(torch.stack(maps), torch.full((count,), channels.shape[1]), [point])
